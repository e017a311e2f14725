//! JSON Schema 2020-12 for payloads: which documents are schemas here, and what of a payload breaks one.
//!
//! Promises: a schema is judged by itself alone (it refers to nothing outside, reads nothing, asks nobody); no schema and no payload makes a
//! judgement endless or overflows the stack (each step of it spends [`fuel`]); numbers are compared as the decimals that they are; what is said of a
//! breach is where it is and by which rule, and never what stands there.

mod fuel;
mod number;
mod places;

pub use crate::breach::Breach;
use crate::error::{Error, Result};
use crate::quote::shown;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// The most bytes that the compiled form of a pattern may have: what judging takes grows with it.
const MOST_PATTERN_BYTES: usize = 128 << 10;

/// A schema, ready to judge.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// Keywords in it that mean nothing to JSON Schema.
    pub unknown_keywords: Vec<String>,
}

impl Schema {
    /// The largest schema, in bytes as text.
    pub const MOST_BYTES: usize = 256 << 10;

    /// Reads a schema.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `json_schema`.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > Self::MOST_BYTES {
            return Err(mistake("", format!("must have at most {} bytes, not {}", Self::MOST_BYTES, text.len())));
        }
        let mut schema: Value =
            serde_json::from_str(text).map_err(|_| mistake("", "must not be nested deeper than 127 levels"))?;
        if !schema.is_object() && !schema.is_boolean() {
            return Err(mistake("", format!("must be a JSON Schema, an object, not {}", kind_of(&schema))));
        }
        if let Some(dialect) = schema.get("$schema")
            && dialect.as_str().map(|dialect| dialect.trim_end_matches('#')) != Some(DIALECT)
        {
            return Err(mistake("/$schema", format!("must be {DIALECT}, or not be there")));
        }
        let unknown_keywords = places::prepare(&mut schema).map_err(|(pointer, reason)| mistake(&pointer, reason))?;
        let mut options = jsonschema::draft202012::options()
            .offline()
            .with_pattern_options(
                PatternOptions::regex().size_limit(MOST_PATTERN_BYTES).dfa_size_limit(MOST_PATTERN_BYTES),
            )
            .with_keyword(fuel::KEYWORD, fuel::tank);
        for name in number::KEYWORDS {
            options = options.with_keyword(name, move |_, value, _| number::keyword(name, value));
        }
        let built = catch_unwind(AssertUnwindSafe(|| options.build(&schema)));
        let validator = match built {
            Ok(Ok(validator)) => validator,
            Ok(Err(error)) => {
                return Err(mistake(error.instance_path().as_str(), refusal(&error.to_string(), error.kind())));
            }
            Err(_) => return Err(mistake("", "must be a schema that can be made ready")),
        };
        Ok(Self { validator, unknown_keywords })
    }

    /// What of a payload, JSON as text, breaks the schema; the inner result says that it could not be judged, "…, which no schema judges".
    ///
    /// # Errors
    /// Why the payload cannot be judged.
    pub fn breach(&self, payload: &str) -> Result<Option<Breach>, String> {
        let value: Value =
            serde_json::from_str(payload).map_err(|_| "it is nested deeper than 127 levels".to_owned())?;
        let judged = fuel::fill(|| {
            catch_unwind(AssertUnwindSafe(|| {
                self.validator.validate(&value).err().map(|error| Breach {
                    value: error.instance_path().as_str().to_owned(),
                    kind: kind_of(error.instance()),
                    rule: error.schema_path().as_str().to_owned(),
                    more: more(error.kind()),
                })
            }))
        });
        judged.map_err(|panic| match panic.downcast::<fuel::Spent>() {
            Ok(spent) => spent.to_string(),
            Err(other) => resume_unwind(other),
        })
    }
}

/// What the schema itself says about the rule.
fn more(kind: &ValidationErrorKind) -> Option<String> {
    match kind {
        ValidationErrorKind::Required { property } => {
            property.as_str().map(|name| format!("{} is missing", shown(name)))
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => Some(format!(
            "{} of its keys {} not foreseen",
            unexpected.len(),
            if unexpected.len() == 1 { "is" } else { "are" }
        )),
        _ => None,
    }
}

/// What is wrong with a schema, without the values that stand in it.
fn refusal(message: &str, kind: &ValidationErrorKind) -> String {
    match kind {
        ValidationErrorKind::Referencing(_) => "must refer to a place that is there".to_owned(),
        ValidationErrorKind::Format { format } if format == "regex" => format!(
            "must be a regular expression without references back and looks around, of at most {MOST_PATTERN_BYTES} bytes when it is compiled"
        ),
        _ => format!("breaks the rules of JSON Schema 2020-12: {}", crate::quote::shortened(message)),
    }
}

/// What a value is, in a message.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn mistake(pointer: &str, reason: impl Into<String>) -> Error {
    let place = if pointer.is_empty() { String::new() } else { format!("at {} ", crate::quote::shortened(pointer)) };
    Error::InvalidArgument { argument: "json_schema".into(), reason: format!("{place}{}", reason.into()), hint: None }
}
