//! JSON Schema 2020-12 for payloads: which documents are schemas here, and what of a payload breaks one.
//!
//! Promises: a schema is judged by itself alone (it refers to nothing outside, reads nothing, asks nobody); making one ready and judging by it end
//! within about a second, or at once where somebody wants that, and never overflow the stack: each step spends [`fuel`]; numbers are compared as the
//! decimals that they are; what is said of a breach is where it is and by which rule, in the schema's own words, and never what stands there.

mod decimal;
mod fuel;
mod loops;
mod metered;
mod normal;
mod number;
mod patterns;
mod places;
mod tank;

pub use crate::breach::Breach;
pub use fuel::Undecided;

use crate::document;
use crate::error::{Error, Result};
use crate::quote::shown;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, Validator};
use metered::{Metered, Seen};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema, ready to judge.
#[derive(Debug)]
pub struct Schema {
    validator: Validator<Metered>,
    /// The properties that it names.
    names: HashSet<String>,
    required: HashMap<String, Vec<String>>,
    weights: patterns::Weights,
    /// Keywords in it that mean nothing to JSON Schema.
    pub unknown_keywords: Vec<String>,
}

impl Schema {
    /// The largest schema, in bytes as text.
    pub const MOST_BYTES: usize = 256 << 10;
    /// The most breaches of a payload that are told, and the largest payload of which more than the first is, in bytes as text.
    pub const MOST_BREACHES: usize = 20;
    const MOST_BYTES_OF_BREACHES: usize = 64 << 10;

    /// Reads a schema. `wants_end` is asked now and then whether somebody wants an end of it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `json_schema`.
    pub fn parse(text: &str, wants_end: fn() -> bool) -> Result<Self> {
        if text.len() > Self::MOST_BYTES {
            return Err(mistake("", format!("must have at most {} bytes, not {}", Self::MOST_BYTES, text.len())));
        }
        let mut schema: Value =
            document::read(text).map_err(|_| mistake("", "must not be nested deeper than 127 levels"))?;
        if !schema.is_object() && !schema.is_boolean() {
            return Err(mistake("", format!("must be a JSON Schema, an object, not {}", kind_of(&schema))));
        }
        if let Some(dialect) = schema.get("$schema")
            && dialect.as_str().map(|dialect| dialect.strip_suffix('#').unwrap_or(dialect)) != Some(DIALECT)
        {
            return Err(mistake("/$schema", format!("must be {DIALECT}, or not be there")));
        }
        let prepared = places::prepare(&mut schema).map_err(|(pointer, reason)| mistake(&pointer, reason))?;
        let validator = fuel::fill(wants_end, prepared.weights, || build(&schema))
            .map_err(|_| mistake("", "must be a simpler one: it takes too long to make it ready"))??;
        let places::Prepared { unknown: unknown_keywords, names, required, weights } = prepared;
        Ok(Self { validator, names, required, weights, unknown_keywords })
    }

    /// What of a payload, JSON as text, breaks the schema. `wants_end` is asked now and then whether somebody wants an end of it.
    ///
    /// # Errors
    /// Why the payload cannot be judged: "it is nested …".
    pub fn breach(&self, payload: &str, wants_end: fn() -> bool) -> Result<Option<Breach>, Undecided> {
        let value = document::read(payload).map_err(|_| Undecided::Nested)?;
        fuel::fill(wants_end, self.weights, || {
            // Whether it does costs less than where.
            if self.validator.is_valid(Seen(&value)) {
                return None;
            }
            self.validator.validate(Seen(&value)).err().map(|error| self.told(&error, &value))
        })
    }

    /// All of what of a payload breaks the schema, and counts, at most [`Self::MOST_BREACHES`]; the first alone of one that is large: each costs memory.
    ///
    /// # Errors
    /// As [`Self::breach`].
    pub fn breaches(
        &self,
        payload: &str,
        wants_end: fn() -> bool,
        counts: impl Fn(&Breach) -> bool,
    ) -> Result<Vec<Breach>, Undecided> {
        let first = self.breach(payload, wants_end)?;
        let is_one = first.is_none() || payload.len() > Self::MOST_BYTES_OF_BREACHES;
        let first = first.into_iter().filter(&counts).collect();
        if is_one {
            return Ok(first);
        }
        let value = document::read(payload).map_err(|_| Undecided::Nested)?;
        let all = fuel::fill(wants_end, self.weights, || {
            let all = self.validator.iter_errors(Seen(&value)).map(|error| self.told(&error, &value));
            all.filter(|breach| counts(breach)).take(Self::MOST_BREACHES).collect()
        });
        // Where they take too long, one was found.
        Ok(all.unwrap_or(first))
    }

    fn told(&self, error: &ValidationError, payload: &Value) -> Breach {
        Breach {
            value: self.place(payload, error.instance_path().as_str()),
            kind: kind_of(error.instance()),
            rule: error.schema_path().as_str().to_owned(),
            more: self.more(error, payload),
        }
    }

    /// What the schema itself says about the rule.
    fn more(&self, error: &ValidationError, payload: &Value) -> Option<String> {
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                property.as_str().map(|name| format!("{} is missing", shown(name)))
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let are = if unexpected.len() == 1 { "is" } else { "are" };
                let unforeseen = format!("{} of its keys {are} not foreseen", unexpected.len());
                // A key that is spelt wrong is missing, too: that says more.
                let missing = self.missing(error, payload).map(|name| format!(", and {} is missing", shown(name)));
                Some(unforeseen + &missing.unwrap_or_default())
            }
            _ => None,
        }
    }

    /// The first key that the schema requires beside the rule that is broken, and that is not there.
    fn missing(&self, error: &ValidationError, payload: &Value) -> Option<&str> {
        let (schema, _) = error.schema_path().as_str().rsplit_once('/')?;
        let object = payload.pointer(error.instance_path().as_str())?.as_object()?;
        self.required.get(schema)?.iter().find(|name| !object.contains_key(name.as_str())).map(String::as_str)
    }

    /// A pointer into the payload as it may be told: keys that the schema does not name are the payload's content, and read `*`.
    fn place(&self, value: &Value, pointer: &str) -> String {
        let mut shown = String::new();
        let mut at = Some(value);
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            let is_index = at.is_some_and(Value::is_array);
            at = match at {
                Some(Value::Array(elements)) => key.parse().ok().and_then(|place: usize| elements.get(place)),
                Some(Value::Object(members)) => members.get(&key),
                _ => None,
            };
            shown.push('/');
            shown.push_str(if is_index || self.names.contains(&key) { segment } else { "*" });
        }
        shown
    }
}

fn build(schema: &Value) -> Result<Validator<Metered>> {
    let mut options = jsonschema::options_for::<Metered>()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(patterns::MOST_COMPILED_BYTES)
                .dfa_size_limit(patterns::MOST_COMPILED_BYTES),
        )
        .with_keyword(places::KEYWORD, tank::tank);
    for name in number::KEYWORDS {
        options = options.with_keyword(name, move |_, value, _| number::keyword(name, value));
    }
    match catch_unwind(AssertUnwindSafe(|| options.build(schema))) {
        Ok(Ok(validator)) => Ok(validator),
        Ok(Err(error)) => Err(mistake(error.instance_path().as_str(), refusal(&error))),
        Err(panic) if panic.is::<Undecided>() => std::panic::resume_unwind(panic),
        Err(_) => Err(mistake("", "must be a schema that can be made ready")),
    }
}

/// What is wrong with a schema, without the values that stand in it.
fn refusal(error: &ValidationError) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(_) => "must refer to a place that is there".to_owned(),
        ValidationErrorKind::Custom { message, .. } => message.clone(),
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => format!("must be of the type {kind}"),
        ValidationErrorKind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.to_string()).collect();
            format!("must be of the type {}", kinds.join(" or "))
        }
        ValidationErrorKind::Minimum { limit } => format!("must be {limit} or more"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        ValidationErrorKind::MinItems { limit } => format!("must have {limit} or more elements"),
        ValidationErrorKind::UniqueItems => "must have each element once".to_owned(),
        kind => format!("breaks the rules of JSON Schema 2020-12: {}", kind.keyword()),
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
