//! Values in a form in which those that are equal in JSON Schema read the same: numbers whatever zeros they end with, objects whatever the order of
//! their keys. So a value is looked up among many at the price of reading it once.
use super::decimal::Decimal;
use super::fuel::spend;
use serde_json::Value;
use std::collections::HashSet;

/// Values that others are looked up among.
#[derive(Debug, Default)]
pub struct Among {
    values: HashSet<Box<str>>,
    /// The length of the longest.
    longest: usize,
}

impl Among {
    pub fn of(values: &[Value]) -> Self {
        let values: HashSet<Box<str>> = values.iter().filter_map(of).map(String::into_boxed_str).collect();
        let longest = values.iter().map(|value| value.len()).max().unwrap_or(0);
        Self { values, longest }
    }

    pub fn has(&self, value: &Value) -> bool {
        let mut text = String::new();
        write(value, &mut text, self.longest).is_some() && self.values.contains(text.as_str())
    }
}

/// Of a value of a schema.
pub fn of(value: &Value) -> Option<String> {
    let mut text = String::new();
    write(value, &mut text, usize::MAX).map(|()| text)
}

/// Whether the value reads so.
pub fn is(value: &Value, expected: &str) -> bool {
    let mut text = String::new();
    write(value, &mut text, expected.len()).is_some() && text == expected
}

/// Whether no value is there twice.
pub fn are_unique(values: &[Value]) -> bool {
    let mut seen = HashSet::with_capacity(values.len());
    values.iter().all(|value| of(value).is_some_and(|text| seen.insert(text)))
}

/// Writes a value behind `text`; None: then there would be more than `most` bytes. Texts and keys begin with their length, so that nothing in them reads like
/// another value.
fn write(value: &Value, text: &mut String, most: usize) -> Option<()> {
    spend(1);
    match value {
        Value::Null => text.push('n'),
        Value::Bool(false) => text.push('f'),
        Value::Bool(true) => text.push('t'),
        Value::Number(number) => {
            spend(number.as_str().len() as u64 / 8);
            Decimal::of(number).write(text);
        }
        Value::String(string) => write_text(string, text, most)?,
        Value::Array(values) => {
            text.push('[');
            for value in values {
                write(value, text, most)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            spend(members.len() as u64);
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| key.as_str());
            for (key, value) in members {
                write_text(key, text, most)?;
                write(value, text, most)?;
            }
            text.push('}');
        }
    }
    (text.len() <= most).then_some(())
}

fn write_text(string: &str, text: &mut String, most: usize) -> Option<()> {
    if string.len() > most {
        return None;
    }
    spend(string.len() as u64 / 16);
    text.push_str(&string.len().to_string());
    text.push(':');
    text.push_str(string);
    Some(())
}
