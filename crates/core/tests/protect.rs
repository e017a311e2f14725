//! Protected fields: residuals of documents as PostgreSQL holds them, against a plain reading of the pointers; and what stands in a pointer's way.
use eventstream_core::breach::Breach;
use eventstream_core::json::{Object, Value};
use eventstream_core::protect::{Cover, Mask, Protection, Protections, Stray, residual};
use eventstream_core::rules::Pointer;
use proptest::prelude::*;

const STRING: u32 = 0;
const NUMBER: u32 = 0x1000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const SCALAR: u32 = 0x1000_0000;

/// A document as PostgreSQL writes it (utils/jsonb.h), but for numbers, whose bytes are their text: nothing here reads them.
fn written(document: &Value) -> Vec<u8> {
    let mut into = Vec::new();
    match document {
        Value::Array(_) | Value::Object(_) => drop(put(document, &mut into)),
        scalar => container(SCALAR | ARRAY | 1, &[scalar], &mut into),
    }
    into
}

fn put(value: &Value, into: &mut Vec<u8>) -> u32 {
    let align = |into: &mut Vec<u8>| into.resize(into.len().next_multiple_of(4), 0);
    match value {
        Value::Null => NULL,
        Value::Bool(is_true) => {
            if *is_true {
                0x3000_0000
            } else {
                0x2000_0000
            }
        }
        Value::Text(text) => {
            into.extend(text.as_bytes());
            STRING
        }
        Value::Number(_) => {
            align(into);
            into.extend(value.to_text().as_bytes());
            NUMBER
        }
        Value::Array(elements) => {
            align(into);
            container(ARRAY | elements.len() as u32, &elements.iter().collect::<Vec<_>>(), into);
            CONTAINER
        }
        Value::Object(members) => {
            align(into);
            let mut pairs: Vec<_> = members.iter().map(|(key, value)| (Value::Text(key.clone()), value)).collect();
            pairs.sort_by_key(|(key, _)| match key {
                Value::Text(key) => (key.len(), key.clone()),
                _ => unreachable!(),
            });
            let all: Vec<&Value> = pairs.iter().map(|pair| &pair.0).chain(pairs.iter().map(|pair| pair.1)).collect();
            container(OBJECT | members.len() as u32, &all, into);
            CONTAINER
        }
    }
}

fn container(header: u32, values: &[&Value], into: &mut Vec<u8>) {
    into.extend(header.to_ne_bytes());
    let entries = into.len();
    into.resize(entries + values.len() * 4, 0);
    let begin = into.len();
    for (place, value) in values.iter().enumerate() {
        let before = into.len();
        let kind = put(value, into);
        let length =
            if place % 32 == 0 { (into.len() - begin) as u32 | 0x8000_0000 } else { (into.len() - before) as u32 };
        into[entries + place * 4..entries + place * 4 + 4].copy_from_slice(&(kind | length).to_ne_bytes());
    }
}

fn steps(pointer: &str) -> Vec<String> {
    Pointer::parse(pointer).expect("a pointer").tokens().map(|token| token.as_str().to_owned()).collect()
}

/// Whether a way of keys and places is that of a pointer.
fn is_met(way: &[Step], pointer: &[String]) -> bool {
    way.len() == pointer.len()
        && way.iter().zip(pointer).all(|(step, token)| match step {
            Step::Key(key) => key == token,
            Step::Place(place) => token == "*" || *token == place.to_string(),
        })
}

#[derive(Clone)]
enum Step {
    Key(String),
    Place(usize),
}

/// What a mask means, value by value; `goes_on`: whether some pointer leads on from a way.
fn blanked(value: &Value, way: &mut Vec<Step>, pointers: &[Vec<String>], is_listed: bool) -> Value {
    let prefix = |pointer: &&Vec<String>| pointer.len() > way.len() && is_met(way, &pointer[..way.len()]);
    let ends = pointers.iter().any(|pointer| is_met(way, pointer));
    if ends {
        return if is_listed { Value::Null } else { value.clone() };
    }
    let on: Vec<&Vec<String>> = pointers.iter().filter(prefix).collect();
    if on.is_empty() {
        return if is_listed { value.clone() } else { Value::Null };
    }
    let nexts: Vec<&str> = on.iter().map(|pointer| pointer[way.len()].as_str()).collect();
    let is_index =
        |token: &str| token == "*" || token == "0" || token.parse::<usize>().is_ok() && !token.starts_with('0');
    match value {
        Value::Null => Value::Null,
        Value::Object(members) if members.is_empty() || each_way_leads_through(members, &nexts, &is_index) => {
            let mut made = Object::default();
            for (key, member) in members {
                way.push(Step::Key(key.clone()));
                made.insert(key.clone(), blanked(member, way, pointers, is_listed));
                way.pop();
            }
            Value::Object(made)
        }
        Value::Array(elements) if elements.is_empty() || nexts.iter().any(|next| is_index(next)) => {
            let made = elements.iter().enumerate().map(|(place, element)| {
                way.push(Step::Place(place));
                let made = blanked(element, way, pointers, is_listed);
                way.pop();
                made
            });
            Value::Array(made.collect())
        }
        _ => Value::Null,
    }
}

/// A key that no pointer names must be none that a step through an array could have meant.
fn each_way_leads_through(members: &Object, nexts: &[&str], is_index: &dyn Fn(&str) -> bool) -> bool {
    let names = |key: &str| nexts.contains(&key);
    let is_place = |token: &str| token != "*" && is_index(token);
    let is_number = |key: &str| key.bytes().all(|byte| byte.is_ascii_digit());
    let is_in_the_way = |key: &str| names("*") || nexts.iter().any(|next| is_place(next)) && is_number(key);
    let mut keys = members.keys().map(String::as_str);
    let is_some_named = nexts.iter().any(|next| !is_index(next)) || keys.clone().any(names);
    is_some_named && !keys.any(|key| !names(key) && is_in_the_way(key))
}

const KEYS: [&str; 9] = ["a", "b", "name", "a/b", "~", "0", "1", "*", "a long key of more than a few bytes"];

fn documents() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just("null"),
        Just("true"),
        Just("false"),
        Just("1.10"),
        Just("-0.00001"),
        Just("123456789012345678901234567890.5"),
        Just("\"\""),
        Just("\"x\""),
        Just("\"Mia\""),
        Just("\"three words long\""),
    ]
    .prop_map(|text| Value::parse(text).expect("a scalar"));
    scalar.prop_recursive(5, 80, 40, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec(inner.clone(), 30..40).prop_map(Value::Array),
            proptest::collection::btree_map(
                proptest::sample::select(&KEYS[..]).prop_map(ToOwned::to_owned),
                inner,
                0..6
            )
            .prop_map(Value::Object),
        ]
    })
}

fn pointers() -> impl Strategy<Value = Vec<String>> {
    let token = proptest::sample::select(&KEYS[..]).prop_map(|key| key.replace('~', "~0").replace('/', "~1"));
    let pointer = proptest::collection::vec(token, 0..4)
        .prop_map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect());
    proptest::collection::vec(pointer, 0..6)
}

fn mask(pointers: &[String], is_listed: bool) -> Mask {
    let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
    if is_listed { Mask::listed("pointers", &pointers) } else { Mask::all_but("clear_pointers", &pointers) }
        .expect("pointers")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_residual_is_what_the_pointers_mean_byte_by_byte(document in documents(), pointers in pointers(), is_listed: bool) {
        let bytes = written(&document);
        let found = residual(&bytes, &mask(&pointers, is_listed)).expect("a document");
        let parsed: Vec<_> = pointers.iter().map(|pointer| steps(pointer)).collect();
        let meant = blanked(&document, &mut Vec::new(), &parsed, is_listed);
        prop_assert_eq!(found.document.clone().unwrap_or(bytes), written(&meant));
        if meant != document {
            prop_assert!(found.document.is_some());
        }
        // Once more: nothing is left, and nothing stands in a way that was not hidden.
        let again = found.document.unwrap_or_else(|| written(&meant));
        let second = residual(&again, &mask(&pointers, is_listed)).expect("a document");
        prop_assert_eq!(second.document.unwrap_or_else(|| again.clone()), again);
        prop_assert_eq!(second.stray, None);
    }

    #[test]
    fn bytes_that_are_no_document_are_none(bytes in proptest::collection::vec(any::<u8>(), 0..200), pointers in pointers(), is_listed: bool) {
        let _ = residual(&bytes, &mask(&pointers, is_listed));
    }
}

fn protection(
    pointers: Option<&[&str]>,
    clear: Option<&[&str]>,
    metadata: &[&str],
) -> eventstream_core::Result<Protection> {
    Protection::new(pointers, clear, metadata)
}

fn listed(pointers: &[&str]) -> Mask {
    Mask::listed("pointers", pointers).expect("pointers")
}

fn shown(document: &str, mask: &Mask) -> (String, Option<(String, &'static str)>) {
    let value = Value::parse(document).expect("JSON");
    let bytes = written(&value);
    let found = residual(&bytes, mask).expect("a document");
    let candidates = ["null".to_owned(), document.to_owned()];
    let text = match &found.document {
        None => document.to_owned(),
        Some(bytes) => candidates
            .iter()
            .find(|text| written(&Value::parse(text).expect("JSON")) == *bytes)
            .cloned()
            .unwrap_or_default(),
    };
    (text, found.stray.map(|Stray { pointer, kind }| (pointer, kind)))
}

#[test]
fn what_stands_in_the_way_is_told_with_its_place() {
    type Case = (&'static [&'static str], &'static str, Option<(&'static str, &'static str)>);
    let cases: [Case; 12] = [
        (&["/a/b"], r#"{"a": "text"}"#, Some(("/a", "a string"))),
        (&["/a/b"], r#"{"a": 1.50}"#, Some(("/a", "a number"))),
        (&["/a/b"], r#"{"a": true}"#, Some(("/a", "a boolean"))),
        (&["/a/b"], r#"{"a": [{"b": 1}]}"#, Some(("/a", "an array"))),
        (&["/a/*/b"], r#"{"a": {"x": {"b": 1}}}"#, Some(("/a", "an object"))),
        (&["/a/*/b"], r#"{"a": [{"b": 1}, 2]}"#, Some(("/a/1", "a number"))),
        (&["/a/0"], r#"{"a": {"name": 1}}"#, Some(("/a", "an object"))),
        (&["/a~1b/~0/c"], r#"{"a/b": {"~": "x"}}"#, Some(("/a~1b/~0", "a string"))),
        (&["/a"], r#""text""#, Some(("", "a string"))),
        (&["/a/b"], r#"{"a": null}"#, None),
        (&["/a/b"], r#"{"a": {}, "b": 1}"#, None),
        (&["/a/*/b"], r#"{"a": {"*": {"b": 1}}, "c": [1]}"#, None),
    ];
    for (pointers, document, stray) in cases {
        let (_, found) = shown(document, &listed(pointers));
        let found = found.as_ref().map(|(pointer, kind)| (pointer.as_str(), *kind));
        assert_eq!(found, stray, "{document} by {pointers:?}");
    }
    // Where all but some is protected it is told, too: it is hidden, and nothing that is protected could be missed for it.
    let (mask, stray) = (Mask::all_but("c", &["/a"]).expect("pointers"), Some((String::new(), "a string")));
    assert_eq!(shown(r#""text""#, &mask), ("null".into(), stray));
    assert!(!mask.refuses_strays() && listed(&["/a"]).refuses_strays());
}

#[test]
fn a_null_that_is_protected_is_hidden_as_any_value() {
    let there =
        residual(&written(&Value::parse(r#"{"a": null}"#).expect("JSON")), &listed(&["/a"])).expect("a document");
    assert!(there.document.is_some());
    let absent =
        residual(&written(&Value::parse(r#"{"b": null}"#).expect("JSON")), &listed(&["/a"])).expect("a document");
    assert!(absent.document.is_none());
}

#[test]
fn what_a_mask_covers_is_always_hidden() {
    let pointer = |text| Pointer::parse(text).expect("a pointer");
    let mask = listed(&["/a/b", "/lines/*/name"]);
    for (text, is_covered) in
        [("/a/b", true), ("/a/b/c", true), ("/a", false), ("/lines/3/name", true), ("/lines/3", false), ("/c", false)]
    {
        assert_eq!(mask.covers(&pointer(text)), is_covered, "{text}");
    }
    let mask = Mask::all_but("clear_pointers", &["/a/b"]).expect("pointers");
    for (text, is_covered) in
        [("/a/b", false), ("/a/b/c", false), ("/a", false), ("/a/c", true), ("/c", true), ("", false)]
    {
        assert_eq!(mask.covers(&pointer(text)), is_covered, "{text}");
    }
}

#[test]
fn a_breach_that_null_may_have_made_is_told_from_one_of_what_is_shown() {
    let breach = |value: &str, rule: &str| Breach { value: value.into(), kind: "null", rule: rule.into(), more: None };
    let masks = [
        listed(&["/name", "/lines/*/who"]),
        Mask::all_but("clear_pointers", &["/amount", "/lines/*/n", "/by"]).expect("pointers"),
    ];
    for (value, rule, may_be) in [
        ("/name", "/properties/name/type", true),
        ("/name/first", "/properties/name/properties/first/type", true),
        ("", "/anyOf", true),
        ("", "/not", true),
        ("/lines", "/properties/lines/uniqueItems", true),
        ("/lines", "/properties/lines/contains", true),
        ("/lines/1", "/properties/lines/items/oneOf", true),
        ("/amount", "/then/properties/amount/minimum", true),
        ("", "/required", false),
        ("", "/additionalProperties", false),
        ("/lines", "/properties/lines/minItems", false),
        ("/lines/0", "/properties/lines/items/required", false),
        ("/amount", "/properties/amount/minimum", false),
        ("/lines/1/n", "/properties/lines/items/properties/n/type", false),
        ("/by/0", "/properties/by/items/anyOf", false),
        // A key that the schema does not name.
        ("/*", "/additionalProperties/type", true),
    ] {
        for mask in &masks {
            assert_eq!(mask.may_make(&breach(value, rule)), may_be, "{value} {rule} {mask:?}");
        }
    }
}

#[test]
fn what_is_no_list_of_pointers_is_refused_by_name() {
    let many: Vec<String> = (0..65).map(|number| format!("/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for wrong in [&["a"][..], &["/~2"], &["/a/-"], &many] {
        let refused = Mask::listed("pointers", wrong).expect_err("refused").to_string();
        assert!(refused.contains("pointers"), "{refused}");
    }
    // Every way that * and a number can meet would be a node of its own.
    let ways: Vec<String> = (0..60_u64)
        .map(|bits| (0..30).map(|bit| if (bits * 0x9E37_79B9) >> bit & 1 == 0 { "/*" } else { "/0" }).collect())
        .collect();
    let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
    let refused = Mask::listed("pointers", &ways).expect_err("refused").to_string();
    assert!(refused.contains("so many ways"), "{refused}");
}

#[test]
fn a_protection_is_one_of_two_forms_and_leaves_alone_what_eventstream_reads() {
    assert!(protection(None, None, &[]).is_err());
    assert!(protection(Some(&[]), Some(&[]), &[]).is_err());
    assert!(protection(Some(&[]), None, &[]).is_ok_and(|protection| protection.is_empty()));
    assert!(protection(None, Some(&[]), &["/note"]).is_ok_and(|protection| !protection.is_empty()));
    for wrong in ["", "/actor", "/correlation_id/x", "/command", "/traceparent", "/causation_id"] {
        let refused = protection(Some(&[]), None, &[wrong]).expect_err(wrong).to_string();
        assert!(refused.contains("metadata_pointers"), "{refused}");
    }
}

#[test]
fn a_type_with_a_rule_has_no_version_without_one() {
    let mut all = Protections::default();
    assert!(all.is_empty() && matches!(all.of("Opened", 1), Cover::Free));
    all.add("Opened".into(), 1, protection(Some(&["/name"]), None, &[]).expect("a protection"));
    all.add("Opened".into(), 3, protection(Some(&[]), None, &[]).expect("a protection"));
    assert!(matches!(all.of("Opened", 1), Cover::By(_)) && matches!(all.of("Closed", 1), Cover::Free));
    for version in [2, 4, i32::MAX] {
        assert!(matches!(all.of("Opened", version), Cover::Missing { highest: 3 }), "{version}");
    }
    assert_eq!(all.versions("Opened").map(|(version, _)| version).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn what_rules_read_of_what_is_protected_is_found_wherever_they_read_it() {
    let mut all = Protections::default();
    all.add("Opened".into(), 1, protection(Some(&["/name", "/lines/*/who"]), None, &["/note"]).expect("a protection"));
    all.add("Shown".into(), 1, protection(None, Some(&["/amount"]), &[]).expect("a protection"));
    let rated = ["/rates/EUR", "/by/x/name", "/lines/*/who", "/lines/0/note"];
    all.add("Rated".into(), 1, protection(Some(&rated), None, &[]).expect("a protection"));
    let cases = [
        (r#"[{"set": {"/n": "/name"}}]"#, "Opened", Some("/name")),
        (r#"[{"set": {"/n": "/name/first"}}]"#, "Opened", Some("/name/first")),
        (r#"[{"append": {"/n": "/lines/0/who"}}]"#, "Opened", Some("/lines/0/who")),
        (r#"[{"add": {"/by/{/name}": "/amount"}}]"#, "Opened", Some("/name")),
        (r#"[{"increment": "/by/{/name}"}]"#, "Opened", Some("/name")),
        (r#"[{"when": {"/name": {"exists": true}}, "increment": "/n"}]"#, "Opened", Some("/name")),
        (r#"[{"set": {"/n": "event:/metadata/note"}}]"#, "Opened", Some("event:/metadata/note")),
        (r#"[{"set": {"/n": {"from": "/name", "default": 1}}}]"#, "Opened", Some("/name")),
        (r#"[{"add": {"/n": "/amount"}}]"#, "Shown", None),
        (r#"[{"add": {"/n": "/fee"}}]"#, "Shown", Some("/fee")),
        (r#"[{"set": {"/all": ""}}]"#, "Opened", None),
        (r#"[{"set": {"/n": "/name"}}]"#, "Other", None),
        // By a key that the event names, and as an element, whichever it turns out to be.
        (r#"[{"add": {"/n": "/rates/{/currency}"}}]"#, "Rated", Some("/rates/{/currency}")),
        (r#"[{"set": {"/n": "/by/{/who}/name/first"}}]"#, "Rated", Some("/by/{/who}/name/first")),
        (r#"[{"set": {"/n": {"from": "/by/{/who}/name", "default": 1}}}]"#, "Rated", Some("/by/{/who}/name")),
        (r#"[{"set": {"/n": "/by/{/who}"}}]"#, "Rated", None),
        (r#"[{"set": {"/n": "/others/{/currency}"}}]"#, "Rated", None),
        (r#"[{"add": {"/n/{/currency}": "/amount"}}]"#, "Rated", None),
        (r#"[{"set": {"/n": "/lines/0/who"}}]"#, "Rated", Some("/lines/0/who")),
        (r#"[{"add": {"/n": "/{/key}"}}]"#, "Shown", Some("/{/key}")),
        (r#"[{"add": {"/n": "/amount/{/amount/key}"}}]"#, "Shown", None),
    ];
    for (rules, event_type, read) in cases {
        let text = format!(r#"{{"on": {{"{event_type}": {rules}}}}}"#);
        let Ok(parsed) = eventstream_core::rules::Rules::parse(&text) else { panic!("{text}") };
        let found = all.read_by(&parsed);
        assert_eq!(found.as_ref().map(|found| found.2.as_str()), read, "{text}");
        assert!(found.is_none_or(|found| found.1 == event_type && found.0.starts_with("/on/")));
    }
}
