//! Commands: decisions that become events once.
use crate::json::Json;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A command for `es_command`. With a key it is executed once, however often it is sent.
#[derive(Debug, Clone)]
pub struct Command {
    pub stream: String,
    pub command_type: String,
    pub payload: Json,
    pub expected_version: Option<i64>,
    pub metadata: Json,
    pub key: Option<String>,
    pub occurred_at: Option<Timestamp>,
    pub decider: Option<String>,
    pub subject: Option<String>,
}

impl Command {
    pub fn new(stream: impl Into<String>, command_type: impl Into<String>, payload: Json) -> Self {
        Self {
            stream: stream.into(),
            command_type: command_type.into(),
            payload,
            expected_version: None,
            metadata: Json::empty(),
            key: None,
            occurred_at: None,
            decider: None,
            subject: None,
        }
    }

    /// 1 to 1,024 bytes, unique within the tenant and the category.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    pub fn metadata(self, metadata: Json) -> Self {
        Self { metadata, ..self }
    }

    pub fn expected_version(self, version: i64) -> Self {
        Self { expected_version: Some(version), ..self }
    }
}

/// What `es_command` answered, the first time and each time after.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    pub stream: String,
    pub version: i64,
    /// The version of each stream that got events.
    pub versions: BTreeMap<String, i64>,
    /// Of the last event; None where the decision was that nothing happens.
    pub global_position: Option<i64>,
    pub event_ids: Vec<Uuid>,
    /// What the decider has to say.
    pub result: Option<Json>,
    /// Whether it was executed before, and this is the answer of then.
    pub replayed: bool,
}
