//! What breaks an invariant, and what is said of it. Owns the words of ES019 and of a handler that runs on; [`crate::Error`] carries them.
use crate::quote::{quote_literal, shown};
use serde_json::{Value, json};
use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not hold.
    Broken,
    /// Nothing can be judged by it: whatever is appended meets that.
    Unusable,
    /// Its handler ran on, for so many milliseconds.
    Late(u64),
}

/// Why an invariant lets a transaction not commit, or an append not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// The streams whose events were judged, in the order of their first ones.
    pub streams: Vec<String>,
    /// Of a handler its own words; else what the state must be.
    pub reason: String,
    #[allow(missing_docs)]
    pub fault: Fault,
}

/// So many streams are named.
const MOST_STREAMS: usize = 10;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { invariant, reason, fault, .. } = self;
        let name = shown(invariant);
        match fault {
            Fault::Broken => write!(f, "invariant {name} is broken: {reason}"),
            Fault::Unusable => write!(f, "invariant {name} cannot be judged: {reason}"),
            Fault::Late(most) => {
                write!(f, "invariant {name} was not judged within eventstream.handler_timeout ({most} ms)")
            }
        }
    }
}

impl Violation {
    /// The five characters of its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self.fault {
            Fault::Broken | Fault::Unusable => "ES019",
            Fault::Late(_) => "57014",
        }
    }

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
        match self.fault {
            Fault::Broken => format!(
                "Nothing was recorded: append what keeps it, all of it in one transaction. Whoever may read its categories sees what it asks: select categories, event_types, handler, fold, require from \
                 eventstream.invariants where name = {name};"
            ),
            Fault::Unusable => format!(
                "Nothing was recorded. Mend what is named, register the invariant again, or take it back: select es_unregister_invariant({name});"
            ),
            Fault::Late(_) => "Nothing was recorded. The commit's locks wait for the handler: let it go by the events that it is given, and by indexes where it reads beside \
                               them."
                .into(),
        }
    }
}
