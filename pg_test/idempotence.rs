//! Idempotent append: within a stream, an event id stands for one content. A retry writes nothing and is told the version of the
//! first time; anything else under the same id is ES006.
use crate::pg_test::sql::{refused, rows, run, value};

const ONE: &str = "00000000-0000-0000-0000-000000000001";
const TWO: &str = "00000000-0000-0000-0000-000000000002";
const THREE: &str = "00000000-0000-0000-0000-000000000003";

/// Runs `retry`, which must answer `version` and write nothing.
fn is_replayed(retry: &str, answer: &str) {
    let events = "select count(*) from _eventstream.events";
    let before = value(events);
    assert_eq!(rows(retry), answer, "{retry}");
    assert_eq!(value(events), before, "{retry}");
    assert_eq!(value("select replayed from es_last_append()"), "true", "{retry}");
}

fn is_refused(statement: &str, stream: &str, id: &str) {
    let error = refused("ES006", statement);
    let detail: serde_json::Value = serde_json::from_str(&error.detail).expect("JSON");
    assert_eq!((&detail["stream"], &detail["event_id"]), (&stream.into(), &id.into()), "{statement}");
    assert!(error.message.contains(stream) && error.message.contains(id) && !error.hint.is_empty(), "{error:?}");
}

fn events(elements: &[(&str, &str, u32)]) -> String {
    let elements: Vec<String> = elements
        .iter()
        .map(|(id, event_type, payload)| {
            format!(r#"{{"type": "{event_type}", "payload": {{"n": {payload}}}, "event_id": "{id}"}}"#)
        })
        .collect();
    format!("[{}]", elements.join(", "))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_retry_writes_nothing_and_answers_the_first_version() {
        let append = format!("select es_append('a-1', 'T', '{{\"n\": 1.0}}', event_id => '{ONE}')");
        assert_eq!(rows(&append), "(1)");
        assert_eq!(value("select replayed from es_last_append()"), "false");
        run("select es_append('a-1', 'T', '{}'), es_append('a-1', 'T', '{}')");
        is_replayed(&append, "(1)");
        assert_eq!(
            rows(&format!(
                "select stream, version, event_ids, replayed from es_last_append() where event_ids = '{{{ONE}}}'"
            )),
            format!("(a-1,1,{{{ONE}}},t)")
        );
        assert_eq!(
            value(
                "select l.global_position = (select global_position from es_read('a-1', max_count => 1)) from es_last_append() l"
            ),
            "true"
        );
    }

    #[pg_test]
    fn a_retry_is_recognised_although_its_expected_version_is_stale() {
        let append = format!("select es_append('a-1', 'T', '{{}}', 0, event_id => '{ONE}')");
        assert_eq!(rows(&append), "(1)");
        run("select es_append('a-1', 'U', '{}', 1)");
        is_replayed(&append, "(1)");
        refused("ES001", &format!("select es_append('a-1', 'T', '{{}}', 0, event_id => '{TWO}')"));
    }

    #[pg_test]
    fn a_retry_may_differ_in_metadata() {
        run(&format!(
            "select es_append('a-1', 'T', '{{}}', metadata => '{{\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}}', event_id => '{ONE}')"
        ));
        is_replayed(
            &format!(
                "select es_append('a-1', 'T', '{{}}', metadata => '{{\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\"}}', event_id => '{ONE}')"
            ),
            "(1)",
        );
        assert_eq!(
            value("select metadata ->> 'traceparent' from es_read('a-1')"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
    }

    #[pg_test]
    fn a_retry_that_leaves_occurred_at_out_is_recognised() {
        run(&format!(
            "select es_append('a-1', 'T', '{{}}', event_id => '{ONE}', occurred_at => '2024-01-01 00:00:00+00')"
        ));
        is_replayed(&format!("select es_append('a-1', 'T', '{{}}', event_id => '{ONE}')"), "(1)");
        is_replayed(
            &format!(
                "select es_append('a-1', 'T', '{{}}', event_id => '{ONE}', occurred_at => '2024-01-01 01:00:00+01')"
            ),
            "(1)",
        );
    }

    #[pg_test]
    fn the_same_id_with_other_content_is_es006() {
        run(&format!(
            "select es_append('a-1', 'T', '{{\"n\": 1.0}}', event_id => '{ONE}', occurred_at => '2024-01-01 00:00:00+00', subject => 'p')"
        ));
        let again = |event_type: &str, number: &str, rest: &str| {
            format!("select es_append('a-1', '{event_type}', '{{\"n\": {number}}}', event_id => '{ONE}', {rest})")
        };
        let another_day = "occurred_at => '2024-01-02 00:00:00+00', subject => 'p'";
        for (other, differing) in [
            (again("U", "1.0", "subject => 'p'"), "type"),
            (again("T", "2", "subject => 'p'"), "payload"),
            (again("T", "1.00", "subject => 'p'"), "payload"),
            (again("T", "1.0", "schema_version => 2, subject => 'p'"), "schema_version"),
            (again("T", "1.0", another_day), "occurred_at"),
            (again("T", "1.0", &format!("expected_version => 1, {another_day}")), "occurred_at"),
            (again("T", "1.0", "subject => 'q'"), "subject"),
            (again("U", "2", "subject => 'p'"), "type and another payload"),
        ] {
            is_refused(&other, "a-1", ONE);
            let message = refused("ES006", &other).message;
            assert!(message.ends_with(&format!("at version 1, with another {differing}")), "{message}");
        }
        assert_eq!(value("select es_stream_version('a-1')"), "1");
    }

    #[pg_test]
    fn a_whole_batch_is_recognised() {
        let batch = events(&[(ONE, "T", 1), (TWO, "T", 2), (THREE, "U", 3)]);
        let append = format!("select es_append_events('a-1', '{batch}', 0)");
        assert_eq!(rows(&append), "(3)");
        run("select es_append('a-1', 'T', '{}')");
        is_replayed(&append, "(3)");
        is_replayed(&format!("select es_append_events('a-1', '{batch}')"), "(3)");
        assert_eq!(value("select array_length(event_ids, 1) from es_last_append()"), "3");
    }

    #[pg_test]
    fn a_batch_of_which_only_a_part_is_there_is_es006() {
        run(&format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1), (TWO, "T", 2)])));
        is_refused(
            &format!("select es_append_events('a-1', '{}')", events(&[(TWO, "T", 2), (THREE, "T", 3)])),
            "a-1",
            TWO,
        );
        is_refused(
            &format!("select es_append_events('a-1', '{}', 2)", events(&[(THREE, "T", 3), (ONE, "T", 1)])),
            "a-1",
            ONE,
        );
        let without_id = r#"{"type": "T", "payload": {"n": 3}}"#;
        let mixed = events(&[(ONE, "T", 1)]).replace(']', &format!(", {without_id}]"));
        is_refused(&format!("select es_append_events('a-1', '{mixed}')"), "a-1", ONE);
        assert_eq!(value("select es_stream_version('a-1')"), "2");
    }

    #[pg_test]
    fn a_batch_in_another_order_is_es006() {
        run(&format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1), (TWO, "T", 2)])));
        let error =
            refused("ES006", &format!("select es_append_events('a-1', '{}')", events(&[(TWO, "T", 2), (ONE, "T", 1)])));
        assert!(error.message.contains("order"), "{}", error.message);
    }

    #[pg_test]
    fn events_that_were_not_one_run_of_versions_are_no_retry() {
        run(&format!("select es_append('a-1', 'T', '{{\"n\": 1}}', event_id => '{ONE}')"));
        run("select es_append('a-1', 'T', '{}')");
        run(&format!("select es_append('a-1', 'T', '{{\"n\": 2}}', event_id => '{TWO}')"));
        refused("ES006", &format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1), (TWO, "T", 2)])));
    }

    #[pg_test]
    fn a_part_of_the_first_batch_that_is_a_run_is_a_retry_of_that_part() {
        run(&format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1), (TWO, "T", 2), (THREE, "T", 3)])));
        is_replayed(&format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1), (TWO, "T", 2)])), "(2)");
        is_replayed(&format!("select es_append('a-1', 'T', '{{\"n\": 2}}', event_id => '{TWO}')"), "(2)");
    }

    #[pg_test]
    fn an_id_twice_in_one_batch_is_es006() {
        let twice = events(&[(ONE, "T", 1), (ONE, "T", 1)]);
        is_refused(&format!("select es_append_events('a-1', '{twice}')"), "a-1", ONE);
        run("select es_append('a-1', 'T', '{}')");
        is_refused(&format!("select es_append_events('a-1', '{twice}')"), "a-1", ONE);
        assert_eq!(value("select es_stream_version('a-1')"), "1");
    }

    #[pg_test]
    fn the_same_id_may_stand_in_several_streams() {
        for stream in ["a-1", "a-2", "b-1"] {
            assert_eq!(rows(&format!("select es_append('{stream}', 'T', '{{}}', event_id => '{ONE}')")), "(1)");
        }
        assert_eq!(rows(&format!("select stream from es_event('{ONE}') order by 1")), "(a-1) (a-2) (b-1)");
    }

    #[pg_test]
    fn a_retry_over_several_streams_is_recognised_whole() {
        let appends = format!(
            r#"select stream, version from es_append_streams('[{{"stream": "b-1", "expected_version": 0, "events": {}}},
                                                 {{"stream": "a-1", "expected_version": 0, "events": {}}}]')"#,
            events(&[(ONE, "T", 1), (TWO, "T", 2)]),
            events(&[(ONE, "T", 9)])
        );
        assert_eq!(rows(&appends), "(b-1,2) (a-1,1)");
        run("select es_append('a-1', 'T', '{}')");
        is_replayed(&appends, "(b-1,2) (a-1,1)");
    }

    #[pg_test]
    fn half_a_retry_over_several_streams_is_es006() {
        run(&format!("select es_append_events('a-1', '{}')", events(&[(ONE, "T", 1)])));
        let half = format!(
            r#"select stream, version from es_append_streams('[{{"stream": "a-1", "events": {}}}, {{"stream": "b-1", "events": {}}}]')"#,
            events(&[(ONE, "T", 1)]),
            events(&[(TWO, "T", 2)])
        );
        is_refused(&half, "a-1", ONE);
        assert_eq!(value("select es_stream_version('b-1')"), "0");
    }

    #[pg_test]
    fn a_retry_of_a_rolled_back_append_is_a_new_append() {
        let append = format!("select es_append('a-1', 'T', '{{}}', 0, event_id => '{ONE}')");
        refused("P0001", &format!("do $do$ begin perform ({append}); raise 'no'; end $do$"));
        assert_eq!(rows(&append), "(1)");
        assert_eq!(value("select replayed from es_last_append()"), "false");
    }

    #[pg_test]
    fn after_a_retry_the_stream_goes_on_at_its_own_version() {
        let append = format!("select es_append('a-1', 'T', '{{}}', event_id => '{ONE}')");
        run(&append);
        run("select es_append('a-1', 'T', '{}')");
        is_replayed(&append, "(1)");
        assert_eq!(value("select es_append('a-1', 'T', '{}', 2)"), "3");
        assert_eq!(rows("select * from es_verify_stream('a-1')"), "");
    }
}
