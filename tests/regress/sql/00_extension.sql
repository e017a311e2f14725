-- What CREATE EXTENSION needs, and what it puts where.
\set VERBOSITY terse
create extension eventstream;
select extname, extnamespace::regnamespace from pg_extension where extname = 'eventstream';
\dv eventstream.*
select name, setting, unit, context from pg_settings where name ~ '^eventstream\.' order by name collate "C";

-- A second one, and one by somebody who may not.
create extension eventstream;
create role nobody_special;
set role nobody_special;
drop extension eventstream;
reset role;
drop role nobody_special;

-- A fresh log is empty, sound, and has one tenant.
select count(*) from eventstream.events;
select * from es_verify();
select * from eventstream.streams;
select last_position, horizon from es_log_info();
