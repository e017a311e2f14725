//! Property of documents: whatever keys they have, they are read as what they say. The keys by which serde_json hands on its own are among them.

use eventstream_core::document::read;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// A document as text and as a tree, made beside each other.
type Both = (String, Value);

fn text(content: &str) -> String {
    Value::from(content).to_string()
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("$serde_json::private::Number".to_owned()),
        Just("$serde_json::private::RawValue".to_owned()),
        Just("$__toml_private_datetime".to_owned()),
        Just(String::new()),
        "[a-c$\"\\\\]{1,3}",
    ]
}

fn number() -> impl Strategy<Value = Both> {
    prop_oneof!["-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?", Just("1e400".to_owned()), Just("-0".to_owned())]
        .prop_map(|digits| (digits.clone(), Value::Number(digits.parse().unwrap())))
}

fn documents() -> impl Strategy<Value = Both> {
    let scalar = prop_oneof![
        Just(("null".to_owned(), Value::Null)),
        any::<bool>().prop_map(|value| (value.to_string(), Value::Bool(value))),
        number(),
        prop_oneof!["[0-9]{1,3}", "\\PC{0,4}"].prop_map(|content| (text(&content), Value::String(content))),
    ];
    scalar.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|elements| {
                let (texts, values): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
                (format!("[{}]", texts.join(", ")), Value::Array(values))
            }),
            // Whatever comes first, and twice.
            prop::collection::vec((key(), inner), 0..4).prop_map(|members| {
                let texts: Vec<_> = members.iter().map(|(key, (value, _))| format!("{}: {value}", text(key))).collect();
                let object: Map<_, _> = members.into_iter().map(|(key, (_, value))| (key, value)).collect();
                (format!("{{{}}}", texts.join(", ")), Value::Object(object))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_is_read_as_what_it_says((text, tree) in documents()) {
        prop_assert_eq!(read(&text).unwrap(), tree);
    }
}

#[test]
fn a_key_of_serde_jsons_is_a_key() {
    for (value, said) in
        [("\"5\"", "a text of digits"), ("\"x\"", "a text"), ("\"\\u0035\"", "an escaped text"), ("5", "a number")]
    {
        for key in ["$serde_json::private::Number", "\\u0024serde_json::private::Number"] {
            let document = format!("{{\"{key}\": {value}}}");
            let read = read(&document).unwrap();
            assert!(read.get("$serde_json::private::Number").is_some(), "{said}: {read}");
        }
    }
}

#[test]
fn what_is_none_and_what_is_too_deep_is_refused() {
    for bad in ["", "{", "[1,]", "1 2", "{\"a\" 1}", "nul", "01", "{1: 2}", "\"\u{1}\""] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&nested(127)).is_ok());
    assert!(read(&nested(128)).is_err());
}
