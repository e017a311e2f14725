//! The highest position of the log: what an append's positions must be above, because a sequence can be set back by hand
//! (setval tells nobody). Kept in shared memory, found in the log by the first append since the server's start; without shared memory by each one.
use super::first_append;
use super::partition::{self, Partition};
use super::statements::Statement;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use crate::shared::high_water;

/// To be asked before a position is taken.
pub fn known(db: &Db, catalog: &Catalog) -> Result<i64> {
    if let Some(highest) = noted(catalog) {
        return Ok(highest);
    }
    let newest = newest(db, catalog, View::Latest)?;
    note(catalog, newest);
    Ok(newest)
}

/// As it is known without a look at the log, if so. It is no lower than any position that a committed append took; but what a restore brings, before the
/// first append, raises no mark.
fn noted(catalog: &Catalog) -> Option<i64> {
    high_water::of(catalog.positions).and_then(|mark| mark.get())
}

/// Whether the log is known to end in that partition: a stream that begins in it has no other segment.
pub fn is_within(catalog: &Catalog, partition: &Partition) -> Result<bool> {
    let ends_here = noted(catalog).is_some_and(|highest| highest < partition.upper);
    // Until then a restore may bring more.
    Ok(ends_here && first_append::is_settled(catalog)?)
}

/// This transaction has taken positions up to that one.
pub fn note(catalog: &Catalog, position: i64) {
    if let Some(mark) = high_water::of(catalog.positions) {
        mark.raise(position);
    }
}

/// The position of the newest event; 0 where there is none.
pub fn newest(db: &Db, catalog: &Catalog, view: View) -> Result<i64> {
    Ok(newest_event(db, catalog, view)?.map_or(0, |(position, _)| position))
}

/// The position of the newest event, and the id of its stream.
pub fn newest_event(db: &Db, catalog: &Catalog, view: View) -> Result<Option<(i64, i64)>> {
    for partition in partition::all(db, catalog)?.iter().rev() {
        let newest = partition.plan(Statement::Newest).first(db, view, &[], |row| Ok((row.int8(0)?, row.int8(1)?)))?;
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}

/// When the newest event was recorded.
pub fn newest_recorded_at(db: &Db, catalog: &Catalog) -> Result<Option<i64>> {
    for partition in partition::all(db, catalog)?.iter().rev() {
        let newest = partition.plan(Statement::Newest).first(db, View::Latest, &[], |row| row.int8(2))?;
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}
