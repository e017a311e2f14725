//! What a call asks of one stream: events to be appended, or only a check of its version.
use super::behind_lock::Known;
use super::event::NewEvent;
use eventstream_core::command::boundary::{Dependency, Role};
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::{EventType, StreamName};

pub struct Request<'a> {
    pub stream: StreamName<'a>,
    pub expected: ExpectedVersion,
    /// None: the stream is only checked.
    pub events: Vec<NewEvent<'a>>,
    /// Whether the stream must have events already (es_close_stream).
    pub must_exist: bool,
    /// Where this transaction has locked the stream already, and has not appended to it since.
    pub held: Option<Known>,
}

impl Request<'_> {
    /// Whether the stream is not appended to, and only has to stay as it is until the end of the transaction.
    pub fn is_check(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether the stream must stay without events until the end of the transaction.
    pub fn forbids(&self) -> bool {
        self.is_check() && self.expected == ExpectedVersion::NoStream
    }

    /// Whether the stream is made where there is none.
    pub fn may_make(&self) -> bool {
        !self.is_check() && !self.must_exist && self.expected.accepts(0)
    }

    /// Whether nothing has come to the stream since the caller decided: by its version, or because what is decided, that it is over, holds of whatever came.
    pub fn keeps_what_it_was_decided_on(&self) -> bool {
        self.expected != ExpectedVersion::Any
            || self.events.iter().all(|event| event.event_type == EventType::STREAM_CLOSED)
    }

    /// What it depends on.
    pub fn dependency(&self) -> Dependency<'_> {
        let role = if self.is_check() { Role::Checked } else { Role::Appended { must_exist: self.must_exist } };
        Dependency { stream: self.stream.as_str(), expected: self.expected, role }
    }
}
