-- Temporal views: made, read at a moment, refused.
set time zone 'UTC';
set datestyle = 'ISO';
set search_path = public;
\set SHOW_CONTEXT never
select es_register_fold('purse', 'purse', initial_state => '{"coins": 0}',
    rules => '{"on": {"Filled": [{"add": {"/coins": "/coins"}}]}}');
select es_append_events('purse-1', '[
    {"type": "Filled", "payload": {"coins": 1.00}, "occurred_at": "2024-10-30T12:00:00Z"},
    {"type": "Filled", "payload": {"coins": 2.50}, "occurred_at": "2024-10-31T22:30:00Z"}]');
select es_append('purse-2', 'Filled', '{"coins": 7}', occurred_at => '2024-10-31 23:30:00Z');
\set coins '''[{"name": "coins", "type": "numeric", "path": "/coins"}]'''
select es_create_temporal_view('purses', 'purse', :coins);
\d purses
select obj_description('purses'::regclass), obj_description('purses_at(text, text, text, text)'::regprocedure);

-- The day ends where the books are kept.
select es_day_end('2024-10-31', 'Europe/Vienna') as as_of \gset
set eventstream.as_of = :'as_of';
select * from purses order by stream;
set time zone 'Asia/Tokyo';
set datestyle = 'SQL, DMY';
select * from purses order by stream;
set time zone 'UTC';
set datestyle = 'ISO';
set eventstream.as_of = '2024-10-31 23:59:59.999999 Europe/Vienna';
select * from purses order by stream;
set eventstream.as_of = '2024-10-31 23:59:59.999999Z';
select * from purses order by stream;
-- Its function goes by its arguments alone.
set eventstream.as_of = '2000-01-01 00:00Z';
set eventstream.known_at = '2000-01-01 00:00Z';
select * from purses;
select * from purses_at('2024-10-31 12:00Z');
select * from purses_at(null) order by stream;
select * from purses_at('infinity', 'infinity', 'purse-2');
select * from purses_at('-infinity');
select * from purses_at(null, '2000-01-01 00:00Z');
-- A day is no moment, and a time without a zone is none: as the settings have it.
select * from purses_at('2024-10-31');
select * from purses_at('2024-10-31 12:00Z', '2024-10-31 12:00');
select * from purses_at(es_day_end('2024-10-31', 'Europe/Vienna')::text);
-- Once a session, for a statement that was prepared before.
prepare shown as select * from purses where stream = $1;
execute shown('purse-1');
reset eventstream.as_of;
reset eventstream.known_at;
execute shown('purse-1');
deallocate shown;

-- A stream is looked up by its name, and only what is wanted is folded.
create function index_scans(query text) returns setof text language plpgsql as $$
declare
    line text;
begin
    for line in execute 'explain (costs off) ' || query loop
        return query select regexp_replace(m[1], '.* ', 'index ') from regexp_matches(line, '((?:Index|Bitmap Index) Scan (?:using|on) \w+)') m;
    end loop;
end
$$;
begin;
select count(es_append('purse-' || n, 'Filled', '{"coins": 1}')) from generate_series(1, 2000) n;
analyze _eventstream.streams;
select * from index_scans($$select * from purses where stream = 'purse-1'$$);
select * from index_scans($$select * from purses where stream in ('purse-1', 'purse-3')$$);
select * from index_scans($$select * from purses_at(null, null, 'purse-1')$$);
rollback;
analyze _eventstream.streams;
drop function index_scans(text);
create function picky(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin
    if event.stream <> 'purse-2' then
        raise exception 'folded %', event.stream;
    end if;
    return event.payload;
end
$$;
select es_register_fold('picky', 'purse', 'picky(jsonb, eventstream.event)', is_default => false);
select es_create_temporal_view('picky_purses', 'purse', :coins, 'picky');
select * from picky_purses;
select * from picky_purses where stream = 'purse-2';
select * from picky_purses where stream in ('purse-2', 'purse-9');
select p.* from (values ('purse-2')) v (s) join picky_purses p on p.stream = v.s;
select * from picky_purses_at(null, stream => 'purse-2');

-- What cannot be a moment.
set eventstream.as_of = '2024-10-31';
\echo :SQLSTATE
set eventstream.as_of = '2024-10-31 23:59:59';
set eventstream.as_of = '2024-10-31 23:59 monday';
set eventstream.as_of = '2024-10-31 23:59 UTC+2';
set eventstream.as_of = '2024-02-30 00:00Z';
set eventstream.known_at = 'now';
select set_config('eventstream.known_at', 'yesterday', false);
alter database regress set eventstream.as_of = 'today';
set eventstream.as_of = '2024-10-31 23:59 No/Where';
select * from purses;
set eventstream.as_of = '';
select count(*) from purses;

-- What cannot be a view.
select es_create_temporal_view('purses', 'purse', :coins);
\echo :SQLSTATE
create table takings (coins numeric);
select es_create_temporal_view('takings', 'purse', :coins);
create function given_at(text, text, text, text) returns int language sql as 'select 1';
select es_create_temporal_view('given', 'purse', :coins);
select es_create_temporal_view(null, 'purse', :coins);
select es_create_temporal_view('a.b.c', 'purse', :coins);
select es_create_temporal_view('a; drop table takings', 'purse', :coins);
select es_create_temporal_view(repeat('v', 61), 'purse', :coins);
select es_create_temporal_view('nowhere.purses', 'purse', :coins);
select es_create_temporal_view('others', 'no category of ours', :coins);
select es_create_temporal_view('others', 'purse', :coins, 'no fold');
select es_create_temporal_view('others', 'purse', '[]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int", "path": "/a"}, {"name": "b", "typ": "int", "path": "/b"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int", "path": 1}]');
select es_create_temporal_view('others', 'purse', '["a"]');
select es_create_temporal_view('others', 'purse', '[{"name": "version", "type": "int", "path": "/a"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "setof int", "path": "/a"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "anyelement", "path": "/a"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int, 1 as b", "path": "/a"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int", "path": "a"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int", "path": "/a~2b"}]');
select es_create_temporal_view('others', 'purse', '[{"name": "a", "type": "int", "path": "/a~"}]');
select es_create_temporal_view('others', 'purse', jsonb_build_array(jsonb_build_object('name', repeat('n', 64), 'type', 'int', 'path', '/a')));
\set many 'select jsonb_agg(jsonb_build_object(''name'', ''c'' || n, ''type'', ''int'', ''path'', ''/a'')) from generate_series(1, '
select es_create_temporal_view('others', 'purse', (:many 1598) n));
select es_create_temporal_view('widest', 'purse', (:many 1597) n));
select count(*), count(w.c1597) from widest w;
set search_path = '';
select public.es_create_temporal_view('others', 'purse', '[{"name": "coins", "type": "numeric", "path": "/coins"}]');
set search_path = public;

-- Types: domains, arrays and modifiers are cast as CAST does; what does not fit is the type's own error.
create domain few as int check (value < 5);
select es_create_temporal_view('typed', 'purse', '[
    {"name": "Select", "type": "numeric(6, 1)", "path": "/coins"},
    {"name": "a \"quoted\" name", "type": "int[]", "path": "/none"},
    {"name": "tableoid", "type": "timestamp with time zone", "path": "/a~1b/c~0d"},
    {"name": "all", "type": "jsonb", "path": ""},
    {"name": "few", "type": "public.few", "path": "/none"}]');
select * from typed order by stream;
select es_create_temporal_view('unfit', 'purse', '[{"name": "coins", "type": "public.few", "path": "/coins"}]');
select coins from unfit where stream = 'purse-2';
select coins from unfit where stream = 'purse-1';

-- What the HINT says removes a view.
drop function public.purses_at(text, text, text, text); drop view public.purses;
select es_create_temporal_view('purses', 'purse', :coins);
set client_min_messages = warning;
drop view purses, picky_purses, widest, typed, unfit cascade;
reset client_min_messages;
drop table takings;
drop function given_at(text, text, text, text);
drop domain few;
select es_unregister_fold('purse'), es_unregister_fold('picky');
drop function picky(jsonb, eventstream.event);
reset search_path;
