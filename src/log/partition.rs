//! The partitions of the log: which there are, the kept plans of each, and making the next one. A partition is made in a
//! transaction of its own, so that no caller's long transaction holds the parent's lock: ahead of need by upkeep, else by a background
//! worker; where all worker slots are taken, by the launcher, which has one. Where there is no launcher either (not preloaded, or
//! max_worker_processes is 0), in the caller's, with a WARNING: an append never fails for want of a partition.
use super::statements::{STATEMENTS, Statement, column, tag_column};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::life::worker_function;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::worker::{self, Arguments, Kind};
use crate::pg::query::columns::number;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::{Covered, Probe};
use crate::pg::{error::report, process::server};
use crate::shared::catalog::{self, Catalog};
use crate::shared::session::as_owner;
use crate::shared::{board, settings};
use eventstream_core::error::Error;
use eventstream_core::partition::range_for;
use pgrx::pg_sys::{Datum, INT8OID, OIDOID, Oid};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One partition: the positions `lower..upper`, and its plans.
pub struct Partition {
    pub lower: i64,
    pub upper: i64,
    pub table_oid: Oid,
    table: String,
    plans: [OnceCell<Plan>; STATEMENTS],
    /// (stream_id, version)
    pub versions: Probe,
    /// (event_id, tenant_id)
    pub event_ids: Probe,
    /// (stream_id, version, occurred_at), late events only
    pub lates: Probe,
    /// (tenant_id, global_position)
    pub tenants: Probe,
    /// (tenant_id, category, global_position)
    pub categories: Probe,
    /// (tenant_id, subject, global_position), events with a subject only
    pub subjects: Probe,
    /// (global_position)
    pub positions: Probe,
    tags: Option<Tags>,
}

/// The tags of a partition's events.
pub struct Tags {
    pub table_oid: Oid,
    table: String,
    /// (tenant_id, tag, global_position)
    pub rows: Probe,
}

/// How often to ask for a background worker before the caller's own transaction does the work, and the pause between.
const WORKER_TRIES: u32 = 20;
const WORKER_PAUSE: Duration = Duration::from_millis(10);

/// How long the launcher may take: it is started twice for that, a second after it ended.
const LAUNCHER_PATIENCE: Duration = Duration::from_secs(10);

const WAITS: &str = "eventstream: no worker process was to be had at the edge of a partition, so this transaction has made the next one: until it ends, \
                     whoever else needs that partition waits. es_maintain() makes partitions ahead of need";

const PARTITION_MAKER: Kind = Kind { name: c"eventstream partition maker", entry: c"eventstream_make_partition" };

/// Columns of the indexes that are probed, numbered from 1.
const VERSION_KEY: &[i16] = &[number(column::STREAM_ID), number(column::VERSION)];
const LATE_KEY: &[i16] = &[number(column::STREAM_ID), number(column::VERSION), number(column::OCCURRED_AT)];
const IS_LATE: Covered = Covered::Smaller(number(column::OCCURRED_AT), number(column::MAX_OCCURRED_AT));
const TENANT_KEY: &[i16] = &[number(column::TENANT_ID), number(column::GLOBAL_POSITION)];
const CATEGORY_KEY: &[i16] = &[number(column::TENANT_ID), number(column::CATEGORY), number(column::GLOBAL_POSITION)];
const SUBJECT_KEY: &[i16] = &[number(column::TENANT_ID), number(column::SUBJECT), number(column::GLOBAL_POSITION)];
const HAS_SUBJECT: Covered = Covered::Present(number(column::SUBJECT));
const POSITION_KEY: &[i16] = &[number(column::GLOBAL_POSITION)];
const TAG_KEY: &[i16] = &[number(tag_column::TENANT_ID), number(tag_column::TAG), number(tag_column::GLOBAL_POSITION)];
const EVENT_ID_KEY: &[i16] = &[number(column::EVENT_ID), number(column::TENANT_ID)];

/// All partitions, in the order of the log.
pub type Partitions = Rc<Vec<Rc<Partition>>>;

thread_local! {
    static KNOWN: RefCell<Option<(u64, Partitions)>> = const { RefCell::new(None) };
    // The tags lie in a table of the same bounds.
    static LIST: Plan = const { Plan::new(
        "select c.relname::text, \
                (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(\\d+)''\\) TO \\(''(\\d+)''\\)'))[1]::bigint, \
                (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(\\d+)''\\) TO \\(''(\\d+)''\\)'))[2]::bigint, c.oid, \
                (select t.oid from pg_class t join pg_inherits j on j.inhrelid = t.oid \
                 where t.relnamespace = c.relnamespace and t.relname = 'event_tags_' || substr(c.relname, 8) and j.inhparent = $2 \
                 and not j.inhdetachpending and pg_get_expr(t.relpartbound, t.oid) = pg_get_expr(c.relpartbound, c.oid)) \
         from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = $1 and not i.inhdetachpending order by 2",
        &[OIDOID, OIDOID],
    ) };
    static MAKE: Plan = const { Plan::new("select _eventstream.make_partition($1, $2)", &[INT8OID, INT8OID]) };
}

impl Partition {
    /// The kept plan for `statement`.
    pub fn plan(&self, statement: Statement) -> &Plan {
        self.plans[statement as usize].get_or_init(|| {
            let (sql, types) = statement.definition();
            Plan::made(self.named(sql), types)
        })
    }

    /// A plan for `statement` that ends with its use: for walks through all partitions, whose plans would fill the session.
    pub fn passing_plan(&self, statement: Statement) -> Plan {
        let (sql, types) = statement.definition();
        Plan::passing(self.named(sql), types)
    }

    /// A statement about its tables. Of its tags is asked only where they are.
    fn named(&self, sql: &str) -> String {
        let sql = sql.replace("{events}", &self.table);
        match &self.tags {
            Some(tags) => sql.replace("{tags}", &tags.table),
            None => sql,
        }
    }

    /// Errors: XX000 where somebody forced the table away.
    pub fn tags(&self) -> Result<&Tags> {
        self.tags.as_ref().ok_or_else(|| {
            let what = format!("the tags of the events from position {} on are missing: run es_verify()", self.lower);
            Error::Internal { what }.into()
        })
    }

    /// Its own table, and that of its events' tags.
    fn tables(&self) -> (Oid, Option<Oid>) {
        (self.table_oid, self.tags.as_ref().map(|tags| tags.table_oid))
    }

    /// Whether there is a table for its events' tags.
    pub fn has_tags(&self) -> bool {
        self.tags.is_some()
    }

    pub fn contains(&self, position: i64) -> bool {
        (self.lower..self.upper).contains(&position)
    }
}

/// The partitions there are now. Other sessions' new ones are seen as soon as [`catalog::refresh`] took them in.
pub fn all(db: &Db, catalog: &Catalog) -> Result<Partitions> {
    let generation = catalog::relations_generation();
    let known = KNOWN.with_borrow(Clone::clone);
    if let Some((at, partitions)) = &known
        && *at == generation
    {
        return Ok(Rc::clone(partitions));
    }
    let before = known.map(|(_, partitions)| partitions).unwrap_or_default();
    let listed = LIST.with(|list| {
        let parents = [Some(Datum::from(catalog.events)), Some(Datum::from(catalog.event_tags))];
        list.rows(db, View::Latest, 0, &parents, |row| {
            let tables = (row.oid(3)?, row.oid_opt(4));
            Ok((format!("_eventstream.{}", row.text(0)?), row.int8(1)?, row.int8(2)?, tables))
        })
    })?;
    let partitions: Partitions = Rc::new(
        listed
            .into_iter()
            .map(|(table, lower, upper, tables)| {
                let (table_oid, tags) = tables;
                // Plans survive: they find their table again by name.
                let kept = before
                    .iter()
                    .find(|known| known.tables() == tables && known.upper == upper && known.lower == lower);
                kept.cloned().unwrap_or_else(|| {
                    Rc::new(Partition {
                        lower,
                        upper,
                        table_oid,
                        plans: [const { OnceCell::new() }; STATEMENTS],
                        versions: Probe::by_int8(table_oid, VERSION_KEY),
                        event_ids: Probe::by_uuid(table_oid, EVENT_ID_KEY),
                        lates: Probe::partial_by_int8(table_oid, LATE_KEY, IS_LATE),
                        tenants: Probe::by_int8(table_oid, TENANT_KEY),
                        categories: Probe::by_int8(table_oid, CATEGORY_KEY),
                        subjects: Probe::partial_by_int8(table_oid, SUBJECT_KEY, HAS_SUBJECT),
                        positions: Probe::by_int8(table_oid, POSITION_KEY),
                        tags: tags.map(|table_oid| Tags {
                            table_oid,
                            table: table.replace("_eventstream.events_", "_eventstream.event_tags_"),
                            rows: Probe::by_int8(table_oid, TAG_KEY),
                        }),
                        table,
                    })
                })
            })
            .collect(),
    );
    KNOWN.set(Some((generation, Rc::clone(&partitions))));
    Ok(partitions)
}

fn find(partitions: &Partitions, position: i64) -> Option<Rc<Partition>> {
    let place = partitions.partition_point(|partition| partition.upper <= position);
    partitions.get(place).filter(|partition| partition.contains(position)).cloned()
}

/// The partition whose lower bound is `lower`.
pub fn by_lower_bound(partitions: &Partitions, lower: i64) -> Option<Rc<Partition>> {
    let place = partitions.binary_search_by_key(&lower, |partition| partition.lower).ok()?;
    Some(Rc::clone(&partitions[place]))
}

/// The partition for `position`, if it exists.
pub fn containing(db: &Db, catalog: &Catalog, position: i64) -> Result<Option<Rc<Partition>>> {
    let known = find(&all(db, catalog)?, position);
    if known.is_some() {
        return Ok(known);
    }
    // The position may be newer than what this session has heard of.
    invalidation::take_in()?;
    Ok(find(&all(db, catalog)?, position))
}

/// The partition for `position`, made where there is none yet.
pub fn for_append(db: &Db, catalog: &Catalog, position: i64) -> Result<Rc<Partition>> {
    if let Some(partition) = containing(db, catalog, position)? {
        wish_ahead(db, catalog, &partition)?;
        return Ok(partition);
    }
    for _ in 0..WORKER_TRIES {
        let had_worker = worker::run_and_wait(PARTITION_MAKER, [position, settings::partition_size()])?;
        invalidation::take_in()?;
        if let Some(partition) = containing(db, catalog, position)? {
            return Ok(partition);
        }
        if had_worker {
            break;
        }
        // Others at the same edge may have taken the last slots, and be about to make the partition.
        server::pause(WORKER_PAUSE)?;
    }
    if let Some(partition) = wish_for(db, catalog, position)? {
        return Ok(partition);
    }
    make_here(db, catalog, position, settings::partition_size())?;
    report::warning(WAITS)?;
    containing(db, catalog, position)?
        .ok_or_else(|| Error::Internal { what: format!("no partition for position {position} could be made") }.into())
}

/// Asks the launcher for the next partition, and does not wait, where no worker can be had that would look ahead.
fn wish_ahead(db: &Db, catalog: &Catalog, current: &Partition) -> Result<()> {
    if find(&all(db, catalog)?, current.upper).is_none()
        && board::hall::is_any_starving()
        && !board::database::is_scheduler_running()
    {
        board::hall::wish_for_partition(server::database(), [current.upper, settings::partition_size()]);
    }
    Ok(())
}

/// Waits for the launcher to make it; None where there is no launcher, or it did not come to it.
fn wish_for(db: &Db, catalog: &Catalog, position: i64) -> Result<Option<Rc<Partition>>> {
    let begun = Instant::now();
    let mut is_wished = false;
    while begun.elapsed() < LAUNCHER_PATIENCE {
        is_wished |= board::hall::wish_for_partition(server::database(), [position, settings::partition_size()]);
        if !is_wished {
            return Ok(None);
        }
        server::pause(WORKER_PAUSE)?;
        invalidation::take_in()?;
        if let Some(partition) = containing(db, catalog, position)? {
            return Ok(Some(partition));
        }
    }
    Ok(None)
}

/// In this transaction.
fn make_here(db: &Db, catalog: &Catalog, position: i64, size: i64) -> Result<()> {
    let partitions = all(db, catalog)?;
    let place = partitions.partition_point(|partition| partition.upper <= position);
    let before = place.checked_sub(1).map_or(1, |before| partitions[before].upper);
    let after = partitions.get(place).map(|partition| partition.lower);
    let (lower, upper) = range_for(position, before, after, size);
    MAKE.with(|make| make.write(db, &[Some(Datum::from(lower)), Some(Datum::from(upper))])).map(drop)
}

/// How many events there are, counted up to `most`.
pub fn count(db: &Db, catalog: &Catalog, most: i64) -> Result<i64> {
    let mut counted = 0;
    for partition in all(db, catalog)?.iter() {
        if counted < most {
            let sql = format!("select count(*) from (select from {} limit $1) e", partition.table);
            let plan = Plan::passing(sql, &[INT8OID]);
            let limit = Some(Datum::from(most - counted));
            counted += plan.first(db, View::Latest, &[limit], |row| row.int8(0))?.unwrap_or(0);
        }
    }
    Ok(counted)
}

/// How much of the log's room is used.
pub struct Room {
    /// Of the partition that the next event goes to, from 0 to 1; 1 where there is none.
    pub full: f64,
    pub is_next_there: bool,
}

/// The room after `last_position`.
pub fn room(db: &Db, catalog: &Catalog, last_position: i64) -> Result<Room> {
    let partitions = all(db, catalog)?;
    let Some(current) = find(&partitions, last_position + 1) else {
        return Ok(Room { full: 1.0, is_next_there: false });
    };
    let used = (last_position + 1 - current.lower) as f64 / (current.upper - current.lower) as f64;
    Ok(Room { full: used, is_next_there: find(&partitions, current.upper).is_some() })
}

/// Makes the partition after the newest one in use; 1 where it was missing, 0 where it is there.
pub fn make_ahead(db: &Db, catalog: &Catalog, last_position: i64) -> Result<i64> {
    let partitions = all(db, catalog)?;
    let next = find(&partitions, last_position + 1).map_or(last_position + 1, |current| current.upper);
    if find(&partitions, next).is_some() {
        return Ok(0);
    }
    for_append(db, catalog, next).map(|_| 1)
}

worker_function!("eventstream_make_partition", once make_in_worker);

fn make_in_worker(partition: Arguments) -> Result<()> {
    make(partition)
}

/// Makes the partition for a position, of that size, where there is none, in a transaction that is for nothing else.
pub fn make([position, size]: Arguments) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        if containing(db, catalog, position)?.is_none() { make_here(db, catalog, position, size) } else { Ok(()) }
    })
}
