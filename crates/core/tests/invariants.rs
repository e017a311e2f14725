//! Invariants: what is required of a state, and what is said of one that is broken.
use eventstream_core::Error;
use eventstream_core::json::Value;
use eventstream_core::rules::Requirement;
use eventstream_core::violation::{Fault, Violation};
use serde_json::json;

fn unmet(require: &str, state: &str) -> Option<[String; 2]> {
    let (require, state) = (Requirement::parse(require).expect(require), Value::parse(state).expect(state));
    let found = require.unmet(|pointer| Ok::<_, ()>(pointer.find(&state).cloned())).expect("it reads a value");
    found.map(|unmet| [unmet.said(true), unmet.said(false)])
}

#[test]
fn a_state_meets_what_is_asked_or_it_is_said_what_it_does_not_meet() {
    let state = r#"{"available": 5.00, "limit": 4, "name": "b", "none": null, "list": [1, {"a": true}], "low": -0.01}"#;
    let good = [
        r#"{"/available": 5}"#,
        r#"{"/available": {"at_least": 5.000, "at_most": 5, "more_than": 4.99, "less_than": 5.01, "equals": 5, "differs": 6}}"#,
        r#"{"/available": {"more_than": {"from": "/limit"}}, "state:/limit": {"less_than": {"from": "state:/available"}}}"#,
        r#"{"/available": {"at_least": {"from": "/missing", "default": 5}}}"#,
        r#"{"/name": {"more_than": "a"}, "/none": null, "/list/1/a": true, "": {"exists": true}}"#,
        r#"{"/missing": {"exists": false}, "/name": {"exists": true}, "/other": {"differs": 1}}"#,
    ];
    for good in good {
        assert_eq!(unmet(good, state), None, "{good}");
    }
    let bad = [
        (r#"{"/low": {"at_least": 0}}"#, "state /low must be at least the number 0", "and is the number -0.01"),
        (
            r#"{"/available": {"at_most": 4.99}}"#,
            "state /available must be at most the number 4.99",
            "and is the number 5.00",
        ),
        (
            r#"{"/available": {"less_than": 5}}"#,
            "state /available must be less than the number 5",
            "and is the number 5.00",
        ),
        (
            r#"{"/available": {"more_than": 5}}"#,
            "state /available must be more than the number 5",
            "and is the number 5.00",
        ),
        (r#"{"/available": 4}"#, "state /available must equal the number 4", "and is the number 5.00"),
        (
            r#"{"/available": {"differs": 5.0}}"#,
            "state /available must differ from the number 5.0",
            "and is the number 5.00",
        ),
        (r#"{"/missing": {"at_least": 0}}"#, "state /missing must be at least the number 0", "and is missing"),
        (r#"{"/missing": null}"#, "state /missing must equal null", "and is missing"),
        (r#"{"/name": {"at_least": 0}}"#, "state /name must be at least the number 0", "and is the string \"b\""),
        (r#"{"/none": {"at_most": 0}}"#, "state /none must be at most the number 0", "and is null"),
        (r#"{"/list": {"at_most": "x"}}"#, "state /list must be at most the string \"x\"", "and is an array"),
        (r#"{"/missing": {"exists": true}}"#, "state /missing must exist", "and is missing"),
        (r#"{"/none": {"exists": false}}"#, "state /none must not exist", "and is null"),
        (
            r#"{"/available": {"at_most": {"from": "/limit"}}}"#,
            "state /available must be at most state /limit",
            "and is the number 5.00; state /limit is the number 4",
        ),
        (
            r#"{"/available": {"at_most": {"from": "/missing"}}}"#,
            "state /available must be at most state /missing",
            "and is the number 5.00; state /missing is missing",
        ),
    ];
    for (bad, asked, found) in bad {
        assert_eq!(unmet(bad, state), Some([format!("{asked}, {found}"), asked.into()]), "{bad}");
    }
    // The second condition of a place, and the second place.
    assert!(unmet(r#"{"/available": {"at_least": 0, "at_most": 1}}"#, state).is_some());
    assert!(unmet(r#"{"/available": 5, "/low": {"at_least": 0}}"#, state).is_some());
}

#[test]
fn what_is_no_requirement_is_refused_by_its_place() {
    let many = format!("{{{}}}", (0..101).map(|n| format!("\"/a{n}\": 1")).collect::<Vec<_>>().join(","));
    let long = format!("{{\"/a\": \"{}\"}}", "x".repeat(Requirement::MOST_BYTES));
    let bad = [
        ("", "/require"),
        ("[]", "/require"),
        ("{}", "/require"),
        ("5", "/require"),
        (r#"{"available": {"at_least": 0}}"#, "/require/available"),
        (r#"{"/a": {"at_least": null}}"#, "/require/~1a/at_least"),
        (r#"{"/a": {"atleast": 0}}"#, "/require/~1a/atleast"),
        (r#"{"/a": {}}"#, "/require/~1a"),
        (r#"{"/a": []}"#, "/require/~1a"),
        (r#"{"/a": {"exists": 1}}"#, "/require/~1a/exists"),
        (r#"{"event:/version": 1}"#, "/require"),
        (r#"{"/a": {"equals": {"from": "event:/version"}}}"#, "/require"),
        (r#"{"/balances/{/currency}": 1}"#, "/require"),
        (r#"{"/a": {"at_least": {"from": "/b/{/c}", "default": 1}}}"#, "/require"),
        (r#"{"/a": {"at_least": 1e1001}}"#, "/require/~1a/at_least"),
        (many.as_str(), "/require"),
        (long.as_str(), "/require"),
    ];
    for (bad, place) in bad {
        match Requirement::parse(bad) {
            Err(Error::InvalidRules { pointer, reason }) => {
                assert_eq!(pointer, place, "{bad:.60}: {reason}");
                assert!(reason.starts_with("must "), "{reason}");
            }
            other => panic!("{bad:.60}: {other:?}"),
        }
    }
}

#[test]
fn what_is_broken_is_told_with_its_streams() {
    let mut violation = Violation {
        invariant: "it's balanced".into(),
        streams: (1..=12).map(|n| format!("account-{n}")).collect(),
        reason: "debits are 5.00, credits 4.00".into(),
        fault: Fault::Broken,
    };
    let error = Error::InvariantBroken(Box::new(violation.clone()));
    assert_eq!(error.sqlstate(), "ES019");
    assert_eq!(error.to_string(), "invariant \"it's balanced\" is broken: debits are 5.00, credits 4.00");
    let detail = error.detail().expect("it has one");
    assert_eq!(detail["streams"].as_array().map(Vec::len), Some(10));
    assert_eq!(detail["streams_in_all"], json!(12));
    assert_eq!(
        (&detail["invariant"], &detail["reason"]),
        (&json!("it's balanced"), &json!("debits are 5.00, credits 4.00"))
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("where name = 'it''s balanced'")));
    assert!(error.is_of_event());
    violation.fault = Fault::Late(200);
    let error = Error::InvariantBroken(Box::new(violation.clone()));
    assert_eq!((error.sqlstate(), error.is_of_event()), ("57014", false));
    assert!(error.to_string().contains("(200 ms)"), "{error}");
    violation.fault = Fault::Unusable;
    let error = Error::InvariantBroken(Box::new(violation));
    assert_eq!(error.sqlstate(), "ES019");
    assert!(error.to_string().contains("cannot be judged") && !error.is_of_event());
    assert!(error.hint().is_some_and(|hint| hint.contains("es_unregister_invariant('it''s balanced')")));
}
