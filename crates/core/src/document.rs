//! JSON texts as trees whose numbers are what they are. Owns the reading: serde_json hands on a number that fits no integer as an object with a key of its own, and takes whatever object has that
//! key for a number. Here it is told apart, so that a document is what it says, whoever wrote it; nothing else reads one by serde_json.
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The key by which serde_json hands on a number that fits no integer.
const NUMBER: &str = "$serde_json::private::Number";

/// Reads a text.
///
/// # Errors
/// It is no JSON, or nested deeper than 127 levels.
pub fn read(text: &str) -> serde_json::Result<Value> {
    read_by(Tree::LAST, text)
}

/// Reads a text none of whose objects has two members of one name, which readers take for one or the other.
///
/// # Errors
/// As [`read`], and where one has.
pub fn read_unambiguous(text: &str) -> serde_json::Result<Value> {
    read_by(Tree { refuses_doubles: true }, text)
}

fn read_by(tree: Tree, text: &str) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = tree.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A value of any kind.
#[derive(Clone, Copy)]
struct Tree {
    refuses_doubles: bool,
}

impl Tree {
    /// Of two members of one name the last one counts.
    const LAST: Self = Self { refuses_doubles: false };

    fn insert<E: Error>(self, object: &mut Map<String, Value>, key: String, value: Value) -> Result<(), E> {
        if object.insert(key, value).is_some() && self.refuses_doubles {
            return Err(E::custom("an object has two members of one name"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, into: &mut fmt::Formatter) -> fmt::Result {
        into.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key_seed(OfMember)? {
            match key {
                Key::Own(key) => {
                    let value = members.next_value_seed(self)?;
                    self.insert(&mut object, key, value)?;
                }
                Key::Number => match members.next_value_seed(Perhaps(self))? {
                    Found::Number(number) => return Ok(Value::Number(number)),
                    Found::Value(value) => self.insert(&mut object, NUMBER.to_owned(), value)?,
                },
            }
        }
        Ok(Value::Object(object))
    }
}

/// A member's key.
enum Key {
    /// A number's, or a member's of the same name.
    Number,
    /// Any other.
    Own(String),
}

struct OfMember;

impl<'de> DeserializeSeed<'de> for OfMember {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Key, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for OfMember {
    type Value = Key;

    fn expecting(&self, into: &mut fmt::Formatter) -> fmt::Result {
        into.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(if key == NUMBER { Key::Number } else { Key::Own(key.to_owned()) })
    }
}

/// What stands behind the key of numbers.
enum Found {
    Number(Number),
    Value(Value),
}

/// A number's digits, which serde_json gives away as a text that nobody else needs; texts of a document it only lends. tests/documents.rs fails where that changes.
struct Perhaps(Tree);

impl<'de> DeserializeSeed<'de> for Perhaps {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Perhaps {
    type Value = Found;

    fn expecting(&self, into: &mut fmt::Formatter) -> fmt::Result {
        self.0.expecting(into)
    }

    fn visit_string<E: Error>(self, digits: String) -> Result<Found, E> {
        digits.parse().map(Found::Number).map_err(E::custom)
    }

    fn visit_unit<E: Error>(self) -> Result<Found, E> {
        self.0.visit_unit().map(Found::Value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Found, E> {
        self.0.visit_bool(value).map(Found::Value)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Found, E> {
        self.0.visit_u64(number).map(Found::Value)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Found, E> {
        self.0.visit_i64(number).map(Found::Value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found, E> {
        self.0.visit_str(text).map(Found::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Found, A::Error> {
        self.0.visit_seq(elements).map(Found::Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Found, A::Error> {
        self.0.visit_map(members).map(Found::Value)
    }
}
