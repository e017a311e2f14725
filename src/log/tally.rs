//! How many events of each category, type and schema version a tenant has in a range of the log.
use super::partition;
use super::statements::{Statement, tally};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::row::Row;
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::Datum;

/// Some events of one kind.
pub struct Tallied<'a> {
    pub category: &'a str,
    pub event_type: &'a str,
    pub schema_version: i32,
    pub events: i64,
    /// Of their documents, as they are stored.
    pub bytes: i64,
    /// Microseconds since 2000-01-01 UTC.
    pub last_recorded_at: i64,
}

/// The newest partitions, whose plans are kept: where the log grows, and the one ahead of it.
const NEWEST: usize = 2;

/// Gives the next `most` events after position `after`, up to `to`, to `each`, kind by kind. The last position that was counted; None where no
/// others are left.
pub fn next(
    db: &Db,
    catalog: &Catalog,
    view: View,
    tenant_id: i64,
    (after, to): (i64, i64),
    most: i64,
    each: &mut dyn FnMut(Tallied) -> Result<()>,
) -> Result<Option<i64>> {
    let partitions = partition::all(db, catalog)?;
    let (mut left, mut last) = (most, after);
    for (place, partition) in partitions.iter().enumerate() {
        if partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        let args = [tenant_id, after, to, left].map(|number| Some(Datum::from(number)));
        let mut count = |row: &Row| {
            let events = row.int8(tally::EVENTS)?;
            left -= events;
            last = last.max(row.int8(tally::LAST_POSITION)?);
            each(Tallied {
                category: row.text(tally::CATEGORY)?,
                event_type: row.text(tally::EVENT_TYPE)?,
                schema_version: row.int4(tally::SCHEMA_VERSION)?,
                events,
                bytes: row.int8(tally::BYTES)?,
                last_recorded_at: row.int8(tally::LAST_RECORDED_AT)?,
            })
        };
        if place + NEWEST >= partitions.len() {
            partition.plan(Statement::Tally).for_each(db, view, &args, &mut count)?;
        } else {
            partition.passing_plan(Statement::Tally).for_each(db, view, &args, &mut count)?;
        }
        if left <= 0 {
            return Ok(Some(last));
        }
    }
    Ok(None)
}
