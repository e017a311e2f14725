//! JSON Schema of payloads: which schemas are taken, what breaks one and what is said of it, and that none is endless.
use eventstream_core::schema::{Breach, Schema, Undecided};
use serde_json::{Map, Value, json};

fn breach(schema: &Value, payload: &str) -> Option<Breach> {
    Schema::parse(&schema.to_string(), || false).expect("a schema").breach(payload, || false).expect("to be judged")
}

fn refusal(schema: &Value) -> String {
    Schema::parse(&schema.to_string(), || false).expect_err("no schema").to_string()
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
    // Keys that the schema does not name are what the payload says.
    for (schema, payload, place) in [
        (json!({"additionalProperties": {"type": "string"}}), r#"{"secret@mail.com": 1}"#, "/*"),
        (
            json!({"additionalProperties": {"type": "array", "items": {"properties": {"a": {"type": "string"}}}}}),
            r#"{"x/y": [0, {"a": 1}]}"#,
            "/*/1/a",
        ),
        (json!({"patternProperties": {"^s": {"type": "string"}}}), r#"{"secret": 1}"#, "/*"),
        (json!({"additionalProperties": {"type": "string"}}), r#"{"4111111111111111": 1}"#, "/*"),
        (json!({"unevaluatedProperties": {"type": "string"}}), r#"{"secret": 1}"#, ""),
        (json!({"additionalProperties": {"type": "string"}, "required": ["a"]}), r#"{"a": 1}"#, "/a"),
    ] {
        assert_eq!(breach(&schema, payload).map(|b| b.value), Some(place.into()), "{schema}");
    }
    assert_eq!(found(r#"{"amount": 1, "a/b": "secret"}"#), said("/a~1b", "a string", "/properties/a~1b/enum", ""));
    assert_eq!(found("[]"), said("", "an array", "/type", ""));
}

#[test]
fn a_key_that_is_spelt_wrong_is_told_to_be_missing() {
    // Which of two rules that are broken is told first is the library's choice: what is missing is told by either.
    let is_told = |schema: &Value, payload: &str, missing: &str| {
        let more = breach(schema, payload).and_then(|breach| breach.more).unwrap_or_default();
        assert!(more.contains(&format!("{missing:?} is missing")), "{schema} {payload}: {more}");
    };
    let one = json!({"required": ["value"], "properties": {"value": {}}, "additionalProperties": false});
    let two =
        json!({"required": ["id", "value"], "properties": {"id": {}, "value": {}}, "additionalProperties": false});
    for schema in [&one, &two, &json!({"required": ["value"], "unevaluatedProperties": false})] {
        is_told(schema, r#"{"id": 1, "secret": 1}"#, "value");
        is_told(&json!({"properties": {"a/b": schema}}), r#"{"a/b": {"id": 1, "x": 1}}"#, "value");
    }
    let more = |payload| breach(&one, payload).and_then(|breach| breach.more);
    assert_eq!(more(r#"{"value": 1, "x": 1}"#).as_deref(), Some("1 of its keys is not foreseen"));
}

#[test]
fn what_is_wrong_with_a_schema_is_said() {
    let types = "must be array, boolean, integer, null, number, object, string, or an array of such names";
    for (schema, said) in [
        (json!({"type": "objekt"}), format!("json_schema at /type {types}")),
        (
            json!({"properties": {"a": {"type": ["string", "text"]}}}),
            format!("json_schema at /properties/a/type {types}"),
        ),
        (json!({"type": 7}), format!("json_schema at /type {types}")),
        (json!({"required": "a"}), "json_schema at /required must be of the type array".into()),
        (json!({"items": 5}), "json_schema at /items must be of the type boolean or object".into()),
        (json!({"minLength": -1}), "json_schema at /minLength must be 0 or more".into()),
        (json!({"required": ["a", "a"]}), "json_schema at /required must have each element once".into()),
        (json!({"anyOf": []}), "json_schema at /anyOf must have 1 or more elements".into()),
    ] {
        assert_eq!(refusal(&schema), said, "{schema}");
    }
    // A property may be called so.
    assert_eq!(breach(&json!({"properties": {"type": {"type": "string"}}}), r#"{"type": "objekt"}"#), None);
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
fn numbers_are_compared_by_their_digits() {
    let holds = |schema: Value, payload: &str| assert_eq!(breach(&schema, payload), None, "{schema} {payload}");
    let fails = |schema: Value, payload: &str| assert!(breach(&schema, payload).is_some(), "{schema} {payload}");
    holds(json!({"minimum": -10}), "-9.999");
    fails(json!({"minimum": -10}), "-10.0001");
    holds(json!({"maximum": 0}), "-0.0");
    holds(json!({"minimum": 0}), "-0.0");
    fails(json!({"exclusiveMaximum": 1e3}), "1000.00");
    holds(json!({"maximum": 1e300}), "1e300");
    fails(json!({"maximum": 5}), "1e99999999999999999999");
    holds(json!({"maximum": 5}), "1e-99999999999999999999");
    holds(json!({"const": 0}), "0e5");
    holds(json!({"enum": [1, 2.50, {"a": [1.0, "1"]}]}), r#"{"a": [1, "1"]}"#);
    fails(json!({"enum": [1, 2.50, {"a": [1.0, "1"]}]}), r#"{"a": ["1", 1]}"#);
    fails(json!({"enum": ["n", ["1:a"], {"1:a": 1}]}), "null");
    fails(json!({"enum": [["a", "b"]]}), r#"["a1:b"]"#);
    holds(json!({"multipleOf": 2.5}), "7.5");
    fails(json!({"multipleOf": 2.5}), "7");
    holds(json!({"multipleOf": 7}), "7e200");
    fails(json!({"multipleOf": 7}), "1e200");
    holds(json!({"multipleOf": 1024}), "1e10");
    holds(json!({"multipleOf": 0.3}), "0");
    fails(json!({"multipleOf": 1}), "1e-99999999999999999999");
    holds(json!({"type": "integer"}), "12e-1000000000000".replace("12", "0").as_str());
    holds(json!({"type": "integer"}), "1.50e1");
    fails(json!({"type": "integer"}), "1.5e0");
    assert!(
        refusal(&serde_json::from_str(&format!("{{\"multipleOf\": {}}}", "3".repeat(38))).expect("JSON"))
            .contains("at most 37 digits")
    );
}

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    for (schema, place, reason) in [
        (json!("x"), "json_schema must be", "an object, not a string"),
        (json!([]), "json_schema must be", "an object, not an array"),
        (json!({"type": "strin"}), "at /type", "must be array, boolean"),
        (json!({"properties": {"a": {"required": "x"}}}), "at /properties/a/required", "of the type array"),
        (json!({"properties": {"a": 1}}), "at /properties/a", "of the type"),
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
        (json!({"patternProperties": {"(": {}}}), "at /patternProperties", "regular expression"),
        (json!({"pattern": "a".repeat(3000)}), "at /pattern", "at most 2048 bytes"),
        (
            json!({"multipleOf": 1e-300, "$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}),
            "at /$defs/b/$anchor",
            "once",
        ),
        (json!({"$dynamicAnchor": "x", "$defs": {"b": {"$anchor": "x"}}}), "$", "once"),
        (json!({"$schema": "https://json-schema.org/draft/2020-12/schema##"}), "at /$schema", "2020-12"),
        (json!({"title": 4_111_111_111_111_111_i64, "type": "object"}), "at /title", "of the type string"),
    ] {
        let said = refusal(&schema);
        assert!(said.contains(place) && said.contains(reason), "{schema}: {said}");
        assert!(!said.contains("4111") && !said.contains("strin\""), "{schema}: {said}");
    }
    // The library keeps a copy of each of these, with all that is in it.
    for (keyword, inner, most) in [
        ("not", json!({"allOf": vec![json!({"$ref": "#/$defs/a"}); 8_000]}), 4),
        ("contentSchema", json!({"anyOf": vec![json!({"type": "null"}); 8_000]}), 4),
        ("not", json!({"enum": vec![0; 120_000]}), 5),
    ] {
        let nested = |depth| {
            let mut schema = (0..depth).fold(inner.clone(), |inner, _| json!({keyword: inner}));
            schema["$defs"] = json!({"a": {"type": "integer"}});
            schema
        };
        drop(Schema::parse(&nested(most).to_string(), || false).expect("a schema"));
        let said = refusal(&nested(most + 1));
        assert!(
            said.contains("within not and contentSchema, once for each around it, takes more than 33554432 bytes"),
            "{said}"
        );
    }
    let large = format!(r#"{{"title": "{}"}}"#, "x".repeat(Schema::MOST_BYTES));
    assert!(Schema::parse(&large, || false).expect_err("too large").to_string().contains("at most 262144 bytes"));
    let deep = format!("{}{}", r#"{"not":"#.repeat(200), "{}".to_owned() + &"}".repeat(200));
    assert!(Schema::parse(&deep, || false).expect_err("too deep").to_string().contains("127 levels"));
}

#[test]
fn references_within_are_followed() {
    let tree = json!({"$defs": {"a b": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a%20b"}, "n": {"$ref": "#int"}}},
                                "i": {"$anchor": "int", "type": "integer"}}, "$ref": "#/%24defs/a%20b"});
    assert_eq!(breach(&tree, r#"{"next": {"next": {"n": 1}}}"#), None);
    assert_eq!(breach(&tree, r#"{"next": {"next": {"n": "x"}}}"#).map(|b| b.value), Some("/next/next/n".into()));
}

#[test]
fn a_reference_leads_to_the_same_place_however_it_is_written() {
    let keys = "a|ä|a b|日本|a%b|100%|a#b|a?b|a\"b|a\\b|a^b|{a}|[a]|<a>|`|a~b|a/b|a+b|a:b@c!&'()*,;=|%41|\u{1}|";
    for key in keys.split('|').chain(["|"]) {
        let pointer = format!("/$defs/{}", key.replace('~', "~0").replace('/', "~1"));
        let least = pointer.replace('%', "%25");
        let all: String = pointer.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for reference in [least.clone(), least.replace('/', "%2F"), all] {
            for keyword in ["$ref", "$dynamicRef"] {
                let schema = json!({"$defs": {key: {"type": "integer"}}, "properties": {"a": {keyword: format!("#{reference}")}}});
                assert_eq!(breach(&schema, r#"{"a": 1}"#), None, "{schema}");
                let breach = breach(&schema, r#"{"a": "x"}"#).expect("a breach");
                assert_eq!((breach.value, breach.rule), ("/a".into(), format!("{pointer}/type")));
            }
        }
    }
    for reference in ["#n_1.x-y", "#%6E_1.x%2dy"] {
        let schema = json!({"$defs": {"ä": {"$anchor": "n_1.x-y", "type": "integer"}}, "$ref": reference});
        assert!(breach(&schema, "1").is_none() && breach(&schema, "true").is_some(), "{schema}");
    }
    for reference in ["#/$defs/%", "#/$defs/%4", "#/$defs/%+1", "#/$defs/%ff", "#/$defs/a%20b", "#/$defs/a/"] {
        let said = refusal(&json!({"$defs": {"a": {}, "\u{1}": {}}, "$ref": reference}));
        assert!(said.contains("at /$ref") && said.contains("within this one"), "{reference}: {said}");
    }
}

#[test]
fn what_leads_back_to_itself_is_refused() {
    for (schema, place) in [
        (json!({"$ref": "#"}), "/$ref"),
        (json!({"allOf": [{"$ref": "#"}]}), "/allOf/0/$ref"),
        (json!({"anyOf": [{"type": "string"}, {"$ref": "#"}]}), "/anyOf/1/$ref"),
        (json!({"oneOf": [{"not": {"$ref": "#"}}]}), "/oneOf/0/not/$ref"),
        (json!({"not": {"$ref": "#"}}), "/not/$ref"),
        (json!({"if": {"$ref": "#"}}), "/if/$ref"),
        (json!({"then": {"$ref": "#"}}), "/then/$ref"),
        (json!({"else": {"$ref": "#"}}), "/else/$ref"),
        (json!({"dependentSchemas": {"a": {"$ref": "#"}}}), "/dependentSchemas/a/$ref"),
        (json!({"$dynamicAnchor": "n", "$dynamicRef": "#n"}), "/$dynamicRef"),
        (json!({"properties": {"a": {"$anchor": "n", "allOf": [{"$ref": "#n"}]}}}), "/properties/a/allOf/0/$ref"),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            "/$defs/b/allOf/0/$ref",
        ),
        // Come upon by a reference that is no part of the circle.
        (
            json!({"$defs": {"a": {"$ref": "#/properties/b/not"}}, "properties": {"b": {"not": {"$ref": "#/properties/b"}}}}),
            "/properties/b/not/$ref",
        ),
        (
            json!({"$defs": {"a": {"$ref": "#/properties/b/not/if"}}, "properties": {"b": {"not": {"if": {"$ref": "#/properties/b"}}}}}),
            "/properties/b/not/if/$ref",
        ),
    ] {
        let said = refusal(&schema);
        let expected = format!("at {place} must not lead back to itself without going deeper into the payload");
        assert!(said.ends_with(&expected), "{schema}: {said}");
    }
    for schema in [
        json!({"properties": {"not": {"$ref": "#"}, "allOf": {"$ref": "#"}}}),
        json!({"items": {"anyOf": [{"$ref": "#"}]}, "$defs": {"a": {"$ref": "#"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"contains": {"$ref": "#"}}}}),
        json!({"propertyNames": {"$ref": "#"}}),
    ] {
        drop(Schema::parse(&schema.to_string(), || false).expect("a schema"));
    }
    // Thousands of references are no stack of calls.
    let mut long: Map<String, Value> =
        (0..4000).map(|n| (format!("a{n}"), json!({"$ref": format!("#/$defs/a{}", n + 1)}))).collect();
    long.insert("a4000".into(), json!({"$ref": "#/$defs/a0"}));
    assert!(refusal(&json!({"$defs": long})).contains("without going deeper"));
}

#[test]
fn no_schema_is_endless() {
    for schema in [
        json!({"propertyNames": {"$ref": "#"}}),
        json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["z"]}, {"properties": {"a": {"$ref": "#"}}}]}),
    ] {
        let payload = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        drop(Schema::parse(&schema.to_string(), || false).expect("a schema").breach(&payload, || false));
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
    let doubled =
        Schema::parse(&json!({"$defs": doubled, "$ref": "#/$defs/a0"}).to_string(), || false).expect("a schema");
    assert_eq!(doubled.breach("1", || false), Err(Undecided::Steps));
    // The next one is judged as if nothing had been.
    assert_eq!(breach(&json!({"type": "integer"}), "1"), None);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(
        Schema::parse(r##"{"items": {"$ref": "#"}}"##, || false).expect("a schema").breach(&deep, || false),
        Err(Undecided::Nested)
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
    assert_eq!(Schema::parse(&schema.to_string(), || false).expect("a schema").unknown_keywords, ["requird", "typ"]);
}
