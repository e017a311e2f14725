//! Idempotent append: recognises a retry by its event ids. Within a stream an id stands for one content for ever; a retry
//! of the same events in the same order writes nothing and is told the version they ended at the first time. Ids are looked for
//! in the stream's newest two partitions; with an exact expected_version, a retry is found wherever it is.
use super::event::NewEvent;
use super::partition::Partition;
use super::statements::{Statement, column};
use super::stream::{self, Head, Stream};
use crate::pg::catalog::Catalog;
use crate::pg::datum::{Nullable, from_uuid};
use crate::pg::failure::Result;
use crate::pg::plan::{Row, View};
use crate::pg::session::Db;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::expected::ExpectedVersion;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

/// In how many of a stream's newest partitions ids are looked for.
pub const PARTITIONS: usize = 2;

/// An event of the stream that has one of the ids.
struct Stored {
    version: i64,
    global_position: i64,
    event_id: [u8; 16],
    /// The place in the batch whose content is the same, if the content is.
    same_as: Option<usize>,
    /// What is not the same.
    differs: Vec<&'static str>,
}

/// Where these events ended when they were first appended.
#[derive(Debug, Clone, Copy)]
pub struct FirstTime {
    pub version: i64,
    pub global_position: i64,
}

/// The version and position that these events ended at when they were first appended; None where they are new.
///
/// Errors: ES006 where only a part of them is there, or an id stands for other content.
pub fn first_time(
    db: &Db,
    catalog: &Catalog,
    name: &str,
    stream: &Stream,
    head: &Head,
    newest: &[Rc<Partition>],
    expected: ExpectedVersion,
    events: &[NewEvent],
) -> Result<Option<FirstTime>> {
    let ids: Vec<[u8; 16]> = events.iter().filter_map(|event| event.event_id).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let mut found = stored(db, catalog, stream, head, newest, expected, &ids, events)?;
    found.sort_by_key(|stored| stored.version);
    let Some(first) = found.first() else { return Ok(None) };
    let reused = |id: &[u8; 16], version: i64, reason: String| {
        Err(Error::EventIdReused { stream: name.into(), event_id: to_uuid_text(id), version: Some(version), reason }
            .into())
    };
    if let Some(other) = found.iter().find(|stored| stored.same_as.is_none()) {
        let reason = format!("with another {}", other.differs.join(" and another "));
        return reused(&other.event_id, other.version, reason);
    }
    if found.len() < events.len() {
        let reason = format!("with only {} of these {} events", found.len(), events.len());
        return reused(&first.event_id, first.version, reason);
    }
    let start = first.version;
    for (place, stored) in found.iter().enumerate() {
        if stored.same_as != Some(place) || stored.version != start + place as i64 {
            return reused(&stored.event_id, stored.version, "but these events are there in another order".into());
        }
    }
    Ok(found.last().map(|last| FirstTime { version: last.version, global_position: last.global_position }))
}

fn stored(
    db: &Db,
    catalog: &Catalog,
    stream: &Stream,
    head: &Head,
    newest: &[Rc<Partition>],
    expected: ExpectedVersion,
    ids: &[[u8; 16]],
    events: &[NewEvent],
) -> Result<Vec<Stored>> {
    let mut found = Vec::new();
    for partition in newest {
        for id in ids {
            let key = from_uuid(id)?;
            partition.event_ids.newest_first(db, View::Latest, key, |row| {
                if row.int8(column::STREAM_ID)? == stream.id {
                    found.push(read(row, events)?);
                }
                Ok(true)
            })?;
        }
    }
    // With an exact expected_version, a retry's events can only be right behind it.
    let expected = match expected {
        ExpectedVersion::Any => return Ok(found),
        ExpectedVersion::NoStream => 0,
        ExpectedVersion::Exact(version) => version,
    };
    if !found.is_empty() || expected >= head.version {
        return Ok(found);
    }
    let (from, to) = (expected + 1, expected + events.len() as i64);
    let range: [Nullable; 3] = [Some(Datum::from(stream.id)), Some(Datum::from(from)), Some(Datum::from(to))];
    let segments = stream::segments(db, catalog, stream, View::Latest)?;
    for segment in stream::holding(&segments, from, to) {
        let rows =
            segment.partition.plan(Statement::ByVersions).rows(db, View::Latest, 0, &range, |row| read(row, events))?;
        found.extend(rows.into_iter().filter(|stored| ids.contains(&stored.event_id)));
    }
    Ok(found)
}

/// Type, payload, schema_version, subject and (if given) occurred_at are compared; metadata is not: a retry has another
/// traceparent.
fn read(row: &Row, events: &[NewEvent]) -> Result<Stored> {
    let event_id = row.uuid(column::EVENT_ID)?;
    let place = events.iter().position(|event| event.event_id == Some(event_id));
    let (mut same_as, mut differs) = (None, Vec::new());
    if let Some(place) = place {
        let event = &events[place];
        let payload = row.jsonb_opt(column::PAYLOAD)?.map(|payload| payload.text()).transpose()?;
        let stored_at = row.int8(column::OCCURRED_AT)?;
        let same = [
            ("type", row.text(column::EVENT_TYPE)? == event.event_type),
            ("payload", payload == Some(event.payload.text)),
            ("schema_version", row.int4(column::SCHEMA_VERSION)? == event.schema_version),
            ("occurred_at", event.occurred_at.is_none_or(|occurred_at| stored_at == occurred_at)),
            ("subject", row.text_opt(column::SUBJECT)? == event.subject),
        ];
        differs.extend(same.iter().filter(|(_, same)| !same).map(|(part, _)| *part));
        same_as = differs.is_empty().then_some(place);
    }
    Ok(Stored {
        version: row.int8(column::VERSION)?,
        global_position: row.int8(column::GLOBAL_POSITION)?,
        event_id,
        same_as,
        differs,
    })
}
