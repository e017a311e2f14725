//! es_fetch. Looks without a lock; locks the slots that have something, at most the consumer's share of them, and leases those. While it
//! waits for events it holds no lock: a call that had to write something else does not wait, its transaction is to end first.
//!
//! ```text
//! note the consumer ─▶ slots whose lease has ended: freed, their events again or dead
//!   ─▶ look at the free slots ── nothing ──▶ move them on ─▶ wait: an append, a retry, the end of a lease, the end of the call
//!   ─▶ lock (skipping what others have locked or changed) ─▶ lease ─▶ read, upcast ─▶ what cannot be upcast is nacked
//! ```
use super::lease::{self, Nack};
use super::look::{self, Look, MOST_BYTES, Wish};
use super::lookup::{Subscription, following};
use super::slots::{self, Lease, Slot};
use super::{consumers, dead};
use crate::log::target::Target;
use crate::log::{delivery, horizon, pending};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::store::Store;
use crate::pg::value::composite::RowType;
use crate::pg::value::datum::from_uuid;
use crate::present::door::{Aside, Door, Unshown};
use crate::present::upcasters;
use crate::shared::board::waiter::{Awaited, Waiter};
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};

use crate::shared::session::as_owner;

use eventstream_core::delivery::{Batch, Limits, Offer, Standing, batch, share_among, wanted};
use eventstream_core::error::Error;
use pgrx::pg_sys::Datum;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What is asked for; times in microseconds.
pub struct Request<'a> {
    pub consumer: &'a str,
    pub max_count: usize,
    pub lease: i64,
    pub wait: i64,
}

/// Others may change what was looked at before it is locked: so often it is looked at again.
const MOST_LOOKS: usize = 5;
/// After so many rows of the log were looked at, slots that have nothing are moved on by a call that leases others.
const MANY_ROWS: usize = 2_000;
/// The longest sleeps between two looks (µs), where slots that others lease may become free, and where not.
const SHORT_SLEEP: i64 = 100_000;
const LONG_SLEEP: i64 = 1_000_000;
/// After looks in vain a call that waits rests several times as long as they took, so that whoever waits leaves the processors to
/// those who work; at least the scheduler's own pace, and at most so long.
const REST: u32 = 4;
const PACE: Duration = Duration::from_millis(2);
const LONGEST_PACE: Duration = Duration::from_millis(100);
/// The longest pause between two looks at the index beside those who append what is not wanted.
const IDLE_PACE: Duration = Duration::from_millis(10);
/// Slots so many positions behind are moved on where they have nothing: each partition in between costs a probe.
const MANY_POSITIONS: i64 = 100_000;

/// What a look came to.
enum Step {
    Leased(Lease, Batch),
    /// Others were faster.
    Again,
    /// Until then (µs) there is nothing, as far as one can tell; from `horizon` on something may come.
    Nothing {
        until: i64,
        horizon: i64,
    },
}

/// Puts a batch into the store, if there is one. Errors: ES020, ES025.
pub fn fetch(target: Target, subscription: &Subscription, request: &Request, store: &Store) -> Result<()> {
    let end = server::clock() + request.wait;
    let mut subscription = subscription.clone();
    let mut kept = 0;
    let mut looks = 0;
    let mut is_promised = false;
    loop {
        let begun = Instant::now();
        invalidation::take_in()?;
        // Upcasters may have been registered while it waited.
        subscription = following(target.id, subscription)?;
        let step = as_owner(Planning::ByIndex, |db, catalog| {
            step(db, catalog, target, &subscription, request, end, &mut kept)
        })?;
        let nothing = match step {
            Step::Leased(lease, batch) => {
                if deliver(target, &lease, &batch, store)? {
                    return Ok(());
                }
                None
            }
            Step::Again => None,
            Step::Nothing { until, horizon } => Some((until, horizon)),
        };
        if nothing.is_none() && looks + 1 < MOST_LOOKS {
            looks += 1;
            continue;
        }
        looks = 0;
        if server::clock() >= end || kept > 0 {
            return Ok(());
        }
        let pause = |rest: u32| server::pause((begun.elapsed() * rest).clamp(PACE, LONGEST_PACE));
        match nothing {
            Some((until, horizon)) => {
                if is_promised {
                    // What was there lies in slots that others lease.
                    pause(REST)?;
                }
                is_promised = wait_for_event(target.id, &subscription, horizon, until.min(end))?;
            }
            // There is something, which others have locked.
            None => pause(1)?,
        }
    }
}

/// Waits until the log has an event for the subscription behind `seen`, or until that time (µs): whether it has. Where others append what it
/// does not want it looks at the index now and then, at no more than came since, and sleeps longer each time.
fn wait_for_event(tenant_id: i64, subscription: &Subscription, mut seen: i64, until: i64) -> Result<bool> {
    let mut pace = PACE;
    let mut waiter: Option<Waiter> = None;
    loop {
        let now = server::clock();
        if now >= until {
            return Ok(false);
        }
        let (horizon, is_there) = as_owner(Planning::ByIndex, |db, catalog| {
            let horizon = horizon::settled(catalog, tenant_id)?;
            let is_there =
                horizon > seen && pending::is_there(db, catalog, tenant_id, &subscription.filter, (seen, horizon))?;
            Ok((horizon, is_there))
        })?;
        if is_there {
            return Ok(true);
        }
        if horizon > seen {
            seen = horizon;
            waiter = None;
            server::pause(pace)?;
            pace = (pace * 2).min(IDLE_PACE);
        } else if let Some(waiter) = &waiter {
            waiter.wait(Duration::from_micros((until - now).clamp(1_000, LONG_SLEEP).unsigned_abs()))?;
        } else {
            // Before it sleeps it looks once more: something may have come meanwhile.
            waiter = Some(Waiter::register(Awaited::Horizon(tenant_id), seen.saturating_add(1)));
        }
    }
}

/// `kept`: how many slots the call has written without leasing them. Others get them when its transaction ends, so they count towards
/// the consumer's share.
fn step(
    db: &Db,
    catalog: &Catalog,
    target: Target,
    subscription: &Subscription,
    request: &Request,
    end: i64,
    kept: &mut usize,
) -> Result<Step> {
    let now = server::clock();
    let mut all = slots::read(db, subscription.id)?;
    if all.is_empty() {
        return Err(Error::SubscriptionNotFound { subscription: subscription.name.clone() }.into());
    }
    let (mut there, lease) =
        consumers::note(db, subscription.id, request.consumer, now, (end.max(now), request.lease))?;
    let request = &Request { lease, ..*request };
    let holders: Vec<&str> = all
        .iter()
        .filter(|slot| slot.is_leased(now))
        .filter_map(|slot| slot.lease.as_ref())
        .map(|lease| lease.consumer.as_str())
        .collect();
    for holder in &holders {
        there.entry((*holder).to_owned()).or_insert(false);
    }
    let works = |consumer: &str| there.get(consumer) == Some(&true);
    let working = there.values().filter(|works| **works).count();
    let held_by_idle = holders.iter().filter(|holder| !works(holder)).count();
    let own = holders.iter().filter(|holder| **holder == request.consumer).count();
    let share = share_among(working, there.len() - working, works(request.consumer), held_by_idle).saturating_sub(own);
    if share == 0 {
        return Ok(Step::Nothing { until: now + SHORT_SLEEP, horizon: i64::MAX - 1 });
    }
    let taken = take_over(db, catalog, target, subscription, &all, share, now)?;
    if taken > 0 {
        all = slots::read(db, subscription.id)?;
    }
    *kept += taken;
    let free: Vec<&Slot> = all.iter().filter(|slot| slot.lease.is_none()).collect();
    let wish = Wish { events: request.max_count, share };
    let look = look::look(db, catalog, target.id, subscription, &free, wish, now)?;
    match lease_of(db, catalog, subscription, request, &all, &look, share, *kept)? {
        Some(step) => Ok(step),
        None => {
            let behind = look::behind(&look, &all);
            let mut moved = 0;
            let is_far = |(slot, to): &(&Slot, i64)| to - slot.standing.position >= MANY_POSITIONS;
            if look.rows >= MANY_ROWS || !look.caught_up.is_empty() || behind.iter().any(is_far) {
                moved = look::settle(db, catalog, subscription, &look, &behind, share.saturating_sub(*kept))?;
                *kept += moved;
            }
            let ends = all.iter().filter_map(|slot| slot.lease.as_ref()).map(|lease| lease.until + 1).min();
            let sleep = if ends.is_some() { SHORT_SLEEP } else { LONG_SLEEP };
            let until = [Some(now + sleep), ends, look.next_retry].into_iter().flatten().min().unwrap_or(now);
            // There is more to look at; but where slots stay behind, the same would be looked at again.
            if look.scanned_to < look.horizon && moved == behind.len() {
                *kept -= moved; // they are looked at again, and moved or leased then
                Ok(Step::Again)
            } else {
                Ok(Step::Nothing { until, horizon: look.horizon })
            }
        }
    }
}

/// Leases of what was found as much as is wanted; None where nothing was found.
#[allow(clippy::too_many_arguments)]
fn lease_of(
    db: &Db,
    catalog: &Catalog,
    subscription: &Subscription,
    request: &Request,
    all: &[Slot],
    look: &Look,
    share: usize,
    kept: usize,
) -> Result<Option<Step>> {
    let wanted = wanted(&look.offers, share, subscription.max_deliveries);
    if wanted.slots.is_empty() {
        return Ok(None);
    }
    let by_number = |number: &usize| all.iter().find(|slot| slot.slot == *number);
    let rows: Vec<&Slot> = wanted.slots.iter().filter_map(by_number).collect();
    let locked = slots::lock(db, catalog, subscription.id, &rows, wanted.most)?;
    let offers: Vec<&Offer> = look.offers.iter().filter(|offer| locked.contains(&offer.slot)).collect();
    let limits = Limits { events: request.max_count, bytes: MOST_BYTES };
    let batch = batch(&offers, wanted.is_alone, look.scanned_to, limits);
    // What is not leased is free for others at once, also where this transaction stays open.
    let (leased, unused): (Vec<usize>, Vec<usize>) =
        locked.into_iter().partition(|number| batch.slots.iter().any(|slot| slot.0 == *number));
    slots::unlock(catalog, subscription.id, unused.into_iter())?;
    if leased.is_empty() {
        return Ok(Some(Step::Again));
    }
    let now = server::clock();
    let lease = Lease {
        id: new_id()?,
        consumer: request.consumer.to_owned(),
        until: now + request.lease,
        up_to: look.scanned_to,
    };
    lease::insert(db, subscription.id, &lease, &batch)?;
    slots::give(db, subscription.id, &batch.slots, &lease, now)?;
    look::unpark(db, subscription, look, &leased)?;
    if look.rows >= MANY_ROWS {
        let mut behind = look::behind(look, all);
        behind.retain(|(slot, _)| !leased.contains(&slot.slot));
        look::settle(db, catalog, subscription, look, &behind, share.saturating_sub(leased.len() + kept))?;
    }
    Ok(Some(Step::Leased(lease, batch)))
}

/// A random uuid (version 4): nobody guesses another's lease.
fn new_id() -> Result<[u8; 16]> {
    let mut id = server::random_bytes()?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(id)
}

/// Frees slots whose lease has ended, as many as the consumer may lease: their events are delivered again, or are dead. How many
/// there were.
fn take_over(
    db: &Db,
    catalog: &Catalog,
    target: Target,
    subscription: &Subscription,
    all: &[Slot],
    share: usize,
    now: i64,
) -> Result<usize> {
    let ended: Vec<&Slot> = all.iter().filter(|slot| slot.lease.is_some() && !slot.is_leased(now)).collect();
    let locked = slots::lock(db, catalog, subscription.id, &ended, share)?;
    if locked.is_empty() {
        return Ok(0);
    }
    let mut freed: Vec<(usize, Standing)> = Vec::new();
    let mut leases: HashMap<[u8; 16], Vec<&Slot>> = HashMap::new();
    for slot in ended.into_iter().filter(|slot| locked.contains(&slot.slot)) {
        let Some(lease) = &slot.lease else { continue };
        leases.entry(lease.id).or_default().push(slot);
    }
    for (lease_id, slots) in &leases {
        let held = lease::events_of(db, catalog, lease_id)?;
        end_parked(db, catalog, target, subscription, &held, slots)?;
        for slot in slots {
            let up_to = slot.lease.as_ref().map_or(0, |lease| lease.up_to);
            let ended = slot.standing.after_end(up_to, subscription.max_deliveries);
            if let Some((dead_to, attempts)) = ended.dead_to {
                let dies =
                    |event: &&lease::Event| !event.is_parked && event.slot == slot.slot && event.position <= dead_to;
                let positions: Vec<i64> = held.iter().filter(dies).map(|event| event.position).collect();
                for event in delivery::facts(db, catalog, &positions)? {
                    dead::put(db, target.id, subscription.id, &event, attempts, ENDED)?;
                }
            }
            freed.push((slot.slot, ended.standing));
        }
    }
    slots::free(db, subscription.id, &freed)?;
    counters::add(Counter::LeasesExpired, leases.len() as u64);
    lease::finish_left(db, subscription.id, &leases.keys().copied().collect::<Vec<_>>(), now)?;
    Ok(freed.len())
}

/// The reason of those that nobody nacked.
const ENDED: &str = "each lease with it ended without es_ack or es_nack";

/// What a lease that ended held of parked streams and single events counts as an attempt of theirs: of a stream only the first event,
/// which was tried for sure.
fn end_parked(
    db: &Db,
    catalog: &Catalog,
    target: Target,
    subscription: &Subscription,
    held: &[lease::Event],
    ended: &[&Slot],
) -> Result<()> {
    let is_ended = |event: &lease::Event| ended.iter().any(|slot| slot.slot == event.slot);
    let parked: Vec<lease::Event> = held.iter().copied().filter(|event| event.is_parked && is_ended(event)).collect();
    if parked.is_empty() {
        return Ok(());
    }
    let rows = lease::Rows::of(db, subscription.id, &parked)?;
    let positions: Vec<i64> = parked.iter().map(|event| event.position).collect();
    let facts: HashMap<i64, _> =
        delivery::facts(db, catalog, &positions)?.into_iter().map(|event| (event.position, event)).collect();
    let mut seen = HashSet::new();
    for event in parked {
        let (Some(row), Some(facts)) = (rows.row(&event), facts.get(&event.position)) else { continue };
        if row.is_single || seen.insert(event.stream_id) {
            lease::end_parked(db, target.id, subscription, row, facts, ENDED)?;
        }
    }
    Ok(())
}

/// Puts the events of a lease into the store, at their newest schema versions. One that cannot be brought there is nacked, and what
/// leaves the lease with it is not delivered: a batch is what its lease holds. Whether any event is left.
fn deliver(target: Target, lease: &Lease, batch: &Batch, store: &Store) -> Result<bool> {
    let row_type = RowType::look_up(Catalog::current()?.event_type)?;
    let attempts: HashMap<i64, i32> = batch.events.iter().map(|event| (event.position, event.attempt)).collect();
    let positions: Vec<i64> = batch.events.iter().map(|event| event.position).collect();
    let aside = Aside::read(|into| {
        as_owner(Planning::ByIndex, |db, catalog| delivery::events(db, catalog, target, &positions, into))
    })?;
    let upcasters = upcasters::of(target.id)?;
    let mut door = Door::new(&upcasters)?;
    let id = from_uuid(&lease.id)?;
    let scratch = Scratch::new()?;
    let mut gone: HashSet<i64> = HashSet::new();
    let mut count = 0;
    aside.take(|stored| {
        let position = stored.global_position();
        let Some(&tried) = attempts.get(&position).filter(|_| !gone.contains(&position)) else { return Ok(()) };
        let failed = scratch.step(|| {
            let event = match door.try_to_show(stored)? {
                Ok(event) => event,
                // Every event would meet it: nothing is leased, and nothing counts as an attempt.
                Err(Unshown { caught, event }) if !caught.is_of_event => {
                    return Err(Error::UpcastFailed {
                        stream: event.stream()?.to_owned(),
                        version: event.version(),
                        event_type: event.event_type()?.to_owned(),
                        from_schema_version: event.schema_version(),
                        reason: format!("{} ({})", caught.message, caught.sqlstate),
                        is_unusable: true,
                    }
                    .into());
                }
                Err(Unshown { caught, .. }) => return Ok(Some(format!("{}: {}", caught.sqlstate, caught.message))),
            };
            let value = event.record(&row_type).flat()?;
            store.put(&[Some(id), Some(Datum::from(tried)), Some(Datum::from(lease.until)), Some(value)])?;
            Ok(None)
        })?;
        let Some(reason) = failed else {
            count += 1;
            return Ok(());
        };
        // What leaves the lease with an event comes after it in the log, so none of that has been delivered yet.
        let nack = Nack { position, reason: &reason, retry_after: None, is_dead: false };
        gone.extend(lease::nack(target.id, &lease.id, &nack)?);
        Ok(())
    })?;
    counters::add(Counter::EventsDelivered, count);
    Ok(count > 0)
}
