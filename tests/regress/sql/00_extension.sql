-- What CREATE EXTENSION needs, and what it puts where.
\set VERBOSITY terse
create extension eventstream;
select extname, extnamespace::regnamespace from pg_extension where extname = 'eventstream';
select relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v' order by relname;
select name, setting, unit, context from pg_settings where name ~ '^eventstream\.' order by name collate "C";

-- A second one, and one by somebody who may not.
create extension eventstream;
create role nobody_special;
set role nobody_special;
drop extension eventstream;
reset role;
drop role nobody_special;

-- Only in a database of UTF-8 text, and in whatever schema is wanted.
create database regress_latin1 encoding 'LATIN1' locale 'C' template template0;
\c regress_latin1
\set VERBOSITY default
\set SHOW_CONTEXT never
create extension eventstream;
\set VERBOSITY terse
\c regress
drop database regress_latin1;
create database regress_elsewhere template template0;
\c regress_elsewhere
create schema events;
create extension eventstream schema events;
select events.es_append('a-1', 'T', '{}', 0);
select version, event_type from events.es_read('a-1');
select stream, version from eventstream.streams;
select * from events.es_verify();
alter extension eventstream set schema public;
\c regress
drop database regress_elsewhere;

-- A fresh log is empty, sound, and has one tenant.
select count(*) from eventstream.events;
select * from es_verify();
select * from eventstream.streams;
select last_position, horizon from es_log_info();

-- One rule for whole numbers: versions, positions and counts are bigint; int is what is small by nature.
select p.proname || ' ' || coalesce(a.name, '') as "int in functions"
from pg_proc p cross join lateral unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[])) a (name, type)
where p.pronamespace in ('public'::regnamespace, 'eventstream'::regnamespace) and a.type in ('int4'::regtype, 'int2'::regtype)
order by p.proname, a.name;
select c.relname || ' ' || a.attname as "int in views and types"
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
where c.relnamespace = 'eventstream'::regnamespace and c.relkind in ('v', 'c') and a.atttypid in ('int4'::regtype, 'int2'::regtype)
order by c.relname, a.attnum;
