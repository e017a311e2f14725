//! An event that is to be appended: checked, measured and printed before anything is locked or written.
use super::document::{Document, print};
use super::{acting, metadata};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::process::server;
use crate::shared::settings;
use crate::shared::trial;
use eventstream_core::command::tags::tag_set;
use eventstream_core::error::Error;
use eventstream_core::name::{EventType, Subject};
use eventstream_core::options::EventElement;
use eventstream_core::{moment, shown};

/// An event before it has a version.
pub struct NewEvent<'a> {
    pub event_type: &'a str,
    pub payload: Document<'a>,
    pub metadata: Document<'a>,
    pub event_id: Option<[u8; 16]>,
    /// Microseconds since 2000-01-01 UTC; None = when it is recorded.
    pub occurred_at: Option<i64>,
    /// None = the newest that may be appended, which whoever judges it says; 1 where nobody does.
    pub schema_version: Option<i32>,
    pub subject: Option<&'a str>,
    /// None = who appends it.
    pub recorded_by: Option<&'a str>,
    /// In byte order, each once.
    pub tags: Vec<&'a str>,
}

/// The parts of an event as the caller gave them.
pub struct Parts<'a> {
    pub event_type: &'a str,
    pub payload: Jsonb<'a>,
    pub metadata: Option<Jsonb<'a>>,
    pub event_id: Option<[u8; 16]>,
    pub occurred_at: Option<i64>,
    pub schema_version: Option<i32>,
    pub subject: Option<&'a str>,
    pub tags: Vec<&'a str>,
}

/// The reason of what cannot be undone: it is all that will ever say why.
pub fn checked_reason(reason: &str) -> Result<&str> {
    if reason.trim().is_empty() { Err(invalid("reason", "must not be empty")) } else { Ok(reason) }
}

impl<'a> NewEvent<'a> {
    /// Checks every part; `type_argument` is what the caller calls the event's type. Errors: ES005 naming the argument, ES007
    /// naming the setting.
    pub fn check(parts: Parts<'a>, type_argument: &str) -> Result<Self> {
        Self::check_all(parts, type_argument, false)
    }

    /// The same of an event that a command came to: its metadata say so.
    pub fn decided(parts: Parts<'a>) -> Result<Self> {
        Self::check_all(parts, "type", true)
    }

    fn check_all(parts: Parts<'a>, type_argument: &str, is_decided: bool) -> Result<Self> {
        EventType::parse_as(type_argument, parts.event_type)?;
        if parts.event_type == EventType::STREAM_CLOSED {
            return Err(Error::InvalidArgument {
                argument: type_argument.into(),
                reason: format!("must not be {}, which closes the stream", EventType::STREAM_CLOSED),
                hint: Some("Use es_close_stream(stream, reason).".into()),
            }
            .into());
        }
        Self::check_rest(parts, "payload", is_decided)
    }

    /// The schema version that it has, or will.
    pub fn schema_version(&self) -> i32 {
        self.schema_version.unwrap_or(1)
    }

    /// The event that closes a stream.
    pub fn closing(payload: Jsonb<'a>) -> Result<Self> {
        let parts = Parts {
            event_type: EventType::STREAM_CLOSED,
            payload,
            metadata: None,
            event_id: None,
            occurred_at: None,
            schema_version: None,
            subject: None,
            tags: Vec::new(),
        };
        Self::check_rest(parts, "reason", false)
    }

    /// An act of administration (src/log/audit.rs): as large as the definition is that it is of.
    pub fn of_act(event_type: &'a str, payload: Jsonb<'a>, metadata: Jsonb<'a>, recorded_by: &'a str) -> Result<Self> {
        Ok(Self {
            event_type,
            payload: Document { value: payload, text: payload.text()? },
            metadata: print("metadata", metadata)?,
            event_id: None,
            occurred_at: None,
            schema_version: None,
            subject: None,
            recorded_by: Some(recorded_by),
            tags: Vec::new(),
        })
    }

    fn check_rest(parts: Parts<'a>, payload: &str, is_decided: bool) -> Result<Self> {
        let metadata = match parts.metadata {
            Some(metadata) if !metadata.is_object() => {
                return Err(invalid("metadata", "must be a JSON object"));
            }
            Some(metadata) => acting::complete(metadata)?,
            None => acting::complete(Jsonb::parse("{}")?)?,
        };
        let metadata = metadata::with_defaults(metadata)?;
        metadata::check(metadata, is_decided)?;
        if let Some(subject) = parts.subject {
            Subject::parse(subject)?;
        }
        if let Some(schema_version) = parts.schema_version.filter(|&version| version < 1) {
            return Err(invalid("schema_version", format!("must be 1 or more, not {schema_version}")));
        }
        if let Some(occurred_at) = parts.occurred_at {
            check_occurred_at(occurred_at)?;
        }
        Ok(Self {
            event_type: parts.event_type,
            payload: print(payload, parts.payload)?,
            metadata: print("metadata", metadata)?,
            event_id: parts.event_id,
            occurred_at: parts.occurred_at,
            schema_version: parts.schema_version,
            subject: parts.subject,
            recorded_by: None,
            tags: tag_set("tags", parts.tags)?,
        })
    }

    /// An element of a batch, an object with exactly the keys that sql-api names.
    pub fn from_element(element: Value<'a>) -> Result<Self> {
        Self::check(Parts::of(element.read()?)?, "type")
    }
}

impl<'a> Parts<'a> {
    /// Of an element, read but not checked.
    pub fn of(given: EventElement<'a, Jsonb<'a>>) -> Result<Self> {
        let schema_version = given.schema_version.map(|version| {
            i32::try_from(version)
                .map_err(|_| invalid("schema_version", format!("must be 1 to {}, not {version}", i32::MAX)))
        });
        let event_id = given.event_id.map(|id| {
            server::read_uuid(id).map_err(|_| invalid("event_id", format!("must be a uuid, not {}", shown(id))))
        });
        Ok(Self {
            event_type: given.event_type,
            payload: given.payload,
            metadata: given.metadata,
            event_id: event_id.transpose()?,
            occurred_at: given.occurred_at.map(|text| moment_of("occurred_at", text)).transpose()?,
            schema_version: schema_version.transpose()?,
            subject: given.subject,
            tags: given.tags.unwrap_or_default().0,
        })
    }
}

/// A moment given as text. One without a zone would mean something else in every session, and a retry from another one would be another event.
pub fn moment_of(key: &str, text: &str) -> Result<i64> {
    let refused = || Error::InvalidArgument {
        argument: key.into(),
        reason: format!("{}, not {}", moment::FINITE_RULE, shown(text)),
        hint: Some("Give the zone with the time: 2024-10-15T12:00:00Z, or 2024-10-15T14:00:00+02:00.".into()),
    };
    if matches!(text, "infinity" | "-infinity") {
        return Err(refused().into());
    }
    let read = moment::read(text).ok_or_else(refused)?;
    server::read_time(&read).map_err(|_| refused().into())
}

/// Errors: ES005 where it is not finite, ES007 where it lies too far ahead.
pub fn check_occurred_at(occurred_at: i64) -> Result<()> {
    // DT_NOBEGIN and DT_NOEND of datatype/timestamp.h.
    if occurred_at == i64::MIN || occurred_at == i64::MAX {
        return Err(invalid("occurred_at", "must be finite"));
    }
    let limit = settings::max_future_skew();
    let ahead_seconds = occurred_at.saturating_sub(trial::clock()) / 1_000_000;
    if ahead_seconds > limit {
        return Err(Error::LimitExceeded {
            setting: "eventstream.max_future_skew",
            limit,
            actual: Some(ahead_seconds),
            what: format!(
                "occurred_at {} is {ahead_seconds} seconds ahead of the clock",
                server::print_time(occurred_at)?
            ),
        }
        .into());
    }
    Ok(())
}
