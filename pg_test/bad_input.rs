//! Bad input: every argument of every function. Each is refused with its SQLSTATE and a message that names the argument, nothing is
//! written, no position is taken, and the session goes on.
use crate::pg_test::sql::{caught, rows, run, value};

/// A function, and arguments that it takes.
struct Call {
    function: &'static str,
    good: &'static [(&'static str, &'static str)],
}

/// An expression for an argument, the SQLSTATE it is refused with, and what the message must name (all of it, `|` between).
type Bad<'a> = (&'a str, &'a str, &'a str);

const APPEND: Call =
    Call { function: "es_append", good: &[("stream", "'bad-1'"), ("event_type", "'T'"), ("payload", "'{}'")] };
const APPEND_EVENTS: Call = Call {
    function: "es_append_events",
    good: &[("stream", "'bad-1'"), ("events", r#"'[{"type": "T", "payload": {}}]'"#)],
};
const APPEND_STREAMS: Call = Call { function: "es_append_streams", good: &[("appends", "'[]'")] };
const CLOSE_STREAM: Call = Call { function: "es_close_stream", good: &[("stream", "'kept-1'"), ("reason", "'over'")] };
const READ: Call = Call { function: "es_read", good: &[("stream", "'kept-1'")] };
const READ_ALL: Call = Call { function: "es_read_all", good: &[] };
const READ_BACKWARD: Call = Call { function: "es_read_backward", good: &[] };
const READ_SUBJECT: Call = Call { function: "es_read_subject", good: &[("subject", "'person-1'")] };
const EVENT: Call = Call { function: "es_event", good: &[("event_id", "gen_random_uuid()")] };
const STREAM_VERSION: Call = Call { function: "es_stream_version", good: &[("stream", "'kept-1'")] };
const STREAM: Call = Call { function: "es_stream", good: &[("stream", "'kept-1'")] };
const ULID: Call = Call { function: "es_ulid", good: &[("id", "gen_random_uuid()")] };
const ULID_TO_UUID: Call = Call { function: "es_ulid_to_uuid", good: &[("ulid", "'01H455VB4PEX5VSKNK084SN02Q'")] };
const STREAM_NAME: Call = Call { function: "es_stream_name", good: &[("category", "'a'"), ("id", "'1'")] };
const VERIFY_STREAM: Call = Call { function: "es_verify_stream", good: &[("stream", "'kept-1'")] };
const VERIFY: Call = Call { function: "es_verify", good: &[] };
const CHAIN_HEADS: Call = Call { function: "es_chain_heads", good: &[] };
const CREATE_TENANT: Call = Call { function: "es_create_tenant", good: &[("tenant", "'bad'")] };
const USE_TENANT: Call = Call { function: "es_use_tenant", good: &[("tenant", "'default'")] };
const GRANT: Call = Call { function: "es_grant", good: &[("role", "current_user"), ("privilege", "'read'")] };
const REVOKE: Call = Call { function: "es_revoke", good: &[("role", "'public'"), ("privilege", "'read'")] };

impl Call {
    /// The call with one argument replaced, or added.
    fn with(&self, argument: &str, expression: &str) -> String {
        let mut arguments: Vec<String> = self
            .good
            .iter()
            .filter(|(name, _)| *name != argument)
            .map(|(name, good)| format!("{name} => {good}"))
            .collect();
        arguments.push(format!("{argument} => {expression}"));
        format!("select * from {}({})", self.function, arguments.join(", "))
    }
}

/// What no refused call may change.
fn state() -> String {
    rows(
        "select (select count(*) from _eventstream.events), (select count(*) from _eventstream.streams), \
                (select count(*) from _eventstream.stream_segments), (select count(*) from _eventstream.tenants), \
                (select count(*) from _eventstream.grants), es_last_append(), currval('_eventstream.positions')",
    )
}

/// What is wrong with how a statement was refused.
fn fault(statement: &str, code: &str, named: &str) -> Option<String> {
    let shown: String = statement.chars().take(300).collect();
    let Some(error) = caught(statement) else { return Some(format!("accepted: {shown}")) };
    let message = &error.message;
    let fault = if error.code != code {
        format!("{} instead of {code}", error.code)
    } else if let Some(missing) = named.split('|').find(|name| !message.contains(name)) {
        format!("the message does not name {missing}")
    } else if message.len() > 1000 || message.chars().any(char::is_control) {
        format!("the message has {} bytes, or control characters", message.len())
    } else if !serde_json::from_str(&error.detail).is_ok_and(|detail: serde_json::Value| detail.is_object()) {
        format!("DETAIL is no JSON object: {}", error.detail)
    } else {
        return None;
    };
    let message: String = message.chars().take(300).collect();
    Some(format!("{fault}\n    {shown}\n    {}: {message}", error.code))
}

/// Every statement is refused as it says, changes nothing, and the session goes on.
fn refuses(statements: &[(String, &str, &str)]) {
    run("select es_append('kept-1', 'Kept', '{}')");
    let before = state();
    let mut faults: Vec<String> = Vec::new();
    for (statement, code, named) in statements {
        faults.extend(fault(statement, code, named));
        let after = state();
        if after != before {
            faults.push(format!("{before} became {after}: {statement}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} are not refused as they should be:\n{}",
        faults.len(),
        statements.len(),
        faults.join("\n")
    );
    assert_eq!(value("select es_append('kept-1', 'Kept', '{}')"), "2");
}

fn argument_refuses(call: &Call, argument: &str, bad: &[Bad<'static>]) {
    let statements: Vec<_> =
        bad.iter().map(|(expression, code, named)| (call.with(argument, expression), *code, *named)).collect();
    refuses(&statements);
}

const BAD_STREAM_NAMES: &[Bad<'static>] = &[
    ("null", "ES005", "stream|must not be NULL"),
    ("''", "ES004", "stream name|must not be empty"),
    ("'account'", "ES004", "stream name|account"),
    ("'-'", "ES004", "stream name"),
    ("'-1'", "ES004", "stream name|category"),
    ("'account-'", "ES004", "stream name|id"),
    ("' account-1'", "ES004", "stream name|blank"),
    ("'account-1 '", "ES004", "stream name|blank"),
    ("E'account-1\\u00a0'", "ES004", "stream name|blank"),
    ("E'account-\\n1'", "ES004", "stream name|control|U+000A"),
    ("E'\\taccount-1'", "ES004", "stream name|control"),
    ("E'account-\\u007f'", "ES004", "stream name|control|U+007F"),
    ("E'account-\\u0085'", "ES004", "stream name|control|U+0085"),
    ("'a-' || repeat('x', 511)", "ES004", "stream name|512|513"),
    ("'a-' || repeat('é', 256)", "ES004", "stream name|512|514"),
    ("'a-' || repeat('x', 10000000)", "ES004", "stream name|512"),
];

const BAD_MAX_COUNT_OF_LOG: &[Bad<'static>] = &[
    ("null", "ES005", "max_count|must not be NULL"),
    ("0", "ES005", "max_count|100000"),
    ("-1", "ES005", "max_count|100000"),
    ("-2147483648", "ES005", "max_count|100000"),
    ("100001", "ES005", "max_count|100000|100001"),
    ("2147483647", "ES005", "max_count|100000"),
];

const BAD_AFTER_POSITION: &[Bad<'static>] = &[
    ("null", "ES005", "after_position|must not be NULL"),
    ("-1", "ES005", "after_position|-1"),
    ("-9223372036854775808", "ES005", "after_position"),
];

const BAD_CATEGORIES: &[Bad<'static>] = &[
    ("'{a,null}'", "ES005", "categories|NULL"),
    ("'{a,a-b}'", "ES005", "categories"),
    ("'{\"\"}'", "ES005", "categories|empty"),
    ("array[E'a\\n']", "ES005", "categories|control"),
    ("array[repeat('x', 511)]", "ES005", "categories|510"),
];

const BAD_EVENT_TYPES: &[Bad<'static>] = &[
    ("'{A,null}'", "ES005", "event_types|NULL"),
    ("'{\"\"}'", "ES005", "event_types|empty"),
    ("array[E'A\\n']", "ES005", "event_types|control"),
    ("array[repeat('x', 256)]", "ES005", "event_types|255"),
];

/// Documents that are refused as payload.
const BAD_DOCUMENTS: &[Bad<'static>] = &[
    ("to_jsonb(repeat('x', 1048576 - 1))", "ES007", "eventstream.max_payload_bytes|1048576"),
    ("to_jsonb(repeat('x', 50000000))", "ES007", "eventstream.max_payload_bytes"),
    ("to_jsonb(repeat(E'\\n', 600000))", "ES007", "eventstream.max_payload_bytes"),
    ("(repeat('[', 65) || repeat(']', 65))::jsonb", "ES007", "eventstream.max_json_depth|65|64"),
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
                ("repeat('x', 10000000)", "ES005", "event_type|255"),
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
                ("now() + interval '1 day 10 seconds'", "ES007", "occurred_at|eventstream.max_future_skew|86400"),
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
            (APPEND_EVENTS.with("events", &too_many), "ES007", "events|eventstream.max_batch_events|10000|10001"),
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
            (r#"{"type": "T", "payload": {}, "occurred_at": 1700000000}"#, "ES005", "events[1].occurred_at|number"),
            (r#"{"type": "T", "payload": {}, "occurred_at": "infinity"}"#, "ES005", "events[1].occurred_at|finite"),
            (r#"{"type": "T", "payload": {}, "occurred_at": "-infinity"}"#, "ES005", "events[1].occurred_at|finite"),
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2999-01-01T00:00:00Z"}"#,
                "ES007",
                "events[1]|occurred_at|eventstream.max_future_skew",
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
            (&many_digits, "ES007", "events[1]|payload|eventstream.max_number_digits|1001"),
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
    fn a_time_without_a_zone_in_a_batch_is_refused() {
        // Its meaning would depend on the session's TimeZone, and so would whether a retry is recognised.
        let elements: &[Bad] = &[
            (
                r#"{"type": "T", "payload": {}, "occurred_at": "2024-10-15T12:00:00"}"#,
                "ES005",
                "events[1].occurred_at|zone",
            ),
            (r#"{"type": "T", "payload": {}, "occurred_at": "2024-10-15"}"#, "ES005", "events[1].occurred_at|zone"),
            (r#"{"type": "T", "payload": {}, "occurred_at": "yesterday"}"#, "ES005", "events[1].occurred_at|zone"),
            (r#"{"type": "T", "payload": {}, "occurred_at": "now"}"#, "ES005", "events[1].occurred_at|zone"),
        ];
        let statements: Vec<_> = elements
            .iter()
            .map(|(element, code, named)| (APPEND_EVENTS.with("events", &in_the_middle(element)), *code, *named))
            .collect();
        refuses(&statements);
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
                "select * from es_append_streams((select jsonb_agg(jsonb_build_object('stream', 'a-' || stream, 'events', \
                 (select jsonb_agg('{\"type\": \"T\", \"payload\": {}}'::jsonb) from generate_series(1, 5001)))) \
                 from generate_series(1, 2) stream))"
                    .to_owned(),
                "ES007",
                "eventstream.max_batch_events|10000|10002",
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
    fn es_read_refuses_bad_input() {
        argument_refuses(&READ, "stream", BAD_STREAM_NAMES);
        for (argument, expression, code, named) in [
            ("from_version", "0", "ES005", "from_version|0"),
            ("from_version", "-1", "ES005", "from_version|-1"),
            ("from_version", "-9223372036854775808", "ES005", "from_version"),
            ("max_count", "-1", "ES005", "max_count|-1"),
            ("max_count", "-9223372036854775808", "ES005", "max_count"),
            ("backward", "null", "ES005", "backward|must not be NULL"),
            ("raw", "null", "ES005", "raw|must not be NULL"),
        ] {
            assert_eq!(fault(&READ.with(argument, expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_accepts_enormous_versions_and_counts() {
        run("select es_append('kept-1', 'T', '{}')");
        assert_eq!(rows("select version from es_read('kept-1', from_version => 9223372036854775807)"), "");
        assert_eq!(rows("select version from es_read('kept-1', max_count => 9223372036854775807)"), "(1)");
        assert_eq!(
            rows("select version from es_read('kept-1', from_version => 9223372036854775807, backward => true)"),
            "(1)"
        );
        assert_eq!(rows("select version from es_read('kept-1', max_count => 0)"), "");
        assert_eq!(rows("select version from es_read('kept-1', until => 'infinity')"), "(1)");
        assert_eq!(rows("select version from es_read('kept-1', until => '-infinity')"), "");
    }

    #[pg_test]
    fn es_read_all_refuses_bad_input() {
        argument_refuses(&READ_ALL, "after_position", BAD_AFTER_POSITION);
        let beyond = "(select last_value + 1000000 from _eventstream.positions)";
        assert_eq!(fault(&READ_ALL.with("after_position", beyond), "ES025", "after_position|beyond"), None);
        assert_eq!(
            fault(&READ_ALL.with("after_position", "9223372036854775807"), "ES025", "after_position|beyond"),
            None
        );
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_ALL.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_all_refuses_bad_filters() {
        argument_refuses(&READ_ALL, "categories", BAD_CATEGORIES);
        for (expression, code, named) in BAD_EVENT_TYPES {
            assert_eq!(fault(&READ_ALL.with("event_types", expression), code, named), None);
        }
        assert_eq!(fault(&READ_ALL.with("up_to", "-1"), "ES005", "up_to|-1"), None);
    }

    #[pg_test]
    fn es_read_backward_refuses_bad_input() {
        argument_refuses(
            &READ_BACKWARD,
            "before_position",
            &[("-1", "ES005", "before_position|-1"), ("-9223372036854775808", "ES005", "before_position")],
        );
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_BACKWARD.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_backward_refuses_bad_filters() {
        argument_refuses(&READ_BACKWARD, "categories", BAD_CATEGORIES);
        for (expression, code, named) in BAD_EVENT_TYPES {
            assert_eq!(fault(&READ_BACKWARD.with("event_types", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_subject_refuses_bad_input() {
        argument_refuses(
            &READ_SUBJECT,
            "subject",
            &[
                ("null", "ES005", "subject|must not be NULL"),
                ("''", "ES005", "subject|empty"),
                ("repeat('x', 256)", "ES005", "subject|255"),
                ("E'a\\nb'", "ES005", "subject|control"),
                ("' a'", "ES005", "subject|blank"),
            ],
        );
        for (expression, code, named) in BAD_AFTER_POSITION {
            assert_eq!(fault(&READ_SUBJECT.with("after_position", expression), code, named), None);
        }
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_SUBJECT.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_event_refuses_null() {
        argument_refuses(&EVENT, "event_id", &[("null", "ES005", "event_id|must not be NULL")]);
    }

    #[pg_test]
    fn es_stream_version_refuses_bad_stream_names() {
        argument_refuses(&STREAM_VERSION, "stream", BAD_STREAM_NAMES);
    }

    #[pg_test]
    fn es_stream_refuses_bad_stream_names() {
        argument_refuses(&STREAM, "stream", BAD_STREAM_NAMES);
        assert_eq!(fault(&STREAM.with("stream", "'none-1'"), "ES002", "none-1"), None);
    }

    #[pg_test]
    fn es_ulid_and_es_ulid_to_uuid_refuse_bad_input() {
        argument_refuses(&ULID, "id", &[("null", "ES005", "id|must not be NULL")]);
        for (expression, named) in [
            ("null", "ulid|must not be NULL"),
            ("''", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02'", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02QQ'", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02U'", "ulid|Crockford"),
            ("'81H455VB4PEX5VSKNK084SN02Q'", "ulid|7ZZZ"),
            ("E'01H455VB4PEX5VSKNK084SN02\\n'", "ulid"),
            ("'01890a5d-ac96-774b-bcce-b302099a8057'", "ulid|26"),
            ("repeat('é', 13)", "ulid"),
            ("repeat('0', 10000000)", "ulid|26"),
        ] {
            assert_eq!(fault(&ULID_TO_UUID.with("ulid", expression), "ES005", named), None);
        }
    }

    #[pg_test]
    fn es_stream_name_refuses_bad_parts() {
        argument_refuses(
            &STREAM_NAME,
            "category",
            &[
                ("null", "ES005", "category|must not be NULL"),
                ("''", "ES004", "category|empty"),
                ("'a-b'", "ES004", "category|-"),
                ("' a'", "ES004", "category|blank"),
                ("E'a\\n'", "ES004", "category|control"),
                ("repeat('x', 511)", "ES004", "512"),
                ("repeat('x', 10000000)", "ES004", "512"),
            ],
        );
        for (expression, code, named) in [
            ("null", "ES005", "id|must not be NULL"),
            ("''", "ES004", "id|empty"),
            ("'1 '", "ES004", "id|blank"),
            ("E'1\\n'", "ES004", "id|control"),
            ("repeat('x', 511)", "ES004", "512"),
        ] {
            assert_eq!(fault(&STREAM_NAME.with("id", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_verify_stream_refuses_bad_stream_names() {
        argument_refuses(&VERIFY_STREAM, "stream", BAD_STREAM_NAMES);
        assert_eq!(fault(&VERIFY_STREAM.with("stream", "'none-1'"), "ES002", "none-1"), None);
    }

    #[pg_test]
    fn es_verify_and_es_chain_heads_refuse_bad_positions() {
        argument_refuses(
            &VERIFY,
            "from_position",
            &[
                ("null", "ES005", "from_position|must not be NULL"),
                ("-1", "ES005", "from_position|-1"),
                ("-9223372036854775808", "ES005", "from_position"),
            ],
        );
        assert_eq!(fault(&VERIFY.with("to_position", "-1"), "ES005", "to_position|-1"), None);
        assert_eq!(
            fault("select * from es_verify(from_position => 10, to_position => 9)", "ES005", "to_position|10|9"),
            None
        );
        assert_eq!(fault(&CHAIN_HEADS.with("up_to", "-1"), "ES005", "up_to|-1"), None);
        assert_eq!(fault(&CHAIN_HEADS.with("up_to", "-9223372036854775808"), "ES005", "up_to"), None);
    }

    #[pg_test]
    fn tenant_functions_refuse_bad_names() {
        let bad: &[Bad] = &[
            ("null", "ES005", "tenant|must not be NULL"),
            ("''", "ES005", "tenant|empty"),
            ("repeat('x', 256)", "ES005", "tenant|255"),
            ("repeat('x', 10000000)", "ES005", "tenant|255"),
            ("E'a\\nb'", "ES005", "tenant|control"),
            ("' a'", "ES005", "tenant|blank"),
            ("'a '", "ES005", "tenant|blank"),
        ];
        argument_refuses(&CREATE_TENANT, "tenant", bad);
        for (expression, code, named) in bad {
            assert_eq!(fault(&USE_TENANT.with("tenant", expression), code, named), None);
            if *expression != "null" {
                assert_eq!(fault(&GRANT.with("tenant", expression), "ES040", "tenant"), None);
                assert_eq!(fault(&REVOKE.with("tenant", expression), "ES040", "tenant"), None);
            }
        }
        assert_eq!(fault(&CREATE_TENANT.with("tenant", "'default'"), "ES005", "tenant|default|already"), None);
        assert_eq!(fault(&USE_TENANT.with("tenant", "'none'"), "ES040", "tenant|none"), None);
        assert_eq!(fault(&GRANT.with("tenant", "'none'"), "ES040", "tenant|none"), None);
        assert_eq!(fault(&REVOKE.with("tenant", "'none'"), "ES040", "tenant|none"), None);
    }

    #[pg_test]
    fn a_nonsense_setting_eventstream_tenant_is_named_and_refused() {
        for tenant in ["E'a\\nb'", "repeat('x', 1000000)", "' default'"] {
            run(&format!("select set_config('eventstream.tenant', {tenant}, true)"));
            assert_eq!(fault("select es_stream_version('kept-1')", "ES040", "tenant"), None);
        }
    }

    #[pg_test]
    fn es_grant_and_es_revoke_refuse_bad_input() {
        let bad: &[(&str, &str, &str)] = &[
            ("role", "null", "role|must not be NULL"),
            ("role", "''", "role"),
            ("role", "'no_such_role'", "role|no_such_role"),
            ("role", "E'a\\nb'", "role"),
            ("privilege", "null", "privilege|must not be NULL"),
            ("privilege", "''", "privilege|read, append, manage, audit, admin"),
            ("privilege", "'READ'", "privilege|READ"),
            ("privilege", "'write'", "privilege|write"),
            ("privilege", "E'read\\n'", "privilege"),
            ("privilege", "repeat('x', 10000000)", "privilege"),
            ("category", "''", "category|empty"),
            ("category", "'a-b'", "category"),
            ("category", "' a'", "category|blank"),
            ("category", "E'a\\n'", "category|control"),
            ("category", "repeat('x', 511)", "category|510"),
        ];
        let statements: Vec<_> = bad
            .iter()
            .flat_map(|(argument, expression, named)| {
                // A role that is gone may still have grants to be revoked.
                let of_revoke =
                    if *argument == "role" && *expression != "null" { "privilege|role|read" } else { *named };
                [
                    (GRANT.with(argument, expression), "ES005", *named),
                    (REVOKE.with(argument, expression), "ES005", of_revoke),
                ]
            })
            .collect();
        refuses(&statements);
        for privilege in ["manage", "audit", "admin"] {
            let statement = format!("select es_grant('public', '{privilege}', category => 'a')");
            assert_eq!(fault(&statement, "ES005", &format!("category|{privilege}")), None);
        }
        assert_eq!(fault("select es_revoke('public', 'audit')", "ES005", "audit|public"), None);
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
