//! What rules are, once they are read; and what they read of an event.
use super::pointer::{Path, Pointer};
use crate::decimal::Decimal;
use crate::decimal::Rounding;
use crate::json::Value;

use std::collections::HashMap;

/// Compiled rules.
#[derive(Debug)]
pub struct Rules {
    pub(super) on: HashMap<String, Vec<Rule>>,
    pub(super) refuses_others: bool,
}

/// One operation, and when it applies.
#[derive(Debug)]
pub(super) struct Rule {
    /// Where it stands in the rules, as a JSON Pointer.
    pub(super) place: String,
    pub(super) when: Vec<Guard>,
    pub(super) action: Action,
}

/// What an operation does.
#[derive(Debug)]
pub(super) enum Action {
    /// Operations that take a source for each target.
    Each(Operation, Vec<(Path, Source)>),
    Divide(Vec<(Path, Source, Rounding)>),
    Round(Vec<(Path, Rounding)>),
    Increment(Vec<Path>),
    Remove(Vec<Path>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
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
pub(super) enum Source {
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
pub(super) struct Guard {
    pub(super) source: Source,
    /// Whether the value must be there; None: it must be, and it is an error if it is not.
    pub(super) exists: Option<bool>,
    pub(super) tests: Vec<(Test, Source)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equals,
    Differs,
    LessThan,
    AtMost,
    MoreThan,
    AtLeast,
}

/// `1`, which increment adds.
pub(super) fn one() -> Decimal {
    Decimal::from(1)
}

/// The event as rules read it.
pub trait EventSource {
    /// Why a value could not be read, where that is no fault of the rules.
    type Failure;
    /// Its type.
    fn event_type(&self) -> &str;
    /// A copy of a value of the payload; None where there is none.
    ///
    /// # Errors
    /// A value that cannot be read.
    fn payload(&self, pointer: &Pointer) -> Result<Option<Value>, Self::Failure>;
    /// A field of the event; None where it is NULL.
    ///
    /// # Errors
    /// A value that cannot be read.
    fn field(&self, field: &EventField) -> Result<Option<Value>, Self::Failure>;
    /// Asked before each rule: a failure ends the fold (a cancel that waits).
    ///
    /// # Errors
    /// Whatever ends it.
    fn checkpoint(&self) -> Result<(), Self::Failure> {
        Ok(())
    }
}
