//! Idempotent append: recognises a retry by its event ids. Within a stream an id stands for one content for ever; a retry
//! of the same events in the same order writes nothing and is told the version they ended at the first time.
//!
//! A retry's events lie side by side, so one of them says where all of them are, whatever partitions they span. One is looked for
//! right behind an exact expected_version, wherever that is, and in the stream's newest two partitions; in all of its partitions
//! where the same call brings the retry of another stream's events.
use super::event::NewEvent;
use super::partition::Partition;
use super::statements::{Statement, column};
use super::stored::StoredContent;
use super::stream::{self, Head, Stream};
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_uuid};
use crate::shared::catalog::Catalog;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::expected::ExpectedVersion;
use pgrx::pg_sys::Datum;
use std::collections::BTreeMap;
use std::rc::Rc;

/// In how many of a stream's newest partitions ids are looked for.
pub const PARTITIONS: usize = 2;

/// Where a retry is looked for.
#[derive(Clone, Copy)]
pub enum Among<'a> {
    /// In these partitions of the stream, newest first.
    Newest(&'a [Rc<Partition>]),
    /// In all that the stream has events in.
    All,
}

/// An event of the stream that has one of the ids.
struct Stored {
    version: i64,
    global_position: i64,
    event_id: [u8; 16],
    /// The place in the batch of the event with this id.
    place: usize,
    /// What is not the same.
    differs: Vec<&'static str>,
}

/// Where these events went when they were first appended.
#[derive(Debug, Clone)]
pub struct FirstTime {
    /// Of the last one.
    pub version: i64,
    /// Of all of them, in order.
    pub positions: Vec<i64>,
}

/// What of payloads is compared: what nobody is shown can be guessed by nobody, retry by retry.
pub trait Residuals {
    /// Whether anything is protected at all.
    fn protects(&self) -> bool;

    /// The payload of an event of that type and schema version without what is protected. None: all of it is.
    fn unprotected<'a>(&self, event_type: &str, schema_version: i32, payload: Jsonb<'a>) -> Result<Option<Jsonb<'a>>>;
}

/// A stream that is locked, and what is to be appended to it.
pub struct Batch<'a> {
    pub name: &'a str,
    pub stream: &'a Stream,
    pub head: &'a Head,
    /// That in which `head` was read.
    pub view: View,
    pub expected: ExpectedVersion,
    pub events: &'a [NewEvent<'a>],
    pub residuals: &'a dyn Residuals,
}

/// Errors: ES006 where two events have one id.
pub fn refuse_repeated_ids(stream: &str, events: &[NewEvent]) -> Result<()> {
    let mut ids: Vec<[u8; 16]> = events.iter().filter_map(|event| event.event_id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::EventIdReused {
            stream: stream.into(),
            event_id: to_uuid_text(&pair[0]),
            version: None,
            reason: "in one batch".into(),
        }
        .into()),
    }
}

/// Where these events went when they were first appended; None where they are new.
///
/// Errors: ES006 where only a part of them is there, or an id stands for other content.
pub fn first_time(db: &Db, catalog: &Catalog, batch: &Batch, among: Among) -> Result<Option<FirstTime>> {
    let count = batch.events.len();
    if batch.events.iter().all(|event| event.event_id.is_none()) {
        return Ok(None);
    }
    let found = stored(db, catalog, batch, among)?;
    let Some(first) = found.first() else { return Ok(None) };
    let reused = |stored: &Stored, reason: String| {
        let (stream, event_id) = (batch.name.into(), to_uuid_text(&stored.event_id));
        Err(Error::EventIdReused { stream, event_id, version: Some(stored.version), reason }.into())
    };
    if let Some(other) = found.iter().find(|stored| !stored.differs.is_empty()) {
        return reused(other, format!("with another {}", other.differs.join(" and another ")));
    }
    if found.len() < count {
        return reused(first, format!("with only {} of these {count} events", found.len()));
    }
    let in_order = (first.version..).zip(0..);
    if let Some((_, other)) =
        in_order.zip(&found).find(|((version, place), stored)| (stored.version, stored.place) != (*version, *place))
    {
        return reused(other, "but these events are there in another order".into());
    }
    let positions = found.iter().map(|stored| stored.global_position).collect();
    Ok(found.last().map(|last| FirstTime { version: last.version, positions }))
}

/// The events of the stream that have the batch's ids, in order.
fn stored(db: &Db, catalog: &Catalog, batch: &Batch, among: Among) -> Result<Vec<Stored>> {
    let Batch { stream, events, .. } = batch;
    let mut found = BTreeMap::new();
    let by_version = |stored: Stored| (stored.version, stored);
    let behind = match batch.expected {
        ExpectedVersion::Any => None,
        ExpectedVersion::NoStream => Some(0),
        ExpectedVersion::Exact(version) => Some(version),
    };
    if let Some(behind) = behind.filter(|&behind| behind < batch.head.version) {
        found.extend(side_by_side(db, catalog, batch, behind + 1)?.into_iter().map(by_version));
    }
    if found.len() < events.len() {
        let all = match among {
            Among::Newest(_) => Vec::new(),
            Among::All => stream::segments(db, catalog, stream, batch.view)?,
        };
        let all: Vec<_> = all.into_iter().map(|segment| segment.partition).collect();
        let partitions = match among {
            Among::Newest(newest) => newest,
            Among::All => &all,
        };
        for partition in partitions {
            for id in events.iter().filter_map(|event| event.event_id) {
                partition.event_ids.newest_first(db, batch.view, from_uuid(&id)?, &[], |row| {
                    if row.int8(column::STREAM_ID)? == stream.id {
                        found.extend(read(row, batch)?.map(by_version));
                    }
                    Ok(true)
                })?;
            }
        }
    }
    if let Some((_, first)) = found.first_key_value().filter(|_| found.len() < events.len()) {
        let begin = first.version - first.place as i64;
        found.extend(side_by_side(db, catalog, batch, begin)?.into_iter().map(by_version));
    }
    Ok(found.into_values().collect())
}

/// Those of the batch's events that are there, if the first of them has version `begin`.
fn side_by_side(db: &Db, catalog: &Catalog, batch: &Batch, begin: i64) -> Result<Vec<Stored>> {
    let end = begin.saturating_add(batch.events.len() as i64 - 1);
    let range: [Nullable; 3] = [Some(Datum::from(batch.stream.id)), Some(Datum::from(begin)), Some(Datum::from(end))];
    let mut found = Vec::new();
    for segment in stream::holding(&stream::segments(db, catalog, batch.stream, batch.view)?, begin, end) {
        let plan = segment.partition.plan(Statement::ByVersions);
        found.extend(plan.rows(db, batch.view, 0, &range, |row| read(row, batch))?.into_iter().flatten());
    }
    Ok(found)
}

/// None where the event has none of the ids. Type, payload, subject, tags and (if given) schema_version and occurred_at are compared; metadata is
/// not: a retry has another traceparent. Of a payload what is not protected is compared, whoever asks: else any value could be guessed by retries.
fn read(row: &Row, batch: &Batch) -> Result<Option<Stored>> {
    let event_id = row.uuid(column::EVENT_ID)?;
    let events = batch.events;
    let Some(place) = events.iter().position(|event| event.event_id == Some(event_id)) else { return Ok(None) };
    let event = &events[place];
    let stored_at = row.int8(column::OCCURRED_AT)?;
    let same = [
        ("type", row.text(column::EVENT_TYPE)? == event.event_type),
        ("payload", is_same_payload(row, event, batch.residuals)?),
        (
            "schema_version",
            event
                .schema_version
                .map_or(Ok(true), |version| row.int4(column::SCHEMA_VERSION).map(|stored| stored == version))?,
        ),
        ("occurred_at", event.occurred_at.is_none_or(|occurred_at| stored_at == occurred_at)),
        ("subject", row.text_opt(column::SUBJECT)? == event.subject),
        ("set of tags", row.text_array_opt(column::TAGS)?.unwrap_or_default() == event.tags),
    ];
    Ok(Some(Stored {
        version: row.int8(column::VERSION)?,
        global_position: row.int8(column::GLOBAL_POSITION)?,
        event_id,
        place,
        differs: same.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect(),
    }))
}

fn is_same_payload(row: &Row, event: &NewEvent, residuals: &dyn Residuals) -> Result<bool> {
    let stored = StoredContent::of_row(row);
    if !residuals.protects() {
        return Ok(stored.payload()? == Some(event.payload.text));
    }
    let (event_type, version) = (row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?);
    let unprotected = |payload: Option<Jsonb>| -> Result<Option<Vec<u8>>> {
        let Some(payload) = payload else { return Ok(None) };
        let shown = residuals.unprotected(event_type, version, payload)?;
        shown.map(|shown| shown.text().map(<[u8]>::to_vec)).transpose()
    };
    Ok(unprotected(stored.payload_document()?)? == unprotected(Some(event.payload.value))?)
}
