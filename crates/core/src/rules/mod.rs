//! Fold rules: how an event changes a state, said in JSON (docs/rules.md has the language). Owns its grammar and its meaning.
//! Promises: compiled once; arithmetic is exact; nothing that a rule or an event says makes it recurse without bound or
//! take memory beyond the limits; a rule that meets a value it cannot use says which rule, and what it met.
mod apply;
mod effect;
mod inserted;
mod layout;
mod parse;
mod pointer;
mod read;
mod state;
mod steps;
mod tree;
mod unordered;

pub use apply::{EventSource, Failed, RuleFailure};
pub use inserted::Inserted;
pub use pointer::{Pointer, Token};
pub use state::{Limits, State};
pub use unordered::{Latest, Place};

use crate::decimal::Rounding;
use crate::json::{Decimal, Value};
use pointer::Path;
use std::collections::HashMap;

/// Compiled rules.
#[derive(Debug)]
pub struct Rules {
    on: HashMap<String, Vec<Rule>>,
    refuses_others: bool,
}

/// One operation, and when it applies.
#[derive(Debug)]
struct Rule {
    /// Where it stands in the rules, as a JSON Pointer.
    place: String,
    when: Vec<Guard>,
    action: Action,
}

/// What an operation does.
#[derive(Debug)]
enum Action {
    /// Operations that take a source for each target.
    Each(Operation, Vec<(Path, Source)>),
    Divide(Vec<(Path, Source, Rounding)>),
    Round(Vec<(Path, Rounding)>),
    Increment(Vec<Path>),
    Remove(Vec<Path>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Set,
    Merge,
    Add,
    Subtract,
    Multiply,
    Min,
    Max,
    Append,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Payload(Path),
    Event(EventField),
    State(Path),
    Constant(Value),
    /// The first, or a constant where it is missing.
    Default(Box<Source>, Value),
}

/// What can be read of an event besides its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the columns of type eventstream.event
pub enum EventField {
    GlobalPosition,
    Stream,
    Version,
    EventId,
    EventType,
    SchemaVersion,
    Subject,
    OccurredAt,
    RecordedAt,
    Category,
    Tenant,
    RecordedBy,
    /// A value within the metadata.
    Metadata(Pointer),
}

/// A condition on a value.
#[derive(Debug)]
struct Guard {
    source: Source,
    /// Whether the value must be there; None: it must be, and it is an error if it is not.
    exists: Option<bool>,
    tests: Vec<(Test, Source)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    Differs,
    LessThan,
    AtMost,
    MoreThan,
    AtLeast,
}

/// `1`, which increment adds.
fn one() -> Decimal {
    Decimal::from(1)
}
