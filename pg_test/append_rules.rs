//! What an append promises to the one who calls it: versions, expectations, order, times, ids, closing.
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::sql::{caught, refused, rows, run, value};
    use pgrx::pg_test;

    #[pg_test]
    fn versions_count_from_one_without_gaps() {
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "1");
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "2");
        let batch = r#"[{"type": "T", "payload": 3}, {"type": "T", "payload": 4}]"#;
        assert_eq!(value(&format!("select es_append_events('a-1', '{batch}')")), "4");
        assert_eq!(rows("select version from es_read('a-1')"), "(1) (2) (3) (4)");
    }

    #[pg_test]
    fn a_failed_append_leaves_no_gap_in_the_versions() {
        run("select es_append('a-1', 'T', '{}')");
        refused("ES005", r#"select es_append('a-1', 'T', '{}'), es_append('a-1', '', '{}')"#);
        refused("22012", "select es_append('a-1', 'T', to_jsonb(1 / (random() * 0)::int))");
        refused("22012", "select es_append('a-1', 'T', '{}'), 1 / (es_stream_version('a-1') - 1)");
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "2");
        assert_eq!(rows("select version from es_read('a-1')"), "(1) (2)");
    }

    #[pg_test]
    fn everything_given_is_stored_as_given() {
        run(r#"select es_append('account-1-a', 'Opened', '{"b": [1, null], "a": "ä\n"}', 0,
            '{"actor": "me", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}',
            '0192d1c8-0000-7000-8000-000000000001', '2024-10-15 12:00:00.123456+02', 7, 'person-9')"#);
        let stored = "(account-1-a,1,0192d1c8-0000-7000-8000-000000000001,Opened,7,\
                      \"{\"\"a\"\": \"\"ä\\\\n\"\", \"\"b\"\": [1, null]}\",\
                      \"{\"\"actor\"\": \"\"me\"\", \"\"traceparent\"\": \"\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"\"}\",\
                      person-9,t,account,default,t,16,32)";
        let columns = "stream, version, event_id, event_type, schema_version, payload, metadata, subject, \
                       occurred_at = '2024-10-15 10:00:00.123456Z', category, tenant, recorded_by = session_user, \
                       length(salt), length(chain_hash)";
        assert_eq!(rows(&format!("select {columns} from es_read('account-1-a')")), stored);
        assert_eq!(rows(&format!("select {columns} from eventstream.events where stream = 'account-1-a'")), stored);
    }

    #[pg_test]
    fn what_is_left_out_has_the_documented_defaults() {
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(
            rows(
                "select metadata, schema_version, subject, occurred_at = recorded_at, event_id is not null \
                 from es_read('a-1')"
            ),
            "({},1,,t,t)"
        );
    }

    #[pg_test]
    fn expected_version_null_takes_any_0_takes_a_new_stream_n_takes_exactly_n() {
        assert_eq!(value("select es_append('a-1', 'T', '{}', expected_version => 0)"), "1");
        assert_eq!(value("select es_append('a-1', 'T', '{}', expected_version => 1)"), "2");
        assert_eq!(value("select es_append('a-1', 'T', '{}', expected_version => null)"), "3");
        for (expected, actual) in [(0, 3), (1, 3), (2, 3), (4, 3)] {
            let error =
                refused("ES001", &format!("select es_append('a-1', 'T', '{{}}', expected_version => {expected})"));
            assert_eq!(
                error.detail,
                format!(r#"{{"actual_version":{actual},"expected_version":{expected},"stream":"a-1"}}"#)
            );
            assert_eq!(
                error.message,
                format!("version conflict on stream \"a-1\": expected version {expected}, actual version {actual}")
            );
        }
        assert_eq!(value("select es_stream_version('a-1')"), "3");
    }

    #[pg_test]
    fn a_conflict_says_what_to_do_next() {
        run("select es_append_events('a-1', '[{\"type\": \"T\", \"payload\": 1}, {\"type\": \"T\", \"payload\": 2}]')");
        let error = refused("ES001", "select es_append('a-1', 'T', '{}', 1)");
        assert_eq!(error.hint, "Read from version 2, decide again, and append with expected_version => 2.");
        // And that works.
        assert_eq!(rows("select version from es_read('a-1', from_version => 2)"), "(2)");
        assert_eq!(value("select es_append('a-1', 'T', '{}', 2)"), "3");
    }

    #[pg_test]
    fn an_expected_version_holds_for_batches_and_several_streams() {
        let batch = r#"[{"type": "T", "payload": 1}, {"type": "T", "payload": 2}]"#;
        assert_eq!(value(&format!("select es_append_events('a-1', '{batch}', 0)")), "2");
        refused("ES001", &format!("select es_append_events('a-1', '{batch}', 0)"));
        assert_eq!(value(&format!("select es_append_events('a-1', '{batch}', 2)")), "4");
        let both = |a: i32, b: i32| {
            format!(
                r#"select stream, version from es_append_streams('[{{"stream": "a-1", "expected_version": {a}, "events": {batch}}},
                                                     {{"stream": "b-1", "expected_version": {b}, "events": {batch}}}]')"#
            )
        };
        assert_eq!(refused("ES001", &both(4, 1)).detail, r#"{"actual_version":0,"expected_version":1,"stream":"b-1"}"#);
        assert_eq!(refused("ES001", &both(3, 0)).detail, r#"{"actual_version":4,"expected_version":3,"stream":"a-1"}"#);
        assert_eq!(rows("select es_stream_version('a-1'), es_stream_version('b-1')"), "(4,0)");
        assert_eq!(rows(&both(4, 0)), "(a-1,6) (b-1,2)");
    }

    #[pg_test]
    fn several_streams_are_answered_in_the_order_given_and_so_are_their_positions() {
        run("select es_append('m-1', 'T', '{}')");
        let element = |stream: &str, payload: &str| {
            format!(
                r#"{{"stream": "{stream}", "events": [{{"type": "T", "payload": "{payload}1"}}, {{"type": "T", "payload": "{payload}2"}}]}}"#
            )
        };
        let appends = [element("z-1", "z"), element("m-1", "m"), element("a-1", "a")].join(", ");
        assert_eq!(
            rows(&format!("select stream, version from es_append_streams('[{appends}]')")),
            "(z-1,2) (m-1,3) (a-1,2)"
        );
        assert_eq!(
            rows(
                "select payload #>> '{}' from eventstream.events where stream in ('a-1', 'm-1', 'z-1') and payload <> '{}' \
                 order by global_position"
            ),
            "(z1) (z2) (m1) (m2) (a1) (a2)"
        );
    }

    #[pg_test]
    fn positions_increase_along_a_stream_and_no_two_events_share_one() {
        run("select es_append('a-' || i % 3, 'T', to_jsonb(i)) from generate_series(1, 300) i");
        let falls = "select 1 from (select global_position > lag(global_position) over w and version = lag(version) over w + 1 as fine \
                     from eventstream.events window w as (partition by stream order by version)) e where not fine";
        assert_eq!(rows(falls), "");
        assert_eq!(value("select count(distinct global_position) = count(*) from eventstream.events"), "true");
    }

    #[pg_test]
    fn recorded_at_is_one_within_a_batch_and_never_falls_along_a_stream() {
        run("select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) \
             from generate_series(1, 500) i))");
        assert_eq!(value("select count(distinct recorded_at) from es_read('a-1')"), "1");
        run("select es_append('a-1', 'T', to_jsonb(i)) from generate_series(1, 300) i");
        let falls = "select 1 from (select recorded_at >= lag(recorded_at) over (order by version) as fine from es_read('a-1')) e \
                     where not fine";
        assert_eq!(rows(falls), "");
        assert_eq!(value("select count(distinct recorded_at) > 1 from es_read('a-1')"), "true");
    }

    #[pg_test]
    fn recorded_at_is_the_database_clock_not_the_start_of_the_transaction() {
        run("select pg_sleep(0.05)");
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(
            value(
                "select recorded_at > now() + interval '40 ms' and recorded_at <= clock_timestamp() from es_read('a-1')"
            ),
            "true"
        );
    }

    #[pg_test]
    fn recorded_at_never_lies_below_the_promised_floor() {
        // As if es_settled_until() had promised a moment that the clock has not reached (a clock that jumped back).
        let floor = "(extract(epoch from clock_timestamp() + interval '2 seconds' - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint";
        let before = value("select last_value from _eventstream.recorded_floor");
        let promised = value(&format!("select setval('_eventstream.recorded_floor', {floor})"));
        run("select es_append('floor-1', 'T', '{}')");
        let below = format!(
            "select recorded_at < timestamptz '2000-01-01 00:00:00+00' + {promised} * interval '1 microsecond' from es_read('floor-1')"
        );
        let answer = value(&below);
        run(&format!("select setval('_eventstream.recorded_floor', {before})"));
        assert_eq!(answer, "false");
    }

    #[pg_test]
    fn max_occurred_at_never_falls_and_marks_late_events() {
        for day in ["03", "01", "05", "04", "05", "06"] {
            run(&format!("select es_append('a-1', 'T', '{{}}', occurred_at => '2024-10-{day} 00:00:00+00')"));
        }
        assert_eq!(
            rows(
                "select to_char(max_occurred_at at time zone 'utc', 'DD'), occurred_at < max_occurred_at as late \
                 from _eventstream.events where stream_id = (select id from _eventstream.streams where name = 'a-1') order by version"
            ),
            "(03,f) (03,t) (05,f) (05,t) (05,f) (06,f)"
        );
    }

    #[pg_test]
    fn a_time_with_a_zone_in_a_batch_is_read_as_a_literal_is() {
        run("set local timezone = 'Europe/Berlin'");
        for time in [
            "2024-10-15T12:00:00Z",
            "2024-10-15 12:00:00.123456+02",
            "2024-10-15T12:00:00-05:30",
            "2024-10-15 12:00:00 America/New_York",
        ] {
            run(&format!(
                r#"select es_append_events('a-1', '[{{"type": "T", "payload": {{}}, "occurred_at": "{time}"}}]')"#
            ));
            run(&format!("select es_append('a-1', 'T', '{{}}', occurred_at => '{time}')"));
            assert_eq!(
                value(&format!(
                    "select bool_and(occurred_at = '{time}') and count(*) = 2 from es_read('a-1', es_stream_version('a-1') - 1)"
                )),
                "true",
                "{time}"
            );
        }
    }

    #[pg_test]
    fn event_ids_are_ulids_of_now_that_increase_within_a_session() {
        run("select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) \
             from generate_series(1, 2000) i))");
        run("select es_append('a-1', 'T', '{}')");
        let falls = "select 1 from (select event_id > lag(event_id) over (order by version) as fine from es_read('a-1')) e where not fine";
        assert_eq!(rows(falls), "");
        let milliseconds = "('x' || lpad(left(replace(event_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint";
        assert_eq!(
            value(&format!(
                "select bool_and(abs({milliseconds} - extract(epoch from clock_timestamp()) * 1000) < 60000) from es_read('a-1')"
            )),
            "true"
        );
        assert_eq!(value("select es_new_event_id() > max(event_id::text)::uuid from es_read('a-1')"), "true");
    }

    #[pg_test]
    fn es_new_event_id_gives_another_one_each_time() {
        assert_eq!(
            value(
                "select count(distinct id) = 5000 and bool_and(fine is not false) from (select id, id > lag(id) over () as fine \
                   from (select es_new_event_id() as id from generate_series(1, 5000)) ids) ids"
            ),
            "true"
        );
    }

    #[pg_test]
    fn es_ulid_and_es_ulid_to_uuid_are_inverse_and_keep_the_order() {
        assert_eq!(value("select es_ulid('01890a5d-ac96-774b-bcce-b302099a8057')"), "01H455VB4PEX5VSKNK084SN02Q");
        assert_eq!(
            value("select es_ulid_to_uuid('01h455vb4pex5vsknk084sn02q')"),
            "01890a5d-ac96-774b-bcce-b302099a8057"
        );
        assert_eq!(value("select es_ulid('ffffffff-ffff-ffff-ffff-ffffffffffff')"), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(
            value(
                "select bool_and(es_ulid_to_uuid(es_ulid(id)) = id) and \
                        array_agg(id order by id) = array_agg(id order by es_ulid(id) collate \"C\") \
                 from (select gen_random_uuid() as id from generate_series(1, 1000)) ids"
            ),
            "true"
        );
    }

    #[pg_test]
    fn es_stream_name_joins_category_and_id() {
        assert_eq!(value("select es_stream_name('account', '1000')"), "account-1000");
        assert_eq!(value("select es_stream_name('account', '10-00')"), "account-10-00");
        run("select es_append(es_stream_name('account', '10-00'), 'T', '{}')");
        assert_eq!(rows("select category, stream from es_read('account-10-00')"), "(account,account-10-00)");
    }

    #[pg_test]
    fn es_last_append_tells_the_last_append_of_the_session() {
        run("select es_append('a-1', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000001')");
        assert_eq!(
            rows(
                "select stream, version, event_ids, replayed, global_position = currval('_eventstream.positions') from es_last_append()"
            ),
            "(a-1,1,{00000000-0000-0000-0000-000000000001},f,t)"
        );
        run(r#"select es_append_events('b-1', '[{"type": "T", "payload": 1}, {"type": "T", "payload": 2}]')"#);
        assert_eq!(
            rows(
                "select l.stream, l.version, array_length(l.event_ids, 1), \
                        l.event_ids = (select array_agg(e.event_id order by e.version) from es_read('b-1') e), \
                        l.global_position = (select max(e.global_position) from es_read('b-1') e) from es_last_append() l"
            ),
            "(b-1,2,2,t,t)"
        );
        run(
            r#"select stream, version from es_append_streams('[{"stream": "d-1", "events": [{"type": "T", "payload": 1}]},
                                                 {"stream": "c-1", "events": [{"type": "T", "payload": 1}]}]')"#,
        );
        assert_eq!(value("select stream from es_last_append()"), "c-1");
    }

    #[pg_test]
    fn es_last_append_is_empty_where_there_was_none() {
        assert_eq!(rows("select * from es_last_append()"), "(,,,,,)");
    }

    #[pg_test]
    fn es_last_append_forgets_what_was_rolled_back() {
        refused("P0001", "do $$ begin perform es_append('a-1', 'T', '{}'); raise 'no'; end $$");
        assert_eq!(rows("select * from es_last_append()"), "(,,,,,)");
        run("select es_append('a-1', 'T', '{}')");
        refused("P0001", "do $$ begin perform es_append('b-1', 'T', '{}'); raise 'no'; end $$");
        // Not the one that was rolled back; the one before it, or none.
        assert_ne!(value("select coalesce(stream, '') from es_last_append()"), "b-1");
        run("do $$ begin begin perform es_append('c-1', 'T', '{}'); end; end $$");
        assert_eq!(value("select stream from es_last_append()"), "c-1");
    }

    #[pg_test]
    fn what_a_savepoint_rolled_back_is_gone_and_the_stream_goes_on() {
        run("select es_append('a-1', 'T', '1')");
        refused(
            "P0001",
            "do $$ begin perform es_append('a-1', 'T', '2'); perform es_append('new-1', 'T', '1'); raise 'no'; end $$",
        );
        assert_eq!(value("select es_stream_version('a-1')"), "1");
        assert_eq!(value("select es_stream_version('new-1')"), "0");
        refused("ES002", "select es_stream('new-1')");
        assert_eq!(value("select es_append('a-1', 'T', '3', 1)"), "2");
        assert_eq!(value("select es_append('new-1', 'T', '3', 0)"), "1");
        assert_eq!(rows("select payload from es_read('a-1')"), "(1) (3)");
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn a_batch_is_written_whole_or_not_at_all() {
        run("select es_append('a-1', 'T', '{}')");
        refused(
            "ES001",
            r#"select stream, version from es_append_streams('[{"stream": "b-1", "events": [{"type": "T", "payload": 1}]},
                                                 {"stream": "a-1", "expected_version": 9, "events": [{"type": "T", "payload": 1}]}]')"#,
        );
        assert_eq!(rows("select stream from eventstream.streams"), "(a-1)");
    }

    #[pg_test]
    fn a_closed_stream_takes_no_more_events() {
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(value("select es_close_stream('a-1', 'moved')"), "2");
        assert_eq!(
            rows("select event_type, payload from es_read('a-1', from_version => 2)"),
            r#"(StreamClosed,"{""reason"": ""moved""}")"#
        );
        for statement in [
            "select es_append('a-1', 'T', '{}')",
            "select es_append('a-1', 'T', '{}', 2)",
            r#"select es_append_events('a-1', '[{"type": "T", "payload": 1}]')"#,
            r#"select stream, version from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": 1}]}]')"#,
            "select es_close_stream('a-1', 'again')",
        ] {
            let error = refused("ES003", statement);
            assert_eq!(error.detail, r#"{"stream":"a-1","version":2}"#);
            assert!(error.message.contains("a-1") && !error.hint.is_empty(), "{error:?}");
        }
        assert_eq!(value("select es_stream_version('a-1')"), "2");
        assert_eq!(rows("select version, closed from es_stream('a-1')"), "(2,t)");
        assert_eq!(rows("select version, closed from eventstream.streams where stream = 'a-1'"), "(2,t)");
    }

    #[pg_test]
    fn closing_needs_a_stream() {
        assert_eq!(refused("ES002", "select es_close_stream('a-1', 'x')").detail, r#"{"stream":"a-1"}"#);
        assert_eq!(value("select count(*) from _eventstream.streams where name = 'a-1'"), "0");
    }

    #[pg_test]
    fn a_retry_is_still_recognised_after_the_stream_was_closed() {
        let append = "select es_append('a-1', 'T', '{}', 0, event_id => '00000000-0000-0000-0000-000000000001')";
        assert_eq!(value(append), "1");
        run("select es_close_stream('a-1', 'over')");
        assert_eq!(value(append), "1");
        assert_eq!(value("select es_stream_version('a-1')"), "2");
    }

    #[pg_test]
    fn an_append_sees_and_joins_the_transaction_of_its_caller() {
        run("create temp table mine (amount numeric)");
        refused(
            "P0001",
            "do $$ begin insert into mine values (1); perform es_append('a-1', 'T', '{}'); raise 'no'; end $$",
        );
        assert_eq!(rows("select (select count(*) from mine), es_stream_version('a-1')"), "(0,0)");
        run("do $$ begin insert into mine values (1); perform es_append('a-1', 'T', '{}'); end $$");
        assert_eq!(rows("select (select count(*) from mine), es_stream_version('a-1')"), "(1,1)");
    }

    #[pg_test]
    fn each_append_of_one_statement_sees_the_one_before() {
        assert_eq!(
            rows("select es_append('a-1', 'T', to_jsonb(i)) from generate_series(1, 5) i"),
            "(1) (2) (3) (4) (5)"
        );
        assert_eq!(rows("select es_append('b-1', 'T', '{}', i) from generate_series(0, 3) i"), "(1) (2) (3) (4)");
    }

    #[pg_test]
    fn names_that_differ_in_case_are_different_streams() {
        run("select es_append('Account-1', 'T', '{}'), es_append('account-1', 'T', '{}')");
        assert_eq!(value("select count(*) from eventstream.streams where version = 1"), "2");
    }

    #[pg_test]
    fn a_name_with_quotes_and_backslashes_is_only_a_name() {
        let name = r#"a-'; drop table x; -- "\ %s $1"#;
        let literal = name.replace('\'', "''");
        run(&format!("select es_append('{literal}', '{literal}', '{{}}', subject => '{literal}')"));
        assert_eq!(value(&format!("select es_stream_version('{literal}')")), "1");
        assert_eq!(
            value(&format!("select count(*) from es_read_subject('{literal}') where event_type = '{literal}'")),
            "1"
        );
        let error = caught(&format!("select es_append('{literal}', 'T', '{{}}', 5)")).expect("a conflict");
        assert!(error.message.contains(name), "{}", error.message);
        let detail: serde_json::Value = serde_json::from_str(&error.detail).expect("JSON");
        assert_eq!(detail["stream"], name);
    }

    #[pg_test]
    fn a_trigger_on_new_streams_may_append_itself() {
        run("create function pg_temp.follow() returns trigger language plpgsql as $$ begin \
                 if new.category <> 'index' then \
                     perform public.es_append('index-streams', 'StreamOpened', to_jsonb(new.name)); \
                 end if; \
                 return new; \
             end $$");
        run(
            "create trigger follow before insert on _eventstream.streams for each row execute function pg_temp.follow()",
        );
        run("select es_append('a-1', 'T', '{}')");
        let events = r#"[{"type": "T", "payload": 1}, {"type": "T", "payload": 2}]"#;
        run(&format!(
            r#"select stream, version from es_append_streams('[{{"stream": "c-1", "events": {events}}}, {{"stream": "a-1", "events": {events}}},
                                                 {{"stream": "b-1", "events": {events}}}]')"#
        ));
        assert_eq!(
            rows("select version, payload #>> '{}' from es_read('index-streams') order by 2"),
            "(1,a-1) (2,b-1) (3,c-1)"
        );
        assert_eq!(
            rows("select stream, version from eventstream.streams where category <> 'index' order by 1"),
            "(a-1,3) (b-1,2) (c-1,2)"
        );
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn a_large_payload_comes_back_byte_for_byte_and_its_retry_is_recognised() {
        // Incompressible, so that it is stored out of line.
        run(
            "create temp table large as select jsonb_build_object('hex', string_agg(md5(i::text), '')) as payload from generate_series(1, 30000) i",
        );
        let append = "select es_append('a-1', 'T', (select payload from large), event_id => '00000000-0000-0000-0000-000000000001')";
        assert_eq!(value(append), "1");
        for source in [
            "es_read('a-1')",
            "(select (es_read('a-1')).*)",
            "eventstream.events",
            "es_read_backward(max_count => 1)",
            "es_event('00000000-0000-0000-0000-000000000001')",
        ] {
            assert_eq!(
                value(&format!(
                    "select e.payload = l.payload and pg_column_size(e.payload) > 900000 from {source} e, large l"
                )),
                "true"
            );
        }
        assert_eq!(value(append), "1");
        assert_eq!(value("select replayed from es_last_append()"), "true");
        assert_eq!(rows("select * from es_verify()"), "");
    }
}
