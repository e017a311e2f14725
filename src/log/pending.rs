//! What a follower of the log has not seen yet, without reading it: how old the first of it is.
use super::chosen::{self, Chosen};
use super::filter::Filter;
use super::partition;
use super::slots;
use super::statements::Statement;
use super::statements::column;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::Direction;
use crate::pg::query::row::Row;
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::Datum;

/// What a follower asks for.
#[derive(Clone, Copy)]
pub struct Followed<'a> {
    pub tenant_id: i64,
    pub filter: &'a Filter,
    /// Where each of the slots is over which its streams are spread.
    pub slots: Option<&'a [i64]>,
}

/// The most events that are looked at: a slot that has nothing to give stays behind the others for thousands.
const MOST: usize = 1_000;
const MOST_OF_SLOTS: usize = 20_000;

/// An event that waits to be seen.
#[derive(Debug, Clone, Copy)]
pub struct First {
    pub position: i64,
    /// Microseconds since 2000-01-01 UTC.
    pub recorded_at: i64,
}

impl Followed<'_> {
    /// Whether it asks for an event behind its position.
    fn waits_for(&self, db: &Db, catalog: &Catalog, row: &Row) -> Result<bool> {
        if let Some(positions) = self.slots {
            let slot = slots::of_streams(db, catalog, std::iter::once(row.int8(column::STREAM_ID)?))?;
            if slot
                .first()
                .and_then(|&slot| positions.get(slot))
                .is_some_and(|&position| row.int8(column::GLOBAL_POSITION).is_ok_and(|at| at <= position))
            {
                return Ok(false);
            }
        }
        Ok(self.filter.event_types.is_none()
            || self.filter.lets_through(row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?))
    }
}

/// The newest event of the tenant that is committed now, after position `after` and up to `to`; None where there is none.
pub fn newest(db: &Db, catalog: &Catalog, tenant_id: i64, (after, to): (i64, i64)) -> Result<Option<i64>> {
    let args = [tenant_id, after, to].map(|number| Some(Datum::from(number)));
    for partition in partition::all(db, catalog)?.iter().rev() {
        if partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        let plan = partition.plan(Statement::NewestWithin);
        if let Some(position) = plan.first(db, View::Latest, &args, |row| Ok(row.int8_opt(0)))?.flatten() {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The first event after position `after`, up to `to`; None where there is none. Only so many events are looked at: where none of them
/// is asked for it is the last of these, and the first one that is asked for lies behind it, if there is one.
pub fn first(db: &Db, catalog: &Catalog, followed: Followed, (after, to): (i64, i64)) -> Result<Option<First>> {
    let most = if followed.slots.is_some() { MOST_OF_SLOTS } else { MOST };
    let chosen = Chosen {
        tenant_id: followed.tenant_id,
        categories: followed.filter.categories.as_deref(),
        subjects: None,
        tags: &[],
        from: after + 1,
        to,
        direction: Direction::Forward,
    };
    let mut found = None;
    let mut looked_at = 0;
    for partition in partition::all(db, catalog)?.iter() {
        if found.is_some() || partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        chosen::each(db, partition, View::Latest, chosen, |row| {
            looked_at += 1;
            if looked_at < most && !followed.waits_for(db, catalog, row)? {
                return Ok(true);
            }
            let (position, recorded_at) = (row.int8(column::GLOBAL_POSITION)?, row.int8(column::RECORDED_AT)?);
            found = Some(First { position, recorded_at });
            Ok(false)
        })?;
    }
    Ok(found)
}

/// Whether there is an event in (after, to] that the filter lets through.
pub fn is_there(db: &Db, catalog: &Catalog, tenant_id: i64, filter: &Filter, (after, to): (i64, i64)) -> Result<bool> {
    let followed = Followed { tenant_id, filter, slots: None };
    let chosen = Chosen {
        tenant_id,
        categories: filter.categories.as_deref(),
        subjects: None,
        tags: &[],
        from: after + 1,
        to,
        direction: Direction::Forward,
    };
    let mut found = false;
    for partition in partition::all(db, catalog)?.iter() {
        if found || partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        chosen::each(db, partition, View::Latest, chosen, |row| {
            found = followed.waits_for(db, catalog, row)?;
            Ok(!found)
        })?;
    }
    Ok(found)
}
