//! The rows of a partition that a tenant and categories choose, in the order of the log, straight from the one index that has them so: a
//! planner that may choose takes the index of positions and filters the whole log. What is read is what is given away, and a probe for each
//! category.
use super::partition::Partition;
use super::statements::column;
use super::tags;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::merge::Merged;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use pgrx::pg_sys::Datum;
use std::collections::BTreeSet;

/// Places in the indexes, from 1.
const TENANT_POSITION: i16 = 2;
const CATEGORY: i16 = 2;
const CATEGORY_POSITION: i16 = 3;

/// Which rows.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    pub tenant_id: i64,
    /// None: all.
    pub categories: Option<&'a [String]>,
    /// All of which an event must bear.
    pub tags: &'a [String],
    /// The first and the last position.
    pub from: i64,
    pub to: i64,
    pub direction: Direction,
}

/// Gives the rows to `each` until it wants no more (false).
pub fn each(
    db: &Db,
    partition: &Partition,
    view: View,
    chosen: Chosen,
    mut each: impl FnMut(&Row) -> Result<bool>,
) -> Result<()> {
    if !chosen.tags.is_empty() {
        return each_bearing(db, partition, view, chosen, &mut each);
    }
    let tenant = Datum::from(chosen.tenant_id);
    let bounds = |place| [Bound::at_least(place, chosen.from), Bound::at_most(place, chosen.to)];
    let Some(categories) = chosen.categories else {
        return partition.tenants.within(db, view, tenant, &bounds(TENANT_POSITION), chosen.direction, each);
    };
    let [first, last] = bounds(CATEGORY_POSITION);
    let mut ranges = Vec::with_capacity(categories.len());
    for category in categories.iter().collect::<BTreeSet<_>>() {
        ranges.push([Bound::equal_text(CATEGORY, from_text(category)?), first, last]);
    }
    let merged = Merged { key: tenant, ranges: &ranges, order: column::GLOBAL_POSITION, direction: chosen.direction };
    partition.categories.merged(db, view, merged, &mut each)
}

/// The same where there are tags: they say where the events are.
fn each_bearing(
    db: &Db,
    partition: &Partition,
    view: View,
    chosen: Chosen,
    each: &mut dyn FnMut(&Row) -> Result<bool>,
) -> Result<()> {
    let tags = (chosen.tenant_id, chosen.tags);
    tags::positions(db, partition, view, tags, (chosen.from, chosen.to), chosen.direction, &mut |position| {
        let mut goes_on = true;
        partition.positions.in_order(db, view, Datum::from(position), &[], |row| {
            let category = row.text(column::CATEGORY)?;
            if row.int8(column::TENANT_ID)? == chosen.tenant_id
                && chosen.categories.is_none_or(|chosen| chosen.iter().any(|wanted| wanted == category))
            {
                goes_on = each(row)?;
            }
            Ok(goes_on)
        })?;
        Ok(goes_on)
    })
}

/// The positions of at most `most` of the rows that `wants`.
pub fn positions(
    db: &Db,
    partition: &Partition,
    view: View,
    chosen: Chosen,
    most: usize,
    wants: impl Fn(&Row) -> Result<bool>,
) -> Result<Vec<i64>> {
    let mut positions = Vec::new();
    if most == 0 {
        return Ok(positions);
    }
    each(db, partition, view, chosen, |row| {
        if wants(row)? {
            positions.push(row.int8(column::GLOBAL_POSITION)?);
        }
        Ok(positions.len() < most)
    })?;
    Ok(positions)
}
