-- Every kind of refusal that a first user meets: what happened, and what to do.
set eventstream.tenant = 'default';
select es_append('account', 'T', '{}');
\echo :SQLSTATE
select es_append('-1', 'T', '{}');
select es_append('account-', 'T', '{}');
select es_append(' account-1', 'T', '{}');
select es_append(E'account-1\n', 'T', '{}');
select es_append('', 'T', '{}');
select es_append('account-' || repeat('1', 600), 'T', '{}');
select es_append(null, 'T', '{}');
\echo :SQLSTATE
select es_append('bad-1', null, '{}');
select es_append('bad-1', '', '{}');
select es_append('bad-1', repeat('T', 300), '{}');
select es_append('bad-1', 'T', null);
select es_append('bad-1', 'T', '{}', -1);
select es_append('bad-1', 'T', '{}', metadata => '[]');
select es_append('bad-1', 'T', '{}', metadata => null);
select es_append('bad-1', 'T', '{}', subject => '');
select es_append('bad-1', 'T', '{}', schema_version => 0);
select es_append('bad-1', 'T', '{}', occurred_at => 'infinity');

-- Limits name their setting.
select es_append('bad-1', 'T', to_jsonb(repeat('x', 2000000)));
\echo :SQLSTATE
select es_append('bad-1', 'T', (repeat('[', 65) || repeat(']', 65))::jsonb);
select es_append('bad-1', 'T', '{"n": 1e131071}');
do $$ begin perform es_append('bad-1', 'T', '{}', occurred_at => '2999-01-01 00:00:00+00');
exception when sqlstate 'ES007' then raise notice 'ES007'; end $$;
create role limited;
set role limited;
set eventstream.max_payload_bytes = '10MB';
\echo :SQLSTATE
reset role;
drop role limited;

-- Where nothing may be written.
begin read only;
select es_append('bad-1', 'T', '{}');
\echo :SQLSTATE
rollback;

-- PREPARE TRANSACTION after an append cannot be made safe.
begin;
select es_append('prepared-1', 'T', '{}');
prepare transaction 'p';
\echo :SQLSTATE
select es_stream_version('prepared-1');
begin;
select es_stream_version('prepared-1');
prepare transaction 'p';
rollback prepared 'p';

-- A user's own error passes through as it is.
create function closed_period() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'GL042', message = 'period 2024-10 is closed', detail = 'closed on 2024-11-05',
        hint = 'post to 2024-11', constraint = 'open_periods', table = 'journal';
end
$$;
set eventstream.allow_drop = on;
create trigger closed_period before insert on _eventstream.streams for each row
    when (new.category = 'gl') execute function closed_period();
\set SHOW_CONTEXT never
select es_append('gl-2024-10', 'Posted', '{}');
\echo :SQLSTATE
drop trigger closed_period on _eventstream.streams;
set eventstream.allow_drop = off;
select es_append('gl-2024-10', 'Posted', '{}');
\set SHOW_CONTEXT errors

select es_ulid_to_uuid('not a ulid');
select es_stream_name('a-b', '1');
select count(*) from eventstream.streams where category = 'bad';
