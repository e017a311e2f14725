-- Reading.
set time zone 'UTC';
set datestyle = 'ISO';
select es_append_events('meter-1', (
    select jsonb_agg(jsonb_build_object(
        'type', case when i % 2 = 0 then 'Read' else 'Estimated' end,
        'payload', jsonb_build_object('kwh', 100.0 + i),
        'subject', 'household-' || i % 3,
        'occurred_at', timestamptz '2024-10-01 00:00:00+00' + i * interval '1 day') order by i)
    from generate_series(1, 6) i), 0);
select es_append('meter-2', 'Read', '{"kwh": 7}', 0, occurred_at => '2024-10-20 00:00:00+00', subject => 'household-1');

-- One stream: whole, from a version, until a moment, backward.
select version, event_type, payload from es_read('meter-1');
select version from es_read('meter-1', from_version => 4, max_count => 2);
select version, occurred_at from es_read('meter-1', until => '2024-10-03 12:00:00+00');
select version from es_read('meter-1', backward => true, max_count => 2);
select version from es_read('meter-1', from_version => 2, backward => true);
select count(*) from es_read('meter-99');

-- The log: from a position that was noted, in order, up to the horizon.
select global_position - 1 as here from es_read('meter-1', max_count => 1) \gset
select stream, version from es_read_all(after_position => :here);
select stream, version from es_read_all(after_position => :here, max_count => 2);
select stream, version from es_read_all(after_position => :here, event_types => '{Read}');
select stream, version from es_read_all(after_position => :here, categories => '{meter,cart}', max_count => 1);
select stream, version from es_read_all(after_position => :here, up_to => :here + 2);
select es_horizon() = last_position as settled from es_log_info();
-- Our own open transaction holds the horizon.
begin;
select es_append('meter-2', 'Read', '{"kwh": 8}');
select count(*) from es_read_all(after_position => :here) where stream = 'meter-2';
select pid = pg_backend_pid() as mine, global_position > :here as later from eventstream.horizon_holders;
commit;
select count(*) from es_read_all(after_position => :here) where stream = 'meter-2';

-- Newest first, about a person, by id.
select stream, version from es_read_backward(max_count => 3);
select stream, version from es_read_backward(before_position => :here + 3, categories => '{meter}');
select stream, version from es_read_subject('household-1');
select stream, version from es_event((select event_id from es_read('meter-1', from_version => 5, max_count => 1)));

-- What cannot be read.
select * from es_stream('meter-99');
\echo :SQLSTATE
select * from es_read('meter');
\echo :SQLSTATE
select * from es_read('meter-1', from_version => 0);
\echo :SQLSTATE
select * from es_read_all(max_count => 0);
select * from es_read_all(after_position => -1);
select * from es_read_all(categories => '{meter,null}');
-- A checkpoint from another log, or from before a restore. (The last position varies.)
\set VERBOSITY terse
do $$ begin perform es_read_all(after_position => 4611686018427387904);
exception when sqlstate 'ES025' then raise notice 'ES025'; end $$;

-- A range of a stream, and only some types of it: the count counts what is given.
select es_append_events('meter-7', (select jsonb_agg(jsonb_build_object('type', case when n % 3 = 0 then 'Reset' else 'Read' end, 'payload', n))
                                    from generate_series(1, 9) n));
select array_agg(version) from es_read('meter-7', from_version => 3, to_version => 6);
select array_agg(version) from es_read('meter-7', from_version => 6, to_version => 3, backward => true);
select array_agg(version) from es_read('meter-7', to_version => 2);
select array_agg(version) from es_read('meter-7', to_version => 8, backward => true);
select array_agg(version) from es_read('meter-7', event_types => '{Reset}');
select array_agg(version) from es_read('meter-7', from_version => 2, to_version => 8, max_count => 3, event_types => '{Read,None}');
select array_agg(version) from es_read('meter-7', max_count => 2, backward => true, event_types => '{Reset}');
select array_agg((r).version) from (select es_read('meter-7', to_version => 7, event_types => '{Reset}') as r) p;
select count(*) from es_read('meter-7', to_version => 0);
select count(*) from es_read('meter-7', from_version => 5, to_version => 4);
select count(*) from es_read('meter-7', event_types => '{}');
select * from es_read('meter-7', to_version => -1);
select * from es_read('meter-7', event_types => '{""}');

-- A consumer that says which log its position is from is not refused where it is this one.
select count(*) from es_log_info() i, es_read_all(4611686018427387904, log_id => i.log_id, timeline => i.timeline);
do $$ declare info record := es_log_info(); begin
perform es_read_all(4611686018427387904, log_id => info.log_id, timeline => info.timeline + 1);
exception when sqlstate 'ES025' then raise notice 'ES025'; end $$;
do $$ declare info record := es_log_info(); begin
perform es_read_all(4611686018427387904, log_id => gen_random_uuid(), timeline => info.timeline);
exception when sqlstate 'ES025' then raise notice 'ES025'; end $$;
-- Of another log a position means nothing, wherever it lies; the message and the DETAIL name both, so they are not printed.
do $$ declare info record := es_log_info(); detail json; hint text; begin
perform es_read_all(1, log_id => '00000000-0000-4000-8000-000000000001', timeline => info.timeline);
exception when sqlstate 'ES025' then
get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
raise notice 'ES025 % % % %', detail ->> 'global_position', detail ->> 'given_log_id', (detail ->> 'log_id')::uuid = info.log_id, hint; end $$;
do $$ begin
perform es_read_all(0, log_id => gen_random_uuid());
exception when sqlstate 'ES025' then raise notice 'ES025'; end $$;
-- After a promotion the position is good where it lies within the log.
select count(*) from es_log_info() i, es_read_all(0, 1, log_id => i.log_id, timeline => i.timeline + 1);
do $$ declare info record := es_log_info(); begin
perform es_read_all(4611686018427387904, log_id => info.log_id);
exception when sqlstate 'ES025' then raise notice 'ES025'; end $$;
