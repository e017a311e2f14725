//! The tags of events once more, in the order in which they are looked for (event_tags, partitioned as the events), and in which partitions each
//! is (tag_partitions). Written by the append beside its events. The correlation id of an event's metadata stands there as one more tag, behind a mark that no tag has.
//!
//! Promises: who sees an event sees its rows in both tables, under any snapshot; an event without tags and without a correlation id opens, writes and looks up nothing here.
use super::partition::{self, Partition};
use super::statements::{tag_column, tag_partition};
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::Db;
use crate::pg::query::columns::number;
use crate::pg::query::insert::Inserter;
use crate::pg::query::intersect::{Found, Intersection};
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction, Probe};
use crate::pg::value::datum::from_text;
use crate::shared::catalog::Catalog;
use crate::shared::transaction::End;
use eventstream_core::query::criteria::{CORRELATION, correlation_tag};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

/// The index of tag_partitions, and places in it and in that of event_tags, from 1.
const DIRECTORY_KEY: &[i16] =
    &[number(tag_partition::TENANT_ID), number(tag_partition::TAG), number(tag_partition::PARTITION)];
const TAG: i16 = 2;
const PARTITION: i16 = 3;
const POSITION: i16 = 3;

/// So many tags are remembered.
const MOST_NOTED: usize = 1000;

/// Tags of one tenant that tag_partitions has in one partition, as far as this session has met them.
struct Noted {
    of: (Oid, i64, i64),
    tags: HashSet<Box<str>>,
}

thread_local! {
    static DIRECTORY_PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static NOTED: RefCell<Noted> =
        RefCell::new(Noted { of: (pg_sys::InvalidOid, 0, 0), tags: HashSet::new() });
}

/// The rows of one call, while it writes them.
#[derive(Default)]
pub struct TagRows {
    /// The lower bound of the partition whose tags are open.
    tags: Option<(i64, Inserter)>,
    directory: Option<Inserter>,
}

impl TagRows {
    /// An event in that partition, at that position, bears these tags.
    pub fn put(
        &mut self,
        db: &Db,
        catalog: &Catalog,
        partition: &Partition,
        tenant_id: i64,
        tags: &[&str],
        position: i64,
    ) -> Result<()> {
        for tag in tags {
            let (tenant, text) = (Some(Datum::from(tenant_id)), Some(from_text(tag)?));
            self.open(db, partition)?.put(&[tenant, text, Some(Datum::from(position))])?;
            if !is_noted(db, catalog, partition, tenant_id, tag)? {
                let directory = match &mut self.directory {
                    Some(open) => open,
                    none => none.insert(Inserter::open(db, catalog.tag_partitions)?),
                };
                directory.put(&[tenant, text, Some(Datum::from(partition.lower))])?;
                note(catalog, partition, tenant_id, tag);
            }
        }
        Ok(())
    }

    /// The table of the partition's tags.
    fn open(&mut self, db: &Db, partition: &Partition) -> Result<&mut Inserter> {
        if let Some((_, before)) = self.tags.take_if(|(lower, _)| *lower != partition.lower) {
            before.close()?;
        }
        let tags = partition.tags()?;
        Ok(match &mut self.tags {
            Some((_, open)) => open,
            none => &mut none.insert((partition.lower, Inserter::open(db, tags.table_oid)?)).1,
        })
    }

    pub fn close(self) -> Result<()> {
        for open in [self.tags.map(|(_, open)| open), self.directory].into_iter().flatten() {
            open.close()?;
        }
        Ok(())
    }
}

/// What an event with these metadata is found by where its correlation id is looked for; None: it has none that is.
pub fn of_correlation(metadata: Jsonb) -> Result<Option<String>> {
    if metadata.len() == 0 {
        return Ok(None);
    }
    Ok(metadata.member_text(CORRELATION)?.and_then(correlation_tag))
}

/// Called at the end of a (sub)transaction that appended: what it noted may be gone.
pub fn on_end(end: End) {
    if end != End::Committed {
        NOTED.with_borrow_mut(|noted| noted.tags.clear());
    }
}

/// Whether tag_partitions has the tag in that partition: committed, or by this transaction.
fn is_noted(db: &Db, catalog: &Catalog, partition: &Partition, tenant_id: i64, tag: &str) -> Result<bool> {
    let of = (catalog.tag_partitions, tenant_id, partition.lower);
    if NOTED.with_borrow(|noted| noted.of == of && noted.tags.contains(tag)) {
        return Ok(true);
    }
    let bounds = [
        Bound::equal_text(TAG, from_text(tag)?),
        Bound::at_least(PARTITION, partition.lower),
        Bound::at_most(PARTITION, partition.lower),
    ];
    let mut is_there = false;
    with_directory(catalog, |probe| {
        probe.in_order(db, View::Now, Datum::from(tenant_id), &bounds, |_| {
            is_there = true;
            Ok(false)
        })
    })?;
    if is_there {
        note(catalog, partition, tenant_id, tag);
    }
    Ok(is_there)
}

fn note(catalog: &Catalog, partition: &Partition, tenant_id: i64, tag: &str) {
    let of = (catalog.tag_partitions, tenant_id, partition.lower);
    NOTED.with_borrow_mut(|noted| {
        if noted.of != of || noted.tags.len() >= MOST_NOTED {
            *noted = Noted { of, tags: HashSet::new() };
        }
        noted.tags.insert(tag.into());
    });
}

fn with_directory<T>(catalog: &Catalog, ask: impl FnOnce(&Probe) -> Result<T>) -> Result<T> {
    let probe = DIRECTORY_PROBE.take().filter(|(table, _)| *table == catalog.tag_partitions);
    let (table, probe) =
        probe.unwrap_or((catalog.tag_partitions, Probe::by_int8(catalog.tag_partitions, DIRECTORY_KEY)));
    let outcome = ask(&probe);
    DIRECTORY_PROBE.set(Some((table, probe)));
    outcome
}

/// The partitions that reach into a range of positions and have all of the tags, in the order of the log; where there are no tags, all of them.
pub fn partitions(
    db: &Db,
    catalog: &Catalog,
    view: View,
    tenant_id: i64,
    tags: &[String],
    (from, to): (i64, i64),
) -> Result<Vec<Rc<Partition>>> {
    let mut within: Vec<Rc<Partition>> = partition::all(db, catalog)?.iter().map(Rc::clone).collect();
    within.retain(|partition| partition.upper > from && partition.lower <= to);
    let (Some(first), Some(last)) = (within.first(), within.last()) else { return Ok(within) };
    if first.lower == last.lower {
        return Ok(within);
    }
    let range = [Bound::at_least(PARTITION, first.lower), Bound::at_most(PARTITION, last.lower)];
    for tag in tags {
        let [from, to] = range;
        let bounds = [Bound::equal_text(TAG, from_text(tag)?), from, to];
        let mut holding = BTreeSet::new();
        with_directory(catalog, |probe| {
            probe.in_order(db, view, Datum::from(tenant_id), &bounds, |row| {
                holding.insert(row.int8(tag_partition::PARTITION)?);
                Ok(true)
            })
        })?;
        within.retain(|partition| holding.contains(&partition.lower));
    }
    Ok(within)
}

/// Gives the positions in one partition of the events that bear all of the tags, of which there is one at least, to `each` until it wants no more
/// (false), and where none is between them.
pub fn positions(
    db: &Db,
    partition: &Partition,
    view: View,
    (tenant_id, tags): (i64, &[String]),
    range: (i64, i64),
    direction: Direction,
    each: &mut dyn FnMut(Found) -> Result<bool>,
) -> Result<()> {
    let texts = tags.iter().map(|tag| from_text(tag)).collect::<Result<Vec<_>>>()?;
    let intersection = Intersection {
        key: Datum::from(tenant_id),
        texts: &texts,
        columns: [TAG, POSITION],
        place: tag_column::GLOBAL_POSITION,
        range: (range.0.max(partition.lower), range.1.min(partition.upper - 1)),
        direction,
    };
    partition.tags()?.rows.intersected(db, view, &intersection, each)
}
