//! Commands: keys and what a repetition must have in common with the first; what is said of a command that comes to nothing.
use eventstream_core::Error;
use eventstream_core::breach::Breach;
use eventstream_core::command::key::{MOST_KEY_BYTES, Repeated, check_key};
use eventstream_core::undecided::{EXAMPLE, Undecided};
use serde_json::json;

const FIRST: Repeated = Repeated {
    stream: "account-1",
    command_type: "Withdraw",
    payload: b"{\"amount\": 1.00}",
    whole: b"",
    occurred_at: None,
};

#[test]
fn a_key_has_1_to_1024_bytes() {
    for good in ["k", "Ünïcode 1/2 - x", &"x".repeat(MOST_KEY_BYTES)] {
        assert_eq!(check_key(good), Ok(good));
    }
    for bad in ["", " ", "k ", "a\nb", "\u{200B}", &"x".repeat(MOST_KEY_BYTES + 1)] {
        let error = check_key(bad).expect_err(bad);
        assert_eq!(error.sqlstate(), "ES005", "{bad:?}");
        assert!(error.to_string().starts_with("command_key must "), "{error}");
    }
}

#[test]
fn every_part_of_a_command_tells_it_from_another() {
    let others = [
        Repeated { stream: "account-2", ..FIRST },
        Repeated { command_type: "Deposit", ..FIRST },
        Repeated { payload: b"{\"amount\": 1.0}", ..FIRST },
        Repeated { occurred_at: Some(0), ..FIRST },
        Repeated { stream: "account-1Withdraw", command_type: "", ..FIRST },
    ];
    assert_eq!(FIRST.digest(b"salt"), Repeated { ..FIRST }.digest(b"salt"));
    // What is protected of it is compared where its own row is executed, and nowhere else.
    let hidden = Repeated { payload: b"{\"name\": null}", whole: b"{\"name\": \"Mia\"}", ..FIRST };
    let before = Repeated { payload: hidden.whole, ..hidden }.digest(b"salt");
    assert!(hidden.has(b"salt", Some(&hidden.digest(b"salt")), false) && hidden.has(b"salt", Some(&before), true));
    assert!(!hidden.has(b"salt", Some(&before), false) && !hidden.has(b"salt", None, true));
    assert_ne!(FIRST.digest(b"salt"), FIRST.digest(b"tlas"));
    for other in others {
        assert_ne!(FIRST.digest(b"salt"), other.digest(b"salt"), "{other:?}");
    }
}

/// One of each, with its SQLSTATE, and a part of its message, detail and hint.
fn every_one() -> Vec<(Undecided, &'static str, &'static str, serde_json::Value, &'static str)> {
    let (decider, command_type) = (|| "cashier".to_owned(), || "Withdraw".to_owned());
    let breach = || Breach { value: "/amount".into(), kind: "a string", rule: "/type".into(), more: None };
    vec![
        (
            Undecided::Refused {
                code: "insufficient_funds".into(),
                message: "only 3.00 are there".into(),
                detail: json!({"available": 3, "code": "mine"}).as_object().cloned().unwrap_or_default(),
            },
            "ES033",
            "only 3.00 are there",
            json!({"available": 3, "code": "insufficient_funds"}),
            "",
        ),
        (
            Undecided::ScheduledBefore {
                decider: decider(),
                key: "lapse-1".into(),
                category: "hold".into(),
                stands: "it was scheduled before, and is done".into(),
                stage: Some("done".into()),
            },
            "ES030",
            "decider \"cashier\" schedules command key \"lapse-1\" of category \"hold\", and it was scheduled before, and is done",
            json!({"decider": "cashier", "command_key": "lapse-1", "of": "category \"hold\"", "stage": "done"}),
            "refuses (es_require)",
        ),
        (
            Undecided::BeyondBoundary { decider: decider(), reason: "it appends to \"account-2\"".into() },
            "ES034",
            "decider \"cashier\" goes beyond its boundary: it appends to \"account-2\"",
            json!({"decider": "cashier", "reason": "it appends to \"account-2\""}),
            "its boundary names",
        ),
        (
            Undecided::TypeUnknown {
                decider: decider(),
                command_type: "Rob".into(),
                known: vec!["Deposit".into(), command_type()],
            },
            "ES035",
            "decider \"cashier\" takes no command \"Rob\"",
            json!({"decider": "cashier", "command_type": "Rob", "commands": ["Deposit", "Withdraw"]}),
            "It takes: Deposit, Withdraw.",
        ),
        (
            Undecided::NotFound { decider: None, category: Some("account".into()) },
            "ES036",
            "category \"account\" has no default decider",
            json!({"decider": null, "category": "account"}),
            "eventstream.deciders",
        ),
        (
            Undecided::NotFound { decider: Some(decider()), category: Some("account".into()) },
            "ES036",
            "there is no decider \"cashier\" for category \"account\"",
            json!({"decider": "cashier", "category": "account"}),
            "es_register_decider()",
        ),
        (
            Undecided::PayloadRefused {
                what: "the payload",
                decider: decider(),
                command_type: command_type(),
                breach: breach(),
            },
            "ES016",
            "the payload of command \"Withdraw\" is refused by its schema, of decider \"cashier\": \"/amount\", which is a string, breaks the rule \"/type\"",
            json!({"decider": "cashier", "command_type": "Withdraw", "value": "/amount", "kind": "a string", "rule": "/type"}),
            "select commands -> 'Withdraw' -> 'schema' from eventstream.deciders where name = 'cashier';",
        ),
        (
            Undecided::PayloadRefused {
                what: EXAMPLE,
                decider: decider(),
                command_type: command_type(),
                breach: breach(),
            },
            "ES016",
            "the example of command \"Withdraw\" is refused by its schema, of decider \"cashier\": \"/amount\", which is a string, breaks the rule \"/type\"",
            json!({"decider": "cashier", "command_type": "Withdraw", "value": "/amount", "kind": "a string", "rule": "/type"}),
            "Nothing of this call was kept",
        ),
        (
            Undecided::Unusable { decider: decider(), reason: "its function is gone".into() },
            "ES037",
            "decider \"cashier\" cannot be used: its function is gone",
            json!({"decider": "cashier", "reason": "its function is gone"}),
            "es_register_decider()",
        ),
        (
            Undecided::Failed {
                decider: decider(),
                command_type: command_type(),
                stream: "account-1".into(),
                reason: "its answer is NULL".into(),
                hint: Some("An empty array is: nothing happens.".into()),
            },
            "ES037",
            "decider \"cashier\" failed on command \"Withdraw\" for stream \"account-1\": its answer is NULL",
            json!({"decider": "cashier", "command_type": "Withdraw", "stream": "account-1", "reason": "its answer is NULL"}),
            "nothing happens",
        ),
        (
            Undecided::TestsFailed { count: 1, of: 7, failed: vec!["2 - never more".into()], raised: 0 },
            "ES038",
            "1 of 7 tests failed",
            json!({"plan": "1..7", "count": 1, "failed": ["2 - never more"], "errors": 0}),
            "what was expected, and what was found",
        ),
        (
            Undecided::TestsFailed { count: 0, of: 7, failed: Vec::new(), raised: 2 },
            "ES038",
            "0 of 7 tests failed, and 2 calls of es_test ended in an error",
            json!({"plan": "1..7", "count": 0, "failed": [], "errors": 2}),
            "a call that ended in an error was not made",
        ),
        (
            Undecided::OtherRole { role: "a clerk".into(), other: "teller".into() },
            "42501",
            "role \"a clerk\" may not become role \"teller\"",
            json!({"role": "a clerk", "as_role": "teller"}),
            "grant \"teller\" to \"a clerk\";",
        ),
    ]
}

#[test]
fn each_has_its_code_message_machine_readable_detail_and_hint() {
    for (undecided, sqlstate, message, detail, hint) in every_one() {
        let error = Error::Undecided(Box::new(undecided));
        assert_eq!(error.sqlstate(), sqlstate, "{error}");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.detail(), Some(detail), "{error}");
        let found = error.hint().unwrap_or_default();
        assert!(found.contains(hint), "{error}: {found}");
    }
}
