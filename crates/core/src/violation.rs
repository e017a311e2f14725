//! What breaks an invariant, and what is said of it. Owns the words of ES019; [`crate::Error`] carries them.
use crate::quote::{quote_literal, shown};
use serde_json::{Value, json};
use std::fmt;

/// Why an invariant lets a transaction not commit, or an append not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// The streams whose events were judged, in the order of their first ones.
    pub streams: Vec<String>,
    /// Of a handler its own words; else what the state must be.
    pub reason: String,
    /// Whether nothing could be judged: whatever is appended meets that.
    pub is_unusable: bool,
}

/// So many streams are named.
const MOST_STREAMS: usize = 10;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { invariant, reason, is_unusable, .. } = self;
        let what = if *is_unusable { "cannot be judged" } else { "is broken" };
        write!(f, "invariant {} {what}: {reason}", shown(invariant))
    }
}

impl Violation {
    /// The same for machines.
    #[must_use]
    pub fn facts(&self) -> Value {
        let streams = &self.streams[..self.streams.len().min(MOST_STREAMS)];
        json!({"invariant": self.invariant, "streams": streams, "streams_in_all": self.streams.len(), "reason": self.reason})
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let name = quote_literal(&self.invariant);
        if self.is_unusable {
            return format!(
                "Nothing was recorded. Mend what is named, register the invariant again, or take it back: select es_unregister_invariant({name});"
            );
        }
        format!(
            "Nothing was recorded: append what keeps it, all of it in one transaction. What it asks: select categories, event_types, handler, fold, require from \
             eventstream.invariants where name = {name};"
        )
    }
}
