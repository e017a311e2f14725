//! Rules that do not depend on the order of events: whatever order these come in, the state is that of folding them in order.

mod fold_rules;

use eventstream_core::rules::{Latest, State};
use fold_rules::{Event, LIMITS, message, rules, value};
use proptest::prelude::*;

const UNORDERED: &str = r#"{"on": {
    "Opened": [{"set": {"/owner/name": "/name", "/limit": {"from": "/limit", "default": 0}}}, {"increment": "/opened"}],
    "Credited": [{"add": {"/balance": "/amount", "/moved/{/name}": "/amount"}, "when": {"/amount": {"more_than": 0}}}],
    "Debited": [{"subtract": {"/balance": "/amount"}}, {"set": {"/owner/last": "/amount", "/by/{/name}": "/amount"}}, {"increment": "/debits"}]
}}"#;

#[test]
fn rules_that_read_the_state_or_depend_on_the_order_are_told() {
    assert!(rules(r#"{"on": {"A": [{"add": {"/a": "/x"}}, {"set": {"/b": "/x"}}]}}"#).are_unordered());
    for ordered in [
        r#"{"on": {"A": [{"append": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"min": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"merge": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"remove": "/a"}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "state:/b"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "/x"}}], "B": [{"add": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "/x"}}], "B": [{"set": {"/a/b": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a": "/x"}}, {"set": {"": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/-": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/{/k}": "/x"}}], "B": [{"add": {"/a/b": "/x"}}]}}"#,
        r#"{"on": {"A": [{"set": {"/a/{/k}": "/x"}}, {"set": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"multiply": {"/a": "/x"}}]}}"#,
        r#"{"on": {"A": [{"add": {"/a": "/x"}, "when": {"state:/b": {"equals": 1}}}]}}"#,
    ] {
        assert!(!rules(ordered).are_unordered(), "{ordered}");
    }
}

fn event() -> impl Strategy<Value = Event> {
    let amount = prop_oneof![Just("1.50"), Just("-2"), Just("0.00"), Just("7"), Just("1e3"), Just("\"text\"")];
    (0..3_usize, amount, "[a-c]").prop_map(|(kind, amount, name)| {
        let payload = format!(r#"{{"amount": {amount}, "name": "{name}", "limit": {amount}}}"#);
        Event::new(["Opened", "Credited", "Debited"][kind], &payload)
    })
}

proptest! {
    #[test]
    fn any_order_gives_the_state_of_folding_in_order(
        events in prop::collection::vec((0_i64..5, event()), 0..20),
        initial in prop_oneof![Just("{}"), Just(r#"{"balance": 1.000, "owner": {"name": "z"}}"#), Just(r#"{"owner": 1}"#)],
    ) {
        let rules = rules(UNORDERED);
        prop_assert!(rules.are_unordered());
        let (mut state, mut latest) = (State::new(value(initial)), Latest::default());
        let mut so_far: Vec<((i64, i64), &Event)> = Vec::new();
        for (version, (time, event)) in events.iter().enumerate() {
            let at = (*time, version as i64);
            let given = rules.apply_unordered(&mut state, &mut latest, at, event, &LIMITS).map_err(message);
            so_far.push((at, event));
            so_far.sort_by_key(|(at, _)| *at);
            let mut folded = State::new(value(initial));
            let in_order: Result<(), _> =
                so_far.iter().try_for_each(|(_, event)| rules.apply(&mut folded, *event, &LIMITS).map_err(message));
            prop_assert_eq!(given.is_err(), in_order.is_err());
            if given.is_err() {
                break;
            }
            prop_assert_eq!(state.value().to_text(), folded.value().to_text());
            prop_assert_eq!(state.bytes(), folded.bytes());
        }
    }
}
