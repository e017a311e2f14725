-- What was recorded stays.
set eventstream.tenant = 'default';
select es_append('fact-1', 'Stated', '{"n": 1}', 0);
update eventstream.events set payload = '{}';
update _eventstream.events set payload = '{"n": 2}';
\echo :SQLSTATE
delete from _eventstream.events where event_type = 'Stated';
truncate _eventstream.events;
update _eventstream.events_1 set payload = '{"n": 2}';
delete from _eventstream.events_1 where false;
truncate _eventstream.events_1;
set session_replication_role = replica;
update _eventstream.events set payload = '{"n": 2}';
delete from _eventstream.events_1;
truncate _eventstream.events_1;
reset session_replication_role;
select payload from es_read('fact-1');
