//! What a subscription delivers to a consumer: which of its slots, which of their events, and what becomes of a slot whose
//! lease ended without acknowledgement. Pure; `src/subscription` reads and writes the rows.
//!
//! ```text
//! fresh ── lease ended ──▶ again: the same events, attempt + 1 ── ISOLATED_AFTER times ──▶ alone: one event a lease
//!   ▲                        │ acknowledged                                                 │ acknowledged: the next one
//!   └────────────────────────┴───────────────── past the suspects ─────────────────────────┤
//!                                                                     max_deliveries times ──▶ dead letter, the next one
//! ```

use crate::hash::{Uuid, stream_hash};

/// Over how many slots the streams of a subscription are spread.
pub const SLOTS: usize = 64;

/// Whole leases that end before the events of a slot are delivered one by one, unless max_deliveries is smaller.
const ISOLATED_AFTER: i32 = 3;

/// The slot of a stream, for ever: its hash's first 8 bytes, big-endian, modulo [`SLOTS`], of which the eighth is enough.
#[must_use]
pub fn slot_of(tenant_uuid: &Uuid, stream: &str) -> usize {
    usize::from(stream_hash(tenant_uuid, stream)[7]) % SLOTS
}

/// How many slots each of so many consumers may lease.
#[must_use]
pub const fn fair_share(consumers: usize) -> usize {
    SLOTS.div_ceil(if consumers == 0 { 1 } else { consumers })
}

/// So many consumers that have acknowledged nothing lately are no crowd yet, which waits for its own leases to end.
const CROWD: usize = 8;

/// How many slots one consumer may lease where `working` ones have acknowledged something lately and `idle` ones have not: beside those that
/// work, all of these together count as one, so that names which come and go starve nobody.
#[must_use]
pub const fn share_among(working: usize, idle: usize, is_working: bool, held_by_idle: usize) -> usize {
    if working == 0 || idle < 2 {
        return fair_share(working + idle);
    }
    let one = fair_share(working + 1);
    if is_working {
        return one;
    }
    let (left, each) = (one.saturating_sub(held_by_idle), one.div_ceil(idle));
    let share = if left < each { left } else { each };
    // A few newcomers wait for nobody's lease.
    if share == 0 && idle <= CROWD { 1 } else { share }
}

const fn isolated_after(max_deliveries: i32) -> i32 {
    let most = max_deliveries - 1;
    if most < 1 {
        1
    } else if most > ISOLATED_AFTER {
        ISOLATED_AFTER
    } else {
        most
    }
}

/// Where a slot stands between leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Every event up to here is done.
    pub position: i64,
    /// How often the events up to `suspect_to` were delivered in vain.
    pub redeliveries: i32,
    /// How far the suspects go; at or before `position`: there are none.
    pub suspect_to: i64,
}

/// What comes after a lease that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Of the slot from now on.
    pub standing: Standing,
    /// The events up to here, from the old position on, are dead; with the number of their deliveries.
    pub dead_to: Option<(i64, i32)>,
}

impl Standing {
    /// A lease that went up to `up_to` ended without acknowledgement.
    #[must_use]
    pub fn after_end(self, up_to: i64, max_deliveries: i32) -> Ended {
        if up_to <= self.position {
            return Ended { standing: self, dead_to: None }; // it held nothing but what is parked
        }
        let isolated_after = isolated_after(max_deliveries);
        let before = if self.suspect_to > self.position { self.redeliveries } else { 0 };
        let redeliveries = before + 1;
        // One event of several suspects, or all of them, were in the lease; those after them were not.
        let suspect_to = if before >= isolated_after { self.suspect_to.max(up_to) } else { up_to };
        let standing = Self { redeliveries, suspect_to, ..self };
        if redeliveries >= max_deliveries {
            return Ended {
                standing: standing.after_progress(up_to, max_deliveries),
                dead_to: Some((up_to, redeliveries)),
            };
        }
        Ended { standing: standing.settled(), dead_to: None }
    }

    /// Everything up to `to` is done.
    #[must_use]
    pub fn after_progress(self, to: i64, max_deliveries: i32) -> Self {
        // The next suspect was delivered as often as all of them together were.
        let redeliveries = self.redeliveries.min(isolated_after(max_deliveries));
        Self { position: self.position.max(to), redeliveries, ..self }.settled()
    }

    fn settled(self) -> Self {
        if self.suspect_to > self.position { self } else { Self { redeliveries: 0, suspect_to: 0, ..self } }
    }

    /// Whether its next event is delivered with no other.
    #[must_use]
    pub fn is_isolated(self, max_deliveries: i32) -> bool {
        self.suspect_to > self.position && self.redeliveries >= isolated_after(max_deliveries)
    }

    /// The number of the next delivery of its event at `position`.
    #[must_use]
    pub fn attempt(self, position: i64) -> i32 {
        if position <= self.suspect_to { self.redeliveries + 1 } else { 1 }
    }
}

/// An event that may be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    #[allow(missing_docs)]
    pub position: i64,
    #[allow(missing_docs)]
    pub stream_id: i64,
    /// Bytes, roughly.
    pub size: i64,
}

/// A parked stream, or a single event, that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// What it gives next, in order; never empty.
    pub events: Vec<Candidate>,
    /// Deliveries of the first of them so far.
    pub attempts: i32,
}

/// A free slot, and what it has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    #[allow(missing_docs)]
    pub slot: usize,
    #[allow(missing_docs)]
    pub standing: Standing,
    /// When it was last leased.
    pub served_at: i64,
    /// What is due among its parked streams.
    pub parked: Vec<Parked>,
    /// Its events after its position, in order.
    pub events: Vec<Candidate>,
}

impl Offer {
    /// Up to where the slot itself has nothing, where the log is known up to `scanned_to`.
    #[must_use]
    pub fn empty_to(&self, scanned_to: i64) -> i64 {
        self.events.first().map_or(scanned_to, |event| event.position - 1)
    }

    /// What the slot itself may give now: not beyond the suspects, if there are any.
    fn own(&self) -> impl Iterator<Item = &Candidate> {
        let last = if self.standing.suspect_to > self.standing.position { self.standing.suspect_to } else { i64::MAX };
        self.events.iter().take_while(move |event| event.position <= last)
    }

    fn has_something(&self) -> bool {
        !self.parked.is_empty() || !self.events.is_empty()
    }

    /// Whether what comes first has to be delivered with no other.
    fn is_isolated(&self, max_deliveries: i32) -> bool {
        self.standing.is_isolated(max_deliveries)
            || self.parked.first().is_some_and(|parked| parked.attempts >= isolated_after(max_deliveries))
    }
}

/// Which slots to lock, in the order of preference; of those that can be had, `most` at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    #[allow(missing_docs)]
    pub slots: Vec<usize>,
    #[allow(missing_docs)]
    pub most: usize,
    /// One slot, one event.
    pub is_alone: bool,
}

/// Slots with parked events that are due come first, then those that waited longest. Where what comes first must be delivered
/// alone, it is; else what must be delivered alone waits until it comes first.
#[must_use]
pub fn wanted(offers: &[Offer], share: usize, max_deliveries: i32) -> Wanted {
    let mut order: Vec<&Offer> = offers.iter().filter(|offer| offer.has_something()).collect();
    order.sort_by_key(|offer| (offer.parked.is_empty(), offer.served_at, offer.slot));
    let (alone, together): (Vec<&Offer>, Vec<&Offer>) =
        order.iter().partition(|offer| offer.is_isolated(max_deliveries));
    let is_alone = order.first().is_some_and(|first| first.is_isolated(max_deliveries));
    let chosen = if is_alone { alone } else { together };
    Wanted {
        slots: chosen.iter().map(|offer| offer.slot).collect(),
        most: if is_alone { 1.min(share) } else { share },
        is_alone,
    }
}

/// An event that is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    #[allow(missing_docs)]
    pub position: i64,
    #[allow(missing_docs)]
    pub stream_id: i64,
    /// 1 the first time.
    pub attempt: i32,
    #[allow(missing_docs)]
    pub slot: usize,
    /// Of a parked stream or a single event, not of its slot.
    pub is_parked: bool,
}

/// What a lease holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of the log.
    pub events: Vec<Delivered>,
    /// The slots that are leased, where each stands, and where it moves when all is acknowledged.
    pub slots: Vec<(usize, Standing, i64)>,
}

/// How much a lease may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    #[allow(missing_docs)]
    pub events: usize,
    #[allow(missing_docs)]
    pub bytes: i64,
}

/// The batch of these slots. `scanned_to`: the events up to there are known. What is parked comes first; of the slots' own events those
/// that come first in the log. One event is delivered however large it is.
#[must_use]
pub fn batch(offers: &[&Offer], is_alone: bool, scanned_to: i64, limits: Limits) -> Batch {
    let limits = if is_alone { Limits { events: 1, ..limits } } else { limits };
    let (mut left, mut bytes) = (limits.events, limits.bytes);
    let mut take = |event: &Candidate, is_first: bool| {
        let fits = left > 0 && (is_first || bytes >= event.size);
        if fits {
            left -= 1;
            bytes -= event.size;
        }
        fits
    };
    let mut events: Vec<Delivered> = Vec::new();
    for offer in offers {
        for parked in &offer.parked {
            for (place, event) in parked.events.iter().enumerate() {
                if !take(event, events.is_empty()) {
                    break;
                }
                let attempt = if place == 0 { parked.attempts + 1 } else { 1 };
                let Candidate { position, stream_id, .. } = *event;
                events.push(Delivered { position, stream_id, attempt, slot: offer.slot, is_parked: true });
            }
        }
    }
    let is_alone_parked = is_alone && !events.is_empty();
    let mut own: Vec<(&Candidate, &Offer)> =
        offers.iter().flat_map(|offer| offer.own().map(|event| (event, *offer))).collect();
    own.sort_by_key(|(event, _)| event.position);
    // Everything of these slots up to here is in the lease.
    let mut known_to = scanned_to;
    for (event, offer) in own {
        // A dead letter that is tried again, and that the slot comes to as well because it was moved back.
        if events.iter().any(|taken| taken.is_parked && taken.position == event.position) {
            continue;
        }
        if !take(event, events.is_empty()) {
            known_to = known_to.min(event.position - 1);
            break;
        }
        let attempt = offer.standing.attempt(event.position);
        let Candidate { position, stream_id, .. } = *event;
        events.push(Delivered { position, stream_id, attempt, slot: offer.slot, is_parked: false });
        if is_alone {
            known_to = known_to.min(event.position);
        }
    }
    events.sort_by_key(|event| event.position);
    let slots = offers
        .iter()
        .filter(|offer| events.iter().any(|event| event.slot == offer.slot))
        .map(|offer| {
            let standing = offer.standing;
            let has_suspects = standing.suspect_to > standing.position;
            let own_to = if is_alone_parked {
                standing.position
            } else if has_suspects {
                known_to.min(standing.suspect_to)
            } else {
                known_to
            };
            (offer.slot, standing, own_to.max(standing.position))
        })
        .collect();
    Batch { events, slots }
}

#[cfg(test)]
#[path = "delivery/tests.rs"]
mod tests;
