//! Fold rules: how an event changes a state, said in JSON (docs/rules.md has the language). Owns its grammar and its meaning.
//! Promises: compiled once; arithmetic is exact; nothing that a rule or an event says makes it recurse without bound or
//! take memory beyond the limits; a rule that meets a value it cannot use says which rule, and what it met.
mod apply;
mod definition;
mod effect;
mod inserted;
mod layout;
mod parse;
mod pointer;
mod read;
mod reading;
mod requirement;
mod state;
mod steps;
mod tree;
mod unordered;

pub use apply::{Failed, RuleFailure};
pub use definition::{EventField, EventSource, Rules};
pub use inserted::Inserted;
pub use pointer::{Pointer, Token};
pub use reading::{Keyed, Read};
pub use requirement::{Requirement, Unmet};
pub use state::{Limits, State};
pub use unordered::{Latest, Rank};
