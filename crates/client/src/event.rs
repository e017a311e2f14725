//! Events as they are read, and as they are appended.
use crate::error::Result;
use crate::json::Json;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

/// One event, as `eventstream.event` has it; what each field means stands in docs/reference.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The place in the log: unique and increasing, with gaps.
    pub global_position: i64,
    pub stream: String,
    /// 1, 2, 3 … within the stream, without gaps.
    pub version: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub schema_version: i32,
    pub payload: Json,
    pub metadata: Json,
    pub subject: Option<String>,
    /// Valid time, the caller's. Years beyond 9999 are an error of this client ([`crate::Error::Answer`]).
    pub occurred_at: Timestamp,
    /// Transaction time, the database's.
    pub recorded_at: Timestamp,
    pub category: String,
    pub tenant: String,
    pub recorded_by: String,
    pub tags: Vec<String>,
}

/// What [`Event`] is read from, after `select`, of an event named `event`.
pub(crate) const COLUMNS: &str = "(event).global_position, (event).stream, (event).version, (event).event_id, (event).event_type, (event).schema_version, \
     (event).payload, (event).metadata, (event).subject, (event).occurred_at, (event).recorded_at, (event).category, (event).tenant, (event).recorded_by, (event).tags";

impl Event {
    /// Of a row whose columns from `first` on are [`COLUMNS`].
    pub(crate) fn of(row: &Row, first: usize) -> Result<Self> {
        Ok(Self {
            global_position: row.try_get(first)?,
            stream: row.try_get(first + 1)?,
            version: row.try_get(first + 2)?,
            event_id: row.try_get(first + 3)?,
            event_type: row.try_get(first + 4)?,
            schema_version: row.try_get(first + 5)?,
            payload: row.try_get(first + 6)?,
            metadata: row.try_get(first + 7)?,
            subject: row.try_get(first + 8)?,
            occurred_at: row.try_get(first + 9)?,
            recorded_at: row.try_get(first + 10)?,
            category: row.try_get(first + 11)?,
            tenant: row.try_get(first + 12)?,
            recorded_by: row.try_get(first + 13)?,
            tags: row.try_get::<_, Option<Vec<String>>>(first + 14)?.unwrap_or_default(),
        })
    }
}

/// An event that a subscription was given, until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub event: Event,
    pub lease_id: Uuid,
    pub lease_until: Timestamp,
    /// 1 where it is delivered for the first time.
    pub attempt: i64,
}

/// An event to be appended. What is None is left to the database.
#[derive(Debug, Clone, Serialize)]
pub struct NewEvent {
    #[serde(rename = "type")]
    pub event_type: String,
    pub payload: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    /// By it a repetition is recognised: give one wherever an append may be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl NewEvent {
    pub fn new(event_type: impl Into<String>, payload: Json) -> Self {
        Self {
            event_type: event_type.into(),
            payload,
            metadata: None,
            event_id: None,
            occurred_at: None,
            schema_version: None,
            subject: None,
            tags: Vec::new(),
        }
    }

    pub fn id(self, event_id: Uuid) -> Self {
        Self { event_id: Some(event_id), ..self }
    }

    pub fn metadata(self, metadata: Json) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    pub fn occurred_at(self, moment: Timestamp) -> Self {
        Self { occurred_at: Some(moment), ..self }
    }

    pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        Self { tags: tags.into_iter().map(Into::into).collect(), ..self }
    }
}

/// What the stream must be like for an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expected {
    #[default]
    Any,
    /// It has no events yet.
    NoStream,
    /// It has events, at whatever version.
    Exists,
    /// Its newest event has this version.
    Version(i64),
}

impl Expected {
    pub(crate) fn version(self) -> Option<i64> {
        match self {
            Self::Any | Self::Exists => None,
            Self::NoStream => Some(0),
            Self::Version(version) => Some(version),
        }
    }
}

/// The events for one of the streams of an append to several.
#[derive(Debug, Clone, Serialize)]
pub struct Append {
    pub stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i64>,
    pub events: Vec<NewEvent>,
}

/// What became of one of the streams of an append to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub stream: String,
    pub version: i64,
    pub positions: Vec<i64>,
}
