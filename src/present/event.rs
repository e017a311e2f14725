//! An event as folds and upcasters see it: the columns of type eventstream.event, made from a row of the log.
use crate::log::statements::column;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::memory::Room;
use crate::pg::query::row::Row;
use crate::pg::value::composite::{Record, RowType};
use crate::pg::value::datum;
use pgrx::pg_sys::Datum;

/// Columns of type eventstream.event, from 0, in the order of sql/schema/types.sql.
pub mod field {
    pub const GLOBAL_POSITION: usize = 0;
    pub const STREAM: usize = 1;
    pub const VERSION: usize = 2;
    pub const EVENT_ID: usize = 3;
    pub const EVENT_TYPE: usize = 4;
    pub const SCHEMA_VERSION: usize = 5;
    pub const PAYLOAD: usize = 6;
    pub const METADATA: usize = 7;
    pub const SUBJECT: usize = 8;
    pub const OCCURRED_AT: usize = 9;
    pub const RECORDED_AT: usize = 10;
    pub const CATEGORY: usize = 11;
    pub const TENANT: usize = 12;
    pub const RECORDED_BY: usize = 13;
    pub const CHAIN_HASH: usize = 15;
}

pub const FIELDS: usize = 16;

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
];

/// Roughly the bytes that columns of fixed size or short texts take.
const ORDINARY_COLUMNS: usize = 300;

/// An event.
#[derive(Clone)]
pub struct Event {
    pub values: [Datum; FIELDS],
    pub nulls: [bool; FIELDS],
}

/// What all events of a stream have in common.
pub struct Common {
    stream: Datum,
    tenant: Datum,
}

impl Common {
    /// Lives in the current memory context.
    pub fn new(target: Target, stream: &str) -> Result<Self> {
        Ok(Self { stream: datum::from_text(stream)?, tenant: datum::from_text(target.name)? })
    }
}

impl Event {
    /// Its by-reference columns live where the row does.
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
    pub fn of_composite(row: &Row) -> Self {
        let (values, nulls) = row.parts();
        let mut event = Self { values: [Datum::null(); FIELDS], nulls: [true; FIELDS] };
        event.values.copy_from_slice(values);
        event.nulls.copy_from_slice(nulls);
        event
    }

    /// Documents that are stored elsewhere are fetched into the current memory context.
    pub fn fetch(&mut self) -> Result<()> {
        for place in [field::PAYLOAD, field::METADATA] {
            if !self.nulls[place] {
                self.values[place] = datum::fetched(self.values[place])?;
            }
        }
        Ok(())
    }

    /// The event as a value of type eventstream.event, which points to its columns.
    pub fn record<'a>(&'a self, of: &'a RowType) -> Record<'a> {
        of.record(&self.values, &self.nulls)
    }

    pub fn global_position(&self) -> i64 {
        self.values[field::GLOBAL_POSITION].value() as i64
    }

    /// Microseconds since 2000-01-01 UTC.
    pub fn recorded_at(&self) -> i64 {
        self.values[field::RECORDED_AT].value() as i64
    }

    /// Bytes that it takes, roughly: those of its documents.
    pub fn size(&self) -> usize {
        let size = |place: usize| if self.nulls[place] { 0 } else { datum::unpacked_size(self.values[place]) };
        size(field::PAYLOAD) + size(field::METADATA) + ORDINARY_COLUMNS
    }

    pub fn set(&mut self, place: usize, value: Datum) {
        self.values[place] = value;
        self.nulls[place] = false;
    }

    pub fn row(&self) -> Row<'_> {
        Row::of_parts(&self.values, &self.nulls)
    }

    pub fn event_type(&self) -> Result<&str> {
        self.row().text(field::EVENT_TYPE)
    }

    pub fn stream(&self) -> Result<&str> {
        self.row().text(field::STREAM)
    }

    pub fn version(&self) -> i64 {
        self.values[field::VERSION].value() as i64
    }

    pub fn schema_version(&self) -> i32 {
        self.values[field::SCHEMA_VERSION].value() as i32
    }

    /// A document column; None where it is NULL (erased).
    pub fn document(&self, place: usize) -> Result<Option<Jsonb<'_>>> {
        self.row().jsonb_opt(place)
    }
}
