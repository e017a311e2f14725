-- In a database without the extension, and after DROP EXTENSION, the library refuses politely.
\c - - - -
drop extension eventstream;
set eventstream.allow_drop = on;
drop extension eventstream;
create function pg_temp.bare_append(text, text, jsonb, bigint, jsonb, uuid, timestamptz, int, text) returns bigint
    language c as '$libdir/eventstream', 'eventstream_append';
select pg_temp.bare_append('a-1', 'T', '{}', null, '{}', null, null, null, null);
\echo :SQLSTATE
-- What was dropped is gone whole, and can come back.
select count(*) from pg_namespace where nspname ~ 'eventstream';
create extension eventstream;
select es_append('again-1', 'T', '{}', 0);
select count(*) from eventstream.events;
