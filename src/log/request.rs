//! What is to be appended to one stream.
use super::event::NewEvent;
use eventstream_core::command::boundary::Dependency;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;

pub struct Request<'a> {
    pub stream: StreamName<'a>,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent<'a>>,
    /// Whether the stream must have events already (es_close_stream).
    pub must_exist: bool,
}

impl Request<'_> {
    /// What it depends on.
    pub fn dependency(&self) -> Dependency<'_> {
        Dependency { stream: self.stream.as_str(), expected: self.expected, must_exist: self.must_exist }
    }
}
