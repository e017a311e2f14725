//! A stream that a state table goes past.
use crate::pg::error::failure::Caught;
use crate::present::event::StoredEvent;

/// A stream of a state table that its projection went past: by its newest event, and why.
pub struct Passed {
    pub event: StoredEvent,
    pub caught: Caught,
    pub fault: Fault,
}

pub enum Fault {
    /// It has no state.
    Fold,
    /// Its state is none that the table takes; what refuses it, without the value.
    Row(String),
}
