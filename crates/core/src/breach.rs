//! What of a payload breaks its schema, and what is said of it: where it is and by which rule, and never what stands there.
use crate::quote::shown;
use serde_json::{Value, json};
use std::fmt;

/// What of a payload breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// JSON Pointer of the value within the payload.
    pub value: String,
    /// What the value is: "a string".
    pub kind: &'static str,
    /// JSON Pointer of the rule within the schema.
    pub rule: String,
    /// More of the rule, in the schema's own words.
    pub more: Option<String>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let place = if self.value.is_empty() { "it".to_owned() } else { shown(&self.value) };
        write!(f, "{place}, which is {}, breaks the rule {}", self.kind, shown(&self.rule))?;
        self.more.as_ref().map_or(Ok(()), |more| write!(f, " ({more})"))
    }
}

impl Breach {
    /// The same for machines.
    #[must_use]
    pub fn facts(&self, event_type: &str, schema_version: i32) -> Value {
        let Self { value, kind, rule, .. } = self;
        json!({"event_type": event_type, "schema_version": schema_version, "value": value, "kind": kind, "rule": rule})
    }
}
