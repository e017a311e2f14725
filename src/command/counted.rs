//! How many events of each type and schema version there are in each tenant, and how large they are: kept by upkeep, so that no append pays for it.
//!
//! ```text
//! tenants in turn ─▶ counted up to P ─▶ the tenant's lock, if it is free ─▶ the horizon ─▶ events after P, up to it ─▶ counts and the new P, in one transaction
//! who asks: counts as of its snapshot + the events after P that the snapshot shows
//! ```
//! Promises: what is answered is exact as of the caller's snapshot, up to the position that is said with it, under concurrent appends and whatever dies
//! when: what a snapshot shows counted had been committed before, and so it shows it, too. A look counts a bounded number of events. Nothing is counted before the
//! database has appended (a restore may still bring rows), nor without entries of open appends (anything may still be committed below the end).
use super::ruling;
use crate::log::{first_append, horizon, tally};
use crate::pg::error::failure::Result;
use crate::pg::process::lock::LockTag;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::catalog::Catalog;
use crate::shared::open_appends;
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After so long a call of upkeep begins no other page.
const ENOUGH: Duration = Duration::from_millis(300);
/// Events counted at once.
const PAGE: i64 = 10_000;
/// The most events that are counted when somebody asks.
const MOST_AT_ONCE: i64 = 100_000;
/// The most tenants that one call writes for: each keeps a lock until its end.
const MOST_WRITTEN: usize = 200;
/// The part of a tenant's lock that is for counting.
const COUNTING: u16 = 0;
/// So many positions without an event of the tenant's are noted as counted, lest their partitions be looked through again and again.
const MOST_BETWEEN: i64 = 1_000_000;

columns! {
    mod of, selected;
    EVENT_TYPE = "event_type",
    SCHEMA_VERSION = "schema_version",
    CATEGORY = "category",
    EVENTS = "events",
    LAST_RECORDED_AT = "last_recorded_at",
}

thread_local! {
    /// The tenant that this process looked at last.
    static LAST: Cell<i64> = const { Cell::new(0) };
    static TENANTS: Plan = const { Plan::new(
        "select t.id from _eventstream.tenants t where $1 is null or t.id = $1 order by t.id",
        &[INT8OID],
    ) };
    static PROGRESS: Plan = const { Plan::new(
        "select global_position from _eventstream.event_count_progress where tenant_id = $1",
        &[INT8OID],
    ) };
    static NOTE_PROGRESS: Plan = const { Plan::new(
        "insert into _eventstream.event_count_progress (tenant_id, global_position) values ($1, $2) \
         on conflict (tenant_id) do update set global_position = excluded.global_position, counted_at = excluded.counted_at",
        &[INT8OID, INT8OID],
    ) };
    static ADD: Plan = const { Plan::new(
        "insert into _eventstream.event_counts as c (tenant_id, event_type, schema_version, category, events, bytes, last_recorded_at) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (tenant_id, event_type, schema_version, category) do update \
         set events = c.events + excluded.events, bytes = c.bytes + excluded.bytes, last_recorded_at = greatest(c.last_recorded_at, excluded.last_recorded_at)",
        &[INT8OID, TEXTOID, INT4OID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID],
    ) };
    static KEPT: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.event_counts where tenant_id = $1"),
        &[INT8OID],
    ) };
    static KEPT_OF_KNOWN: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from (select event_type as known from _eventstream.event_types where tenant_id = $1 \
             union select event_type from _eventstream.upcasters where tenant_id = $1) k \
             cross join lateral (select * from _eventstream.event_counts n where n.tenant_id = $1 and n.event_type = k.known offset 0) n"
        ),
        &[INT8OID],
    ) };
}

/// What a call of upkeep did.
#[derive(Debug, Default)]
pub struct Done {
    pub events: i64,
    /// Whether another call would find something to do at once.
    pub has_more: bool,
}

/// How many events there are, and when the newest was recorded (microseconds since 2000-01-01 UTC).
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    pub events: i64,
    pub last_recorded_at: i64,
}

impl Count {
    fn add(&mut self, other: Self) {
        let is_first = self.events == 0;
        self.last_recorded_at =
            if is_first { other.last_recorded_at } else { self.last_recorded_at.max(other.last_recorded_at) };
        self.events += other.events;
    }
}

/// By event type and schema version.
pub type ByVersion = BTreeMap<String, BTreeMap<i32, Count>>;

/// How many there are of each.
#[derive(Default)]
pub struct Counts {
    pub of: ByVersion,
    /// The position up to which they are counted; None: all are.
    pub counted_to: Option<i64>,
}

/// Adds to those of an event type and schema version.
pub fn add(counts: &mut ByVersion, event_type: &str, schema_version: i32, count: Count) {
    match counts.get_mut(event_type) {
        Some(versions) => versions.entry(schema_version).or_default().add(count),
        None => {
            counts.insert(event_type.to_owned(), BTreeMap::from([(schema_version, count)]));
        }
    }
}

/// Counts what has settled since, for a tenant or (None) for every one, for a while.
pub fn advance(tenant_id: Option<i64>) -> Result<Done> {
    let (begun, mut done) = (Instant::now(), Done::default());
    if !open_appends::are_there() {
        return Ok(done);
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [tenant_id.map(Datum::from)];
        let tenants = TENANTS.with(|plan| plan.rows(db, View::Latest, 0, &key, |row| row.int8(0)))?;
        if tenants.is_empty() || !first_append::is_settled(catalog)? {
            return Ok(());
        }
        let horizons = horizon::horizons(catalog)?;
        let mut written = 0;
        for tenant_id in in_turn(tenants) {
            if begun.elapsed() > ENOUGH || written >= MOST_WRITTEN {
                // Those that are left come first the next time. Where there was nothing yet, there is no hurry.
                done.has_more |= done.events > 0;
                break;
            }
            LAST.set(tenant_id);
            let tag = LockTag { table: catalog.event_types, object: tenant_id, part: COUNTING };
            if tag.try_lock()? {
                if advance_tenant(db, catalog, tenant_id, horizons.of(tenant_id), begun, &mut done)? {
                    written += 1;
                } else {
                    tag.unlock()?;
                }
            }
        }
        Ok(())
    })?;
    Ok(done)
}

/// Those after the one that this process looked at last, then the others.
fn in_turn(mut tenants: Vec<i64>) -> Vec<i64> {
    let next = tenants.partition_point(|&tenant_id| tenant_id <= LAST.get());
    tenants.rotate_left(next);
    tenants
}

/// Whether anything was written. Behind the tenant's lock, which stays until the end of the transaction then: what is counted twice at a time would be counted
/// twice.
fn advance_tenant(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    settled: i64,
    begun: Instant,
    done: &mut Done,
) -> Result<bool> {
    let before = counted_to(db, View::Latest, tenant_id)?;
    let (mut position, mut found) = (before, BTreeMap::<(String, i32, String), (Count, i64)>::new());
    while position < settled {
        let end = tally::next(db, catalog, View::Latest, tenant_id, (position, settled), PAGE, &mut |some| {
            let key = (some.event_type.to_owned(), some.schema_version, some.category.to_owned());
            let (count, bytes) = found.entry(key).or_default();
            count.add(Count { events: some.events, last_recorded_at: some.last_recorded_at });
            *bytes += some.bytes;
            done.events += some.events;
            Ok(())
        })?;
        position = end.unwrap_or(settled);
        if end.is_some() && begun.elapsed() > ENOUGH {
            done.has_more = true;
            break;
        }
    }
    if found.is_empty() && position - before < MOST_BETWEEN {
        return Ok(false);
    }
    for ((event_type, schema_version, category), (count, bytes)) in &found {
        let row = [
            Some(Datum::from(tenant_id)),
            Some(from_text(event_type)?),
            Some(Datum::from(*schema_version)),
            Some(from_text(category)?),
            Some(Datum::from(count.events)),
            Some(Datum::from(*bytes)),
            Some(Datum::from(count.last_recorded_at)),
        ];
        ADD.with(|plan| plan.write(db, &row))?;
    }
    NOTE_PROGRESS
        .with(|plan| plan.write(db, &[Some(Datum::from(tenant_id)), Some(Datum::from(position))]))
        .map(|_| true)
}

/// Up to which position a tenant's events are counted.
fn counted_to(db: &Db, view: View, tenant_id: i64) -> Result<i64> {
    let key = [Some(Datum::from(tenant_id))];
    Ok(PROGRESS.with(|plan| plan.first(db, view, &key, |row| row.int8(0)))?.unwrap_or(0))
}

/// Those of the categories (None: of all), as of the caller's snapshot.
pub fn counts(tenant_id: i64, categories: Option<&[String]>) -> Result<Counts> {
    let is_wanted = |category: &str| categories.is_none_or(|wanted| wanted.iter().any(|one| one == category));
    as_owner(Planning::ByIndex, |db, catalog| {
        let mut counts = Counts::default();
        // One snapshot for all of it: the position, the counts up to it, and what came after it.
        let kept_to = counted_to(db, View::Caller, tenant_id)?;
        read_kept(db, &KEPT, View::Caller, tenant_id, &mut |event_type, version, category, count| {
            if is_wanted(category) {
                add(&mut counts.of, event_type, version, count);
            }
        })?;
        let range = (kept_to, i64::MAX - 1);
        counts.counted_to = tally::next(db, catalog, View::Caller, tenant_id, range, MOST_AT_ONCE, &mut |some| {
            if is_wanted(some.category) {
                let count = Count { events: some.events, last_recorded_at: some.last_recorded_at };
                add(&mut counts.of, some.event_type, some.schema_version, count);
            }
            Ok(())
        })?;
        Ok(counts)
    })
}

/// Those that upkeep has counted so far, of event types that are declared or that an upcaster takes.
pub fn kept_of_known(tenant_id: i64) -> Result<ByVersion> {
    as_owner(Planning::ByIndex, |db, _| {
        let mut counts = ByVersion::new();
        read_kept(db, &KEPT_OF_KNOWN, View::Latest, tenant_id, &mut |event_type, version, _, count| {
            add(&mut counts, event_type, version, count);
        })?;
        Ok(counts)
    })
}

fn read_kept(
    db: &Db,
    plan: &'static std::thread::LocalKey<Plan>,
    view: View,
    tenant_id: i64,
    each: &mut dyn FnMut(&str, i32, &str, Count),
) -> Result<()> {
    let mut read = |row: &Row| {
        let count = Count { events: row.int8(of::EVENTS)?, last_recorded_at: row.int8(of::LAST_RECORDED_AT)? };
        each(row.text(of::EVENT_TYPE)?, row.int4(of::SCHEMA_VERSION)?, row.text(of::CATEGORY)?, count);
        Ok(())
    };
    plan.with(|plan| plan.for_each(db, view, &[Some(Datum::from(tenant_id))], &mut read)).map(drop)
}

/// Whether a tenant declares event types: else nobody is told of its counts by type.
pub fn is_counted(tenant_id: i64) -> Result<bool> {
    Ok(!ruling::of(tenant_id)?.declared.is_empty())
}
