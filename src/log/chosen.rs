//! The rows of a partition that a tenant, and categories or subjects, choose, in the order of the log, straight from the one index that has them so: a
//! planner that may choose takes the index of positions and filters the whole log. What is read is what is given away, and a probe for each
//! category or subject.
use super::misses::{EVENT, Misses};
use super::partition::Partition;
use super::statements::column;
use super::tags;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::intersect::Found;
use crate::pg::query::merge::Merged;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use pgrx::pg_sys::Datum;
use std::collections::BTreeSet;

/// Places in the indexes, from 1.
const TENANT_POSITION: i16 = 2;
/// A category's, and a subject's.
const NAME: i16 = 2;
const NAME_POSITION: i16 = 3;

/// Which rows.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    pub tenant_id: i64,
    /// None: all.
    pub categories: Option<&'a [String]>,
    /// None: all. Not beside categories or tags.
    pub subjects: Option<&'a [String]>,
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
    let (index, names) = match (chosen.categories, chosen.subjects) {
        (Some(categories), _) => (&partition.categories, categories),
        (None, Some(subjects)) => (&partition.subjects, subjects),
        (None, None) => {
            return partition.tenants.within(db, view, tenant, &bounds(TENANT_POSITION), chosen.direction, each);
        }
    };
    let [first, last] = bounds(NAME_POSITION);
    let mut ranges = Vec::with_capacity(names.len());
    for name in names.iter().collect::<BTreeSet<_>>() {
        ranges.push([Bound::equal_text(NAME, from_text(name)?), first, last]);
    }
    let merged = Merged { key: tenant, ranges: &ranges, order: column::GLOBAL_POSITION, direction: chosen.direction };
    index.merged(db, view, merged, &mut each)
}

/// The same where there are tags: they say where the events are. A category that is rarer than they are is asked in between: what is read is not what bears
/// the tags.
fn each_bearing(
    db: &Db,
    partition: &Partition,
    view: View,
    chosen: Chosen,
    each: &mut dyn FnMut(&Row) -> Result<bool>,
) -> Result<()> {
    let mut left = chosen;
    let mut misses = Misses::from(left.start());
    loop {
        let mut missed_to = None;
        let tags = (left.tenant_id, left.tags);
        tags::positions(db, partition, view, tags, (left.from, left.to), left.direction, &mut |found| {
            let Found::At(position) = found else {
                if misses.miss(1) && left.categories.is_some() {
                    missed_to = Some(left.starting_at(found.place()));
                }
                return Ok(missed_to.is_none());
            };
            let (mut goes_on, mut is_wanted) = (true, false);
            partition.positions.in_order(db, view, Datum::from(position), &[], |row| {
                let category = row.text(column::CATEGORY)?;
                if row.int8(column::TENANT_ID)? == left.tenant_id
                    && left.categories.is_none_or(|wanted| wanted.iter().any(|wanted| wanted == category))
                {
                    is_wanted = true;
                    goes_on = each(row)?;
                }
                Ok(goes_on)
            })?;
            let rest = left.beyond(position);
            if is_wanted {
                misses.hit(rest.start());
            } else if goes_on && misses.miss(EVENT) && left.categories.is_some() {
                missed_to = Some(rest);
            }
            Ok(goes_on && missed_to.is_none())
        })?;
        let Some(rest) = missed_to else { return Ok(()) };
        left = rest;
        let Some(next) = next_of_categories(db, partition, view, left)? else { return Ok(()) };
        misses.leapt((left.start(), next), left.categories.map_or(0, <[String]>::len));
        left = left.starting_at(next);
    }
}

/// Where the first of the rows is that the tenant and the categories choose, whatever they bear.
fn next_of_categories(db: &Db, partition: &Partition, view: View, chosen: Chosen) -> Result<Option<i64>> {
    let mut next = None;
    each(db, partition, view, Chosen { tags: &[], ..chosen }, |row| {
        next = Some(row.int8(column::GLOBAL_POSITION)?);
        Ok(false)
    })?;
    Ok(next)
}

impl Chosen<'_> {
    fn start(&self) -> i64 {
        if self.direction == Direction::Forward { self.from } else { self.to }
    }

    /// What comes after that position.
    fn beyond(self, position: i64) -> Self {
        match self.direction {
            Direction::Forward => Self { from: position + 1, ..self },
            Direction::Backward => Self { to: position - 1, ..self },
        }
    }

    fn starting_at(self, position: i64) -> Self {
        match self.direction {
            Direction::Forward => Self { from: position, ..self },
            Direction::Backward => Self { to: position, ..self },
        }
    }
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
