//! JSON as rules hold it in memory. Owns exact numbers: a number keeps its value and its scale, as PostgreSQL's jsonb does,
//! and never becomes a float.
use crate::quote::shown;
use bigdecimal::BigDecimal;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

/// An exact decimal number with its scale: `1.00` is not written as `1`.
pub type Decimal = BigDecimal;

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

/// The most digits before the point, and after it, that PostgreSQL's numeric has.
const MOST_DIGITS: i64 = 131_072;
const MOST_SCALE: i64 = 16_383;

impl Value {
    /// Reads a document of at most 128 levels. The error says what is wrong with it.
    ///
    /// # Errors
    /// A text that is no JSON, is nested too deep, or holds a number that PostgreSQL's numeric cannot.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::of(parsed)
    }

    fn of(value: serde_json::Value) -> Result<Self, String> {
        Ok(match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Number(number_of(&number.to_string())?),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(elements) => {
                Self::Array(elements.into_iter().map(Self::of).collect::<Result<_, _>>()?)
            }
            serde_json::Value::Object(members) => Self::Object(
                members.into_iter().map(|(key, value)| Ok((key, Self::of(value)?))).collect::<Result<_, String>>()?,
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
            Self::Number(number) if number.as_bigint_and_scale().0.bits() > 200 => "a number of many digits".into(),
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

    /// Roughly the bytes that it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        /// What any value takes, and what a place in an object takes beside its key.
        const PLACE: usize = 32;
        PLACE
            + match self {
                Self::Null | Self::Bool(_) => 0,
                Self::Number(number) => number.as_bigint_and_scale().0.bits() as usize / 8,
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

fn number_of(text: &str) -> Result<Decimal, String> {
    let too_large = || format!("the number {} has more digits than a numeric can have", shown(text));
    let number = Decimal::from_str(text).map_err(|error| format!("the number {}: {error}", shown(text)))?;
    let (coefficient, scale) = number.as_bigint_and_scale();
    let digits = i64::try_from(coefficient.bits() / 3).map_err(|_| too_large())?;
    if scale > MOST_SCALE || digits > 2 * MOST_DIGITS || digits.saturating_sub(scale) > MOST_DIGITS {
        return Err(too_large());
    }
    Ok(if scale < 0 { number.with_scale(0) } else { number })
}

fn write_text(text: &str, into: &mut String) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            control if control.is_control() && control.is_ascii() => {
                let _ = write!(into, "\\u{:04x}", control as u32);
            }
            other => into.push(other),
        }
    }
    into.push('"');
}
