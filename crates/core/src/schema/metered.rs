//! Payloads as the library sees them: serde_json's values, of which nothing is asked that is not paid for (fuel.rs).
use super::decimal::Decimal;
use super::fuel::{ERROR, spend, spend_on_key, spend_on_text};
use super::normal;
use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// What it costs to look into a value, or to note that it is being looked into: where keys are to be found that nothing has evaluated, sets of them are made.
const LOOK: u64 = 3;

/// The library's name for this form of JSON.
pub struct Metered;

/// A value of the payload.
#[derive(Clone, Copy)]
pub struct Seen<'a>(pub &'a Value);

impl Json for Metered {
    type Node<'a> = Seen<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(Seen) -> T) -> T {
        *buffer = Value::String(string.to_owned());
        f(Seen(buffer))
    }
}

impl<'a> Node<'a, Metered> for Seen<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = Digits<'a>;

    fn as_object(&self) -> Option<Members<'a>> {
        spend(LOOK);
        self.0.as_object().map(Members)
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        spend(LOOK);
        self.0.as_array().map(|elements| Elements(elements))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.0.as_str();
        spend_on_text(text.map_or(0, str::len));
        text.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Digits<'a>> {
        let Value::Number(number) = self.0 else { return None };
        spend(1 + number.as_str().len() as u64 / 8);
        Some(Digits(number))
    }

    fn as_boolean(&self) -> Option<bool> {
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        self.0.is_null()
    }

    fn is_number(&self) -> bool {
        self.0.is_number()
    }

    fn json_type(&self) -> JsonType {
        spend(1);
        match self.0 {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        let text = self.0.as_str()?;
        spend(1 + text.len() as u64 / 16);
        Some(text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        normal::of(expected).is_some_and(|expected| normal::is(self.0, &expected))
    }

    /// An empty one of its kind: it stands in errors only, of which there may be many, and a copy of the payload in each.
    fn to_value(&self) -> Cow<'a, Value> {
        spend(ERROR);
        Cow::Owned(match self.0 {
            Value::Null => Value::Null,
            Value::Bool(_) => Value::Bool(false),
            Value::Number(_) => Value::Number(0.into()),
            Value::String(_) => Value::String(String::new()),
            Value::Array(_) => Value::Array(Vec::new()),
            Value::Object(_) => Value::Object(Map::new()),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        spend(LOOK);
        Some(NodeIdentity::new(std::ptr::from_ref(self.0) as usize))
    }
}

/// The members of an object.
pub struct Members<'a>(&'a Map<String, Value>);

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = Seen<'a>;
    type MemberName = &'a str;
    type MembersIter = EachMember<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Seen<'a>> {
        spend(1);
        self.0.get(key).map(Seen)
    }

    fn members(&self) -> EachMember<'a> {
        EachMember(self.0.iter())
    }
}

/// The members of an object, one after the other.
pub struct EachMember<'a>(serde_json::map::Iter<'a>);

impl<'a> Iterator for EachMember<'a> {
    type Item = (&'a str, Seen<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.0.next()?;
        spend_on_key(key.len());
        Some((key, Seen(value)))
    }
}

/// The elements of an array.
pub struct Elements<'a>(&'a [Value]);

impl<'a> Array<'a, Metered> for Elements<'a> {
    type Node = Seen<'a>;
    type ElementsIter = EachElement<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> EachElement<'a> {
        EachElement(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        normal::are_unique(self.0)
    }
}

/// The elements of an array, one after the other.
pub struct EachElement<'a>(std::slice::Iter<'a, Value>);

impl<'a> Iterator for EachElement<'a> {
    type Item = Seen<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        spend(1);
        self.0.next().map(Seen)
    }
}

/// A number.
pub struct Digits<'a>(&'a Number);

impl JsonNumber for Digits<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.as_u64()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.as_i64()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.as_f64()
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0.as_str())
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Borrowed(self.0)
    }

    fn is_integer(&self) -> bool {
        Decimal::of(self.0).is_whole()
    }
}
