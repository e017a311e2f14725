//! What deciders and their boundaries answer, and what is registered of the commands that they take: JSON objects, which keys each may have, and which it must. A document
//! within them stays what it is (`D`).
use crate::options::{EventElement, Items, Texts};
use serde::Deserialize;

/// An event of an answer: an element of es_append_events, with the stream that it is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct DecidedEvent<'a, D> {
    /// None: the command's.
    #[serde(borrow)]
    pub stream: Option<&'a str>,
    #[serde(rename = "type")]
    pub event_type: &'a str,
    pub payload: D,
    pub metadata: Option<D>,
    #[serde(borrow)]
    pub event_id: Option<&'a str>,
    #[serde(borrow)]
    pub occurred_at: Option<&'a str>,
    pub schema_version: Option<i64>,
    #[serde(borrow)]
    pub subject: Option<&'a str>,
    #[serde(borrow)]
    pub tags: Option<Texts<'a>>,
}

impl<'a, D> DecidedEvent<'a, D> {
    /// The stream, and what of it is any event's.
    #[must_use]
    pub fn split(self) -> (Option<&'a str>, EventElement<'a, D>) {
        let Self { stream, event_type, payload, metadata, event_id, occurred_at, schema_version, subject, tags } = self;
        let event =
            EventElement { event_type, payload, metadata, event_id, occurred_at, schema_version, subject, tags };
        (stream, event)
    }
}

/// An answer that is more than an array of events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
pub struct Answer<D> {
    /// An array; None: nothing happens.
    pub events: Option<D>,
    /// What the caller is told.
    pub result: Option<D>,
    /// Commands for later.
    pub schedule: Option<D>,
    /// Keys of commands that are not wanted any more.
    pub unschedule: Option<D>,
}

/// A command for later, of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct ScheduleElement<'a, D> {
    /// None: the command's.
    #[serde(borrow)]
    pub stream: Option<&'a str>,
    pub command_type: &'a str,
    pub payload: D,
    /// A moment with its zone.
    pub run_at: &'a str,
    #[serde(borrow)]
    pub command_key: Option<&'a str>,
    pub metadata: Option<D>,
    #[serde(borrow)]
    pub decider: Option<&'a str>,
    /// None: the command's.
    #[serde(borrow)]
    pub subject: Option<&'a str>,
}

/// A command that is not wanted any more, of an answer that says more than its key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct UnscheduleElement<'a> {
    pub command_key: &'a str,
    /// None: the command's.
    #[serde(borrow)]
    pub category: Option<&'a str>,
    #[serde(borrow)]
    pub reason: Option<&'a str>,
}

/// What a decision depends on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounded<'a> {
    /// Locked, and their states given.
    #[serde(borrow)]
    pub streams: Option<Texts<'a>>,
    /// Locked only.
    #[serde(borrow)]
    pub writes: Option<Texts<'a>>,
    /// A query over tags: its state is given, too.
    #[serde(borrow)]
    pub items: Option<Items<'a>>,
}

/// What is registered of a command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
pub struct CommandElement<'a, D> {
    /// JSON Schema of its payload.
    pub schema: Option<D>,
    /// A payload.
    pub example: Option<D>,
    /// For people.
    #[serde(borrow)]
    pub description: Option<&'a str>,
}
