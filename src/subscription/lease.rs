//! Leases: what es_fetch gave to whom, and what becomes of it: es_ack, es_nack, es_extend_lease. A lease is held while the clock says so
//! and its slots still name it: whoever comes after that gets ES024, under whatever name.
use super::consumers;
use super::dead;
use super::lookup::{Subscription, by_id};
use super::parked::{self, Parked};
use super::slots::{self, Lease, Slot};
use crate::log::delivery::{self, Facts};
use crate::log::read::Filter;
use crate::log::slots::of_streams;
use crate::pg::error::failure::invalid;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{from_text, from_uuid, int8_array_of, uuid_array_of};
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};
use crate::shared::live_settings;
use crate::shared::session::as_owner;
use eventstream_core::backoff::pause;
use eventstream_core::delivery::Batch;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use pgrx::pg_sys::{Datum, INT8ARRAYOID, INT8OID, TEXTOID, TIMESTAMPTZOID, UUIDARRAYOID, UUIDOID};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How long a lease that is over is remembered, and one whose end nobody noticed (µs).
const REMEMBERED: i64 = 60_000_000;
const FORGOTTEN: i64 = 86_400_000_000;
/// The longest lease (µs).
pub const LONGEST: i64 = 3_600_000_000;

thread_local! {
    static INSERT: Plan = const { Plan::new(
        "insert into _eventstream.subscription_leases (lease_id, subscription_id, consumer, lease_until, positions, stream_ids, \
                                                        of_parked) \
         values ($1, $2, $3, $4, $5, $6, $7)",
        &[UUIDOID, INT8OID, TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID],
    ) };
    static REMOVE_OLD: Plan = const { Plan::new(
        "delete from _eventstream.subscription_leases \
         where ctid = any (array(select ctid from _eventstream.subscription_leases \
                                 where subscription_id = $1 and lease_until < $2 and (finished_at is not null or lease_until < $3) \
                                 order by lease_until limit 10 for update skip locked))",
        &[INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID],
    ) };
    static LOOK: Plan = const { Plan::new(
        "select s.categories from _eventstream.subscription_leases l \
         join _eventstream.subscriptions s on s.id = l.subscription_id where l.lease_id = $1 and s.tenant_id = $2",
        &[UUIDOID, INT8OID],
    ) };
    static LOCK: Plan = const { Plan::new(
        "select subscription_id, lease_until, finished_by, positions, stream_ids, of_parked from _eventstream.subscription_leases \
         where lease_id = $1 for update",
        &[UUIDOID],
    ) };
    static EVENTS: Plan = const { Plan::new(
        "select positions, stream_ids, of_parked from _eventstream.subscription_leases where lease_id = $1",
        &[UUIDOID],
    ) };
    static KEEP: Plan = const { Plan::new(
        "update _eventstream.subscription_leases set positions = $2, stream_ids = $3 where lease_id = $1",
        &[UUIDOID, INT8ARRAYOID, INT8ARRAYOID],
    ) };
    static FINISH: Plan = const { Plan::new(
        "update _eventstream.subscription_leases set positions = '{}', stream_ids = '{}', lease_until = least(lease_until, $2), \
             finished_at = $2, finished_by = $3 \
         where lease_id = $1",
        &[UUIDOID, TIMESTAMPTZOID, TEXTOID],
    ) };
    static FINISH_LEFT: Plan = const { Plan::new(
        "update _eventstream.subscription_leases l set finished_at = $3, finished_by = 'it ended at ' || l.lease_until \
         where l.ctid = any (array(select ctid from _eventstream.subscription_leases where lease_id = any ($2) for update skip locked)) \
         and not exists (select from _eventstream.subscription_slots s where s.subscription_id = $1 and s.lease_id = l.lease_id)",
        &[INT8OID, UUIDARRAYOID, TIMESTAMPTZOID],
    ) };
    static EXTEND: Plan = const { Plan::new(
        "update _eventstream.subscription_leases set lease_until = $2 where lease_id = $1",
        &[UUIDOID, TIMESTAMPTZOID],
    ) };
    static END_ALL: Plan = const { Plan::new(
        "update _eventstream.subscription_leases set positions = '{}', stream_ids = '{}', lease_until = least(lease_until, $2), \
             finished_at = $2, finished_by = $3 \
         where subscription_id = $1 and finished_at is null",
        &[INT8OID, TIMESTAMPTZOID, TEXTOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_leases where subscription_id = $1",
        &[INT8OID],
    ) };
}

/// An event that a lease holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub position: i64,
    pub stream_id: i64,
    pub slot: usize,
    /// Given of a parked stream or a single event, not of its slot.
    pub is_parked: bool,
}

/// The columns positions, stream_ids and of_parked, from `column` on; without their slots.
fn read_events(row: &Row, column: usize) -> Result<Vec<Event>> {
    let of_parked = row.int8_array(column + 2)?;
    let events = row.int8_array(column)?.into_iter().zip(row.int8_array(column + 1)?);
    Ok(events
        .map(|(position, stream_id)| Event { position, stream_id, slot: 0, is_parked: of_parked.contains(&position) })
        .collect())
}

fn with_slots(db: &Db, catalog: &Catalog, mut events: Vec<Event>) -> Result<Vec<Event>> {
    let slots = of_streams(db, catalog, events.iter().map(|event| event.stream_id))?;
    events.iter_mut().zip(slots).for_each(|(event, slot)| event.slot = slot);
    Ok(events)
}

/// A lease that is held, its row and its slots locked.
struct Held {
    id: [u8; 16],
    subscription: Subscription,
    until: i64,
    /// In order.
    events: Vec<Event>,
    slots: BTreeMap<usize, Slot>,
}

/// A nacked event; `retry_after` in microseconds.
pub struct Nack<'a> {
    pub position: i64,
    pub reason: &'a str,
    pub retry_after: Option<i64>,
    pub is_dead: bool,
}

fn lost(lease_id: &[u8; 16], reason: impl Into<String>) -> Failure {
    Error::LeaseLost { lease_id: to_uuid_text(lease_id), reason: reason.into() }.into()
}

fn never_given(lease_id: &[u8; 16]) -> Failure {
    lost(lease_id, "it was never given, or has ended long ago")
}

/// A new lease; some old ones go.
pub fn insert(db: &Db, subscription_id: i64, lease: &Lease, batch: &Batch) -> Result<()> {
    let positions: Vec<i64> = batch.events.iter().map(|event| event.position).collect();
    let streams: Vec<i64> = batch.events.iter().map(|event| event.stream_id).collect();
    let of_parked: Vec<i64> = batch.events.iter().filter(|event| event.is_parked).map(|event| event.position).collect();
    let row = [
        Some(from_uuid(&lease.id)?),
        Some(Datum::from(subscription_id)),
        Some(from_text(&lease.consumer)?),
        Some(Datum::from(lease.until)),
        Some(int8_array_of(&positions)?),
        Some(int8_array_of(&streams)?),
        Some(int8_array_of(&of_parked)?),
    ];
    INSERT.with(|plan| plan.write(db, &row))?;
    let now = server::clock();
    let old =
        [Some(Datum::from(subscription_id)), Some(Datum::from(now - REMEMBERED)), Some(Datum::from(now - FORGOTTEN))];
    REMOVE_OLD.with(|plan| plan.write(db, &old)).map(drop)
}

/// The categories that the lease's subscription delivers. Errors: ES024.
pub fn filter(tenant_id: i64, lease_id: &[u8; 16]) -> Result<Filter> {
    as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(from_uuid(lease_id)?), Some(Datum::from(tenant_id))];
        let found =
            LOOK.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(Filter::of(row.text_array_opt(0)?, None))))?;
        found.ok_or_else(|| never_given(lease_id))
    })
}

/// Locks the lease with the slots of all its events, or of the one at `position`. Errors: ES024 where it is not held any more, ES005
/// where it does not hold that event.
fn hold(db: &Db, catalog: &Catalog, tenant_id: i64, lease_id: &[u8; 16], position: Option<i64>) -> Result<Held> {
    let key = [Some(from_uuid(lease_id)?)];
    let found = LOCK.with(|plan| {
        plan.first(db, View::Write, &key, |row| {
            Ok((row.int8(0)?, row.int8(1)?, row.text_opt(2)?.map(ToOwned::to_owned), read_events(row, 3)?))
        })
    })?;
    let Some((subscription_id, until, finished_by, events)) = found else { return Err(never_given(lease_id)) };
    let Some(subscription) = by_id(db, tenant_id, subscription_id)? else { return Err(never_given(lease_id)) };
    if let Some(finished_by) = finished_by {
        return Err(lost(lease_id, finished_by));
    }
    if server::clock() > until {
        return Err(lost(lease_id, format!("it ended at {}", server::print_time_utc(until)?)));
    }
    let events = with_slots(db, catalog, events)?;
    let meant = |event: &&Event| position.is_none_or(|position| event.position == position);
    let numbers: BTreeSet<usize> = events.iter().filter(meant).map(|event| event.slot).collect();
    if numbers.is_empty() {
        let position = position.unwrap_or_default();
        return Err(invalid(
            "global_position",
            format!("must be of an event that the lease still holds, not {position}"),
        ));
    }
    let slots: BTreeMap<usize, Slot> = slots::lock_of_lease(db, catalog, subscription_id, lease_id, &numbers)?
        .into_iter()
        .map(|slot| (slot.slot, slot))
        .collect();
    if slots.len() < numbers.len() {
        return Err(lost(lease_id, "its events were given to another consumer"));
    }
    Ok(Held { id: *lease_id, subscription, until, events, slots })
}

/// What is known of the events that a lease holds, also of one that has ended.
pub fn events_of(db: &Db, catalog: &Catalog, lease_id: &[u8; 16]) -> Result<Vec<Event>> {
    let key = [Some(from_uuid(lease_id)?)];
    let found = EVENTS.with(|plan| plan.first(db, View::Latest, &key, |row| read_events(row, 0)))?;
    with_slots(db, catalog, found.unwrap_or_default())
}

/// Leases that ended and of which no slot is left are over.
pub fn finish_left(db: &Db, subscription_id: i64, lease_ids: &[[u8; 16]], now: i64) -> Result<()> {
    let args = [Some(Datum::from(subscription_id)), Some(uuid_array_of(lease_ids)?), Some(Datum::from(now))];
    FINISH_LEFT.with(|plan| plan.write(db, &args)).map(drop)
}

/// The parked streams and single events among some events of one subscription.
pub struct Rows {
    streams: HashMap<i64, Parked>,
    singles: HashMap<i64, Parked>,
}

impl Rows {
    pub fn of(db: &Db, subscription_id: i64, events: &[Event]) -> Result<Self> {
        let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
        let streams: Vec<i64> = events.iter().map(|event| event.stream_id).collect();
        Ok(Self {
            streams: parked::of_streams(db, subscription_id, &streams)?,
            singles: parked::singles(db, subscription_id, &positions)?,
        })
    }

    /// The row that an event was given of.
    pub fn row(&self, event: &Event) -> Option<&Parked> {
        self.singles.get(&event.position).or_else(|| self.streams.get(&event.stream_id)).filter(|_| event.is_parked)
    }
}

impl Held {
    /// Writes what is left: slots without events are free, and as far as the lease took them; the others as far as `done_to`.
    fn write(&self, db: &Db, left: &[Event], done_to: Option<i64>, done: &str) -> Result<()> {
        let (mut freed, mut advanced) = (Vec::new(), Vec::new());
        for (&number, slot) in &self.slots {
            let up_to = slot.lease.as_ref().map_or(slot.standing.position, |lease| lease.up_to);
            let most = self.subscription.max_deliveries;
            if left.iter().any(|event| event.slot == number) {
                let to = done_to.map_or(slot.standing.position, |to| to.min(up_to));
                let standing =
                    if to > slot.standing.position { slot.standing.after_progress(to, most) } else { slot.standing };
                // Without progress the row is written all the same: it tells who looked at it before that something changed.
                advanced.push((number, standing));
            } else {
                freed.push((number, slot.standing.after_progress(up_to, most)));
            }
        }
        slots::free(db, self.subscription.id, &freed)?;
        slots::advance(db, self.subscription.id, &advanced)?;
        let id = Some(from_uuid(&self.id)?);
        consumers::progress(db, self.subscription.id, &self.id)?;
        if left.is_empty() {
            let now = server::clock();
            let done = format!("{done} at {}", server::print_time_utc(now)?);
            return FINISH
                .with(|plan| plan.write(db, &[id, Some(Datum::from(now)), Some(from_text(&done)?)]))
                .map(drop);
        }
        let positions: Vec<i64> = left.iter().map(|event| event.position).collect();
        let streams: Vec<i64> = left.iter().map(|event| event.stream_id).collect();
        KEEP.with(|plan| plan.write(db, &[id, Some(int8_array_of(&positions)?), Some(int8_array_of(&streams)?)]))
            .map(drop)
    }
}

/// How many events were acknowledged. Errors: ES024.
pub fn ack(tenant_id: i64, lease_id: &[u8; 16], up_to: Option<i64>) -> Result<i64> {
    server::must_be_writable(c"es_ack")?;
    if let Some(up_to) = up_to.filter(|&up_to| up_to < 0) {
        return Err(invalid("up_to", format!("must be 0 or more, not {up_to}")));
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        let held = hold(db, catalog, tenant_id, lease_id, None)?;
        let count = held.events.partition_point(|event| up_to.is_none_or(|up_to| event.position <= up_to));
        let (done, left) = held.events.split_at(count);
        let of_parked: Vec<Event> = done.iter().copied().filter(|event| event.is_parked).collect();
        if !of_parked.is_empty() {
            advance_parked(db, catalog, &held.subscription, &of_parked)?;
        }
        held.write(db, left, up_to, "it was acknowledged already,")?;
        counters::add(Counter::EventsAcknowledged, count as u64);
        Ok(count as i64)
    })
}

/// Events that were given of what is parked are done.
fn advance_parked(db: &Db, catalog: &Catalog, subscription: &Subscription, events: &[Event]) -> Result<()> {
    let mut rows = Rows::of(db, subscription.id, events)?;
    let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
    let singles: Vec<i64> = positions.iter().copied().filter(|position| rows.singles.contains_key(position)).collect();
    parked::drop_singles(db, subscription.id, &singles)?;
    let mut changed = BTreeSet::new();
    for event in delivery::facts(db, catalog, &positions)? {
        if !rows.singles.contains_key(&event.position)
            && let Some(row) = rows.streams.get_mut(&event.stream_id)
        {
            row.advance(event.version);
            changed.insert(event.stream_id);
        }
    }
    changed
        .iter()
        .filter_map(|stream_id| rows.streams.get(stream_id))
        .try_for_each(|row| parked::advance(db, subscription.id, row))
}

/// The positions of the events that left the lease: of this one, and of those that come after it. Errors: ES005, ES024.
pub fn nack(tenant_id: i64, lease_id: &[u8; 16], nack: &Nack) -> Result<Vec<i64>> {
    server::must_be_writable(c"es_nack")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let held = hold(db, catalog, tenant_id, lease_id, Some(nack.position))?;
        let Some(&event) = held.events.iter().find(|event| event.position == nack.position) else {
            return Ok(Vec::new());
        };
        let same: Vec<Event> = held.events.iter().copied().filter(|other| other.stream_id == event.stream_id).collect();
        let rows = Rows::of(db, held.subscription.id, &same)?;
        let is_single = |event: &Event| rows.row(event).is_some_and(|row| row.is_single);
        let leaves = |other: &Event| {
            other.position == event.position
                || !is_single(&event)
                    && other.stream_id == event.stream_id
                    && other.position > event.position
                    && !is_single(other)
        };
        let (gone, left): (Vec<Event>, Vec<Event>) = held.events.iter().partition(|other| leaves(other));
        let is_first = !left
            .iter()
            .any(|other| other.stream_id == event.stream_id && other.position < event.position && !is_single(other));
        fail(db, catalog, tenant_id, &held, &event, &rows, is_first, nack)?;
        held.write(db, &left, None, "its last event was nacked")?;
        counters::add(Counter::EventsNacked, gone.len() as u64);
        Ok(gone.iter().map(|event| event.position).collect())
    })
}

/// Parks the stream of a nacked event, or its event is dead. `is_first`: the lease holds none of its stream before it.
#[allow(clippy::too_many_arguments)]
fn fail(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    held: &Held,
    event: &Event,
    rows: &Rows,
    is_first: bool,
    nack: &Nack,
) -> Result<()> {
    let subscription = &held.subscription;
    let facts = delivery::facts(db, catalog, &[event.position])?;
    let facts = facts
        .first()
        .ok_or_else(|| Error::Internal { what: format!("there is no event at position {}", event.position) })?;
    let version = facts.version;
    let attempts = match (rows.row(event), held.slots.get(&event.slot)) {
        (Some(row), _) if row.is_single || row.failed_version == Some(version) => row.attempts + 1,
        (None, Some(slot)) => slot.standing.attempt(event.position),
        _ => 1,
    };
    let is_dead = nack.is_dead || attempts >= subscription.max_deliveries;
    let retry_at = server::clock().saturating_add(nack.retry_after.unwrap_or_else(|| retry_pause(attempts)));
    if is_dead {
        dead::put(db, tenant_id, subscription.id, facts, attempts, nack.reason)?;
    }
    match rows.row(event) {
        Some(row) if row.is_single && is_dead => parked::drop_singles(db, subscription.id, &[event.position]),
        Some(row) if row.is_single => {
            parked::set_single(db, subscription.id, &Parked { attempts, ..row.clone() }, retry_at, nack.reason)
        }
        Some(row) => {
            let mut row = row.clone();
            if is_dead {
                row.leave_out(version, is_first);
                return parked::advance(db, subscription.id, &row);
            }
            (row.failed_version, row.attempts) = (Some(version), attempts);
            parked::park(db, subscription.id, &row, retry_at, nack.reason)
        }
        None => {
            // The stream is parked from here on; where it was parked behind this event already, what is done there stays done.
            let before = rows.streams.get(&event.stream_id);
            let mut skipped = Vec::new();
            if let Some(before) = before {
                let from = delivery::facts(db, catalog, &[before.from_position])?;
                let from_version = from.first().map_or(i64::MAX, |from| from.version);
                skipped.clone_from(&before.skipped);
                skipped.extend(from_version..=before.version);
            }
            let mut row = Parked {
                stream_id: event.stream_id,
                slot: event.slot,
                from_position: event.position,
                version: version - 1,
                skipped,
                is_single: false,
                failed_version: Some(version),
                attempts,
            };
            if is_dead {
                row.leave_out(version, true);
            }
            let retry_at = if is_dead { server::clock() } else { retry_at };
            parked::park(db, subscription.id, &row, retry_at, nack.reason)
        }
    }
}

/// What came of a parked event whose lease ended: it is tried again after a pause, or is dead.
pub fn end_parked(
    db: &Db,
    tenant_id: i64,
    subscription: &Subscription,
    row: &Parked,
    event: &Facts,
    reason: &str,
) -> Result<()> {
    let is_known = row.is_single || row.failed_version == Some(event.version);
    let attempts = if is_known { row.attempts + 1 } else { 1 };
    let mut row = Parked { attempts, failed_version: Some(event.version), ..row.clone() };
    if attempts >= subscription.max_deliveries {
        dead::put(db, tenant_id, subscription.id, event, attempts, reason)?;
        if row.is_single {
            return parked::drop_singles(db, subscription.id, &[event.position]);
        }
        row.leave_out(event.version, true);
        return parked::advance(db, subscription.id, &row);
    }
    let retry_at = server::clock() + retry_pause(attempts);
    if row.is_single {
        parked::set_single(db, subscription.id, &row, retry_at, reason)
    } else {
        parked::park(db, subscription.id, &row, retry_at, reason)
    }
}

/// How many events it holds. `by` in microseconds. Errors: ES005, ES024.
pub fn extend(tenant_id: i64, lease_id: &[u8; 16], by: i64) -> Result<i64> {
    server::must_be_writable(c"es_extend_lease")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let held = hold(db, catalog, tenant_id, lease_id, None)?;
        let until = held.until.saturating_add(by);
        if until - server::clock() > LONGEST {
            return Err(invalid("by", "must not let the lease end later than in an hour"));
        }
        EXTEND.with(|plan| plan.write(db, &[Some(from_uuid(lease_id)?), Some(Datum::from(until))]))?;
        slots::extend(db, held.subscription.id, lease_id, until)?;
        consumers::progress(db, held.subscription.id, lease_id)?;
        Ok(held.events.len() as i64)
    })
}

/// Every lease of the subscription ends; `reason` reads "it …".
/// How many there were.
pub fn end_all(db: &Db, subscription_id: i64, reason: &str) -> Result<u64> {
    let args = [Some(Datum::from(subscription_id)), Some(Datum::from(server::clock())), Some(from_text(reason)?)];
    END_ALL.with(|plan| plan.write(db, &args))
}

pub fn drop_all(db: &Db, subscription_id: i64) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id))])).map(drop)
}

/// The pause after so many attempts (µs).
pub fn retry_pause(attempts: i32) -> i64 {
    let (first, longest) = (live_settings::retry_pause(), live_settings::max_retry_pause());
    pause(attempts.unsigned_abs(), first, longest).as_micros() as i64
}
