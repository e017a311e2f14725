//! An event before the door and behind it: the columns of type eventstream.event, made from a row of the log.
use crate::log::event::NewEvent;
use crate::log::fresh_id::new_event_id;
use crate::log::statements::column;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::memory::Room;
use crate::pg::process::server;
use crate::pg::query::row::Row;
use crate::pg::value::composite::{Record, RowType};
use crate::pg::value::datum::{self, Nullable, from_text, from_uuid, text_array_of};
use crate::shared::catalog::EVENT;
use eventstream_core::hash::Hash;
use eventstream_core::name::StreamName;
use pgrx::pg_sys::Datum;
use std::ops::Deref;

/// Columns of type eventstream.event, from 0, in the order of sql/schema/types.sql.
pub mod field {
    pub const GLOBAL_POSITION: usize = 0;
    pub const STREAM: usize = 1;
    pub const VERSION: usize = 2;
    pub const EVENT_ID: usize = 3;
    pub const EVENT_TYPE: usize = 4;
    pub const SCHEMA_VERSION: usize = 5;
    pub(in crate::present) const PAYLOAD: usize = 6;
    pub(in crate::present) const METADATA: usize = 7;
    pub const SUBJECT: usize = 8;
    pub const OCCURRED_AT: usize = 9;
    pub const RECORDED_AT: usize = 10;
    pub const CATEGORY: usize = 11;
    pub const TENANT: usize = 12;
    pub const RECORDED_BY: usize = 13;
    pub(in crate::present) const SALT: usize = 14;
    pub const CHAIN_HASH: usize = 15;
    pub const TAGS: usize = 16;
}

const FIELDS: usize = 17;

/// For each field, the column of the log's row that it comes from; None where it belongs to the whole stream.
const FROM: [Option<usize>; FIELDS] = [
    Some(column::GLOBAL_POSITION),
    None,
    Some(column::VERSION),
    Some(column::EVENT_ID),
    Some(column::EVENT_TYPE),
    Some(column::SCHEMA_VERSION),
    Some(column::PAYLOAD),
    Some(column::METADATA),
    Some(column::SUBJECT),
    Some(column::OCCURRED_AT),
    Some(column::RECORDED_AT),
    Some(column::CATEGORY),
    None,
    Some(column::RECORDED_BY),
    Some(column::SALT),
    Some(column::CHAIN_HASH),
    Some(column::TAGS),
];

/// Roughly the bytes that columns of fixed size or short texts take.
const ORDINARY_COLUMNS: usize = 300;

/// An event as it is stored. It tells which event it is, and not what it says: its documents come out of it by the door only
/// ([`super::door::Door::show`]).
#[derive(Clone)]
pub struct StoredEvent {
    values: [Datum; FIELDS],
    nulls: [bool; FIELDS],
}

/// An event as whoever asked may see it. Only the door makes one.
pub struct Event(StoredEvent);

/// What all events of a stream have in common.
pub struct Common {
    stream: Datum,
    tenant: Datum,
}

impl Common {
    /// Lives in the current memory context.
    pub fn new(target: Target, stream: &str) -> Result<Self> {
        Ok(Self { stream: from_text(stream)?, tenant: from_text(target.name)? })
    }
}

impl StoredEvent {
    /// Its by-reference columns live where the row does.
    #[inline]
    pub fn of_row(common: &Common, row: &Row) -> Self {
        let (values, nulls) = row.parts();
        let mut event = Self { values: [Datum::null(); FIELDS], nulls: [false; FIELDS] };
        for (place, from) in FROM.iter().enumerate() {
            if let Some(from) = from {
                event.values[place] = values[*from];
                event.nulls[place] = nulls[*from];
            }
        }
        event.values[field::STREAM] = common.stream;
        event.values[field::TENANT] = common.tenant;
        event
    }

    /// A copy in `room`.
    pub fn copy_of_row(common: &Common, row: &Row, room: &mut Room) -> Result<Self> {
        let (values, nulls) = row.copy_to(room, &FROM)?;
        let mut event = Self { values, nulls };
        event.values[field::STREAM] = common.stream;
        event.values[field::TENANT] = common.tenant;
        Ok(event)
    }

    /// A copy, in the current memory context, of a row as it is read whose columns are those of the type.
    pub fn copy_of_composite(row: &Row) -> Result<Self> {
        let (values, nulls) = row.copy_any::<FIELDS>()?;
        Ok(Self { values, nulls })
    }

    /// Of a row whose columns are those of the type.
    pub(super) fn of_composite(row: &Row) -> Self {
        let (values, nulls) = row.parts();
        let mut event = Self { values: [Datum::null(); FIELDS], nulls: [true; FIELDS] };
        event.values.copy_from_slice(values);
        event.nulls.copy_from_slice(nulls);
        event
    }

    /// An event that is not in the log, as an append would store it, in the current memory context: without position, salt and chain hash.
    pub fn imagined(
        common: &Common,
        name: &StreamName,
        event: &NewEvent,
        version: i64,
        recorded_at: i64,
    ) -> Result<Self> {
        let event_id = event.event_id.map_or_else(new_event_id, Ok)?;
        let mut imagined = Self { values: [Datum::null(); FIELDS], nulls: [true; FIELDS] };
        imagined.set(field::STREAM, common.stream);
        imagined.set(field::VERSION, Datum::from(version));
        imagined.set(field::EVENT_ID, from_uuid(&event_id)?);
        imagined.set(field::EVENT_TYPE, from_text(event.event_type)?);
        imagined.set(field::SCHEMA_VERSION, Datum::from(event.schema_version()));
        imagined.set(field::PAYLOAD, event.payload.value.datum());
        imagined.set(field::METADATA, event.metadata.value.datum());
        if let Some(subject) = event.subject {
            imagined.set(field::SUBJECT, from_text(subject)?);
        }
        imagined.set(field::OCCURRED_AT, Datum::from(event.occurred_at.unwrap_or(recorded_at)));
        imagined.set(field::RECORDED_AT, Datum::from(recorded_at));
        imagined.set(field::CATEGORY, from_text(name.category())?);
        imagined.set(field::TENANT, common.tenant);
        imagined.set(field::RECORDED_BY, from_text(&server::role_name(server::session_role())?)?);
        if !event.tags.is_empty() {
            imagined.set(field::TAGS, text_array_of(&event.tags)?);
        }
        Ok(imagined)
    }

    /// It has passed the door.
    #[inline]
    pub(super) fn shown(self) -> Event {
        Event(self)
    }

    pub(super) fn set(&mut self, place: usize, value: Datum) {
        self.values[place] = value;
        self.nulls[place] = false;
    }

    pub(super) fn unset(&mut self, place: usize) {
        self.nulls[place] = true;
    }

    pub(super) fn get(&self, place: usize) -> Nullable {
        (!self.nulls[place]).then_some(self.values[place])
    }

    fn row(&self) -> Row<'_> {
        Row::of_parts(&self.values, &self.nulls, &EVENT)
    }

    pub fn global_position(&self) -> i64 {
        self.values[field::GLOBAL_POSITION].value() as i64
    }

    pub fn version(&self) -> i64 {
        self.values[field::VERSION].value() as i64
    }

    pub fn schema_version(&self) -> i32 {
        self.values[field::SCHEMA_VERSION].value() as i32
    }

    /// Microseconds since 2000-01-01 UTC, as recorded_at.
    pub fn occurred_at(&self) -> i64 {
        self.values[field::OCCURRED_AT].value() as i64
    }

    pub fn recorded_at(&self) -> i64 {
        self.values[field::RECORDED_AT].value() as i64
    }

    pub fn stream(&self) -> Result<&str> {
        self.row().text(field::STREAM)
    }

    pub fn event_type(&self) -> Result<&str> {
        self.row().text(field::EVENT_TYPE)
    }

    pub fn event_id(&self) -> Result<[u8; 16]> {
        self.row().uuid(field::EVENT_ID)
    }

    pub fn chain_hash(&self) -> Result<Hash> {
        self.row().hash(field::CHAIN_HASH)
    }

    /// Bytes that it takes, roughly: those of its documents.
    pub fn size(&self) -> usize {
        let size = |place: usize| if self.nulls[place] { 0 } else { datum::unpacked_size(self.values[place]) };
        size(field::PAYLOAD) + size(field::METADATA) + ORDINARY_COLUMNS
    }
}

impl Deref for Event {
    type Target = StoredEvent;

    fn deref(&self) -> &StoredEvent {
        &self.0
    }
}

impl Event {
    /// All that it shows.
    pub fn row(&self) -> Row<'_> {
        self.0.row()
    }

    /// The event as a value of type eventstream.event, which points to its columns.
    pub fn record<'a>(&'a self, of: &'a RowType) -> Record<'a> {
        of.record(&self.0.values, &self.0.nulls)
    }

    /// None where it is NULL (erased).
    pub fn payload(&self) -> Result<Option<Jsonb<'_>>> {
        self.row().jsonb_opt(field::PAYLOAD)
    }

    /// As [`Event::payload`].
    pub fn metadata(&self) -> Result<Option<Jsonb<'_>>> {
        self.row().jsonb_opt(field::METADATA)
    }

    /// Its metadata, as the value that they are.
    pub fn metadata_value(&self) -> Nullable {
        self.0.get(field::METADATA)
    }

    /// Documents that are stored elsewhere are fetched into the current memory context.
    pub fn fetch(&mut self) -> Result<()> {
        for place in [field::PAYLOAD, field::METADATA] {
            if let Some(document) = self.0.get(place) {
                self.0.values[place] = datum::fetched(document)?;
            }
        }
        Ok(())
    }
}
