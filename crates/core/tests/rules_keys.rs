//! Keys that come from the payload, and what is refused: at registration what is no key's form, at the event what is no key.

mod fold_rules;

use eventstream_core::Error;
use eventstream_core::rules::Rules;
use fold_rules::fold;

#[test]
fn a_key_from_the_payload_names_a_member() {
    for (rule, initial, payload, expected) in [
        (r#"{"add": {"/b/{/c}": "/n"}}"#, "{}", r#"{"c": "EUR", "n": 1.50}"#, Ok(r#"{"b": {"EUR": 1.50}}"#)),
        (r#"{"increment": "/{/c/0}/x"}"#, "{}", r#"{"c": ["k"]}"#, Ok(r#"{"k": {"x": 1}}"#)),
        (r#"{"remove": "/b/{/c}"}"#, r#"{"b": {"EUR": 1, "CHF": 2}}"#, r#"{"c": "EUR"}"#, Ok(r#"{"b": {"CHF": 2}}"#)),
        (
            r#"{"set": {"/r": "state:/b/{/c}"}}"#,
            r#"{"b": {"EUR": 1}}"#,
            r#"{"c": "EUR"}"#,
            Ok(r#"{"b": {"EUR": 1}, "r": 1}"#),
        ),
        (r#"{"set": {"/r": "/rates/{/c}"}}"#, "{}", r#"{"c": "EUR", "rates": {"EUR": 1.1}}"#, Ok(r#"{"r": 1.1}"#)),
        (
            r#"{"when": {"state:/b/{/c}": {"exists": false}}, "set": {"/new": "/c"}}"#,
            "{}",
            r#"{"c": "EUR"}"#,
            Ok(r#"{"new": "EUR"}"#),
        ),
        // Whatever the key looks like, it is a member, never an element, and no pointer is read in it.
        (r#"{"set": {"/m/{/c}": "/n"}}"#, "{}", r#"{"c": "-", "n": 1}"#, Ok(r#"{"m": {"-": 1}}"#)),
        (r#"{"set": {"/m/{/c}": "/n"}}"#, "{}", r#"{"c": "0", "n": 1}"#, Ok(r#"{"m": {"0": 1}}"#)),
        (r#"{"set": {"/m/{/c}": "/n"}}"#, "{}", r#"{"c": "a/b~0{}", "n": 1}"#, Ok(r#"{"m": {"a/b~0{}": 1}}"#)),
        (r#"{"set": {"/m/{/c}": "/n"}}"#, "{}", r#"{"c": "", "n": 1}"#, Ok(r#"{"m": {"": 1}}"#)),
        (r#"{"set": {"/m/{/c~1d}": "/n"}}"#, "{}", r#"{"c/d": "k", "n": 1}"#, Ok(r#"{"m": {"k": 1}}"#)),
        (
            r#"{"set": {"/l/{/c}": "/n"}}"#,
            r#"{"l": [7]}"#,
            r#"{"c": "0", "n": 1}"#,
            Err("rule /on/E/0/set on E: state /l/0 cannot be reached: the array has 1 elements"),
        ),
        (r#"{"remove": "/l/{/c}"}"#, r#"{"l": [7]}"#, r#"{"c": "0"}"#, Ok(r#"{"l": [7]}"#)),
        (
            r#"{"add": {"/b/{/c}": "/n"}}"#,
            "{}",
            r#"{"n": 1}"#,
            Err("rule /on/E/0/add on E: payload /c, a key in /b/{/c}, is missing"),
        ),
        (
            r#"{"add": {"/b/{/c}": "/n"}}"#,
            "{}",
            r#"{"c": 7, "n": 1}"#,
            Err("rule /on/E/0/add on E: payload /c must be a string to be a key in /b/{/c}, and is the number 7"),
        ),
    ] {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(fold(&format!("[{rule}]"), initial, &[payload]), expected, "{rule} on {payload}");
    }
}

fn refusal(rule: &str) -> (String, String) {
    match Rules::parse(&format!(r#"{{"on": {{"E": [{rule}]}}}}"#)) {
        Err(Error::InvalidRules { pointer, reason }) => (pointer, reason),
        other => panic!("{rule}: {other:?}"),
    }
}

#[test]
fn braces_that_are_no_key_are_refused_where_they_stand() {
    for path in [
        "/{",
        "/}",
        "/a{/b}",
        "/{/b}c",
        "/{b}",
        "/{}",
        "/{/b",
        "/{/{/b}}",
        "/a/{x}/c",
        "{/b}",
        "/{/a}{/b}",
        "/{/b}/c}",
        "/{event:/stream}",
    ] {
        for rule in [
            format!(r#"{{"add": {{"{path}": "/n"}}}}"#),
            format!(r#"{{"add": {{"/n": "{path}"}}}}"#),
            format!(r#"{{"add": {{"/n": "state:{path}"}}}}"#),
            format!(r#"{{"remove": "{path}"}}"#),
            format!(r#"{{"when": {{"state:{path}": 1}}, "remove": "/n"}}"#),
        ] {
            assert!(refusal(&rule).1.starts_with("must be a JSON Pointer"), "{rule}");
        }
    }
}

#[test]
fn targets_that_keys_may_bring_together_are_refused() {
    for targets in [["/b/{/from}", "/b/{/to}"], ["/b/{/from}", "/b/EUR"], ["/b", "/b/{/from}"], ["/{/a}/x", "/b/x/y"]] {
        let (place, reason) = refusal(&format!(r#"{{"add": {{"{}": "/n", "{}": "/n"}}}}"#, targets[0], targets[1]));
        assert!(
            place.starts_with("/on/E/0/add/") && reason.contains("one after the other"),
            "{targets:?}: {place} {reason}"
        );
    }
    assert!(Rules::parse(r#"{"on": {"E": [{"add": {"/b/{/a}": "/n", "/c/{/a}": "/n", "/d": "/n"}}]}}"#).is_ok());
}

#[test]
fn arithmetic_is_checked_when_it_is_registered() {
    for (rule, place, reason) in [
        (r#"{"divide": {"/n": "/by"}}"#, "/on/E/0/divide/~1n", "must be an object, not a string"),
        (r#"{"divide": {"/n": {"scale": 2, "mode": "up"}}}"#, "/on/E/0/divide/~1n", "must be as in"),
        (r#"{"divide": {"/n": {"by": "/d", "mode": "up"}}}"#, "/on/E/0/divide/~1n/scale", "must be given: the digits"),
        (
            r#"{"divide": {"/n": {"by": "/d", "scale": 2}}}"#,
            "/on/E/0/divide/~1n/mode",
            "must be given: one of half_up, half_down, half_even, up, down, ceiling, floor",
        ),
        (
            r#"{"divide": {"/n": {"by": {"value": 0.0}, "scale": 2, "mode": "up"}}}"#,
            "/on/E/0/divide/~1n/by/value",
            "must not be 0",
        ),
        (
            r#"{"divide": {"/n": {"by": {"value": "2"}, "scale": 2, "mode": "up"}}}"#,
            "/on/E/0/divide/~1n/by/value",
            "must be a number",
        ),
        (
            r#"{"round": {"/n": {"scale": -1, "mode": "up"}}}"#,
            "/on/E/0/round/~1n/scale",
            "a whole number from 0 to 1000",
        ),
        (r#"{"round": {"/n": {"scale": 1.5, "mode": "up"}}}"#, "/on/E/0/round/~1n/scale", "a whole number"),
        (r#"{"round": {"/n": {"scale": 1001, "mode": "up"}}}"#, "/on/E/0/round/~1n/scale", "a whole number"),
        (r#"{"round": {"/n": {"scale": 2, "mode": "bankers"}}}"#, "/on/E/0/round/~1n/mode", "must be given: one of"),
        (
            r#"{"round": {"/n": {"by": 2, "scale": 2, "mode": "up"}}}"#,
            "/on/E/0/round/~1n/by",
            "must be one of scale, mode",
        ),
        (r#"{"multiply": {"/n": {"value": "2"}}}"#, "/on/E/0/multiply/~1n/value", "must be a number"),
    ] {
        let found = refusal(rule);
        assert!(found.0 == place && found.1.contains(reason), "{rule}: {found:?}");
    }
}

#[test]
fn arithmetic_on_what_is_not_there_or_too_long_says_so() {
    for (rule, initial, payload, expected) in [
        (r#"{"multiply": {"/n": "/f"}}"#, "{}", r#"{"f": 2}"#, "rule /on/E/0/multiply on E: state /n is missing"),
        (
            r#"{"round": {"/n": {"scale": 2, "mode": "up"}}}"#,
            r#"{"n": "1"}"#,
            "{}",
            "rule /on/E/0/round on E: state /n must be a number, and is the string \"1\"",
        ),
        (
            r#"{"divide": {"/n": {"by": "/f", "scale": 2, "mode": "up"}}}"#,
            r#"{"n": 1}"#,
            r#"{"f": 0.00}"#,
            "rule /on/E/0/divide on E: payload /f is 0, and nothing can be divided by that",
        ),
        (
            r#"{"divide": {"/n": {"by": "/f", "scale": 2, "mode": "up"}}}"#,
            r#"{"n": 1}"#,
            r#"{"f": "2"}"#,
            "rule /on/E/0/divide on E: payload /f must be a number, and is the string \"2\"",
        ),
    ] {
        assert_eq!(fold(&format!("[{rule}]"), initial, &[payload]), Err(expected.to_owned()), "{rule}");
    }
    let long = format!("{{\"n\": {}}}", "9".repeat(600));
    assert_eq!(fold(r#"[{"multiply": {"/n": "state:/n"}}]"#, &long, &["{}"]), Err("limit number_digits: 1200".into()));
}
