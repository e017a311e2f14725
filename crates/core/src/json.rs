//! JSON as rules hold it in memory. Owns exact numbers: a number keeps its value and its scale, as PostgreSQL's jsonb does,
//! and never becomes a float.
use crate::decimal;
use crate::decimal::Decimal;
use crate::document;
use crate::quote::shown;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The members of an object.
pub type Object = BTreeMap<String, Value>;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// The most digits of a number that a message repeats.
const MOST_SHOWN: u64 = 80;

impl Value {
    /// Reads a document of at most 128 levels. The error says what is wrong with it.
    ///
    /// # Errors
    /// A text that is no JSON, is nested too deep, or holds a number that PostgreSQL's numeric cannot.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = document::read(text).map_err(|error| error.to_string())?;
        Self::of(parsed, &mut decimal::Reader::default())
    }

    fn of(value: serde_json::Value, numbers: &mut decimal::Reader) -> Result<Self, String> {
        Ok(match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Number(numbers.read(number.as_str())?),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(elements) => {
                Self::Array(elements.into_iter().map(|element| Self::of(element, numbers)).collect::<Result<_, _>>()?)
            }
            serde_json::Value::Object(members) => Self::Object(
                members
                    .into_iter()
                    .map(|(key, value)| Ok((key, Self::of(value, numbers)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }

    /// The document as JSON text; numbers as PostgreSQL prints them, without an exponent.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, into: &mut String) {
        match self {
            Self::Null => into.push_str("null"),
            Self::Bool(value) => into.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => into.push_str(&number.to_plain_string()),
            Self::Text(text) => write_text(text, into),
            Self::Array(elements) => {
                into.push('[');
                for (place, element) in elements.iter().enumerate() {
                    into.push_str(if place == 0 { "" } else { ", " });
                    element.write(into);
                }
                into.push(']');
            }
            Self::Object(members) => {
                into.push('{');
                for (place, (key, value)) in members.iter().enumerate() {
                    into.push_str(if place == 0 { "" } else { ", " });
                    write_text(key, into);
                    into.push_str(": ");
                    value.write(into);
                }
                into.push('}');
            }
        }
    }

    /// What it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// What it is and, if it is small, its text: for messages.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) if decimal::is_longer(number, MOST_SHOWN) => "a number of many digits".into(),
            Self::Number(number) => format!("the number {}", number.to_plain_string()),
            Self::Text(text) => format!("the string {}", shown(text)),
            Self::Array(_) | Self::Object(_) => self.kind().into(),
        }
    }

    /// Levels of nesting: 0 for what is no array or object.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Roughly the bytes that it takes, in memory or printed, whichever is more.
    #[must_use]
    pub fn size(&self) -> usize {
        /// What any value takes, and what a place in an object takes beside its key.
        const PLACE: usize = 32;
        PLACE
            + match self {
                Self::Null | Self::Bool(_) => 0,
                Self::Number(number) => decimal::size(number),
                Self::Text(text) => text.len(),
                Self::Array(elements) => elements.iter().map(Self::size).sum(),
                Self::Object(members) => members.iter().map(|(key, value)| key.len() + value.size()).sum(),
            }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

fn write_text(text: &str, into: &mut String) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(into, "\\u{:04x}", control as u32);
            }
            other => into.push(other),
        }
    }
    into.push('"');
}
