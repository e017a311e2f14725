//! Where the events of a category lie, in the order of the log: for walks that take up where they ended the last time.
use super::partition;
use super::statements::Statement;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::value::datum::from_text;
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::Datum;

/// An event's place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub global_position: i64,
    pub stream_id: i64,
    pub version: i64,
}

/// Which events.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub tenant_id: i64,
    pub category: &'a str,
}

/// Gives at most `most` events after position `after`, up to `to`, to `each`. The position up to which there are no others.
pub fn walk(
    db: &Db,
    catalog: &Catalog,
    of: Of,
    (after, to): (i64, i64),
    most: i64,
    each: &mut dyn FnMut(Place) -> Result<()>,
) -> Result<i64> {
    let mut left = most;
    for partition in partition::all(db, catalog)?.iter() {
        if partition.upper <= after || partition.lower > to {
            continue;
        }
        let args = [
            Some(Datum::from(of.tenant_id)),
            Some(from_text(of.category)?),
            Some(Datum::from(after)),
            Some(Datum::from(to)),
            Some(Datum::from(left)),
        ];
        let mut last = after;
        let found = partition.passing_plan(Statement::Places).for_each(db, View::Latest, &args, &mut |row| {
            last = row.int8(0)?;
            each(Place { global_position: last, stream_id: row.int8(1)?, version: row.int8(2)? })
        })?;
        left -= found as i64;
        if left <= 0 {
            return Ok(last);
        }
    }
    Ok(to.max(after))
}

/// When the event that has the latest recorded_at of those after position `after`, up to `to`, was recorded, and its position.
pub fn recorded_last(db: &Db, catalog: &Catalog, of: Of, (after, to): (i64, i64)) -> Result<Option<(i64, i64)>> {
    let mut last: Option<(i64, i64)> = None;
    for partition in partition::all(db, catalog)?.iter() {
        if partition.upper <= after || partition.lower > to {
            continue;
        }
        let category = Some(from_text(of.category)?);
        let args = [Some(Datum::from(of.tenant_id)), category, Some(Datum::from(after)), Some(Datum::from(to))];
        let found = partition
            .passing_plan(Statement::RecordedLast)
            .first(db, View::Latest, &args, |row| Ok((row.int8(0)?, row.int8(1)?)))?;
        last = last.max(found);
    }
    Ok(last)
}
