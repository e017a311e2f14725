//! Events that are put into their places as they come: whatever rules, whatever order, the state is that of folding in order all that came so
//! far, to the last digit; and what it costs does not grow with the events that are there.

mod fold_rules;

use eventstream_core::rules::{Inserted, Limits, Rank, Rules, State};
use fold_rules::{Event, LIMITS, message, rules, value};
use proptest::prelude::*;
use serde_json::json;
use std::collections::HashMap;

/// The state of events in order, as text and with its bytes.
fn in_order(
    rules: &Rules,
    initial: &str,
    events: &[(Rank, &Event)],
    limits: &Limits,
) -> Result<(String, usize), String> {
    let mut state = State::new(value(initial));
    events.iter().try_for_each(|(_, event)| rules.apply(&mut state, *event, limits).map_err(message))?;
    Ok((state.value().to_text(), state.bytes()))
}

/// Puts the events in as they come and compares the state after each of `asked`; how often only the fold could tell, and how often it failed.
fn compare(rules: &Rules, initial: &str, events: &[(i64, Event)], asked: impl Fn(usize) -> bool) -> (usize, usize) {
    let mut inserted = Inserted::new(rules, &value(initial), LIMITS).unwrap();
    let mut so_far: Vec<(Rank, &Event)> = Vec::new();
    let (mut unsure, mut failed) = (0, 0);
    for (version, (time, event)) in events.iter().enumerate() {
        let at = (*time, version as i64);
        inserted.insert(at, event).unwrap();
        so_far.insert(so_far.partition_point(|(other, _)| *other < at), (at, event));
        if !asked(version) {
            continue;
        }
        let expected = in_order(rules, initial, &so_far, &LIMITS);
        match inserted.state() {
            Some(state) => assert_eq!(Ok((state.value().to_text(), state.bytes())), expected, "{rules:?} {so_far:?}"),
            None => unsure += 1,
        }
        failed += usize::from(expected.is_err());
    }
    (unsure, failed)
}

#[test]
fn places_that_may_lie_within_each_other_are_told() {
    let fits = |text: &str| Inserted::new(&rules(text), &value("{}"), LIMITS).is_some();
    for apart in [
        r#"{"on": {"A": [{"set": {"/a": "/x"}}, {"multiply": {"/a": "/x"}}, {"round": {"/a": {"scale": 1, "mode": "up"}}}]}}"#,
        r#"{"on": {"A": [{"subtract": {"/a/{/x}": "/n"}}, {"add": {"/a/{/y}": "/n"}}, {"add": {"/a/z": "state:/a/y"}}]}}"#,
        r#"{"on": {"A": [{"set": {"": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "state:/limit/x"}, "when": {"state:/b": {"exists": true}}}]}}"#,
    ] {
        assert!(fits(apart), "{apart}");
    }
    for within in [
        r#"{"on": {"A": [{"set": {"/a": "/x"}}], "B": [{"set": {"/a/b": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "/x"}}, {"set": {"": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/-": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/{/k}": "/x"}}, {"remove": "/a"}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/b": "/x", "/c": "state:/a"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "/x"}, "when": {"state:/a/b": {"exists": true}}}]}}"#,
    ] {
        assert!(!fits(within), "{within}");
    }
}

/// Operations at places of their own that hold what they are meant for, so that most folds succeed: numbers, an array, an object, values
/// that are compared, and whatever is put there.
fn operation() -> impl Strategy<Value = serde_json::Value> {
    let number = || prop::sample::select(vec!["/n", "/m", "/in/n", "/by/{/key}", "/by/{/other}", "/by/a"]);
    let amount = || {
        prop_oneof![
            4 => Just(json!("/amount")),
            1 => prop::sample::select(vec!["1", "-0.50", "3.00", "0"]).prop_map(|text| json!({"value": serde_json::from_str::<serde_json::Value>(text).unwrap()})),
            1 => number().prop_map(|path| json!({"from": format!("state:{path}"), "default": 2})),
            1 => Just(json!("state:/rate")),
        ]
    };
    let mode = prop::sample::select(vec!["half_up", "half_down", "half_even", "up", "down", "ceiling", "floor"]);
    let rounding = (0_u32..3, mode).prop_map(|(scale, mode)| json!({"scale": scale, "mode": mode}));
    // No operation may change places of which one may be the other.
    let is_apart = |targets: &HashMap<&str, _>| targets.keys().filter(|target| target.starts_with("/by")).count() < 2;
    let several = move || prop::collection::hash_map(number(), amount(), 1..3).prop_filter("apart", is_apart);
    let anything =
        prop_oneof![Just(json!("")), Just(json!("/name")), Just(json!("/amount")), Just(json!("state:/set/{/key}"))];
    let plain = prop_oneof![
        6 => (prop::sample::select(vec!["set", "add", "add", "subtract", "multiply"]), several()).prop_map(|(name, all)| json!({ name: all })),
        1 => (number(), rounding.clone()).prop_map(|(at, rounding)| json!({"round": {at: rounding}})),
        1 => (number(), rounding).prop_map(|(at, rounding)| json!({"divide": {at: {"by": {"value": 3}, "scale": rounding["scale"], "mode": rounding["mode"]}}})),
        1 => number().prop_map(|at| json!({ "increment": at })),
        2 => prop::sample::select(vec!["/n", "/in/n", "/by/{/key}", "/list", "/set/a", "/set/{/key}", "/gone/x"]).prop_map(|at| json!({ "remove": at })),
        1 => anything.prop_map(|source| json!({"set": {"/set/{/key}": source}})),
        1 => Just(json!({"set": {"/gone/x": "/name"}})),
        2 => prop::sample::select(vec!["", "/amount", "/name"]).prop_map(|source| json!({"append": {"/list": source}})),
        1 => Just(json!({"merge": {"/merged": "/members"}})),
        1 => prop::sample::select(vec!["min", "max"]).prop_map(|name| json!({ name: {"/least": "/amount"} })),
        1 => Just(json!({"max": {"/most": "/amount", "/last": "/name"}})),
        1 => prop::sample::select(vec!["/least", "/list", "/n"]).prop_map(|at| json!({"set": {at: {"value": if at == "/list" { json!([1]) } else { json!(1) }}}})),
    ];
    let guard = prop_oneof![
        2 => Just(json!({"/amount": {"more_than": 0}})),
        1 => Just(json!({"state:/n": {"exists": true}})),
        1 => Just(json!({"state:/n": {"exists": true, "less_than": {"from": "/amount"}}})),
        1 => Just(json!({"state:/by/{/key}": {"exists": false}})),
        1 => Just(json!({"state:/set/{/key}": {"equals": "b"}})),
    ];
    (plain, prop::option::weighted(0.2, guard)).prop_map(|(mut operation, guard)| {
        if let Some(guard) = guard {
            operation["when"] = guard;
        }
        operation
    })
}

fn some_rules(operations: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let on = prop::collection::vec(operation(), operations);
    prop::collection::vec(on, 1..4).prop_map(|types| {
        let on: serde_json::Map<_, _> =
            types.into_iter().enumerate().map(|(at, on)| (format!("T{at}"), json!(on))).collect();
        json!({ "on": on }).to_string()
    })
}

fn event() -> impl Strategy<Value = Event> {
    let amount = prop::sample::select(vec!["1.50", "-2", "0.00", "7", "1e3", "0.125", "-1.0", "1", "1.00"]);
    (0..3_usize, amount, "[abc]", "[ab]", "[a-d]").prop_map(|(kind, amount, key, other, name)| {
        let payload = format!(
            r#"{{"amount": {amount}, "key": "{key}", "other": "{other}", "name": "{name}", "members": {{"{key}": {amount}, "x": "{name}"}}}}"#
        );
        Event::new(&format!("T{kind}"), &payload)
    })
}

fn initial() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#"{"rate": 1.5}"#,
        r#"{"rate": 2, "n": 1.000, "m": 0.0, "in": {"n": 3, "z": [1]}, "by": {"a": 1, "b": 2.50, "c": 0}, "list": ["x"], "set": {"a": null}}"#,
        r#"{"rate": 0.10, "n": 1, "m": 2, "by": {"a": 1, "b": 1, "c": 1}, "least": 5.0, "merged": {"q": 1}, "gone": {}}"#,
    ])
}

fn times() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let span = prop_oneof![Just(1_i64), Just(6), Just(1_000)];
    let any = span.prop_flat_map(|span| prop::collection::vec((0..span, event()), 0..24));
    (any, 0..3_u8).prop_map(|(mut events, order)| {
        match order {
            0 => events.sort_by_key(|(time, _)| -time),
            1 => events.sort_by_key(|(time, _)| *time),
            _ => {}
        }
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn any_order_gives_the_state_of_folding_in_order(
        text in some_rules(0..6), initial in initial(), events in times(), every in 1..6_usize,
    ) {
        let rules = rules(&text);
        let (unsure, failed) = compare(&rules, initial, &events, |version| version % every == 0);
        // All that it is not sure of fails.
        prop_assert_eq!(unsure, failed, "{}", text);
    }

    /// Whatever comes: places that hold the wrong kind, keys and values that are missing, arrays in the way.
    #[test]
    fn what_fails_in_order_has_no_state(
        text in some_rules(1..5),
        initial in prop::sample::select(vec!["{}", "[1, 2]", "3", r#"{"by": [1], "n": "x"}"#, r#"{"n": 1, "by": null, "list": {}}"#]),
        events in prop::collection::vec(
            (0..5_i64, 0..4_usize, prop::sample::select(vec![
                "{}", "7", r#"{"amount": "x", "key": "a"}"#, r#"{"amount": 1e900, "key": "0"}"#, r#"{"amount": 2.5, "key": "-", "other": "a", "name": [1]}"#,
                r#"{"amount": 3, "key": "a", "other": "b", "name": "c", "members": {}}"#, r#"{"amount": null, "key": 1, "members": 3}"#,
            ])),
            0..12,
        ),
    ) {
        let events: Vec<_> = events.into_iter().map(|(time, kind, payload)| (time, Event::new(&format!("T{kind}"), payload))).collect();
        let (unsure, failed) = compare(&rules(&text), initial, &events, |_| true);
        prop_assert!(unsure >= failed);
    }
}

#[test]
fn types_that_are_not_named_are_refused_where_the_rules_say_so() {
    let rules = rules(r#"{"on": {"T0": [{"set": {"/a": {"value": 1}}}]}, "otherwise": "error"}"#);
    let events = [(0, Event::new("T0", "{}")), (1, Event::new("T1", "{}"))];
    assert_eq!(compare(&rules, "{}", &events, |_| true), (1, 1));
}

#[test]
fn limits_are_held_against_the_state() {
    let limits = Limits { depth: 3, number_digits: 5, state_bytes: 400 };
    let rules = rules(
        r#"{"on": {"A": [{"add": {"/n": "/n"}}], "M": [{"multiply": {"/n": "/n"}}], "L": [{"append": {"/l": "/n"}}], "S": [{"set": {"/s": "/n"}}]}}"#,
    );
    for (event_type, payload, times) in [
        ("A", r#"{"n": 30000}"#, 4),
        ("M", r#"{"n": 1.1}"#, 5),
        ("L", r#"{"n": "twelve bytes"}"#, 12),
        ("S", r#"{"n": [[[1]]]}"#, 1),
    ] {
        let mut inserted = Inserted::new(&rules, &value(r#"{"n": 1}"#), limits).unwrap();
        let event = Event::new(event_type, payload);
        let mut so_far = Vec::new();
        for at in 0..times + 3 {
            inserted.insert((-at, at), &event).unwrap();
            so_far.push(((0, at), &event));
            let expected = in_order(&rules, r#"{"n": 1}"#, &so_far, &limits);
            assert_eq!(
                inserted.state().map(|state| state.value().to_text()),
                expected.ok().map(|(text, _)| text),
                "{event_type} {at}"
            );
        }
        assert!(in_order(&rules, r#"{"n": 1}"#, &so_far, &limits).is_err());
    }
}

/// Quadratic, this would take many minutes.
#[test]
fn many_events_in_falling_order_are_put_in_soon() {
    let rules = rules(
        r#"{"on": {"T": [
            {"set": {"/last": "/n", "/euros": "/n"}}, {"multiply": {"/euros": "/rate"}}, {"round": {"/euros": {"scale": 2, "mode": "half_even"}}},
            {"add": {"/total": "state:/euros"}}, {"max": {"/most": "/n"}}, {"multiply": {"/one": {"value": 1}}}, {"add": {"/by/{/key}": "/n"}}
        ]}}"#,
    );
    let mut inserted = Inserted::new(&rules, &value(r#"{"one": 1}"#), LIMITS).unwrap();
    let count = 20_000_i64;
    for at in 0..count {
        let event = Event::new("T", &format!(r#"{{"n": {at}, "rate": 1.0671, "key": "{}"}}"#, at % 10));
        inserted.insert((-at, at), &event).unwrap();
        let state = inserted.state().unwrap();
        assert!(at % 1_000 != 0 || state.value().to_text().contains("\"last\": 0"));
    }
    assert!(inserted.bytes() < 100 << 20);
}

/// Put together anew for each event, it would take minutes.
#[test]
fn documents_that_grow_are_put_together_when_they_are_asked_for() {
    let rules = rules(r#"{"on": {"T": [{"merge": {"/keys": ""}}, {"append": {"/list": ""}}]}}"#);
    let mut inserted = Inserted::new(&rules, &value("{}"), Limits { state_bytes: 256 << 20, ..LIMITS }).unwrap();
    let count = 40_000_i64;
    let began = std::time::Instant::now();
    for at in 0..count {
        inserted.insert((-at, at), &Event::new("T", &format!(r#"{{"key {at}": {at}}}"#))).unwrap();
    }
    let text = inserted.state().unwrap().value().to_text();
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!(text.matches("key ").count() as i64, 2 * count);
    assert!(inserted.room() > 0 && inserted.bytes() > inserted.room());
}
