//! Reading: one stream, the log backward, a subject, an event; also where a stream lies in several partitions.
use crate::pg_test::sql::{refused, rows, run, value};

/// Moves the positions on, so that only `before` are left in a partition: those after them come from the next one.
pub fn to_the_edge(before: i64) {
    run(&format!(
        "select setval('_eventstream.positions', (select min(edge) from (select \
         ((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''(\\d+)''\\)'))[1])::bigint as edge \
         from pg_class c where c.relispartition and c.relkind = 'r' and c.relnamespace = '_eventstream'::regnamespace) e, \
         _eventstream.positions p where edge > p.last_value + 1000) - {before} - 1)"
    ));
}

/// Five events of a stream: two in one partition, three in the next.
fn over_the_edge(stream: &str) {
    to_the_edge(2);
    run(&format!(
        "select es_append('{stream}', 'T', to_jsonb(i), subject => 'p-' || i % 2) from generate_series(1, 5) i"
    ));
    assert_eq!(partitions_of(stream), "2");
}

fn partitions_of(stream: &str) -> String {
    value(&format!(
        "select count(distinct e.tableoid) from _eventstream.events e join _eventstream.streams s on s.id = e.stream_id where s.name = '{stream}'"
    ))
}

fn days() {
    for (day, event_type) in [("01", "A"), ("03", "B"), ("02", "A"), ("04", "C"), ("05", "A")] {
        run(&format!("select es_append('a-1', '{event_type}', '{{}}', occurred_at => '2024-10-{day} 00:00:00+00')"));
    }
}

fn versions(arguments: &str) -> String {
    rows(&format!("select version from es_read('a-1'{arguments})"))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn es_read_gives_a_stream_in_order_and_no_other() {
        days();
        run("select es_append('a-10', 'T', '{}'), es_append('a-2', 'T', '{}')");
        assert_eq!(rows("select stream, version from es_read('a-1')"), "(a-1,1) (a-1,2) (a-1,3) (a-1,4) (a-1,5)");
    }

    #[pg_test]
    fn es_read_gives_no_row_for_a_stream_that_does_not_exist() {
        assert_eq!(rows("select * from es_read('none-1')"), "");
        assert_eq!(value("select es_stream_version('none-1')"), "0");
    }

    #[pg_test]
    fn es_read_starts_at_from_version_and_stops_at_max_count() {
        days();
        assert_eq!(versions(", from_version => 3"), "(3) (4) (5)");
        assert_eq!(versions(", from_version => 5"), "(5)");
        assert_eq!(versions(", from_version => 6"), "");
        assert_eq!(versions(", max_count => 2"), "(1) (2)");
        assert_eq!(versions(", from_version => 4, max_count => 1"), "(4)");
        assert_eq!(versions(", max_count => 0"), "");
        assert_eq!(versions(", from_version => null, max_count => null"), "(1) (2) (3) (4) (5)");
    }

    #[pg_test]
    fn es_read_backward_starts_at_the_newest_or_at_from_version() {
        days();
        assert_eq!(versions(", backward => true"), "(5) (4) (3) (2) (1)");
        assert_eq!(versions(", from_version => null, backward => true"), "(5) (4) (3) (2) (1)");
        assert_eq!(versions(", from_version => null, max_count => 1, backward => true"), "(5)");
        assert_eq!(versions(", from_version => 3, backward => true"), "(3) (2) (1)");
        assert_eq!(versions(", from_version => 3, max_count => 2, backward => true"), "(3) (2)");
        assert_eq!(versions(", from_version => 99, max_count => 2, backward => true"), "(5) (4)");
    }

    #[pg_test]
    fn until_keeps_events_by_when_they_occurred() {
        days();
        assert_eq!(versions(", until => '2024-10-03 00:00:00+00'"), "(1) (2) (3)");
        assert_eq!(versions(", until => '2024-10-02 23:59:59.999999+00'"), "(1) (3)");
        assert_eq!(versions(", until => '2024-09-30 00:00:00+00'"), "");
        assert_eq!(versions(", until => '2024-10-04 00:00:00+00', from_version => 2, max_count => 2"), "(2) (3)");
        assert_eq!(
            versions(", from_version => null, until => '2024-10-03 00:00:00+00', max_count => 2, backward => true"),
            "(3) (2)"
        );
        assert_eq!(versions(", until => null"), "(1) (2) (3) (4) (5)");
    }

    #[pg_test]
    fn raw_reads_the_same_events() {
        days();
        assert_eq!(versions(", raw => true"), "(1) (2) (3) (4) (5)");
    }

    #[pg_test]
    fn a_stream_over_an_edge_of_partitions_reads_as_one() {
        over_the_edge("a-1");
        assert_eq!(rows("select version, payload from es_read('a-1')"), "(1,1) (2,2) (3,3) (4,4) (5,5)");
        assert_eq!(versions(", from_version => 2, max_count => 2"), "(2) (3)");
        assert_eq!(versions(", from_version => 3"), "(3) (4) (5)");
        assert_eq!(versions(", from_version => null, backward => true"), "(5) (4) (3) (2) (1)");
        assert_eq!(versions(", from_version => 3, max_count => 2, backward => true"), "(3) (2)");
        assert_eq!(versions(", from_version => 2, backward => true"), "(2) (1)");
        assert_eq!(value("select es_stream_version('a-1')"), "5");
        assert_eq!(rows("select version, events, closed from es_stream('a-1')"), "(5,5,f)");
        assert_eq!(rows("select version from eventstream.streams where stream = 'a-1'"), "(5)");
        assert_eq!(
            rows("select version from eventstream.events where stream = 'a-1' order by version"),
            "(1) (2) (3) (4) (5)"
        );
        assert_eq!(rows("select payload from es_read_backward(max_count => 5)"), "(5) (4) (3) (2) (1)");
        assert_eq!(rows("select payload from es_read_subject('p-1')"), "(1) (3) (5)");
        assert_eq!(
            rows("select e.payload from es_read('a-1') r, es_event(r.event_id) e order by r.version"),
            "(1) (2) (3) (4) (5)"
        );
        assert_eq!(rows("select * from es_verify_stream('a-1')"), "");
        refused("ES001", "select es_append('a-1', 'T', '{}', 2)");
        assert_eq!(value("select es_append('a-1', 'T', '6', 5)"), "6");
    }

    #[pg_test]
    fn a_batch_over_an_edge_of_partitions_is_one_run_of_versions() {
        to_the_edge(3);
        run(
            "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) from generate_series(1, 10) i))",
        );
        assert_eq!(partitions_of("a-1"), "2");
        assert_eq!(value("select string_agg(payload::text, '') from es_read('a-1')"), "12345678910");
        assert_eq!(rows("select * from es_verify_stream('a-1')"), "");
    }

    #[pg_test]
    fn several_streams_over_an_edge_keep_the_order_given() {
        run("select es_append('a-1', 'T', '0'), es_append('b-1', 'T', '0')");
        to_the_edge(2);
        let events = r#"[{"type": "T", "payload": 1}, {"type": "T", "payload": 2}, {"type": "T", "payload": 3}]"#;
        assert_eq!(
            rows(&format!(
                r#"select stream, version from es_append_streams('[{{"stream": "b-1", "events": {events}}}, {{"stream": "a-1", "events": {events}}},
                                                     {{"stream": "c-1", "events": {events}}}]')"#
            )),
            "(b-1,4) (a-1,4) (c-1,3)"
        );
        assert_eq!(
            value(
                "select string_agg(left(stream, 1) || payload, ' ' order by global_position) from eventstream.events where payload <> '0'"
            ),
            "b1 b2 b3 a1 a2 a3 c1 c2 c3"
        );
        assert_eq!(rows("select s.problem from unnest(array['a-1', 'b-1', 'c-1']) n, es_verify_stream(n) s"), "");
    }

    #[pg_test]
    fn a_retry_with_an_exact_version_is_recognised_after_many_partitions() {
        let id = "00000000-0000-0000-0000-000000000001";
        let exact = format!("select es_append('a-1', 'T', '1', 0, event_id => '{id}')");
        let any = format!("select es_append('a-1', 'T', '1', event_id => '{id}')");
        to_the_edge(1);
        run(&exact);
        assert_eq!(value(&exact), "1");
        run("select es_append('a-1', 'T', '2')");
        assert_eq!(value(&any), "1", "within the newest two partitions");
        for _ in 0..2 {
            to_the_edge(0);
            run("select es_append('a-1', 'T', '3')");
        }
        assert_eq!(partitions_of("a-1"), "4");
        assert_eq!(value(&exact), "1");
        assert_eq!(value("select replayed from es_last_append()"), "true");
        assert_eq!(value("select es_stream_version('a-1')"), "4");
        refused("ES006", &format!("select es_append('a-1', 'T', '7', 0, event_id => '{id}')"));
        // Documented: without a version, only the newest two partitions are searched.
        assert_eq!(value(&any), "5");
    }

    #[pg_test]
    fn a_stream_that_skips_partitions_reads_as_one() {
        to_the_edge(1);
        run("select es_append('a-1', 'T', '1')");
        for _ in 0..2 {
            to_the_edge(0);
            run("select es_append('other-1', 'T', '0')");
        }
        run("select es_append('a-1', 'T', '2')");
        assert_eq!(partitions_of("a-1"), "2");
        assert_eq!(rows("select version, payload from es_read('a-1')"), "(1,1) (2,2)");
        assert_eq!(rows("select version from es_read('a-1', from_version => 2)"), "(2)");
        assert_eq!(rows("select version from es_read('a-1', from_version => null, backward => true)"), "(2) (1)");
    }

    #[pg_test]
    fn es_maintain_makes_the_next_partition_once() {
        to_the_edge(500);
        run("select es_append('a-1', 'T', '{}')");
        run("select * from es_maintain()");
        assert_eq!(value("select done from es_maintain() where task = 'partitions made ahead'"), "0");
        let next = "select count(*) from pg_class c, _eventstream.positions p where c.relispartition and c.relkind = 'r' and \
                    c.relnamespace = '_eventstream'::regnamespace and \
                    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(\\d+)''\\)'))[1]::bigint > p.last_value";
        assert_ne!(value(next), "0");
    }

    #[pg_test]
    fn es_read_backward_reads_the_log_newest_first_with_filters() {
        run(
            "select es_append('a-1', 'A', '1'), es_append('b-1', 'B', '2'), es_append('a-2', 'B', '3'), es_append('c-1', 'A', '4')",
        );
        let payloads = |arguments: &str| rows(&format!("select payload from es_read_backward({arguments})"));
        assert_eq!(payloads("max_count => 4"), "(4) (3) (2) (1)");
        assert_eq!(payloads("max_count => 2"), "(4) (3)");
        assert_eq!(payloads("max_count => 4, categories => '{a}'"), "(3) (1)");
        assert_eq!(payloads("max_count => 4, categories => '{a,b}'"), "(3) (2) (1)");
        assert_eq!(payloads("max_count => 4, event_types => '{A}'"), "(4) (1)");
        assert_eq!(payloads("max_count => 4, categories => '{a}', event_types => '{A}'"), "(1)");
        assert_eq!(payloads("max_count => 4, categories => '{}'"), "");
        let before = value("select global_position from es_read('a-2')");
        assert_eq!(payloads(&format!("before_position => {before}, max_count => 10")), "(2) (1)");
        assert_eq!(payloads("before_position => 0"), "");
    }

    #[pg_test]
    fn es_read_all_does_not_show_what_an_open_transaction_may_still_follow() {
        let horizon = value("select es_horizon()");
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(rows(&format!("select stream from es_read_all(after_position => {horizon})")), "");
        assert_eq!(value("select es_horizon() < (select global_position from es_read('a-1'))"), "true");
        assert_eq!(
            value(
                "select global_position <= (select global_position from es_read('a-1')) and since <= clock_timestamp() \
                   from eventstream.horizon_holders where pid = pg_backend_pid()"
            ),
            "true"
        );
    }

    #[pg_test]
    fn es_read_subject_finds_everything_about_a_person_in_order() {
        run("select es_append('a-1', 'T', '1', subject => 'p'), es_append('b-1', 'T', '2', subject => 'p'), \
                    es_append('a-1', 'T', '3', subject => 'q'), es_append('a-1', 'T', '4'), es_append('c-1', 'T', '5', subject => 'p')");
        assert_eq!(rows("select payload from es_read_subject('p')"), "(1) (2) (5)");
        assert_eq!(rows("select payload from es_read_subject('p', max_count => 2)"), "(1) (2)");
        let after = value("select global_position from es_read('b-1')");
        assert_eq!(rows(&format!("select payload from es_read_subject('p', after_position => {after})")), "(5)");
        assert_eq!(rows("select payload from es_read_subject('nobody')"), "");
    }

    #[pg_test]
    fn es_event_finds_an_event_by_its_id() {
        run("select es_append('a-1', 'T', '1')");
        assert_eq!(rows("select stream, version, payload from es_event((es_last_append()).event_ids[1])"), "(a-1,1,1)");
        assert_eq!(rows("select * from es_event('ffffffff-0000-0000-0000-000000000000')"), "");
    }

    #[pg_test]
    fn every_way_of_reading_gives_the_same_event() {
        run(
            "select es_append('a-1', 'T', '{\"n\": 1.00}', metadata => '{\"m\": 1}', subject => 'p', schema_version => 3)",
        );
        let by_stream = rows("select * from es_read('a-1')");
        for other in [
            "select * from eventstream.events where stream = 'a-1'",
            "select * from es_read_backward(max_count => 1)",
            "select * from es_read_subject('p')",
            "select * from es_event((es_last_append()).event_ids[1])",
            "select * from es_read('a-1', from_version => null, backward => true)",
        ] {
            assert_eq!(rows(other), by_stream, "{other}");
        }
    }

    #[pg_test]
    fn es_stream_tells_a_stream_at_a_glance() {
        days();
        assert_eq!(
            rows(
                "select i.stream, i.version, i.events, i.snapshots, i.closed, \
                        i.first_position = (select global_position from es_read('a-1', max_count => 1)), \
                        i.last_position = (select global_position from es_read('a-1', from_version => 5)), \
                        i.first_occurred_at = '2024-10-01 00:00:00+00', i.last_occurred_at = '2024-10-05 00:00:00+00', \
                        i.first_recorded_at <= i.last_recorded_at, i.bytes > 0 \
                 from es_stream('a-1') i"
            ),
            "(a-1,5,5,0,f,t,t,t,t,t,t)"
        );
    }

    #[pg_test]
    fn the_view_streams_shows_every_stream_with_its_head() {
        days();
        run("select es_append('b-1', 'T', '{}'), es_close_stream('b-1', 'over')");
        assert_eq!(
            rows(
                "select stream, category, version, closed, tenant, last_position >= first_position, last_recorded_at is not null \
                  from eventstream.streams order by stream"
            ),
            "(a-1,a,5,f,default,t,t) (b-1,b,2,t,default,t,t)"
        );
    }

    #[pg_test]
    fn the_view_audit_tells_who_recorded_what_and_shows_no_payload() {
        run(r#"select es_append('a-1', 'T', '{"secret": 1}', metadata =>
               '{"actor": "me", "correlation_id": "c", "causation_id": "d", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}', subject => 'p', tags => '{k:2,k:1}')"#);
        assert_eq!(
            rows(
                "select stream, version, event_type, recorded_by = session_user, recorded_from is not distinct from inet_client_addr(), \
                        actor, correlation_id, causation_id, traceparent, subject, tags, tenant from eventstream.audit"
            ),
            "(a-1,1,T,t,t,me,c,d,00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,p,\"{k:1,k:2}\",default)"
        );
        assert_eq!(
            value(
                "select count(*) from pg_attribute where attrelid = 'eventstream.audit'::regclass and attname in ('payload', 'metadata')"
            ),
            "0"
        );
    }

    #[pg_test]
    fn reading_calls_work_in_a_read_only_transaction_and_writing_calls_say_25006() {
        run("select es_append('a-1', 'T', '{}', subject => 'p')");
        run("set local transaction_read_only = on");
        for statement in [
            "select count(*) from es_read('a-1')",
            "select count(*) from es_read_backward(max_count => 1)",
            "select count(*) from es_read_subject('p')",
            "select es_stream_version('a-1')",
            "select version from es_stream('a-1')",
            "select count(*) from eventstream.events",
            "select count(*) from eventstream.streams",
        ] {
            assert_eq!(value(statement), "1", "{statement}");
        }
        for statement in ["select count(*) from es_verify()", "select count(*) from es_verify_stream('a-1')"] {
            assert_eq!(value(statement), "0", "{statement}");
        }
        for statement in [
            "select es_read_all()",
            "select es_horizon()",
            "select es_settled_until()",
            "select es_log_info()",
            "select es_chain_heads()",
            "select es_last_append()",
            "select es_new_event_id()",
        ] {
            run(statement);
        }
        for statement in [
            "select es_append('a-1', 'T', '{}')",
            r#"select es_append_events('a-1', '[{"type": "T", "payload": {}}]')"#,
            r#"select es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]}]')"#,
            "select es_close_stream('a-1', 'x')",
            "select es_create_tenant('other')",
            "select es_grant('public', 'read')",
            "select es_revoke('public', 'read')",
            "select es_maintain()",
        ] {
            let error = refused("25006", statement);
            assert!(error.message.contains("read-only transaction"), "{error:?}");
        }
    }

    #[pg_test]
    fn es_log_info_names_the_log_and_where_it_stands() {
        assert_eq!(
            value(
                "select l.log_id = i.log_id and l.system_identifier = c.system_identifier and l.timeline = 1 \
                        and l.horizon <= l.last_position and l.settled_until <= clock_timestamp() \
                 from es_log_info() l, _eventstream.log_identities i, pg_control_system() c"
            ),
            "true"
        );
    }

    #[pg_test]
    fn es_settled_until_is_below_everything_that_is_recorded_later() {
        let settled = value("select es_settled_until()");
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(value(&format!("select recorded_at > '{settled}' from es_read('a-1')")), "true");
        assert_eq!(value("select es_settled_until() < (select recorded_at from es_read('a-1'))"), "true");
    }

    #[pg_test]
    fn es_chain_heads_gives_the_newest_event_of_every_stream() {
        run("select es_append('a-1', 'T', '1'), es_append('a-1', 'T', '2'), es_append('b-1', 'T', '3')");
        assert_eq!(
            rows(
                "select h.tenant, h.stream, h.version, h.chain_hash = e.chain_hash from es_chain_heads() h \
                  join eventstream.events e using (stream, version) order by stream"
            ),
            "(default,a-1,2,t) (default,b-1,1,t)"
        );
        let up_to = value("select global_position from es_read('a-1', max_count => 1)");
        assert_eq!(rows(&format!("select stream, version from es_chain_heads({up_to})")), "(a-1,1)");
    }

    #[pg_test]
    fn reading_works_in_a_query_with_a_parallel_plan() {
        for setting in [
            "parallel_setup_cost",
            "parallel_tuple_cost",
            "min_parallel_table_scan_size",
            "min_parallel_index_scan_size",
        ] {
            run(&format!("set local {setting} = 0"));
        }
        run("set local max_parallel_workers_per_gather = 2");
        // Not by `value`: SPI plans nothing parallel where it wants one row.
        let beside = |expression: &str| {
            run(&format!("create temp table answer as select max({expression}) from pg_class c where c.oid > 0"));
            let answer = value("select * from answer");
            run("drop table answer");
            answer
        };
        let plan = rows(
            "select * from tests.plan_of('select max(es_stream_version(''a-1'')) from pg_class c where c.oid > 0')",
        );
        assert!(plan.contains("Parallel"), "{plan}");
        // First with nothing known to the session yet, then with something to read, then after rights changed.
        assert_eq!(beside("es_stream_version('a-1')"), "0");
        run("select es_append('a-1', 'T', '{}', subject => 'p')");
        for _ in 0..2 {
            run("select es_grant('public', 'read'), es_revoke('public', 'read')");
            for expression in [
                "es_stream_version('a-1')",
                "(select r.version from es_read('a-1') r where c.oid > 0)",
                "(select r.version from es_read_subject('p') r where c.oid > 0)",
                "(select r.version from es_read_backward(max_count => 1) r where c.oid > 0)",
                "(select r.version from es_event((es_last_append()).event_ids[1]) r where c.oid > 0)",
                "(select r.version from es_stream('a-1') r where c.oid > 0)",
                "(select r.version from eventstream.events r where c.oid > 0)",
                "(select r.version from eventstream.streams r where c.oid > 0)",
                "(select count(*) + 1 from es_verify() r where c.oid > 0)",
                "(select r.version from es_chain_heads() r where c.oid > 0)",
                "(length(es_ulid(gen_random_uuid())) - 25)",
            ] {
                assert_eq!(beside(expression), "1", "{expression}");
            }
        }
    }

    #[pg_test]
    fn results_larger_than_work_mem_are_read_whole() {
        run("set local work_mem = '64kB'");
        run(
            "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', repeat('x', 1000))) \
             from generate_series(1, 5000)))",
        );
        assert_eq!(value("select count(*) || ' ' || sum(version) from es_read('a-1')"), "5000 12502500");
    }
}
