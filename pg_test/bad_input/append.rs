//! Bad input to what appends: nothing is written, no position is taken.
use super::{BAD_STREAM_NAMES, Bad, Call, argument_refuses, fault, refuses};

const APPEND: Call =
    Call { function: "es_append", good: &[("stream", "'bad-1'"), ("event_type", "'T'"), ("payload", "'{}'")] };

const APPEND_EVENTS: Call = Call {
    function: "es_append_events",
    good: &[("stream", "'bad-1'"), ("events", r#"'[{"type": "T", "payload": {}}]'"#)],
};

const APPEND_STREAMS: Call = Call { function: "es_append_streams", good: &[("appends", "'[]'")] };

const CONDITION: Call = Call { function: "es_condition", good: &[] };

const UNDER_CONDITION: Call = Call {
    function: "es_append_streams",
    good: &[("appends", r#"'[{"stream": "bad-1", "events": [{"type": "T", "payload": {}}]}]'"#)],
};

const CLOSE_STREAM: Call = Call { function: "es_close_stream", good: &[("stream", "'kept-1'"), ("reason", "'over'")] };

/// Documents that are refused as payload.
const BAD_DOCUMENTS: &[Bad<'static>] = &[
    (
        "to_jsonb(repeat('x', 1048576 - 1))",
        "ES007",
        "payload has at least 1048577 bytes as text|eventstream.max_payload_bytes|1048576",
    ),
    ("to_jsonb(repeat('x', 50000000))", "ES007", "eventstream.max_payload_bytes"),
    ("to_jsonb(repeat(E'\\n', 600000))", "ES007", "eventstream.max_payload_bytes"),
    (
        "(repeat('[', 65) || repeat(']', 65))::jsonb",
        "ES007",
        "payload is nested 65 levels deep, more than eventstream.max_json_depth allows (64)",
    ),
    ("(repeat('{\"a\":', 65) || '1' || repeat('}', 65))::jsonb", "ES007", "eventstream.max_json_depth"),
    ("(repeat('[', 10000) || repeat(']', 10000))::jsonb", "ES007", "eventstream.max_json_depth"),
    ("(repeat('{\"a\":', 10000) || '1' || repeat('}', 10000))::jsonb", "ES007", "eventstream.max_json_depth"),
    ("repeat('9', 1001)::jsonb", "ES007", "eventstream.max_number_digits|1001|1000"),
    ("('0.' || repeat('1', 1000))::jsonb", "ES007", "eventstream.max_number_digits|1001"),
    ("'1e1000'::jsonb", "ES007", "eventstream.max_number_digits|1001"),
    ("'1e-1000'::jsonb", "ES007", "eventstream.max_number_digits|1001"),
    ("'{\"a\": {\"b\": [1, 1e131071]}}'::jsonb", "ES007", "eventstream.max_number_digits|131072"),
    ("('[' || repeat('1e131071,', 8999) || '1e131071]')::jsonb", "ES007", "eventstream.max_"),
];

/// A batch whose element in the middle is this one.
fn in_the_middle(element: &str) -> String {
    let good = r#"{"type": "T", "payload": {}}"#;
    format!("'[{good}, {element}, {good}]'")
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg_test::sql::{caught, rows, run, value};
    use pgrx::pg_test;

    #[pg_test]
    fn es_append_refuses_bad_stream_names() {
        argument_refuses(&APPEND, "stream", BAD_STREAM_NAMES);
    }

    #[pg_test]
    fn es_append_refuses_bad_event_types() {
        argument_refuses(
            &APPEND,
            "event_type",
            &[
                ("null", "ES005", "event_type|must not be NULL"),
                ("''", "ES005", "event_type|must not be empty"),
                ("repeat('x', 256)", "ES005", "event_type|255|256"),
                ("repeat('x', 1000000)", "ES005", "event_type|255|1000000"),
                ("repeat('x', 10000000)", "ES005", "event_type|must be shorter|10000000"),
                ("E'a\\nb'", "ES005", "event_type|control"),
                ("E'\\u0001'", "ES005", "event_type|control"),
                ("'StreamClosed'", "ES005", "event_type|StreamClosed"),
            ],
        );
    }

    #[pg_test]
    fn es_append_refuses_bad_payloads() {
        argument_refuses(&APPEND, "payload", &[("null", "ES005", "payload|must not be NULL")]);
        let statements: Vec<_> = BAD_DOCUMENTS
            .iter()
            .map(|(expression, code, named)| (APPEND.with("payload", expression), *code, format!("payload|{named}")))
            .collect();
        for (statement, code, named) in &statements {
            assert_eq!(fault(statement, code, named), None);
        }
    }

    #[pg_test]
    fn batches_refuse_bad_payloads() {
        for (expression, code, named) in BAD_DOCUMENTS {
            let event = format!("jsonb_build_object('type', 'T', 'payload', {expression})");
            let events = format!("jsonb_build_array({event})");
            let named = format!("[0]|payload|{named}");
            assert_eq!(fault(&APPEND_EVENTS.with("events", &events), code, &named), None);
            let appends = format!("jsonb_build_array(jsonb_build_object('stream', 'a-1', 'events', {events}))");
            assert_eq!(fault(&APPEND_STREAMS.with("appends", &appends), code, &named), None);
            // Nor is it printed, or walked down, where something else belongs.
            for key in ["type", "event_id", "occurred_at", "schema_version", "subject", "metadata", "colour"] {
                let event = format!(
                    "jsonb_build_object('type', 'T', 'payload', 1) || jsonb_build_object('{key}', {expression})"
                );
                let error = caught(&APPEND_EVENTS.with("events", &format!("jsonb_build_array({event})"))).expect(key);
                assert!(["ES005", "ES007"].contains(&error.code.as_str()) && error.message.len() < 1000, "{error:?}");
            }
        }
    }

    #[pg_test]
    fn es_append_refuses_bad_metadata() {
        argument_refuses(
            &APPEND,
            "metadata",
            &[
                ("null", "ES005", "metadata|must not be NULL"),
                ("'null'", "ES005", "metadata|object"),
                ("'[]'", "ES005", "metadata|object"),
                ("'5'", "ES005", "metadata|object"),
                ("'\"actor\"'", "ES005", "metadata|object"),
                ("'true'", "ES005", "metadata|object"),
                ("jsonb_build_object('k', repeat('x', 1048576))", "ES007", "metadata|eventstream.max_payload_bytes"),
                ("'{\"n\": 1e1000}'", "ES007", "metadata|eventstream.max_number_digits"),
                (
                    "(repeat('{\"a\":', 65) || '1' || repeat('}', 65))::jsonb",
                    "ES007",
                    "metadata|eventstream.max_json_depth",
                ),
            ],
        );
    }

    #[pg_test]
    fn es_append_refuses_bad_expected_versions() {
        argument_refuses(
            &APPEND,
            "expected_version",
            &[
                ("-1", "ES005", "expected_version|-1"),
                ("-2", "ES005", "expected_version|-2"),
                ("-9223372036854775808", "ES005", "expected_version"),
                ("1", "ES001", "bad-1|version 1|version 0"),
                ("9223372036854775807", "ES001", "bad-1|9223372036854775807|version 0"),
            ],
        );
    }

    #[pg_test]
    fn es_append_refuses_bad_times() {
        argument_refuses(
            &APPEND,
            "occurred_at",
            &[
                ("'infinity'", "ES005", "occurred_at|finite"),
                ("'-infinity'", "ES005", "occurred_at|finite"),
                (
                    "now() + interval '1 day 10 seconds'",
                    "ES007",
                    "occurred_at|is 864|seconds ahead of the clock, more than eventstream.max_future_skew allows (86400)",
                ),
                ("'294276-12-31 23:59:59.999999+00'", "ES007", "occurred_at|eventstream.max_future_skew"),
            ],
        );
    }

    #[pg_test]
    fn es_append_refuses_bad_schema_versions() {
        argument_refuses(
            &APPEND,
            "schema_version",
            &[
                ("0", "ES005", "schema_version|0"),
                ("-1", "ES005", "schema_version|-1"),
                ("-2147483648", "ES005", "schema_version"),
            ],
        );
    }

    #[pg_test]
    fn es_append_refuses_bad_subjects() {
        argument_refuses(
            &APPEND,
            "subject",
            &[
                ("''", "ES005", "subject|empty"),
                ("repeat('x', 256)", "ES005", "subject|255"),
                ("E'a\\nb'", "ES005", "subject|control"),
                ("' a'", "ES005", "subject|blank"),
                ("'a '", "ES005", "subject|blank"),
            ],
        );
    }

    #[pg_test]
    fn es_append_events_refuses_bad_stream_names() {
        argument_refuses(&APPEND_EVENTS, "stream", BAD_STREAM_NAMES);
    }

    #[pg_test]
    fn es_append_events_refuses_bad_expected_versions() {
        argument_refuses(
            &APPEND_EVENTS,
            "expected_version",
            &[("-1", "ES005", "expected_version|-1"), ("9223372036854775807", "ES001", "bad-1|9223372036854775807")],
        );
    }

    #[pg_test]
    fn es_append_events_refuses_what_is_no_batch() {
        let of = |count: u32| {
            format!(
                "(select jsonb_agg('{{\"type\": \"T\", \"payload\": {{}}}}'::jsonb) from generate_series(1, {count}))"
            )
        };
        let too_many = of(10_001);
        refuses(&[
            (APPEND_EVENTS.with("events", "null"), "ES005", "events|must not be NULL"),
            (APPEND_EVENTS.with("events", "'null'"), "ES005", "events|array"),
            (APPEND_EVENTS.with("events", "'{}'"), "ES005", "events|array"),
            (APPEND_EVENTS.with("events", r#"'{"type": "T", "payload": {}}'"#), "ES005", "events|array"),
            (APPEND_EVENTS.with("events", "'5'"), "ES005", "events|array"),
            (APPEND_EVENTS.with("events", "'\"x\"'"), "ES005", "events|array"),
            (APPEND_EVENTS.with("events", "'[]'"), "ES005", "events|at least one"),
            (
                APPEND_EVENTS.with("events", &too_many),
                "ES007",
                "events has 10001 elements, more than eventstream.max_batch_events allows (10000)",
            ),
        ]);
        assert_eq!(value(&format!("select es_append_events('most-1', {})", of(10_000))), "10000");
    }

    #[pg_test]
    fn a_wrong_element_in_the_middle_of_a_batch_is_named_by_its_place() {
        let long = format!(r#"{{"type": "T", "payload": {{}}, "subject": "{}"}}"#, "x".repeat(256));
        let many_digits = format!(r#"{{"type": "T", "payload": {{"n": {}}}}}"#, "9".repeat(1001));
        let elements: &[Bad] = &[
            ("null", "ES005", "events[1]|object|null"),
            ("5", "ES005", "events[1]|object|number"),
            ("[]", "ES005", "events[1]|object|array"),
            ("\"T\"", "ES005", "events[1]|object|string"),
            ("{}", "ES005", "events[1].type"),
            (r#"{"type": "T"}"#, "ES005", "events[1].payload"),
            (r#"{"payload": {}}"#, "ES005", "events[1].type"),
            (r#"{"type": null, "payload": {}}"#, "ES005", "events[1].type|null"),
            (r#"{"type": 5, "payload": {}}"#, "ES005", "events[1].type|number"),
            (r#"{"type": "", "payload": {}}"#, "ES005", "events[1].type|empty"),
            (r#"{"type": "a\nb", "payload": {}}"#, "ES005", "events[1].type|control"),
            (r#"{"type": "StreamClosed", "payload": {}}"#, "ES005", "events[1].type|StreamClosed"),
            (r#"{"type": "T", "payload": {}, "metadata": []}"#, "ES005", "events[1].metadata|object"),
            (r#"{"type": "T", "payload": {}, "metadata": "x"}"#, "ES005", "events[1].metadata|object"),
            (r#"{"type": "T", "payload": {}, "event_id": "x"}"#, "ES005", "events[1].event_id|uuid"),
            (r#"{"type": "T", "payload": {}, "event_id": ""}"#, "ES005", "events[1].event_id|uuid"),
            (r#"{"type": "T", "payload": {}, "event_id": 5}"#, "ES005", "events[1].event_id"),
            (r#"{"type": "T", "payload": {}, "occurred_at": "soon"}"#, "ES005", "events[1].occurred_at|soon"),
            (r#"{"type": "T", "payload": {}, "occurred_at": ""}"#, "ES005", "events[1].occurred_at"),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2024-02-30"}"#,
                "ES005",
                "events[1].occurred_at|2024-02-30",
            ),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2024-10-15T25:00:00Z"}"#,
                "ES005",
                "events[1].occurred_at",
            ),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2024-10-15T12:00:00 Nowhere/City"}"#,
                "ES005",
                "events[1].occurred_at",
            ),
            (r#"{"type": "T", "payload": {}, "occurred_at": 1700000000}"#, "ES005", "events[1].occurred_at|number"),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "infinity"}"#,
                "ES005",
                "events[1].occurred_at|date, time and zone",
            ),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "-infinity"}"#,
                "ES005",
                "events[1].occurred_at|date, time and zone",
            ),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2999-01-01T00:00:00Z"}"#,
                "ES007",
                "events[1].occurred_at|eventstream.max_future_skew",
            ),
            (r#"{"type": "T", "payload": {}, "schema_version": 0}"#, "ES005", "events[1].schema_version|0"),
            (r#"{"type": "T", "payload": {}, "schema_version": -1}"#, "ES005", "events[1].schema_version|-1"),
            (r#"{"type": "T", "payload": {}, "schema_version": 1.5}"#, "ES005", "events[1].schema_version|1.5"),
            (r#"{"type": "T", "payload": {}, "schema_version": "1"}"#, "ES005", "events[1].schema_version|string"),
            (r#"{"type": "T", "payload": {}, "schema_version": 3000000000}"#, "ES005", "events[1].schema_version"),
            (r#"{"type": "T", "payload": {}, "schema_version": 1e30}"#, "ES005", "events[1].schema_version"),
            (r#"{"type": "T", "payload": {}, "schema_version": 1e131071}"#, "ES005", "events[1].schema_version"),
            (r#"{"type": "T", "payload": {}, "subject": ""}"#, "ES005", "events[1].subject|empty"),
            (r#"{"type": "T", "payload": {}, "subject": 5}"#, "ES005", "events[1].subject|number"),
            (&long, "ES005", "events[1].subject|255"),
            (&many_digits, "ES007", "events[1].payload has a number of 1001 digits|eventstream.max_number_digits"),
        ];
        let statements: Vec<_> = elements
            .iter()
            .map(|(element, code, named)| (APPEND_EVENTS.with("events", &in_the_middle(element)), *code, *named))
            .collect();
        refuses(&statements);
    }

    #[pg_test]
    fn an_unknown_key_in_a_batch_element_is_refused_by_name() {
        let elements: &[Bad] = &[
            (r#"{"type": "T", "payload": {}, "colour": 1}"#, "ES005", "events[1]|colour"),
            (r#"{"type": "T", "payload": {}, "Metadata": {}}"#, "ES005", "events[1]|Metadata"),
            (r#"{"type": "T", "payload": {}, "": null}"#, "ES005", "events[1]"),
            (r#"{"event_type": "T", "payload": {}}"#, "ES005", "events[1]|event_type"),
            (r#"{"type": "T", "payload": {}, "a\nb": 1}"#, "ES005", "events[1]"),
        ];
        let long = format!(r#"{{"type": "T", "payload": {{}}, "{}": 1}}"#, "k".repeat(100_000));
        let mut statements: Vec<_> = elements
            .iter()
            .map(|(element, code, named)| (APPEND_EVENTS.with("events", &in_the_middle(element)), *code, *named))
            .collect();
        statements.push((APPEND_EVENTS.with("events", &in_the_middle(&long)), "ES005", "events[1]|kkk"));
        statements.push((
            APPEND_STREAMS
                .with("appends", r#"'[{"stream": "a-1", "events": [{"type": "T", "payload": {}}], "version": 1}]'"#),
            "ES005",
            "appends[0]|version",
        ));
        refuses(&statements);
    }

    #[pg_test]
    fn es_condition_refuses_bad_queries() {
        argument_refuses(
            &CONDITION,
            "query",
            &[
                ("null", "ES005", "query|must not be NULL"),
                ("'null'", "ES005", "query|object"),
                ("'[]'", "ES005", "query|object"),
                ("'{}'", "ES005", "query|items"),
                (r#"'{"items": [{}]}'"#, "ES005", "query.items[0]"),
                (r#"'{"items": [{"tags": [""]}]}'"#, "ES005", "query.items[0].tags[0]|empty"),
                (r#"'{"items": [{"colour": 1}]}'"#, "ES005", "query.items[0].colour"),
                (
                    "jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array(repeat('k', 50000000)))))",
                    "ES005",
                    "query.items[0].tags[0]|255|50000000",
                ),
                ("jsonb_build_object(repeat('k', 50000000), 1)", "ES005", "kkk"),
                (
                    "jsonb_build_object('items', array_fill('{\"tags\": [\"a\"]}'::jsonb, array[100000]))",
                    "ES005",
                    "query.items|100|100000",
                ),
            ],
        );
    }

    #[pg_test]
    fn es_append_streams_refuses_bad_conditions() {
        argument_refuses(
            &UNDER_CONDITION,
            "condition",
            &[
                ("'null'", "ES005", "condition|object"),
                ("'7'", "ES005", "condition|object"),
                ("'{}'", "ES005", "condition.query"),
                (r#"'{"query": {"all": true}}'"#, "ES005", "condition.after"),
                (r#"'{"query": {"all": true}, "after": -1}'"#, "ES005", "condition.after|-1"),
                (r#"'{"query": {"all": true}, "after": "1"}'"#, "ES005", "condition.after|string"),
                (r#"'{"query": {"all": true}, "after": 1.5}'"#, "ES005", "condition.after|1.5"),
                (r#"'{"query": {"all": false}, "after": 1}'"#, "ES005", "condition.query.all"),
                (
                    r#"'{"query": {"all": true}, "after": 0, "seen": {"count": 0, "digest": "x"}}'"#,
                    "ES005",
                    "condition.seen.digest",
                ),
                (
                    "jsonb_build_object('query', '{\"all\": true}'::jsonb, 'after', 0, 'log', \
                     jsonb_build_object('id', repeat('x', 50000000), 'tenant', '', 'timeline', 1, 'place', ''))",
                    "ES005",
                    "condition.log.id",
                ),
                (r#"'{"query": {"all": true}, "after": 1000000000000}'"#, "ES015", "position 1000000000000"),
            ],
        );
    }

    #[pg_test]
    fn es_append_streams_refuses_bad_appends() {
        let good = r#"{"stream": "a-1", "events": [{"type": "T", "payload": {}}]}"#;
        let then = |element: &str| APPEND_STREAMS.with("appends", &format!("'[{good}, {element}]'"));
        let events = r#""events": [{"type": "T", "payload": {}}]"#;
        refuses(&[
            (APPEND_STREAMS.with("appends", "null"), "ES005", "appends|must not be NULL"),
            (APPEND_STREAMS.with("appends", "'null'"), "ES005", "appends|array"),
            (APPEND_STREAMS.with("appends", "'{}'"), "ES005", "appends|array"),
            (APPEND_STREAMS.with("appends", "'7'"), "ES005", "appends|array"),
            (APPEND_STREAMS.with("appends", "'[]'"), "ES005", "appends|at least one"),
            (then("null"), "ES005", "appends[1]|object|null"),
            (then("7"), "ES005", "appends[1]|object|number"),
            (then("{}"), "ES005", "appends[1].stream"),
            (then(&format!("{{{events}}}")), "ES005", "appends[1].stream"),
            (then(&format!("{{\"stream\": null, {events}}}")), "ES005", "appends[1].stream"),
            (then(&format!("{{\"stream\": 5, {events}}}")), "ES005", "appends[1].stream|number"),
            (then(&format!("{{\"stream\": \"\", {events}}}")), "ES004", "stream name|empty"),
            (then(&format!("{{\"stream\": \"account\", {events}}}")), "ES004", "stream name|account"),
            (then(&format!("{{\"stream\": \"a-1\", {events}}}")), "ES005", "appends[1].stream|a-1"),
            (then(r#"{"stream": "b-1"}"#), "ES005", "appends[1].events"),
            (then(r#"{"stream": "b-1", "events": null}"#), "ES005", "appends[1].events|array"),
            (then(r#"{"stream": "b-1", "events": {}}"#), "ES005", "appends[1].events|array"),
            (then(r#"{"stream": "b-1", "events": []}"#), "ES005", "appends[1].events|at least one"),
            (then(r#"{"stream": "b-1", "events": [{"type": "T"}]}"#), "ES005", "appends[1].events[0].payload"),
            (then(&format!("{{\"stream\": \"b-1\", \"expected_version\": -1, {events}}}")), "ES005", "appends[1].expected_version|-1"),
            (then(&format!("{{\"stream\": \"b-1\", \"expected_version\": \"1\", {events}}}")), "ES005", "appends[1].expected_version|string"),
            (then(&format!("{{\"stream\": \"b-1\", \"expected_version\": 1.5, {events}}}")), "ES005", "appends[1].expected_version|1.5"),
            (then(&format!("{{\"stream\": \"b-1\", \"expected_version\": 1e30, {events}}}")), "ES005", "appends[1].expected_version"),
            (
                "select stream, version from es_append_streams((select jsonb_agg(jsonb_build_object('stream', 'a-' || stream, 'events', \
                 (select jsonb_agg('{\"type\": \"T\", \"payload\": {}}'::jsonb) from generate_series(1, 5001)))) \
                 from generate_series(1, 2) stream))"
                    .to_owned(),
                "ES007",
                "appends[1].events brings the call to 10002 events|eventstream.max_batch_events allows (10000)",
            ),
        ]);
        let conflict = then(&format!("{{\"stream\": \"b-1\", \"expected_version\": 5, {events}}}"));
        assert_eq!(fault(&conflict, "ES001", "b-1|version 5|version 0"), None);
    }

    #[pg_test]
    fn es_close_stream_refuses_bad_input() {
        argument_refuses(&CLOSE_STREAM, "stream", BAD_STREAM_NAMES);
        assert_eq!(fault(&CLOSE_STREAM.with("stream", "'none-1'"), "ES002", "none-1"), None);
        assert_eq!(fault(&CLOSE_STREAM.with("reason", "null"), "ES005", "reason|must not be NULL"), None);
        assert_eq!(
            fault(
                &CLOSE_STREAM.with("reason", "repeat('x', 1048576)"),
                "ES007",
                "reason|eventstream.max_payload_bytes"
            ),
            None
        );
        assert_eq!(value("select es_stream_version('kept-1')"), "2");
    }

    #[pg_test]
    fn a_refused_argument_holds_no_consumer_back() {
        for statement in ["select es_append('bad', 'T', '{}')", "select es_append_events('bad-1', '[]')"] {
            assert!(caught(statement).is_some());
        }
        let mine = "select count(*) from eventstream.horizon_holders where pid = pg_backend_pid()";
        assert_eq!(value(mine), "0");
        run("select es_append('good-1', 'T', '{}')");
        assert_eq!(value(mine), "1");
    }

    #[pg_test]
    fn what_lies_on_a_limit_is_accepted() {
        for statement in [
            "select es_append('a-' || repeat('x', 510), 'T', '{}')",
            "select es_append(repeat('x', 510) || '-1', 'T', '{}')",
            "select es_append('a---', 'T', '{}')",
            "select es_append('a b-c d', 'T', '{}')",
            "select es_append('a-1', repeat('x', 255), '{}')",
            "select es_append('a-2', 'T', '{}', subject => repeat('x', 255))",
            "select es_append('a-3', 'T', '{}', occurred_at => now() + interval '23 hours 59 minutes')",
            "select es_append('a-4', 'T', '{}', occurred_at => '4713-01-01 00:00:00+00 BC')",
            "select es_append('a-5', 'T', '{}', schema_version => 2147483647)",
            "select es_append('a-6', 'T', to_jsonb(repeat('x', 1048576 - 2)))",
            "select es_append('a-7', 'T', (repeat('[', 64) || repeat(']', 64))::jsonb)",
            "select es_append('a-8', 'T', repeat('9', 1000)::jsonb)",
            "select es_append('a-9', 'T', ('0.' || repeat('1', 999))::jsonb)",
            "select es_append('b-1', 'T', 'null')",
            "select es_append('b-2', 'T', '5')",
            "select es_append('b-3', 'T', '\"text\"')",
            "select es_append('b-4', 'T', '[]')",
            "select es_append('b-5', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000000')",
            r#"select es_append_events('b-6', '[{"type": "T", "payload": null, "metadata": null, "event_id": null,
               "occurred_at": null, "schema_version": null, "subject": null}]')"#,
        ] {
            assert_eq!(value(statement), "1", "{statement}");
        }
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn duplicate_keys_keep_the_last_as_jsonb_does() {
        run(r#"select es_append('a-1', 'T', '{"a": 1, "a": 2}')"#);
        run(r#"select es_append_events('a-1', '[{"type": "Lost", "type": "Kept", "payload": {"b": 1, "b": 3}}]')"#);
        assert_eq!(rows("select event_type, payload from es_read('a-1')"), r#"(T,"{""a"": 2}") (Kept,"{""b"": 3}")"#);
    }
}
