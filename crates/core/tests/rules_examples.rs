//! Rules by example: how numbers print, what limits refuse, and where each mistake is said to be.

mod fold_rules;

use eventstream_core::Error;
use eventstream_core::json::Value;
use eventstream_core::rules::{Limits, Rules, State};
use fold_rules::{Event, LIMITS, fold, folded_within, message, rules, value};

#[test]
fn numbers_print_as_jsonb_prints_them() {
    for (text, printed) in [
        ("0.00", "0.00"),
        ("-0", "0"),
        ("-0.00", "0.00"),
        ("1e2", "100"),
        ("1.50e1", "15.0"),
        ("1.5E+1", "15"),
        ("1e-2", "0.01"),
        ("-12e-1", "-1.2"),
        ("0e5", "0"),
        ("0e999999999", "0"),
        ("100.000", "100.000"),
        ("1e-7", "0.0000001"),
    ] {
        assert_eq!(value(text).to_text(), printed, "{text}");
    }
    assert_eq!(value("1e131071").to_text().len(), 131_072);
    assert_eq!(value("1e-16383").to_text().len(), 16_385);
    for beyond in ["1e131072", "1e-16384", "1e999999999", "1e-999999999", "1e99999999999999999999"] {
        assert!(Value::parse(beyond).is_err(), "{beyond}");
    }
    let many = format!("[{}]", ["1e131071"; 9].join(","));
    assert!(Value::parse(&many).unwrap_err().contains("zeros in all"), "90 bytes that take half a megabyte");
}

#[test]
fn a_sum_has_the_larger_scale_as_numeric_has_it() {
    for (a, b, sum, difference) in [
        ("1.00", "2.50", "3.50", "-1.50"),
        ("0.1", "0.10", "0.20", "0.00"),
        ("1", "0.00", "1.00", "1.00"),
        ("0.000", "1", "1.000", "-1.000"),
        ("0.00", "0", "0.00", "0.00"),
        ("0", "0.000", "0.000", "0.000"),
        ("-1.5", "1.50", "0.00", "-3.00"),
        ("99999999999999999999", "0.1", "99999999999999999999.1", "99999999999999999998.9"),
    ] {
        let initial = format!("{{\"n\": {a}}}");
        for (operation, expected) in [("add", sum), ("subtract", difference)] {
            let found = fold(&format!("[{{\"{operation}\": {{\"/n\": \"\"}}}}]"), &initial, &[b]);
            assert_eq!(found, Ok(format!("{{\"n\": {expected}}}")), "{a} {operation} {b}");
        }
    }
    assert_eq!(fold(r#"[{"increment": "/n"}]"#, r#"{"n": -0.50}"#, &["0"]), Ok(r#"{"n": 0.50}"#.into()));
}

#[test]
fn escaped_names_reach_their_members() {
    let rule = r#"[{"set": {"/a~1b": "/c~0d", "/~01": "/e~1~0f", "/": "/"}}]"#;
    let found = fold(rule, "{}", &[r#"{"c~d": 1, "e/~f": 2, "": 3}"#]);
    assert_eq!(found, Ok(r#"{"": 3, "a/b": 1, "~1": 2}"#.into()));
}

#[test]
fn places_are_made_or_said_to_be_out_of_reach() {
    for (rule, initial, expected) in [
        (r#"{"set": {"/a/b/c": ""}}"#, "{}", Ok(r#"{"a": {"b": {"c": 1}}}"#)),
        (r#"{"set": {"": ""}}"#, r#"{"a": 2}"#, Ok("1")),
        (r#"{"set": {"/l/-": ""}}"#, "{}", Ok(r#"{"l": [1]}"#)),
        (r#"{"increment": "/l/-/n"}"#, r#"{"l": [7]}"#, Ok(r#"{"l": [7, {"n": 1}]}"#)),
        (r#"{"set": {"/l/1": ""}}"#, r#"{"l": [5, 6]}"#, Ok(r#"{"l": [5, 1]}"#)),
        (r#"{"set": {"/0": ""}}"#, "{}", Ok(r#"{"0": 1}"#)),
        (r#"{"append": {"": ""}}"#, "[]", Ok("[1]")),
        (r#"{"merge": {"/a/b": {"value": {"c": null}}}}"#, "{}", Ok(r#"{"a": {"b": {"c": null}}}"#)),
        (r#"{"remove": ["/a", "/b/c", "/l/5", "/l/x", "/n/m"]}"#, r#"{"l": [1], "n": 5}"#, Ok(r#"{"l": [1], "n": 5}"#)),
        (r#"{"remove": ["/l/0", "/l/0"]}"#, r#"{"l": [1, 2, 3]}"#, Ok(r#"{"l": [3]}"#)),
        (
            r#"{"set": {"/l/2": ""}}"#,
            r#"{"l": [5, 6]}"#,
            Err("set: state /l/2 cannot be reached: the array has 2 elements"),
        ),
        (
            r#"{"set": {"/l/01": ""}}"#,
            r#"{"l": [5, 6]}"#,
            Err("set: state /l/01 cannot be reached: the array has 2 elements"),
        ),
        (r#"{"set": {"/a": ""}}"#, "null", Err("set: state /a cannot be reached: there is null in its way")),
        (r#"{"add": {"/a": ""}}"#, r#"{"a": null}"#, Err("add: state /a must be a number, and is null")),
        (
            r#"{"merge": {"/a": {"value": {}}}}"#,
            r#"{"a": []}"#,
            Err("merge: state /a must be an object, and is an array"),
        ),
        (r#"{"append": {"/a": ""}}"#, r#"{"a": {}}"#, Err("append: state /a must be an array, and is an object")),
        (r#"{"remove": ""}"#, "{}", Err("remove: the whole state cannot be removed")),
        (
            r#"{"remove": "/l/-"}"#,
            r#"{"l": [1]}"#,
            Err("remove: /l/- is behind the last element: there is nothing to remove"),
        ),
        (
            r#"{"max": {"/a": {"from": "state:/b"}}}"#,
            r#"{"b": true}"#,
            Err("max: state /b must be a number or a string, and is true"),
        ),
        (r#"{"set": {"/a": "event:/subject"}}"#, "{}", Err("set: event:/subject is missing")),
        (r#"{"set": {"/a": "event:/metadata/u/v"}}"#, "{}", Err("set: event:/metadata/u/v is missing")),
        (r#"{"set": {"/a": "state:/x"}}"#, "{}", Err("set: state /x is missing")),
    ] {
        let expected = expected.map(str::to_owned).map_err(|reason| {
            let (operation, rest) = reason.split_once(':').unwrap();
            format!("rule /on/E/0/{operation} on E:{rest}")
        });
        assert_eq!(fold(&format!("[{rule}]"), initial, &["1"]), expected, "{rule} on {initial}");
    }
}

#[test]
fn all_sources_are_read_before_the_first_target_changes() {
    let swap = r#"[{"set": {"/a": "state:/b", "/b": "state:/a"}}]"#;
    assert_eq!(fold(swap, r#"{"a": 1, "b": 2}"#, &["0"]), Ok(r#"{"a": 2, "b": 1}"#.into()));
}

#[test]
fn a_value_of_many_digits_is_not_repeated_in_a_message() {
    let rule = r#"[{"append": {"/n": ""}}]"#;
    for number in ["1e-16383".to_owned(), "9".repeat(5_000)] {
        let found = fold(rule, &format!("{{\"n\": {number}}}"), &["0"]).unwrap_err();
        assert!(found.ends_with("and is a number of many digits"), "{found}");
    }
}

#[test]
fn a_number_has_at_most_the_digits_that_the_limit_allows() {
    let limits = Limits { number_digits: 20, ..LIMITS };
    let add = rules(r#"{"on": {"E": [{"add": {"/n": ""}}]}}"#);
    let folded = |initial: &str, amount: &str| {
        folded_within(&add, &format!("{{\"n\": {initial}}}"), &[Event::new("E", amount)], &limits)
    };
    let nines = "9".repeat(20);
    assert_eq!(folded(&nines, "0"), Ok(format!("{{\"n\": {nines}}}")));
    assert_eq!(folded(&nines, "1"), Err("limit number_digits: 21".into()), "exactly");
    assert_eq!(folded(&nines, "0.0"), Err("limit number_digits: 21".into()), "the scale counts");
    assert_eq!(folded("10000000000", "-0.1234567890"), Ok("{\"n\": 9999999999.8765432110}".into()), "one digit less");
    // Refused before 147,455 digits are made of it.
    assert!(folded("1e131071", "1e-16383").unwrap_err().starts_with("limit number_digits: 14745"));
    let set = rules(r#"{"on": {"E": [{"set": {"/n": ""}}]}}"#);
    assert!(folded_within(&set, "{}", &[Event::new("E", "1e20")], &limits).is_err());
}

#[test]
fn a_state_has_at_most_the_levels_that_the_limit_allows() {
    let limits = Limits { depth: 3, ..LIMITS };
    for (rule, payload, fits) in [
        (r#"{"set": {"/a/b/c": ""}}"#, "1", true),
        (r#"{"set": {"/a/b/c/d": ""}}"#, "1", false),
        (r#"{"set": {"/a/b/c": ""}}"#, "{}", false),
        (r#"{"append": {"/a": ""}}"#, "[]", true),
        (r#"{"append": {"/a": ""}}"#, "[[]]", false),
        (r#"{"merge": {"/a": ""}}"#, r#"{"b": {}}"#, true),
        (r#"{"merge": {"/a": ""}}"#, r#"{"b": [[]]}"#, false),
        (r#"{"increment": "/a/b/c"}"#, "0", true),
        (r#"{"increment": "/a/b/c/d"}"#, "0", false),
        (r#"{"append": {"/a/b/c": ""}}"#, "0", false),
    ] {
        let rules = rules(&format!("{{\"on\": {{\"E\": [{rule}]}}}}"));
        let found = folded_within(&rules, "{}", &[Event::new("E", payload)], &limits);
        match found {
            Ok(_) => assert!(fits, "{rule} with {payload}"),
            Err(error) => assert!(!fits && error.starts_with("limit depth: "), "{rule} with {payload}: {error}"),
        }
    }
}

/// The event, counted from 1, at which the limit of bytes stops a fold of the same event.
fn stops_at(rule: &str, payload: &str, most: usize) -> Option<usize> {
    let rules = rules(&format!("{{\"on\": {{\"E\": [{rule}]}}}}"));
    let mut state = State::new(value("{}"));
    let event = Event::new("E", payload);
    (1..=most).find(|_| match rules.apply(&mut state, &event, &LIMITS).map_err(message) {
        Ok(()) => false,
        Err(reason) => {
            assert!(reason.starts_with("limit state_bytes: "), "{reason}");
            assert!(state.bytes() < 3 * LIMITS.state_bytes, "it was stopped too late: {} bytes", state.bytes());
            true
        }
    })
}

#[test]
fn a_state_that_grows_is_stopped_near_its_limit() {
    // 32 bytes of each element, and its text: (1 MiB - 32 - 36) / (32 + 32 + 1000 + 1).
    assert_eq!(stops_at(r#"{"append": {"/l": ""}}"#, &format!("{{\"a\": \"{}\"}}", "x".repeat(999)), 2_000), Some(986));
    // What has no value of its own takes place all the same.
    assert!(stops_at(r#"{"increment": "/l/-"}"#, "0", 40_000).is_some_and(|at| at > 25_000));
    assert!(stops_at(r#"{"set": {"/l/-/a": {"value": null}}}"#, "0", 40_000).is_some_and(|at| at > 10_000));
    // Doubled by each event, and many times within one.
    assert_eq!(
        stops_at(r#"{"set": {"/a": {"value": "0123456789"}}}, {"append": {"/l": "state:"}}"#, "0", 30),
        Some(14)
    );
    let doubling = vec![r#"{"append": {"/l": "state:"}}"#; 60].join(", ");
    assert_eq!(stops_at(&doubling, "0", 2), Some(1));
    let copies: Vec<_> = (0..60).map(|at| format!("\"/c{at}\": \"state:/big\"")).collect();
    let big = format!(r#"{{"set": {{"/big": ""}}}}, {{"set": {{{}}}}}"#, copies.join(", "));
    assert_eq!(stops_at(&big, &format!("\"{}\"", "x".repeat(100_000)), 2), Some(1));
}

#[test]
fn a_state_whose_values_shrink_and_grow_is_not_stopped_early() {
    let long = format!("{{\"t\": \"{}\"}}", "x".repeat(600_000));
    for rule in [
        r#"{"set": {"/a": ""}}"#,
        r#"{"merge": {"": ""}}"#,
        r#"{"append": {"/l": ""}}, {"remove": "/l/0"}"#,
        r#"{"set": {"/a": ""}}, {"remove": "/a"}"#,
        r#"{"set": {"": ""}}"#,
    ] {
        let rules = rules(&format!("{{\"on\": {{\"E\": [{rule}]}}}}"));
        let (long, short) = (Event::new("E", &long), Event::new("E", r#"{"t": 1}"#));
        let mut state = State::new(value("{}"));
        for event in [&long, &short].into_iter().cycle().take(40) {
            rules.apply(&mut state, event, &LIMITS).map_err(message).unwrap_or_else(|error| panic!("{rule}: {error}"));
        }
    }
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let long = format!(r#"{{"on": {{"E": [{{"set": {{"{}": ""}}}}]}}}}"#, "/a".repeat(65));
    let many = format!(r#"{{"on": {{"E": [{}]}}}}"#, vec![r#"{"remove":"/a"}"#; 10_001].join(","));
    let digits = format!(r#"{{"on": {{"E": [{{"set": {{"/~a": {{"value": [1, {}]}}}}}}]}}}}"#, "1".repeat(1_001));
    let long_type = format!(r#"{{"on": {{"{}": []}}}}"#, "x".repeat(256));
    let on = |operation: &str| format!(r#"{{"on": {{"a/b": [{{"remove": "/a"}}, {operation}]}}}}"#);
    let mut mistakes: Vec<(String, &str, &str)> = vec![
        ("{".into(), "", "must be a JSON object: "),
        ("[]".into(), "", "must be an object, not an array"),
        (format!("{}{}", "[".repeat(200), "]".repeat(200)), "", "must be a JSON object: recursion limit"),
        (" ".repeat((1 << 20) + 1), "", "must have at most 1048576 bytes, not 1048577"),
        (r#"{"on": 1e999999999}"#.into(), "", "must be a JSON object: the number \"1e"),
        (
            r#"{"on": {"E": [{"set": {"/a": {"value": 1e1000}}}]}}"#.into(),
            "/on/E/0/set/~1a/value",
            "must have at most 1000 digits, not 1001",
        ),
        (digits, "/on/E/0/set/~1~0a/value/1", "must have at most 1000 digits, not 1001"),
        ("{}".into(), "/on", "must be given"),
        (r#"{"on": []}"#.into(), "/on", "must be an object, not an array"),
        (r#"{"on": {}, "On": 1}"#.into(), "/On", "must be on or otherwise"),
        (
            r#"{"on": {}, "otherwise": "no"}"#.into(),
            "/otherwise",
            "must be \"ignore\" or \"error\", not the string \"no\"",
        ),
        (r#"{"on": {"E": {}}}"#.into(), "/on/E", "must be an array of operations, not an object"),
        (r#"{"on": {"": []}}"#.into(), "/on", "must have event types as members, and one must "),
        (long_type, "/on", "must have event types as members, and one must "),
        (many, "/on/E", "must keep within 10000 operations"),
        (long, "", "must have at most 64 steps, not 65"),
    ];
    let below = [
        ("5", "", "must be an object, not a number"),
        ("{}", "", "must have an operation: one of set, "),
        (r#"{"when": {"/a": 1}}"#, "", "must have an operation"),
        (r#"{"add": {"/a": "/b"}, "set": {"/a": "/b"}}"#, "", "must have one operation, not add and set"),
        (r#"{"plus": {}}"#, "/plus", "must be one of set, "),
        (r#"{"set": {}}"#, "/set", "must name a place"),
        (r#"{"set": []}"#, "/set", "must be an object, not an array"),
        (r#"{"set": {"a": "/b"}}"#, "/set/a", "must be a JSON Pointer, which begins with /, not \"a\""),
        (r#"{"set": {"/a~2": "/b"}}"#, "/set/~1a~02", "must be a JSON Pointer, in which ~ is followed by 0 or 1"),
        (r#"{"set": {"/a": "b"}}"#, "/set/~1a", "must be a JSON Pointer"),
        (r#"{"set": {"/a": 5}}"#, "/set/~1a", "must say where the value comes from"),
        (r#"{"set": {"/a": "event:/amount"}}"#, "/set/~1a", "must be event:/ and one of global_position, "),
        (r#"{"set": {"/a": "event:/metadatax"}}"#, "/set/~1a", "must be event:/ and one of "),
        (r#"{"set": {"/a": "state:x"}}"#, "/set/~1a", "must be a JSON Pointer"),
        (r#"{"set": {"/a": {"valeu": 1}}}"#, "/set/~1a/valeu", "must be value, or from and default"),
        (r#"{"set": {"/a": {"value": 1, "default": 2}}}"#, "/set/~1a", "must be {\"value\": constant} or "),
        (r#"{"set": {"/a": {"from": "x"}}}"#, "/set/~1a/from", "must be a JSON Pointer"),
        (r#"{"set": {"/a": {"default": 1}}}"#, "/set/~1a", "must be {\"value\": constant} or "),
        (r#"{"add": {"/a": {"value": "1"}}}"#, "/add/~1a/value", "must be a number, not the string \"1\""),
        (
            r#"{"subtract": {"/a": {"from": "/b", "default": null}}}"#,
            "/subtract/~1a/default",
            "must be a number, not null",
        ),
        (r#"{"merge": {"/a": {"value": []}}}"#, "/merge/~1a/value", "must be an object, not an array"),
        (r#"{"min": {"/a": {"value": true}}}"#, "/min/~1a/value", "must be a number or a string, not true"),
        (r#"{"set": {"/a": "/x", "/a-": "/y", "/a/b": "/z"}}"#, "/set/~1a~1b", "must not lie within \"/a\""),
        (r#"{"set": {"": "/x", "/b": "/z"}}"#, "/set/~1b", "must not lie within \"\""),
        (r#"{"increment": []}"#, "/increment", "must be a JSON Pointer into the state, or an array"),
        (r#"{"increment": ["/a", 1]}"#, "/increment/1", "must be a JSON Pointer, not a number"),
        (r#"{"remove": ["/a", "b"]}"#, "/remove/1", "must be a JSON Pointer, which begins with /"),
        (r#"{"remove": {"/a": 1}}"#, "/remove", "must be a JSON Pointer into the state, or an array"),
        (r#"{"when": 1, "remove": "/a"}"#, "/when", "must be an object, not a number"),
        (r#"{"when": {}, "remove": "/a"}"#, "/when", "must name a value"),
        (r#"{"when": {"a": 1}, "remove": "/a"}"#, "/when/a", "must be a JSON Pointer"),
        (r#"{"when": {"/a": []}, "remove": "/a"}"#, "/when/~1a", "must be a string, a number, "),
        (r#"{"when": {"/a": {}}, "remove": "/a"}"#, "/when/~1a", "must have a condition"),
        (r#"{"when": {"/a": {"above": 1}}, "remove": "/a"}"#, "/when/~1a/above", "must be exists, equals, "),
        (
            r#"{"when": {"/a": {"exists": 1}}, "remove": "/a"}"#,
            "/when/~1a/exists",
            "must be true or false, not the number 1",
        ),
        (
            r#"{"when": {"/a": {"exists": false, "equals": 1}}, "remove": "/a"}"#,
            "/when/~1a",
            "must not compare a value that must not exist",
        ),
        (r#"{"when": {"/a": {"equals": []}}, "remove": "/a"}"#, "/when/~1a/equals", "must be a constant, or "),
        (
            r#"{"when": {"/a": {"at_least": null}}, "remove": "/a"}"#,
            "/when/~1a/at_least",
            "must be a number or a string, not null",
        ),
        (
            r#"{"when": {"/a": {"at_least": {"value": []}}}, "remove": "/a"}"#,
            "/when/~1a/at_least/value",
            "must be a number or a string, not an array",
        ),
    ];
    let places: Vec<_> = below.iter().map(|(_, place, _)| format!("/on/a~1b/1{place}")).collect();
    mistakes.extend(below.iter().zip(&places).map(|((text, _, reason), place)| (on(text), place.as_str(), *reason)));
    for (text, place, reason) in &mistakes {
        let shown: String = text.chars().take(100).collect();
        match Rules::parse(text) {
            Err(Error::InvalidRules { pointer, reason: found }) => {
                assert!(found.starts_with(reason), "{shown}: {found}");
                // The long pointer's own place is not repeated here.
                assert!(pointer == *place || found.contains("64 steps"), "{shown}: {pointer}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
}

/// Run with `cargo test --release --test rules_examples -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_events_take_a_few_milliseconds() {
    let rules = rules(r#"{"on": {"E": [{"add": {"/balance": "/amount"}}, {"increment": "/movements"}]}}"#);
    let event = Event::new("E", r#"{"amount": 1234.56}"#);
    let best = (0..20).map(|_| {
        let mut state = State::new(value("{}"));
        let begun = std::time::Instant::now();
        for _ in 0..10_000 {
            rules.apply(&mut state, &event, &LIMITS).map_err(message).unwrap();
        }
        begun.elapsed()
    });
    let best = best.min().unwrap();
    println!("10,000 events of an add and an increment: {best:?}");
    assert!(best.as_millis() < 4, "{best:?}");
}
