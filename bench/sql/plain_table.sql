-- The peer that every application could have without us: one table with the columns and indexes of a partition.
create schema plain;
create table plain.events (like _eventstream.events_1 including all);
create sequence plain.positions;
grant usage on schema plain to bench_client;
grant select, insert on plain.events to bench_client;
grant usage on sequence plain.positions to bench_client;
