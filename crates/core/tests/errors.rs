//! Errors: SQLSTATE, message, DETAIL and HINT of each condition, as clients see them.

use eventstream_core::broken::{Broken, Failed};
use eventstream_core::error::Match;
use eventstream_core::tokenless::Tokenless;
use eventstream_core::undecided::Undecided;
use eventstream_core::withheld::Withheld;
use eventstream_core::word::CategoryRule;
use eventstream_core::{Error, quote_literal};
use serde_json::json;

fn conflict(expected: i64, actual: i64) -> Error {
    Error::VersionConflict { stream: "account-1000".into(), expected, actual, is_closed: false }
}

#[test]
fn a_failed_condition_says_how_many_were_seen() {
    let words = |seen, matches| {
        let error = Error::ConditionFailed { after: 2, seen: Some(seen), matches, first: None };
        error.to_string().split_once("position 2").unwrap().1.to_owned()
    };
    assert_eq!(words(0, 1), ", and none was seen");
    assert_eq!(words(2, 3), ", and 2 were seen");
    assert_eq!(words(1, 1), ", and others were seen");
}

#[test]
fn a_version_conflict_says_what_to_read_and_what_to_expect_next() {
    let error = conflict(2, 5);
    assert_eq!(error.sqlstate(), "ES001");
    assert_eq!(error.to_string(), "version conflict on stream \"account-1000\": expected version 2, actual version 5");
    assert_eq!(error.detail().unwrap(), json!({"stream": "account-1000", "expected_version": 2, "actual_version": 5}));
    assert_eq!(error.hint().unwrap(), "Read from version 3, decide again, and append with expected_version => 5.");
}

#[test]
fn a_conflict_with_a_shorter_stream_does_not_tell_to_read_what_is_not_there() {
    let shorter = conflict(7, 4).hint().unwrap();
    assert!(shorter.contains("has only 4 events") && shorter.contains("expected_version => 4"), "{shorter}");
    let empty = conflict(7, 0).hint().unwrap();
    assert!(empty.contains("has no events") && empty.contains("expected_version => 0"), "{empty}");
    assert!(conflict(i64::MAX, i64::MIN).hint().is_some(), "no overflow");
}

#[test]
fn a_conflict_with_a_closed_stream_does_not_tell_to_append_to_it() {
    for expected in [1, 9] {
        let error = Error::VersionConflict { stream: "account-1".into(), expected, actual: 3, is_closed: true };
        let hint = error.hint().unwrap();
        assert!(hint.contains("is closed at version 3") && !hint.contains("append with"), "{hint}");
    }
}

/// One of each, with its SQLSTATE, and a part of its message, detail and hint.
fn every_error() -> Vec<(Error, &'static str, &'static str, serde_json::Value, &'static str)> {
    vec![
        (
            Error::StreamNotFound { stream: "a-1".into() },
            "ES002",
            "stream \"a-1\" does not exist",
            json!({"stream": "a-1"}),
            "eventstream.tenant",
        ),
        (
            Error::StatesFailed {
                category: "account".into(),
                fold: "balance".into(),
                failed: 2,
                is_all: true,
                is_misfit: false,
                stream: "account-1".into(),
                state: "ES013".into(),
                message: "no number".into(),
            },
            "ES013",
            "2 streams of category \"account\" cannot be folded; the first met is \"account-1\": no number (ES013)",
            json!({"category": "account", "fold": "balance", "streams_failed": 2, "all_counted": true, "stream": "account-1", "sqlstate": "ES013", "error": "no number"}),
            "es_register_upcaster",
        ),
        (
            Error::StatesFailed {
                category: "account".into(),
                fold: "balance".into(),
                failed: 1,
                is_all: false,
                is_misfit: true,
                stream: "account-1".into(),
                state: "22P02".into(),
                message: "column \"limit\" (int) cannot take a string".into(),
            },
            "ES013",
            "at least 1 stream of category \"account\" cannot be shown in the columns asked for; the first met is \"account-1\": column \"limit\" (int) cannot take a string (22P02)",
            json!({"category": "account", "fold": "balance", "streams_failed": 1, "all_counted": false, "stream": "account-1", "sqlstate": "22P02", "error": "column \"limit\" (int) cannot take a string"}),
            "on_error => 'report'",
        ),
        (
            Error::NotInSnapshot { stream: "a-1".into(), version: 2 },
            "40001",
            "could not serialize access: this transaction's snapshot does not show all of stream \"a-1\"",
            json!({"stream": "a-1", "version": 2}),
            "run the transaction again",
        ),
        (
            Error::SnapshotNotFound {
                stream: "a-1".into(),
                fold: "balance".into(),
                version: Some(100),
                reason: Some("its checksum is wrong".into()),
            },
            "ES012",
            "stream \"a-1\" has no snapshot at version 100 by fold \"balance\": its checksum is wrong",
            json!({"stream": "a-1", "fold": "balance", "version": 100, "reason": "its checksum is wrong"}),
            "es_snapshot()",
        ),
        (
            Error::Guarded {
                command: "DROP EXTENSION".into(),
                object: "extension eventstream".into(),
                events: 12,
                more: false,
            },
            "ES051",
            "DROP EXTENSION is refused: extension eventstream belongs to a log with 12 events",
            json!({"command": "DROP EXTENSION", "object": "extension eventstream", "events": 12, "more": false}),
            "set eventstream.allow_drop = on;",
        ),
        (
            Error::Guarded { command: "DROP OWNED".into(), object: "table x".into(), events: 1, more: false },
            "ES051",
            "DROP OWNED is refused: table x belongs to a log with 1 event",
            json!({"command": "DROP OWNED", "object": "table x", "events": 1, "more": false}),
            "dump",
        ),
        (
            Error::Guarded { command: "DROP OWNED".into(), object: "table x".into(), events: 10_000, more: true },
            "ES051",
            "DROP OWNED is refused: table x belongs to a log with more than 10000 events",
            json!({"command": "DROP OWNED", "object": "table x", "events": 10_000, "more": true}),
            "superusers",
        ),
        (
            Error::Foreign { operation: "UPDATE".into(), table: "_eventstream.streams".into() },
            "ES050",
            "_eventstream.streams is written by eventstream's own functions only: UPDATE is refused",
            json!({"operation": "UPDATE", "table": "_eventstream.streams"}),
            "never appended",
        ),
        (
            Error::PositionReused { position: 7, highest: 9 },
            "ES052",
            "position 7 is not above 9, the highest one of the log: the sequence of positions was set back",
            json!({"global_position": 7, "highest": 9}),
            "select setval('_eventstream.positions', 9);",
        ),
        (
            Error::InUse {
                command: "DROP OWNED".into(),
                object: "table balances".into(),
                users: vec!["projection \"b\" of tenant default".into()],
                is_table: true,
            },
            "2BP01",
            "DROP OWNED is refused: table balances is used by projection \"b\" of tenant default",
            json!({"command": "DROP OWNED", "object": "table balances", "used_by": ["projection \"b\" of tenant default"]}),
            "drop_table => true",
        ),
        (
            Error::TableUnusable {
                projection: "b's".into(),
                table: "public.balances".into(),
                reason: "it does not exist any more".into(),
            },
            "55000",
            "projection \"b's\" cannot write its state table public.balances: it does not exist any more",
            json!({"projection": "b's", "table": "public.balances", "reason": "it does not exist any more"}),
            "select es_drop_projection('b''s')",
        ),
        (
            Error::InUse {
                command: "DROP OWNED".into(),
                object: "function f()".into(),
                users: vec!["fold \"a\" of tenant default".into(), "projection \"b\" of tenant default".into()],
                is_table: false,
            },
            "2BP01",
            "DROP OWNED is refused: function f() is used by fold \"a\" of tenant default and by projection \"b\" of tenant default",
            json!({"command": "DROP OWNED", "object": "function f()",
                   "used_by": ["fold \"a\" of tenant default", "projection \"b\" of tenant default"]}),
            "end its use: select es_unregister_fold('a');",
        ),
        (
            Error::InUse {
                command: "DROP OWNED".into(),
                object: "function f()".into(),
                users: vec!["the upcaster of \"It's\"\"\" from schema version 3 of tenant other".into()],
                is_table: false,
            },
            "2BP01",
            "DROP OWNED is refused: function f() is used by the upcaster of \"It's\"\"\" from schema version 3 of tenant other",
            json!({"command": "DROP OWNED", "object": "function f()", "used_by": ["the upcaster of \"It's\"\"\" from schema version 3 of tenant other"]}),
            "in tenant other: select es_unregister_upcaster('It''s\"', 3);",
        ),
        (
            Error::FoldNotFound { fold: None, category: None },
            "ES010",
            "what the boundary's items match has no fold: the decider names none of no category",
            json!({"fold": null, "category": null}),
            "Register a fold of no category",
        ),
        (
            Error::StreamClosed { stream: "a-1".into(), version: 9 },
            "ES003",
            "stream \"a-1\" was closed at version 9",
            json!({"stream": "a-1", "version": 9}),
            "another stream",
        ),
        (
            Error::InvalidStreamName { name: "a".into(), reason: "must be category-id".into() },
            "ES004",
            "invalid stream name \"a\": must be category-id",
            json!({"stream": "a", "reason": "must be category-id"}),
            "account-1000",
        ),
        (
            Error::InvalidArgument {
                argument: "max_count".into(),
                reason: "must be at least 1, not 0".into(),
                hint: Some("Leave it out for all.".into()),
            },
            "ES005",
            "max_count must be at least 1, not 0",
            json!({"argument": "max_count", "reason": "must be at least 1, not 0"}),
            "Leave it out for all.",
        ),
        (
            Error::CommandKeyReused { of: "operation \"charge\"".into(), key: "k-1".into() },
            "ES030",
            "command key \"k-1\" of operation \"charge\" was used for another request",
            json!({"of": "operation \"charge\"", "command_key": "k-1"}),
            "a key of its own",
        ),
        (
            Error::CommandKeyHidden { of: "category \"account\"".into(), key: "k-1".into() },
            "ES030",
            "command key \"k-1\" of category \"account\" was used before fields of such requests were protected as they are now: whether this one is the same cannot be told any more",
            json!({"of": "category \"account\"", "command_key": "k-1"}),
            "what came of it the first time",
        ),
        (
            Error::Undecided(Box::new(Undecided::GivenUp { key: "k-1".into(), category: "stock".into() })),
            "ES030",
            "command key \"k-1\" of category \"stock\" is used up: the command that was scheduled with it is not to be executed any more",
            json!({"of": "category \"stock\"", "command_key": "k-1"}),
            "another key",
        ),
        (
            Error::AttemptLost {
                attempt_token: "00000000-0000-0000-0000-000000000001".into(),
                reason: "it was superseded by attempt 2".into(),
            },
            "ES031",
            "attempt 00000000-0000-0000-0000-000000000001 is not under way: it was superseded by attempt 2",
            json!({
                "attempt_token": "00000000-0000-0000-0000-000000000001", "reason": "it was superseded by attempt 2"
            }),
            "Begin again with the same key",
        ),
        (
            Error::PageRefused,
            "ES032",
            "the page is none of this query",
            json!({ "argument": "page" }),
            "A page goes on with the query that gave it",
        ),
        (
            Error::RuleBroken(Box::new(Broken {
                what: "event 1 for stream \"a-1\"".into(),
                rule: CategoryRule::EventId,
                category: "a".into(),
                stream: Some("a-1".into()),
                reason: "it has no event_id".into(),
                hint: "Give an event_id.".into(),
                failed: None,
                undeclared: None,
            })),
            "ES017",
            "event 1 for stream \"a-1\" breaks the rule event_id of category \"a\": it has no event_id",
            json!({"rule": "event_id", "category": "a", "stream": "a-1"}),
            "Give an event_id.",
        ),
        (
            Error::RuleBroken(Box::new(Broken {
                what: "the append to stream \"a-1\"".into(),
                rule: CategoryRule::Foldable,
                category: "a".into(),
                stream: Some("a-1".into()),
                reason: "fold \"f\" cannot take it".into(),
                hint: "Mend it.".into(),
                failed: Some(Failed { fold: "f".into(), sqlstate: "P0001".into(), message: None }),
                undeclared: None,
            })),
            "ES017",
            "the append to stream \"a-1\" breaks the rule foldable of category \"a\": fold \"f\" cannot take it",
            json!({"rule": "foldable", "category": "a", "stream": "a-1", "fold": "f", "sqlstate": "P0001", "error": null}),
            "Mend it.",
        ),
        (
            Error::PeriodClosed {
                what: "event 2 for stream \"a-1\"".into(),
                category: "a".into(),
                tag: Some("company:1".into()),
                closed_until: "2024-12-31T22:59:59.999999+00:00".into(),
                occurred_at: "2024-12-30T12:00:00+00:00".into(),
            },
            "ES018",
            "event 2 for stream \"a-1\" occurred at 2024-12-30T12:00:00+00:00, and category \"a\" is closed until \
             2024-12-31T22:59:59.999999+00:00 for events with the tag \"company:1\"",
            json!({
                "category": "a", "tag": "company:1", "closed_until": "2024-12-31T22:59:59.999999+00:00",
                "occurred_at": "2024-12-30T12:00:00+00:00"
            }),
            "where category = 'a' and reopened_at is null;",
        ),
        (
            Error::EventIdReused {
                stream: "a-1".into(),
                event_id: "00000000-0000-0000-0000-000000000001".into(),
                version: Some(4),
                reason: "with another payload".into(),
            },
            "ES006",
            "event id 00000000-0000-0000-0000-000000000001 is already in stream \"a-1\" at version 4, with another payload",
            json!({
                "stream": "a-1", "event_id": "00000000-0000-0000-0000-000000000001", "version": 4,
                "reason": "with another payload"
            }),
            "es_new_event_id()",
        ),
        (
            Error::EventIdReused {
                stream: "a-1".into(),
                event_id: "00000000-0000-0000-0000-000000000001".into(),
                version: None,
                reason: "in one batch".into(),
            },
            "ES006",
            "event id 00000000-0000-0000-0000-000000000001 is given twice for stream \"a-1\", in one batch",
            json!({
                "stream": "a-1", "event_id": "00000000-0000-0000-0000-000000000001", "version": null,
                "reason": "in one batch"
            }),
            "es_new_event_id()",
        ),
        (
            Error::LimitExceeded {
                setting: "eventstream.max_payload_bytes",
                limit: 1_048_576,
                actual: Some(1_048_577),
                what: "payload has 1048577 bytes as text".into(),
            },
            "ES007",
            "payload has 1048577 bytes as text, more than eventstream.max_payload_bytes allows (1048576)",
            json!({
                "setting": "eventstream.max_payload_bytes", "limit": 1_048_576, "actual": 1_048_577,
                "what": "payload has 1048577 bytes as text"
            }),
            "raise eventstream.max_payload_bytes, which is 1048576 now.",
        ),
        (
            Error::LimitExceeded {
                setting: "eventstream.max_json_depth",
                limit: 64,
                actual: None,
                what: "payload is nested too deep".into(),
            },
            "ES007",
            "payload is nested too deep, more than eventstream.max_json_depth allows (64)",
            json!({"setting": "eventstream.max_json_depth", "limit": 64, "actual": null, "what": "payload is nested too deep"}),
            "superuser",
        ),
        (
            Error::PreloadRequired { what: "es_read_all".into() },
            "ES008",
            "es_read_all needs eventstream in shared_preload_libraries",
            json!({"needed_by": "es_read_all", "setting": "shared_preload_libraries"}),
            "shared_preload_libraries = 'eventstream'",
        ),
        (
            Error::PrimaryRequired { what: "es_append".into() },
            "ES009",
            "es_append needs the primary, and this server is a standby",
            json!({"needed_by": "es_append"}),
            "primary",
        ),
        (
            Error::FoldNotFound { fold: Some("f".into()), category: Some("account".into()) },
            "ES010",
            "there is no fold \"f\" for category \"account\"",
            json!({"fold": "f", "category": "account"}),
            "eventstream.folds",
        ),
        (
            Error::FoldNotFound { fold: Some("f".into()), category: None },
            "ES010",
            "there is no fold \"f\"",
            json!({"fold": "f", "category": null}),
            "es_register_fold()",
        ),
        (
            Error::FoldNotFound { fold: None, category: Some("account".into()) },
            "ES010",
            "category \"account\" has no default fold",
            json!({"fold": null, "category": "account"}),
            "es_register_fold()",
        ),
        (
            Error::InvalidRules { pointer: "/on".into(), reason: "must be an object, not null".into() },
            "ES011",
            "invalid rules: /on must be an object, not null",
            json!({"pointer": "/on", "reason": "must be an object, not null"}),
            "docs/rules.md",
        ),
        (
            Error::InvalidRules { pointer: String::new(), reason: "must be an object, not null".into() },
            "ES011",
            "invalid rules: the document must be an object, not null",
            json!({"pointer": "", "reason": "must be an object, not null"}),
            "docs/rules.md",
        ),
        (
            Error::FoldUnusable { fold: "f".into(), reason: "its function is gone".into() },
            "ES013",
            "fold \"f\" cannot be used: its function is gone",
            json!({"fold": "f", "reason": "its function is gone"}),
            "es_register_fold()",
        ),
        (
            Error::FoldFailed { fold: "f".into(), stream: "o-'".into(), version: 3, reason: "it returned NULL".into() },
            "ES013",
            "fold \"f\" failed on stream \"o-'\" at version 3: it returned NULL",
            json!({"fold": "f", "stream": "o-'", "version": 3, "reason": "it returned NULL"}),
            "select * from es_read('o-''', from_version => 3, max_count => 1).",
        ),
        (
            Error::UnwrittenFailed {
                fold: "f".into(),
                stream: "o-1".into(),
                version: 3,
                reason: "it returned NULL".into(),
            },
            "ES013",
            "fold \"f\" failed on stream \"o-1\" at version 3, which is not written: it returned NULL",
            json!({"fold": "f", "stream": "o-1", "version": 3, "reason": "it returned NULL"}),
            "Give the event another payload",
        ),
        (
            Error::UpcastFailed {
                stream: "a-1".into(),
                version: 3,
                event_type: "Paid".into(),
                from_schema_version: 2,
                reason: "it returned NULL".into(),
                is_unusable: false,
            },
            "ES014",
            "upcaster of \"Paid\" from schema version 2 failed on stream \"a-1\" at version 3: it returned NULL",
            json!({
                "stream": "a-1", "version": 3, "event_type": "Paid", "from_schema_version": 2, "reason": "it returned NULL"
            }),
            "raw => true",
        ),
        (
            Error::ConditionFailed {
                after: 17,
                seen: Some(1),
                matches: 3,
                first: Some(Box::new(Match {
                    position: 18,
                    event_type: "Enrolled".into(),
                    tags: vec!["course:1".into()],
                    category: "student".into(),
                })),
            },
            "ES015",
            "the condition does not hold: its query matches 3 events after position 17, and 1 was seen",
            json!({
                "after": 17, "seen": 1, "matches": 3,
                "first": {"global_position": 18, "event_type": "Enrolled", "tags": ["course:1"]}
            }),
            "es_condition(query)",
        ),
        (
            Error::ConditionFailed { after: 17, seen: None, matches: 1, first: None },
            "ES015",
            "the condition does not hold: events that its query matches came after position 17",
            json!({"after": 17, "seen": null, "matches": 1, "first": null}),
            "decide again",
        ),
        (
            Error::ConditionOfAnother { reason: "it was taken on timeline 1, and the server is on 2 now".into() },
            "ES015",
            "the condition does not hold: it was taken on timeline 1, and the server is on 2 now",
            json!({"reason": "it was taken on timeline 1, and the server is on 2 now"}),
            "es_condition(query)",
        ),
        (
            Error::MatchesNotInSnapshot,
            "40001",
            "could not serialize access: this transaction's snapshot does not show all events that the query matches",
            json!({"reason": "events that match came since the snapshot was taken"}),
            "before the transaction begins",
        ),
        (
            Error::PositionAhead { argument: "after_position".into(), position: 500, last_position: 100 },
            "ES025",
            "after_position 500 lies beyond the log, whose last position is 100",
            json!({"argument": "after_position", "global_position": 500, "last_position": 100}),
            "es_log_info()",
        ),
        (
            Error::PositionOfAnother {
                argument: "after_position".into(),
                position: 5,
                given: "00000000-0000-4000-8000-000000000001".into(),
                log_id: "00000000-0000-4000-8000-000000000002".into(),
            },
            "ES025",
            "after_position 5 is of another log: of 00000000-0000-4000-8000-000000000001, and this one is 00000000-0000-4000-8000-000000000002",
            json!({
                "argument": "after_position", "global_position": 5, "given_log_id": "00000000-0000-4000-8000-000000000001",
                "log_id": "00000000-0000-4000-8000-000000000002"
            }),
            "would be skipped",
        ),
        (
            Error::TenantNotFound { tenant: "O'Hara".into() },
            "ES040",
            "tenant \"O'Hara\" does not exist",
            json!({"tenant": "O'Hara"}),
            "select tenant, status from eventstream.tenants;",
        ),
        (
            Error::Withheld(Box::new(Withheld::TenantClosed {
                tenant: "acme".into(),
                closed_at: "2026-01-01T00:00:00.000000+00:00".into(),
                reason: "CHG-1".into(),
            })),
            "ES045",
            "tenant \"acme\" is closed: nothing more is recorded in it",
            json!({"tenant": "acme", "closed_at": "2026-01-01T00:00:00.000000+00:00", "reason": "CHG-1"}),
            "append to another",
        ),
        (
            Error::Withheld(Box::new(Withheld::TenantChanged { tenant: "acme".into(), what: "transaction" })),
            "ES040",
            "tenant \"acme\" is another tenant than the one that this transaction began in",
            json!({"tenant": "acme"}),
            "Begin the transaction again",
        ),
        (
            Error::Withheld(Box::new(Withheld::Unrecorded {
                stream: "account-1".into(),
                waited_ms: 10_000,
                reason: "no worker process was to be had",
            })),
            "ES070",
            "stream \"account-1\" is not revealed: no record of it could be made within 10000 ms",
            json!({"stream": "account-1", "reason": "no worker process was to be had"}),
            "max_worker_processes",
        ),
        (
            Error::Withheld(Box::new(Withheld::RulesChanged)),
            "40001",
            "what is protected has changed since this query began to read",
            json!({"view": "eventstream.protections"}),
            "run the query again",
        ),
        (
            Error::LimitExceeded { setting: "work_mem", limit: 64, actual: None, what: "what is revealed".into() },
            "ES007",
            "what is revealed, more than work_mem allows (64)",
            json!({"setting": "work_mem", "limit": 64, "actual": null, "what": "what is revealed"}),
            "max_count",
        ),
        (
            Error::TenantRequired { role: "bob".into(), tenants: vec!["acme".into(), "emca".into()] },
            "ES041",
            "role \"bob\" must say which tenant it means",
            json!({"role": "bob", "setting": "eventstream.tenant", "tenants": ["acme", "emca"]}),
            "set eventstream.tenant = 'acme'; for the transaction: select es_use_tenant('acme');",
        ),
        (
            Error::Token(Box::new(Tokenless::Required { role: "web".into() })),
            "ES042",
            "role \"web\" needs a token in each transaction, and this one has none",
            json!({"role": "web", "function": "es_use_token"}),
            "select es_use_token($1)",
        ),
        (
            Error::Token(Box::new(Tokenless::OfEveryTenant { role: "ada".into() })),
            "42501",
            "role \"ada\" may not decide for every tenant",
            json!({"role": "ada"}),
            "the owner of the log",
        ),
        (
            Error::Token(Box::new(Tokenless::TellsOfAll { what: "es_metrics()" })),
            "42501",
            "es_metrics() tells of every tenant, and this session is held to one by a token",
            json!({"function": "es_metrics"}),
            "in pg_monitor",
        ),
        (
            Error::Token(Box::new(Tokenless::NoAdmin { role: "web".into(), tenant: "acme".into() })),
            "42501",
            "role \"web\" lacks the privilege \"admin\" in tenant \"acme\"",
            json!({"role": "web", "privilege": "admin", "tenant": "acme", "category": null}),
            "a role that is admin and needs no token",
        ),
        (
            Error::Token(Box::new(Tokenless::LeftOut {
                role: "web".into(),
                privilege: "append",
                tenant: "acme".into(),
                category: Some("account".into()),
            })),
            "42501",
            "the token of this transaction leaves out the privilege \"append\" of role \"web\" in tenant \"acme\" for category \"account\"",
            json!({"role": "web", "privilege": "append", "tenant": "acme", "category": "account"}),
            "no grant is missing",
        ),
        (
            Error::Token(Box::new(Tokenless::Ended)),
            "ES042",
            "the token of this transaction does not count any more",
            json!({"function": "es_use_token"}),
            "a new transaction with a new token",
        ),
        (
            Error::Token(Box::new(Tokenless::Refused)),
            "ES043",
            "the token is refused",
            json!({"argument": "token"}),
            "The server's log says why",
        ),
        (
            Error::Token(Box::new(Tokenless::OtherTenant { tenant: "acme".into(), other: "bank".into() })),
            "ES044",
            "this transaction is of tenant \"acme\" by its token, and not of \"bank\"",
            json!({"tenant": "acme", "other": "bank"}),
            "A transaction has one tenant",
        ),
        (
            Error::Immutable { operation: "UPDATE".into(), table: "_eventstream.events_1".into() },
            "ES050",
            "events cannot be changed: UPDATE on _eventstream.events_1 is refused",
            json!({"operation": "UPDATE", "table": "_eventstream.events_1"}),
            "corrects",
        ),
        (
            Error::OperatorRequired {
                role: "b\"ob".into(),
                tenant: "default".into(),
                category: None,
                is_stranger: false,
            },
            "42501",
            "role \"b\"ob\" is not a member of pg_monitor and lacks the privilege \"manage\" in tenant \"default\"",
            json!({"role": "b\"ob", "privilege": "manage", "tenant": "default", "category": null}),
            "a superuser can run: grant pg_monitor to \"b\"\"ob\"; to steer as well: An admin",
        ),
        (
            Error::InsufficientPrivilege {
                role: "bob".into(),
                privilege: "append",
                tenant: "default".into(),
                category: Some("o'k".into()),
                any: false,
                is_stranger: false,
            },
            "42501",
            "role \"bob\" lacks the privilege \"append\" in tenant \"default\" for category \"o'k\"",
            json!({"role": "bob", "privilege": "append", "tenant": "default", "category": "o'k"}),
            "select es_grant('bob', 'append', tenant => 'default', category => 'o''k');",
        ),
        (
            Error::GateBusy {
                tenant: "acme".into(),
                waited_ms: 50,
                holders: vec![(7, "2024-01-01 00:00:00+00".into())],
            },
            "55P03",
            "the appends of tenant \"acme\" did not come to rest within 50 ms",
            json!({"tenant": "acme", "holders": [{"pid": 7, "since": "2024-01-01 00:00:00+00"}]}),
            "select pg_terminate_backend(7);",
        ),
        (
            Error::ActsBusy {
                tenant: "acme".into(),
                waited_ms: 50,
                holders: vec![(7, "2024-01-01 00:00:00+00".into())],
            },
            "55P03",
            "other acts of administration of tenant \"acme\", or batches of its projections, did not end within 50 ms",
            json!({"tenant": "acme", "holders": [{"pid": 7, "since": "2024-01-01 00:00:00+00"}]}),
            "select pg_terminate_backend(7);). Nothing was changed: call again then, or raise",
        ),
        (
            Error::FeatureNotSupported {
                what: "PREPARE TRANSACTION after an append is not supported".into(),
                hint: Some("Commit instead.".into()),
            },
            "0A000",
            "PREPARE TRANSACTION after an append is not supported",
            json!({"reason": "PREPARE TRANSACTION after an append is not supported"}),
            "Commit instead.",
        ),
    ]
}

#[test]
fn each_error_has_its_code_message_machine_readable_detail_and_hint() {
    for (error, sqlstate, message, detail, hint) in every_error() {
        assert_eq!(error.sqlstate(), sqlstate, "{error}");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.detail(), Some(detail), "{error}");
        let found = error.hint().unwrap_or_default();
        assert!(found.contains(hint), "{error}: {found}");
    }
}

#[test]
fn an_internal_error_is_not_blamed_on_the_user() {
    let error = Error::Internal { what: "no head at version 3".into() };
    assert_eq!(error.sqlstate(), "XX000");
    assert_eq!(error.to_string(), "eventstream internal error: no head at version 3");
    assert_eq!(error.detail(), None);
    assert!(error.hint().unwrap().contains("report"));
}

#[test]
fn a_role_without_any_tenant_is_told_to_ask_for_a_grant() {
    let hint = Error::TenantRequired { role: "bob".into(), tenants: vec![] }.hint().unwrap();
    assert!(hint.contains("es_grant"), "{hint}");
}

#[test]
fn the_grant_in_a_hint_is_one_that_es_grant_accepts() {
    let error = Error::InsufficientPrivilege {
        role: r"dom\bob".into(),
        privilege: "audit",
        tenant: "t".into(),
        category: Some("account".into()),
        any: false,
        is_stranger: false,
    };
    // audit cannot be narrowed to a category, and a backslash needs the E'' form.
    assert!(error.hint().unwrap().ends_with(r"select es_grant(E'dom\\bob', 'audit', tenant => 't');"));
}

#[test]
fn who_has_nothing_in_a_tenant_is_not_told_whether_there_is_one() {
    let role = || ("bob".to_owned(), "t".to_owned());
    let hint = |is_stranger| {
        let (role, tenant) = role();
        Error::InsufficientPrivilege { role, privilege: "read", tenant, category: None, any: false, is_stranger }.hint()
    };
    assert!(hint(true).unwrap().starts_with("Check the tenant's name: one that was renamed"));
    assert!(hint(false).unwrap().starts_with("An admin of the tenant can run: "));
    let (role, tenant) = role();
    let operators = Error::OperatorRequired { role, tenant, category: None, is_stranger: true }.hint().unwrap();
    assert!(operators.contains("Check the tenant's name"), "{operators}");
}

#[test]
fn a_privilege_that_is_enough_for_one_category_is_not_only_to_be_had_for_all() {
    let hint = |privilege, category: Option<&str>, any| {
        let (role, tenant, category) = ("bob".into(), "t".into(), category.map(Into::into));
        Error::InsufficientPrivilege { role, privilege, tenant, category, any, is_stranger: false }.hint().unwrap()
    };
    assert!(
        hint("read", None, true).ends_with("tenant => 't'); For one category: the same with category => '<its name>'.")
    );
    assert!(hint("read", None, false).ends_with("tenant => 't');"));
    assert!(hint("audit", None, true).ends_with("tenant => 't');"));
    assert!(hint("read", Some("account"), true).ends_with("tenant => 't', category => 'account');"));
}

#[test]
fn literals_are_quoted_as_postgresql_does() {
    assert_eq!(quote_literal(""), "''");
    assert_eq!(quote_literal("it's"), "'it''s'");
    assert_eq!(quote_literal(r"a\'b"), r"E'a\\''b'");
}
