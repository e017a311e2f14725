-- What a superuser forces anyway, verification names.
set eventstream.tenant = 'default';
select es_append_events('proof-1', '[{"type": "T", "payload": {"n": 1.00}}, {"type": "T", "payload": {"n": 2}}, {"type": "T", "payload": {"n": 3}}]', 0);
select es_append('proof-2', 'T', '{}', 0);
select * from es_verify_stream('proof-1');
select * from es_verify();
select tenant, stream, version, length(chain_hash) from es_chain_heads() where stream like 'proof%';

-- Changed content: the same number to SQL, other bytes to the chain.
begin;
set local eventstream.allow_drop = on;
alter table _eventstream.events_1 disable trigger all;
update _eventstream.events_1 set payload = '{"n": 1.0}' where payload = '{"n": 1.00}' and event_type = 'T';
select * from es_verify_stream('proof-1');
select stream, version, problem from es_verify();
rollback;

-- A missing event.
begin;
set local eventstream.allow_drop = on;
alter table _eventstream.events_1 disable trigger all;
delete from _eventstream.events_1 where payload = '{"n": 2}' and event_type = 'T';
select * from es_verify_stream('proof-1');
rollback;

-- Several.
begin;
select es_append_events('proof-4', (select jsonb_agg('{"type": "T", "payload": 4}'::jsonb) from generate_series(1, 5)));
set local eventstream.allow_drop = on;
alter table _eventstream.events_1 disable trigger all;
delete from _eventstream.events_1 where payload = '4' and version between 2 and 4;
select * from es_verify_stream('proof-4');
rollback;

-- A cut tail is seen only against a head noted earlier; without its events, a stream is an error.
select * from es_verify_stream('proof-9');
\echo :SQLSTATE
select * from es_verify(from_position => -1);
\echo :SQLSTATE
select * from es_verify(from_position => 7, to_position => 6);
select * from es_verify();
