//! es_history, es_timeline, es_explain_state, es_simulate.
use super::{BAD_STREAM_NAMES, Call, argument_refuses, fault};

const HISTORY: Call = Call { function: "es_history", good: &[("stream", "'account-1'")] };
const TIMELINE: Call = Call { function: "es_timeline", good: &[("stream", "'account-1'")] };
const EXPLAIN: Call = Call { function: "es_explain_state", good: &[("stream", "'account-1'")] };
const SIMULATE: Call = Call {
    function: "es_simulate",
    good: &[("stream", "'account-1'"), ("events", r#"'[{"type": "T", "payload": {"amount": 1}}]'"#)],
};

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg_test::sql::value;
    use crate::pg_test::state_history::account;
    use pgrx::pg_test;

    #[pg_test]
    fn the_calls_of_history_refuse_bad_streams_and_folds() {
        account();
        for call in [&HISTORY, &TIMELINE, &EXPLAIN, &SIMULATE] {
            for (expression, code, named) in BAD_STREAM_NAMES {
                assert_eq!(fault(&call.with("stream", expression), code, named), None);
            }
            for (argument, expression, code, named) in [
                ("stream", "'item-1'", "ES010", "item|no default fold"),
                ("fold", "'nope'", "ES010", "nope|account"),
                ("fold", "''", "ES010", "fold"),
                ("fold", "repeat('x', 1000000)", "ES010", "fold"),
                ("fold", "repeat('x', 10000000)", "ES005", "fold|must be shorter|10000000"),
            ] {
                assert_eq!(fault(&call.with(argument, expression), code, named), None);
            }
            if call.function != "es_simulate" {
                assert_eq!(fault(&call.with("stream", "'account-2'"), "ES002", "account-2|does not exist"), None);
            }
        }
    }

    #[pg_test]
    fn es_history_refuses_bad_ranges() {
        account();
        for (argument, expression, named) in [
            ("from_version", "null", "from_version|must not be NULL"),
            ("from_version", "0", "from_version|0"),
            ("from_version", "-1", "from_version|-1"),
            ("from_version", "-9223372036854775808", "from_version"),
            ("max_count", "-1", "max_count|-1"),
            ("max_count", "-9223372036854775808", "max_count"),
        ] {
            assert_eq!(fault(&HISTORY.with(argument, expression), "ES005", named), None);
        }
    }

    #[pg_test]
    fn the_ends_of_time_are_moments_as_any_other() {
        account();
        let count = |call: &str| value(&format!("select count(*) from {call}"));
        assert_eq!(count("es_timeline('account-1', 'infinity')"), "5");
        assert_eq!(count("es_timeline('account-1', '-infinity')"), "0");
        for argument in ["as_of", "known_at"] {
            let state = |moment: &str| {
                value(&format!("select es_explain_state('account-1', {argument} => {moment}) #> '{{state,balance}}'"))
            };
            assert_eq!(state("'infinity'"), "63.50");
            assert_eq!(state("'-infinity'"), "0.00");
            assert_eq!(state("null"), "63.50");
            assert_eq!(state("'294276-12-31 23:59:59.999999+00'"), "63.50");
        }
    }

    #[pg_test]
    fn es_simulate_refuses_bad_events() {
        account();
        argument_refuses(
            &SIMULATE,
            "events",
            &[
                ("null", "ES005", "events|must not be NULL"),
                ("'null'", "ES005", "events|array"),
                ("'{}'", "ES005", "events|array"),
                ("'[]'", "ES005", "events|at least one"),
                ("'[1]'", "ES005", "events[0]|object"),
                (r#"'[{"payload": 1}]'"#, "ES005", "events[0].type"),
                (r#"'[{"type": "T"}]'"#, "ES005", "events[0].payload"),
                (r#"'[{"type": "", "payload": 1}]'"#, "ES005", "events[0].type"),
                (r#"'[{"type": "StreamClosed", "payload": 1}]'"#, "ES005", "events[0].type"),
                (
                    r#"'[{"type": "T", "payload": 1}, {"type": "T", "payload": 1, "metadata": 1}]'"#,
                    "ES005",
                    "events[1].metadata",
                ),
                (r#"'[{"type": "T", "payload": 1, "event_id": "x"}]'"#, "ES005", "events[0].event_id"),
                (
                    r#"'[{"type": "T", "payload": 1, "occurred_at": "infinity"}]'"#,
                    "ES005",
                    "events[0].occurred_at|date, time and zone",
                ),
                (
                    r#"'[{"type": "T", "payload": 1, "occurred_at": "3000-01-01T00:00:00Z"}]'"#,
                    "ES007",
                    "eventstream.max_future_skew",
                ),
                (r#"'[{"type": "T", "payload": 1, "schema_version": 0}]'"#, "ES005", "events[0].schema_version"),
                (r#"'[{"type": "T", "payload": 1, "surprise": 1}]'"#, "ES005", "events[0].surprise"),
                (
                    "('[{\"type\": \"T\", \"payload\": ' || repeat('[', 100) || repeat(']', 100) || '}]')::jsonb",
                    "ES007",
                    "eventstream.max_json_depth",
                ),
                ("'[{\"type\": \"T\", \"payload\": 1e5000}]'", "ES007", "eventstream.max_number_digits"),
            ],
        );
    }
}
