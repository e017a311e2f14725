//! JSON Schema of payloads: which schemas are taken, what breaks one and what is said of it, and that none is endless.
use eventstream_core::schema::{Breach, Schema};
use serde_json::{Map, Value, json};

fn breach(schema: &Value, payload: &str) -> Option<Breach> {
    Schema::parse(&schema.to_string()).expect("a schema").breach(payload).expect("to be judged")
}

fn refusal(schema: &Value) -> String {
    Schema::parse(&schema.to_string()).expect_err("no schema").to_string()
}

#[test]
fn a_breach_says_where_and_by_which_rule_and_not_what() {
    let schema = json!({"type": "object", "properties": {"amount": {"type": "number", "multipleOf": 0.01}, "a/b": {"enum": ["x"]}},
                        "required": ["amount"], "additionalProperties": false});
    assert_eq!(breach(&schema, r#"{"amount": 12.34}"#), None);
    let found = |payload| breach(&schema, payload).map(|b| (b.value, b.kind, b.rule, b.more.unwrap_or_default()));
    let said =
        |value: &str, kind, rule: &str, more: &str| Some((value.to_owned(), kind, rule.to_owned(), more.to_owned()));
    assert_eq!(found(r#"{"amount": "secret"}"#), said("/amount", "a string", "/properties/amount/type", ""));
    assert_eq!(found("{}"), said("", "an object", "/required", "\"amount\" is missing"));
    assert_eq!(
        found(r#"{"amount": 1, "secret": 2}"#),
        said("", "an object", "/additionalProperties", "1 of its keys is not foreseen")
    );
    assert_eq!(found(r#"{"amount": 1, "a/b": "secret"}"#), said("/a~1b", "a string", "/properties/a~1b/enum", ""));
    assert_eq!(found("[]"), said("", "an array", "/type", ""));
}

#[test]
fn numbers_are_the_decimals_that_they_are() {
    let cents = json!({"multipleOf": 0.01, "maximum": 99_999_999_999_999_999_i64});
    assert_eq!(breach(&cents, "99999999999999999"), None);
    assert_eq!(breach(&cents, "99999999999999999.00"), None);
    assert_eq!(breach(&cents, "99999999999999999.01").map(|b| b.rule), Some("/maximum".into()));
    assert_eq!(breach(&cents, "1234567890123456.781").map(|b| b.rule), Some("/multipleOf".into()));
    assert_eq!(breach(&json!({"type": "integer"}), "1.0"), None);
    assert!(breach(&json!({"type": "integer"}), "10000000000000000000000000.5").is_some());
    assert_eq!(breach(&json!({"const": 1}), "1.00"), None);
    assert_eq!(
        breach(&json!({"const": {"a": [99_999_999_999_999_999_i64]}}), r#"{"a": [99999999999999999.00]}"#),
        None
    );
    assert!(breach(&json!({"enum": [99_999_999_999_999_999_i64, "x"]}), "99999999999999999.01").is_some());
    assert!(breach(&json!({"exclusiveMinimum": 0}), "0.00").is_some());
    assert_eq!(breach(&json!({"exclusiveMinimum": 0}), "0.00000000000000000000000000000000000001"), None);
    assert!(breach(&json!({"uniqueItems": true}), "[1, 1.00]").is_some());
    assert!(breach(&json!({"uniqueItems": true}), "[99999999999999999, 99999999999999999.00]").is_some());
    assert_eq!(breach(&json!({"uniqueItems": true}), "[99999999999999999, 99999999999999999.01]"), None);
}

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    for (schema, place, reason) in [
        (json!("x"), "json_schema must be", "an object, not a string"),
        (json!([]), "json_schema must be", "an object, not an array"),
        (json!({"type": "strin"}), "at /type", "breaks the rules"),
        (json!({"properties": {"a": {"required": "x"}}}), "at /properties/a/required", "breaks the rules"),
        (json!({"properties": {"a": 1}}), "at /properties/a", "breaks the rules"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "at /$schema", "2020-12"),
        (json!({"$ref": "http://example.com/x.json"}), "at /$ref", "within this one"),
        (json!({"$ref": "file:///etc/passwd"}), "at /$ref", "within this one"),
        (json!({"$ref": "other.json#/a"}), "at /$ref", "within this one"),
        (json!({"$ref": "#/nowhere"}), "at /$ref", "within this one"),
        (json!({"foo": {"type": "string"}, "$ref": "#/foo"}), "at /$ref", "within this one"),
        (json!({"const": {"a": {}}, "$ref": "#/const/a"}), "at /$ref", "within this one"),
        (json!({"$defs": {"a": {"$id": "http://x/y"}}}), "at /$defs/a/$id", "top only"),
        (json!({"pattern": "((a{100}){100}){100}"}), "at /pattern", "regular expression"),
        (json!({"pattern": "(a)\\1"}), "at /pattern", "regular expression"),
        (json!({"pattern": "("}), "at /pattern", "regular expression"),
        (json!({"patternProperties": {"(": {}}}), "at /patternProperties", ""),
    ] {
        let said = refusal(&schema);
        assert!(said.contains(place) && said.contains(reason), "{schema}: {said}");
    }
    let large = format!(r#"{{"title": "{}"}}"#, "x".repeat(Schema::MOST_BYTES));
    assert!(Schema::parse(&large).expect_err("too large").to_string().contains("at most 262144 bytes"));
    let deep = format!("{}{}", r#"{"not":"#.repeat(200), "{}".to_owned() + &"}".repeat(200));
    assert!(Schema::parse(&deep).expect_err("too deep").to_string().contains("127 levels"));
}

#[test]
fn references_within_are_followed() {
    let tree = json!({"$defs": {"a b": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a%20b"}, "n": {"$ref": "#int"}}},
                                "i": {"$anchor": "int", "type": "integer"}}, "$ref": "#/%24defs/a%20b"});
    assert_eq!(breach(&tree, r#"{"next": {"next": {"n": 1}}}"#), None);
    assert_eq!(breach(&tree, r#"{"next": {"next": {"n": "x"}}}"#).map(|b| b.value), Some("/next/next/n".into()));
}

#[test]
fn no_schema_is_endless() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"not": {"$ref": "#"}}),
        json!({"if": {"$ref": "#"}, "then": {"$ref": "#"}}),
        json!({"$dynamicAnchor": "n", "$dynamicRef": "#n"}),
        json!({"dependentSchemas": {"a": {"$ref": "#"}}}),
        json!({"propertyNames": {"$ref": "#"}}),
        json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["z"]}, {"properties": {"a": {"$ref": "#"}}}]}),
    ] {
        let payload = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        drop(Schema::parse(&schema.to_string()).expect("a schema").breach(&payload));
    }
    let mut doubled: Map<String, Value> = (0..60)
        .map(|n| {
            (
                format!("a{n}"),
                json!({"allOf": [{"$ref": format!("#/$defs/a{}", n + 1)}, {"$ref": format!("#/$defs/a{}", n + 1)}]}),
            )
        })
        .collect();
    doubled.insert("a60".into(), json!({"type": "integer"}));
    let doubled = Schema::parse(&json!({"$defs": doubled, "$ref": "#/$defs/a0"}).to_string()).expect("a schema");
    assert_eq!(doubled.breach("1"), Err("its schema takes more than 1000000 steps for it".into()));
    // The next one is judged as if nothing had been.
    assert_eq!(breach(&json!({"type": "integer"}), "1"), None);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(
        Schema::parse(r##"{"items": {"$ref": "#"}}"##).expect("a schema").breach(&deep),
        Err("it is nested deeper than 127 levels".into())
    );
}

#[test]
fn a_pattern_takes_time_in_proportion() {
    let schema = json!({"pattern": "^(a+)+$"});
    assert!(breach(&schema, &format!("\"{}b\"", "a".repeat(500_000))).is_some());
}

#[test]
fn keywords_that_mean_nothing_are_told() {
    let schema = json!({"typ": "object", "properties": {"typ": {"x-mine": 1, "requird": [], "title": "a"}}, "default": {"foo": 1}});
    assert_eq!(Schema::parse(&schema.to_string()).expect("a schema").unknown_keywords, ["requird", "typ"]);
}
