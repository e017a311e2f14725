//! Which rule of its category an append breaks, and what is said of it: never what looks like personal data.
use crate::quote::{quote_literal, shown};
use crate::word::CategoryRule;
use serde_json::{Value, json};
use std::fmt;

/// Which rule an append breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// "event 1 for stream …", "the append to stream …".
    pub what: String,
    #[allow(missing_docs)]
    pub rule: CategoryRule,
    #[allow(missing_docs)]
    pub category: String,
    /// None: its name is what is not repeated.
    pub stream: Option<String>,
    /// Goes on after the colon: "it has no event_id".
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// Of an append that the fold cannot take.
    pub failed: Option<Failed>,
    /// The type of an event that nobody has declared.
    pub undeclared: Option<String>,
}

/// The most declared event types that a hint names.
const MOST_TOLD: usize = 8;

/// How a fold failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are what their names say
pub struct Failed {
    pub fold: String,
    pub sqlstate: String,
    /// None: whoever appends may not read what it was shown.
    pub message: Option<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { what, rule, category, reason, .. } = self;
        write!(f, "{what} breaks the rule {} of category {}: {reason}", rule.as_str(), shown(category))
    }
}

impl Broken {
    /// Of an append to that stream, of that category.
    #[must_use]
    pub fn of(
        rule: CategoryRule,
        what: String,
        (category, stream): (&str, &str),
        reason: String,
        hint: String,
    ) -> Self {
        let (category, stream) = (category.into(), Some(stream.into()));
        Self { what, rule, category, stream, reason, hint, failed: None, undeclared: None }
    }

    /// Of an event type that nobody has declared, which is a slip of the pen more often than a new one: hints at what is declared, the likeliest first, as far as
    /// that may be told.
    pub fn suggest(&mut self, declared: &[String]) {
        let Some(event_type) = &self.undeclared else { return };
        let create =
            format!("A new type is declared first: select es_create_event_type({});", quote_literal(event_type));
        self.hint = if declared.is_empty() {
            format!("Is it spelt right? {create}")
        } else {
            let told = declared.iter().take(MOST_TOLD).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
            let more = if declared.len() > MOST_TOLD { ", …" } else { "" };
            format!("Is it a slip? Declared are: {told}{more}. {create}")
        };
    }

    /// The same for machines.
    #[must_use]
    pub fn facts(&self) -> Value {
        let Self { rule, category, stream, failed, .. } = self;
        let mut facts = json!({"rule": rule.as_str(), "category": category, "stream": stream});
        if let (Some(Failed { fold, sqlstate, message }), Some(facts)) = (failed, facts.as_object_mut()) {
            facts.insert("fold".into(), json!(fold));
            facts.insert("sqlstate".into(), json!(sqlstate));
            facts.insert("error".into(), json!(message));
        }
        facts
    }
}
