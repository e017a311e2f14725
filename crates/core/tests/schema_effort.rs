//! Judging a payload, and making a schema ready, end soon whatever both are, and at once where somebody wants an end.
//!
//! Asked of the kinds: size (many values in an enum, many patterns and keys, many elements, deep payloads, doubled references, long numbers and texts, long
//! pointers), death (a cancel at any step), number and text. Bounds of time are those of a build without optimisation, on a busy machine.
use eventstream_core::schema::{Schema, Undecided};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Some thirty times what an optimised build takes.
const SOON: Duration = Duration::from_secs(30);

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    let took = began.elapsed();
    if std::env::var_os("SHOW").is_some() {
        println!("{what}: {took:?}");
    }
    assert!(took < SOON, "{what} took {took:?}");
    done
}

fn judged(what: &str, schema: &Value, payload: &Value) -> Option<Result<bool, Undecided>> {
    let (schema, payload) = (schema.to_string(), payload.to_string());
    let schema = soon(&format!("making {what} ready"), || Schema::parse(&schema, || false)).ok()?;
    Some(soon(what, || schema.breach(&payload, || false)).map(|breach| breach.is_none()))
}

fn object(of: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(of.collect::<Map<_, _>>())
}

fn doubled(depth: usize, leaf: &Value) -> Value {
    let step =
        |n: usize| json!({"allOf": [{"$ref": format!("#/$defs/a{}", n + 1)}, {"$ref": format!("#/$defs/a{}", n + 1)}]});
    let mut defs = object((0..depth).map(|n| (format!("a{n}"), step(n))));
    defs[format!("a{depth}")] = leaf.clone();
    defs
}

fn nested(depth: usize, leaf: Value) -> Value {
    (0..depth).fold(leaf, |inner, _| json!({"a": inner}))
}

#[test]
fn an_enum_is_looked_up() {
    let values: Vec<_> = (0..20_000).map(|n| json!(f64::from(n) + 0.5)).collect();
    let payload: Vec<_> = (0..2_000).map(|n| json!(f64::from(n) + 0.50)).collect();
    assert_eq!(judged("an enum", &json!({"items": {"enum": values}}), &json!(payload)), Some(Ok(true)));
    let consts: Vec<_> = (0..10_000).map(|n| json!({"const": n})).collect();
    let large: Vec<_> = (0..50_000).collect();
    // An error of each of them must not hold a copy of the payload.
    let _ = judged("consts", &json!({"anyOf": consts}), &json!(large));
}

#[test]
fn many_patterns_and_many_keys() {
    let patterns = |count: usize| object((0..count).map(|n| (format!("^k[0-9]*{n}$"), json!({"type": "integer"}))));
    let keys = object((0..10_000).map(|n| (format!("k{n}"), json!(n))));
    assert_eq!(judged("5,000 patterns", &json!({"patternProperties": patterns(5_000)}), &keys), None);
    assert_eq!(
        judged("200 patterns", &json!({"patternProperties": patterns(200)}), &keys),
        Some(Err(Undecided::Steps))
    );
    let schema =
        json!({"allOf": vec![json!({"patternProperties": patterns(100)}); 20], "unevaluatedProperties": false});
    let _ = judged("patterns and unevaluatedProperties", &schema, &keys);
    let text = json!("a".repeat(1_000_000));
    for pattern in ["^(a?){100}a{100}b$", "(a|b)*a(a|b){300}c", "^[\\p{L}\\p{N}]{5,8}x"] {
        let _ = judged(pattern, &json!({"pattern": pattern}), &text);
    }
}

#[test]
fn keys_that_are_not_evaluated() {
    let schema = json!({"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}],
                        "$defs": {"x": {"properties": {"a": {"$ref": "#"}}, "unevaluatedProperties": false}}, "unevaluatedProperties": false});
    assert!(matches!(
        judged("keys 60 deep", &schema, &nested(60, json!({"z": 1}))),
        Some(Ok(false) | Err(Undecided::Steps))
    ));
    for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
        for leaf in [json!(true), json!({}), json!({"properties": {"a": {}}}), json!({"items": {}})] {
            let schema = json!({"$defs": doubled(60, &leaf), "$ref": "#/$defs/a0", keyword: false});
            let _ = judged(keyword, &schema, &nested(60, json!([1, 2])));
        }
    }
}

#[test]
fn what_is_long_or_deep() {
    let digits = format!("[{}]", vec!["7".repeat(100_000); 20].join(","));
    for keyword in ["multipleOf", "minimum", "const"] {
        let schema = Schema::parse(&json!({"items": {keyword: 7.77}}).to_string(), || false).expect("a schema");
        drop(soon(keyword, || schema.breach(&digits, || false)));
    }
    let same = json!(vec![json!({"a": [1, 2, {"b": "x".repeat(50)}]}); 20_000]);
    assert_eq!(judged("uniqueItems", &json!({"uniqueItems": true}), &same), Some(Ok(false)));
    let names = (0..100).fold(
        json!({"properties": object((0..8_000).map(|n| (format!("{n}"), json!({}))))}),
        |inner, n| json!({"properties": {format!("{n}{}", "x".repeat(1_500)): inner}}),
    );
    assert_eq!(judged("long pointers", &names, &json!({})), None);
    let contains = json!({"contains": {"enum": (0..20_000).collect::<Vec<_>>()}, "minContains": 100_000});
    let _ = judged("contains", &contains, &json!((0..100_000).collect::<Vec<_>>()));
    let required: Vec<_> = (0..20_000).map(|n| format!("k{n}")).collect();
    let _ = judged("required of each", &json!({"items": {"required": required}}), &json!(vec![json!({}); 20_000]));
}

#[test]
fn schemas_are_made_ready_soon() {
    let many = object((0..9_000).map(|n| (format!("{n}"), json!({"type": "string"}))));
    for schema in [
        json!({"properties": many}),
        json!({"allOf": vec![json!({"$ref": "#/$defs/x"}); 5_000], "$defs": {"x": {"properties": {"a": {"$ref": "#"}}}}, "unevaluatedProperties": false}),
        json!({"pattern": "\\cA".repeat(600), "anyOf": (0..60).map(|n| json!({"pattern": format!("{}{n}", "\\cA".repeat(600))})).collect::<Vec<_>>()}),
        json!({"required": (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>()}),
        json!({"enum": (0..30_000).collect::<Vec<_>>()}),
        (0..120).fold(
            json!({"properties": {"a": {"$ref": "#"}}}),
            |inner, _| json!({"allOf": [inner], "unevaluatedProperties": false}),
        ),
    ] {
        let _ = judged("a schema", &schema, &nested(60, json!(1)));
    }
}

thread_local! {
    static ASKED: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn whoever_wants_an_end_has_it_at_once() {
    let schema = json!({"$defs": doubled(60, &json!({"type": "integer"})), "$ref": "#/$defs/a0"}).to_string();
    let schema = Schema::parse(&schema, || false).expect("a schema");
    let third = || {
        ASKED.set(ASKED.get() + 1);
        ASKED.get() >= 3
    };
    assert_eq!(schema.breach("1", third), Err(Undecided::Ended));
    assert_eq!(ASKED.get(), 3);
    assert_eq!(schema.breach("1", || true), Err(Undecided::Ended));
    let large =
        json!({"properties": object((0..9_000).map(|n| (format!("{n}"), json!({"type": "string"}))))}).to_string();
    assert!(Schema::parse(&large, || true).is_err());
}

/// Schemas of all keywords, with references to themselves.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        Just(json!({})),
        Just(json!({"$ref": "#"})),
        Just(json!({"$ref": "#/$defs/x"})),
        Just(json!({"$dynamicRef": "#d"})),
        Just(json!({"type": ["object", "array"]})),
        Just(json!({"enum": [1, "a", null, [1], {"a": 1}]})),
        Just(json!({"const": {"a": [1]}})),
        Just(json!({"minimum": 1, "multipleOf": 0.3})),
        Just(json!({"pattern": "^(a|b)*a{1,40}$", "maxLength": 3})),
        Just(json!({"uniqueItems": true, "minItems": 1})),
        Just(json!({"required": ["a"], "dependentRequired": {"a": ["b"]}, "maxProperties": 2})),
    ];
    leaf.prop_recursive(5, 60, 4, |inner| {
        let list = || prop::collection::vec(inner.clone(), 1..4);
        let map = || prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), inner.clone(), 1..4);
        prop_oneof![
            (prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]), list())
                .prop_map(|(keyword, of)| json!({keyword: of})),
            (prop::sample::select(vec!["properties", "patternProperties", "dependentSchemas", "$defs"]), map())
                .prop_map(|(keyword, of)| json!({keyword: of})),
            (
                prop::sample::select(vec![
                    "not",
                    "if",
                    "then",
                    "else",
                    "items",
                    "contains",
                    "additionalProperties",
                    "propertyNames",
                    "unevaluatedItems",
                    "unevaluatedProperties"
                ]),
                inner.clone()
            )
                .prop_map(|(keyword, of)| json!({keyword: of})),
            list().prop_map(|all| {
                let mut merged = Map::new();
                for one in all {
                    merged.extend(one.as_object().cloned().unwrap_or_default());
                }
                Value::Object(merged)
            }),
        ]
    })
}

fn payloads() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!(0.3)), Just(json!("aaaa")), Just(json!("b"))];
    let small = leaf.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c", "d"]), inner, 0..4)
                .prop_map(|of| json!(of)),
        ]
    });
    (small, prop::sample::select(vec![0, 0, 20, 60, 110]), prop::sample::select(vec![1, 1, 30, 1_000])).prop_map(
        |(inner, depth, width)| {
            let deep = (0..depth).fold(inner, |inner, n| match n % 3 {
                0 => json!({"a": inner}),
                1 => {
                    json!({"a": inner, "b": inner}).as_object().map_or(json!(1), |both| json!({"b": both["a"], "c": 1}))
                }
                _ => json!([inner, 1]),
            });
            if width == 1 { deep } else { json!({"a": vec![json!({"a": 1, "b": [1]}); width], "b": deep}) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_time: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_schema_takes_long_for_any_payload(schema in schemas(), other in schemas(), payload in payloads()) {
        let mut schema = schema;
        if let Some(keywords) = schema.as_object_mut() {
            keywords.insert("$defs".into(), json!({"x": other, "d": {"$dynamicAnchor": "d", "$ref": "#"}}));
        }
        let _ = judged("a random one", &schema, &payload);
    }
}
