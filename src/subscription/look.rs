//! What the free slots of a subscription have to give, found without locking anything: what is due among the parked, and the events of the
//! log after the slots' positions. The horizon comes first and the snapshots after it, so nothing is skipped; whoever locks a slot
//! afterwards finds it unchanged, or leaves it.
use super::lookup::Subscription;
use super::parked::{self, Parked};
use super::slots;
use super::slots::Slot;
use crate::log::{delivery, horizon};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::Whose;
use eventstream_core::delivery::{self as rules, Candidate, Offer, SLOTS};
use eventstream_core::error::Error;
use std::collections::{BTreeSet, HashMap};

/// The most rows of the log that are looked at once something was found, and where nothing was.
const MOST_ROWS: usize = 10_000;
const MOST_ROWS_IN_VAIN: usize = 200_000;
/// Rows at once.
const LEAST_PAGE: usize = 200;
const LARGEST_PAGE: usize = 2_500;
/// Parked streams that are looked at, and the bytes of a batch.
const MOST_PARKED: usize = 200;
pub const MOST_BYTES: i64 = 4 * 1024 * 1024;

/// A parked stream that has caught up with its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaughtUp {
    stream_id: i64,
    slot: usize,
}

/// What was found.
pub struct Look {
    pub offers: Vec<Offer>,
    /// Everything up to here was looked at.
    pub scanned_to: i64,
    /// How many rows of the log that took.
    pub rows: usize,
    /// Parked streams that have caught up: the offers have their further events already.
    pub caught_up: Vec<CaughtUp>,
    /// The horizon.
    pub horizon: i64,
    /// When the next parked stream is due.
    pub next_retry: Option<i64>,
}

/// How much is wanted.
#[derive(Clone, Copy)]
pub struct Wish {
    pub events: usize,
    /// Slots that the consumer may lease.
    pub share: usize,
}

/// Looks at `free` slots. Errors: ES025 where the subscription is ahead of the log.
pub fn look(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    subscription: &Subscription,
    free: &[&Slot],
    wish: Wish,
    now: i64,
) -> Result<Look> {
    let mut offers: HashMap<usize, Offer> = free
        .iter()
        .map(|slot| {
            let (standing, served_at) = (slot.standing, slot.served_at);
            (slot.slot, Offer { slot: slot.slot, standing, served_at, parked: Vec::new(), events: Vec::new() })
        })
        .collect();
    let first_retry = parked::first_retry(db, subscription.id)?;
    let is_due = first_retry.is_some_and(|first| first <= now);
    let parked = if is_due { due(db, subscription, &offers, now)? } else { Vec::new() };
    let horizon = horizon::horizon(catalog, Whose::Tenant(tenant_id))?;
    if let Some(ahead) = free.iter().map(|slot| slot.standing.position).find(|&at| at > horizon.last_position) {
        return Err(Error::PositionAhead {
            argument: format!("subscription \"{}\" at position", subscription.name),
            position: ahead,
            last_position: horizon.last_position,
        }
        .into());
    }
    let mut caught_up = Vec::new();
    offer_due(db, catalog, subscription, parked, &mut offers, wish.events, &mut caught_up)?;
    let mut look = Look {
        offers: Vec::new(),
        // Where no slot is free there is nothing to scan.
        scanned_to: free.iter().map(|slot| slot.standing.position).min().unwrap_or(horizon.position),
        rows: 0,
        caught_up,
        horizon: horizon.position,
        next_retry: if first_retry.is_some() { parked::next_retry(db, subscription.id, now)? } else { None },
    };
    scan(db, catalog, tenant_id, subscription, &mut offers, &mut look, wish, first_retry.is_some())?;
    for offer in offers.values_mut() {
        // Suspects that have been parked meanwhile are no longer in the way, and no more is what the subscription does not want.
        let to = offer.empty_to(look.scanned_to);
        if to > offer.standing.position {
            offer.standing = offer.standing.after_progress(to, subscription.max_deliveries);
        }
    }
    if is_due && offers.values().all(|offer| offer.parked.is_empty() && offer.events.is_empty()) {
        // What is due but waited for its slot to come that far.
        let parked = due(db, subscription, &offers, now)?;
        offer_due(db, catalog, subscription, parked, &mut offers, wish.events, &mut look.caught_up)?;
    }
    look.offers = offers.into_values().collect();
    look.offers.sort_by_key(|offer| offer.slot);
    Ok(look)
}

/// What is due among the parked of these slots, as far as they have come.
fn due(db: &Db, subscription: &Subscription, offers: &HashMap<usize, Offer>, now: i64) -> Result<Vec<Parked>> {
    let mut positions = [-1; SLOTS];
    for offer in offers.values() {
        positions[offer.slot] = offer.standing.position;
    }
    parked::due(db, subscription.id, now, &positions, MOST_PARKED)
}

/// Adds what is due to the offers of its slots.
fn offer_due(
    db: &Db,
    catalog: &Catalog,
    subscription: &Subscription,
    due: Vec<Parked>,
    offers: &mut HashMap<usize, Offer>,
    most: usize,
    caught_up: &mut Vec<CaughtUp>,
) -> Result<()> {
    for row in due {
        let Some(offer) = offers.get_mut(&row.slot) else { continue };
        let events = events_of(db, catalog, subscription, &row, offer.standing.position, most)?;
        if let Some(events) = events {
            offer.parked.push(events);
        } else if !row.is_single
            && offer.standing.suspect_to <= offer.standing.position
            && !caught_up.iter().any(|stream| stream.stream_id == row.stream_id)
        {
            // While its slot has suspects it stays: its events were not among them.
            caught_up.push(CaughtUp { stream_id: row.stream_id, slot: row.slot });
        }
    }
    Ok(())
}

/// What a parked stream or a single event gives next, as far as its slot has come; the event that failed comes with no other of its
/// stream. None where there is nothing in between.
fn events_of(
    db: &Db,
    catalog: &Catalog,
    subscription: &Subscription,
    row: &Parked,
    position: i64,
    most: usize,
) -> Result<Option<rules::Parked>> {
    let to = if row.is_single { row.from_position } else { position };
    let wanted = if row.is_single { 1 } else { most + row.skipped.len() };
    let mut steps = delivery::of_stream(db, catalog, row.stream_id, &subscription.filter, (row.version, to), wanted)?;
    steps.retain(|step| !row.skipped.contains(&step.version));
    let first = steps.first().map(|step| step.version);
    let attempts = match (first, row.failed_version) {
        (None, _) => return Ok(None),
        (Some(_), None) => {
            if row.is_single {
                row.attempts
            } else {
                0
            }
        }
        (Some(first), Some(failed)) if first < failed => {
            steps.retain(|step| step.version < failed);
            0
        }
        (Some(first), Some(failed)) => {
            steps.truncate(1);
            if first == failed { row.attempts } else { 0 }
        }
    };
    steps.truncate(most);
    let stream_id = row.stream_id;
    let events =
        steps.into_iter().map(|step| Candidate { position: step.position, stream_id, size: step.size }).collect();
    Ok(Some(rules::Parked { events, attempts }))
}

fn candidate(place: delivery::Offered) -> Candidate {
    Candidate { position: place.position, stream_id: place.stream_id, size: place.size }
}

#[allow(clippy::too_many_arguments)]
fn scan(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    subscription: &Subscription,
    offers: &mut HashMap<usize, Offer>,
    look: &mut Look,
    wish: Wish,
    has_parked: bool,
) -> Result<()> {
    // Of the slots that have something the consumer gets its share: what is found is to be enough for that.
    let rounds = offers.len().div_ceil(wish.share.max(1));
    let (enough, enough_bytes) = (wish.events * rounds, MOST_BYTES * rounds as i64);
    let page = (enough * SLOTS / offers.len().max(1)).clamp(LEAST_PAGE, LARGEST_PAGE);
    let (mut found, mut bytes) = (0, 0);
    while look.scanned_to < look.horizon
        && found < enough
        && bytes < enough_bytes
        && look.rows < if found > 0 { MOST_ROWS } else { MOST_ROWS_IN_VAIN }
    {
        let range = (look.scanned_to, look.horizon);
        let read = delivery::page(db, catalog, tenant_id, &subscription.filter, range, page)?;
        look.rows += read.places.len();
        look.scanned_to = read.scanned_to;
        let wanted: Vec<delivery::Offered> = read
            .places
            .into_iter()
            .filter(|place| place.is_wanted)
            .filter(|place| offers.get(&place.slot).is_some_and(|offer| place.position > offer.standing.position))
            .collect();
        let parked = if has_parked {
            let streams: BTreeSet<i64> = wanted.iter().map(|place| place.stream_id).collect();
            let mut parked = parked::of_streams(db, subscription.id, &streams.into_iter().collect::<Vec<_>>())?;
            parked.retain(|&stream_id, _| !look.caught_up.iter().any(|stream| stream.stream_id == stream_id));
            parked
        } else {
            HashMap::new()
        };
        for place in wanted {
            if parked.get(&place.stream_id).is_some_and(|row| place.position >= row.from_position) {
                continue;
            }
            if let Some(offer) = offers.get_mut(&place.slot) {
                offer.events.push(candidate(place));
                found += 1;
                bytes += place.size;
            }
        }
    }
    Ok(())
}

/// What remains to be done besides leasing: slots that have nothing up to where the log was looked at, and their caught up streams. Those
/// that are furthest behind come first.
pub fn behind<'a>(look: &Look, slots: &'a [Slot]) -> Vec<(&'a Slot, i64)> {
    let mut behind: Vec<_> = look
        .offers
        .iter()
        .filter_map(|offer| {
            let to = offer.empty_to(look.scanned_to);
            let has_caught_up = look.caught_up.iter().any(|stream| stream.slot == offer.slot);
            let slot = slots.iter().find(|slot| slot.slot == offer.slot)?;
            (to > slot.standing.position || has_caught_up).then_some((slot, to.max(slot.standing.position)))
        })
        .collect();
    behind.sort_by_key(|(slot, _)| slot.standing.position);
    behind
}

/// Moves at most so many slots, which then stay locked until the transaction ends, up to where they have nothing; what has caught up in
/// them is no longer parked. How many.
pub fn settle(
    db: &Db,
    catalog: &Catalog,
    subscription: &Subscription,
    look: &Look,
    behind: &[(&Slot, i64)],
    most: usize,
) -> Result<usize> {
    let rows: Vec<&Slot> = behind.iter().map(|(slot, _)| *slot).collect();
    let locked = slots::lock(db, catalog, subscription.id, &rows, most)?;
    let moved: Vec<_> = behind
        .iter()
        .filter(|(slot, _)| locked.contains(&slot.slot))
        .map(|(slot, to)| (slot.slot, slot.standing.after_progress(*to, subscription.max_deliveries)))
        .collect();
    slots::free(db, subscription.id, &moved)?;
    unpark(db, subscription, look, &locked)?;
    Ok(moved.len())
}

/// The caught up streams of locked slots are no longer parked.
pub fn unpark(db: &Db, subscription: &Subscription, look: &Look, locked: &[usize]) -> Result<()> {
    let is_locked = |stream: &&CaughtUp| locked.contains(&stream.slot);
    let streams: Vec<i64> = look.caught_up.iter().filter(is_locked).map(|stream| stream.stream_id).collect();
    parked::drop_streams(db, subscription.id, &streams)
}
