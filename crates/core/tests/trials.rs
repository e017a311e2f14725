//! Tests in SQL: what counts as the same, and how a difference reads.
use eventstream_core::command::trial::{Differences, line, remark};
use proptest::prelude::*;
use serde_json::{Value, json};

fn differences(expected: &Value, found: &Value) -> String {
    let mut differences = Differences::default();
    differences.compare("it", expected, Some(found));
    assert_eq!(differences.is_empty(), differences.text().is_empty());
    differences.text()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn only_named_members_are_compared_at_every_depth() {
    let found = json!({"a": 1, "b": {"c": [1, {"d": 2, "e": 3}], "f": null}});
    for same in [
        json!({}),
        json!({"a": 1}),
        json!({"b": {}}),
        json!({"b": {"c": [1, {"d": 2}]}}),
        json!({"b": {"f": null}, "g": null}),
    ] {
        assert_eq!(differences(&same, &found), "", "{same}");
    }
    let differ = |expected| differences(&expected, &found);
    assert_eq!(differ(json!({"a": 2})), "it.a: expected 2, found 1");
    assert_eq!(differ(json!({"a": null})), "it.a: expected null, found 1");
    assert_eq!(differ(json!({"b": {"c": [1, {"d": 3}]}})), "it.b.c[1].d: expected 3, found 2");
    assert_eq!(differ(json!({"b": {"c": [1]}})), "it.b.c: expected 1 element, found 2 elements");
    assert_eq!(differ(json!({"b": {"c": []}})), "it.b.c: expected 0 elements, found 2 elements");
    assert_eq!(differ(json!({"x y": "z"})), "it[\"x y\"]: expected \"z\", and it is not there");
    assert_eq!(differ(json!([])), "it: expected [], found {\"a\":1,\"b\":{\"c\":[1,{\"d\":2,\"e\":3}],\"f\":null}}");
    assert_eq!(differ(json!({"a": "1"})), "it.a: expected \"1\", found 1");
}

#[test]
fn numbers_are_decimals() {
    for (a, b) in
        [("1", "1.000"), ("0", "-0.00"), ("-1.50", "-1.5"), ("100000000000000000000.10", "100000000000000000000.1")]
    {
        assert_eq!(differences(&parsed(a), &parsed(b)), "", "{a} {b}");
    }
    for (a, b) in [
        ("100000000000000000000", "100000000000000000001"),
        ("1.0", "-1.0"),
        ("0.1", "0.10000000000000001"),
        ("10", "1"),
    ] {
        assert_eq!(differences(&parsed(a), &parsed(b)), format!("it: expected {a}, found {b}"));
    }
}

#[test]
fn what_is_long_is_cut() {
    let long = json!("ü".repeat(5000));
    let text = differences(&json!(1), &long);
    assert!(text.len() < 300 && text.ends_with('…'), "{text}");
    let many: Value =
        (0..500).map(|number| (format!("k{number}"), json!(number))).collect::<serde_json::Map<_, _>>().into();
    let text = differences(&many, &json!({}));
    assert_eq!(text.lines().count(), 21);
    assert!(text.ends_with("\n… and 480 more"), "{text}");
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({ "k".repeat(50): deep });
    }
    let other = serde_json::from_str(&deep.to_string().replace(":1", ":2")).unwrap();
    assert!(differences(&deep, &other).len() < 400);
}

#[test]
fn a_test_is_one_line() {
    assert_eq!(line(1, true, "never more"), "ok 1 - never more");
    assert_eq!(line(12, false, "a\nb # skip\\"), "not ok 12 - a b \\# skip\\\\");
    assert_eq!(remark("a\nb"), "# a\n# b");
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "-?[1-9][0-9]{0,20}\\.[0-9]{1,4}".prop_map(|text| parsed(&text)),
        ".{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_is_as_expected_of_itself_and_another_leaf_is_not(document in documents()) {
        prop_assert_eq!(differences(&document, &document), "");
        let wrapped = json!({"a": [document.clone()]});
        prop_assert_ne!(differences(&json!({"a": [document, 1]}), &wrapped), "");
    }

    #[test]
    fn no_line_of_a_test_is_more_than_one(description in ".{0,40}", is_ok: bool) {
        let said = line(7, is_ok, &description);
        let start = if is_ok { "ok 7 - " } else { "not ok 7 - " };
        prop_assert!(!said.contains('\n'));
        prop_assert!(said.starts_with(start));
    }
}
