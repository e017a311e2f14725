//! Inline projections: applied at the end of each append call, in its transaction. Their errors fail the append. In a test (es_test) the asynchronous ones are, too.
//!
//! ```text
//! created, resumed, rebuilt ─▶ the tenant's gate closed ─▶ caught up to the last event ─▶ running (commit lets appends go on)
//! paused ─▶ the gate closed ─▶ the last position noted ─▶ paused
//! ```
//!
//! Promises: no event falls between catching up and the first append that knows of the projection, which has to enter the gate that the
//! other held, and so learns of it; every projection is given the events in the order of the log, also those that another one's
//! handler appends: these wait until all projections have handled what caused them.
use super::applier::{self, Applier};
use super::events::MOST_BYTES;
use super::events::{self, Wanted};
use super::progress;
use super::projections::{self, Kind, Projection};
use super::rebuild;
use super::state_table::StateTable;
use crate::access::shown_in;
use crate::log::acting::Rebuilding;
use crate::log::last_append;
use crate::log::noted;
use crate::log::target::Target;
use crate::log::{gate, horizon};
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt_event;
use crate::present::event::StoredEvent;
use crate::projection::outcome::unusable;
use crate::shared::catalog;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::isolate::{Part, isolate};
use eventstream_core::word::{Mode, OnError, Status};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// How many events are applied at once while catching up.
const PAGE: i64 = 500;
/// How often in a row what a handler appends may make a handler append.
const LONGEST_CHAIN: usize = 100;

/// What one append call wrote.
struct Written {
    tenant_id: i64,
    tenant: String,
    /// In ascending order.
    positions: Vec<i64>,
    /// How many appends of handlers led to it.
    depth: usize,
}

/// What handlers have appended while events are being applied.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Written>,
    /// Of what is being applied.
    depth: usize,
}

thread_local! {
    /// None: nothing is being applied.
    static QUEUE: RefCell<Option<Queue>> = const { RefCell::new(None) };
}

/// Applies the events that an append wrote, at these positions; where a handler has made that append, after everything that was
/// written before it.
pub fn apply(target: Target, mut positions: Vec<i64>) -> Result<()> {
    if positions.is_empty() || projections::at_once(target.id)?.is_empty() {
        return Ok(());
    }
    positions.sort_unstable();
    let mut written = Written { tenant_id: target.id, tenant: target.name.to_owned(), positions, depth: 0 };
    let is_nested = QUEUE.with_borrow_mut(|queue| match queue {
        Some(queue) => {
            written.depth = queue.depth + 1;
            let is_too_deep = written.depth > LONGEST_CHAIN;
            queue.waiting.push_back(written);
            Some(is_too_deep)
        }
        None => {
            *queue = Some(Queue { waiting: VecDeque::from([written]), depth: 0 });
            None
        }
    });
    match is_nested {
        Some(true) => Err(endless().into()),
        Some(false) => Ok(()),
        None => apply_queue(),
    }
}

fn endless() -> Error {
    Error::FeatureNotSupported {
        what: format!(
            "inline projections cannot append more than {LONGEST_CHAIN} times in a row, each because of the append before"
        ),
        hint: Some("Let the handler leave alone what it appends itself: es_create_projection(categories => …).".into()),
    }
}

fn apply_queue() -> Result<()> {
    /// The queue ends with the append, also with one that fails.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            QUEUE.set(None);
        }
    }
    let _ends = Ends;
    let next = || {
        QUEUE.with_borrow_mut(|queue| {
            let queue = queue.as_mut()?;
            let next = queue.waiting.pop_front()?;
            queue.depth = next.depth;
            Some(next)
        })
    };
    while let Some(written) = next() {
        server::check_for_interrupts()?;
        let target = Target { id: written.tenant_id, name: &written.tenant };
        for projection in projections::at_once(target.id)?.iter() {
            apply_to(projection, target, &written.positions)?;
        }
    }
    Ok(())
}

/// As in `advance`, at most batch_size events and so many bytes at once.
fn apply_to(projection: &Projection, target: Target, positions: &[i64]) -> Result<()> {
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else { return Ok(()) };
    let filter = applier::filter(projection)?.map_err(|reason| unusable(projection, reason))?;
    // What is new is, also where the handler of a projection that is being rebuilt has appended it.
    let _rebuilding = Rebuilding::begin(None);
    let scratch = Scratch::new()?;
    let mut after = Some(first - 1);
    while let Some(from) = after {
        after = scratch.step(|| {
            let wanted = Wanted { target, after: from, to: last, most: i64::MAX, filter: &filter };
            let (mut count, mut bytes, mut end) = (0, 0, None);
            let events = events::read(&wanted, &scratch, |event| {
                let position = event.global_position();
                // Others' events may lie in between, and those of a savepoint that was rolled back are not there.
                let is_ours = positions.binary_search(&position).is_ok();
                count += i64::from(is_ours);
                bytes += event.size();
                let is_full = count == projection.batch_size || bytes >= MOST_BYTES;
                end = is_full.then_some(position);
                (is_ours, if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if !events.is_empty() {
                match projection.mode {
                    Mode::Inline => applier(projection)?.apply(&events)?,
                    Mode::Async => apply_for_workers(projection, &events)?,
                }
            }
            Ok(end)
        })?;
    }
    Ok(())
}

fn applier(projection: &Projection) -> Result<Applier<'_>> {
    Applier::new(projection)?.map_err(|reason| unusable(projection, reason).into())
}

/// What workers do with the events of an asynchronous projection, in a test: what they would pass over is passed over, at the first attempt, and what they would stop at is the test's error. Its
/// words are for those who may read what the projection is shown, as they are where workers note it.
fn apply_for_workers(projection: &Projection, events: &[StoredEvent]) -> Result<()> {
    let is_shown = shown_in(Some(&projection.tenant))?.covers(projection.categories.as_deref());
    progress::veiled(is_shown, || {
        let mut applier = applier(projection)?;
        match &projection.kind {
            Kind::Table(table) => match attempt_event(|| applier.apply(events))? {
                Ok(()) => Ok(()),
                Err(_) => match StateTable::new(projection, table)?.apply_around(events)? {
                    Ok(_) => Ok(()),
                    // What every stream would meet is raised as it is.
                    Err(_) => applier.apply(events),
                },
            },
            _ if projection.on_error == OnError::Stop => applier.apply(events),
            _ => {
                let mut rest = events;
                while !rest.is_empty() {
                    let isolated = isolate(rest.len(), |range| {
                        let applied = attempt_event(|| noted::judged(|| applier.apply(&rest[range])))?;
                        Ok::<_, Failure>(applied.map_err(|failure| Part { failure, at: applier.failed_at() }))
                    })?;
                    let passed = isolated.applied + usize::from(isolated.failure.is_some());
                    rest = rest.get(passed..).unwrap_or_default();
                }
                Ok(())
            }
        }
    })
}

/// Keeps everybody from appending in this tenant until the end of this transaction; the last position there is. Waits for the tenant's
/// transactions that have appended.
fn lock_appends(projection: &Projection) -> Result<i64> {
    gate::close(projection.target())?;
    last_position()
}

fn last_position() -> Result<i64> {
    as_owner(Planning::ByIndex, |_, catalog| horizon::last_position(catalog))
}

/// Catches up from `after` and runs from now on, in this transaction.
pub fn attach(projection: &Projection, after: i64) -> Result<()> {
    // Most of it while others still append.
    let mut position = after;
    if !matches!(projection.kind, Kind::Table(_)) {
        let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, projection.tenant_id))?;
        position = catch_up(projection, position, settled)?;
    }
    let mut last = lock_appends(projection)?;
    let mut rounds = 0;
    loop {
        let written = last_append::written();
        match &projection.kind {
            Kind::Table(table) => rebuild::at_once(projection, table, last)?,
            _ => position = catch_up(projection, position, last)?,
        }
        // What the handler has appended meanwhile; nobody else could, in this tenant.
        if last_append::written() == written {
            break;
        }
        last = last_position()?;
        rounds += 1;
        if rounds > LONGEST_CHAIN {
            return Err(endless().into());
        }
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::attach(db, projection.id, last)?;
        catalog::announce_projection_change(catalog)
    })
}

/// Stops where it is; events from now on are not applied.
pub fn detach(projection: &Projection) -> Result<()> {
    let last = lock_appends(projection)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::set_status(db, projection.id, Status::Paused, Some(last))?;
        catalog::announce_projection_change(catalog)
    })
}

fn catch_up(projection: &Projection, mut after: i64, to: i64) -> Result<i64> {
    let scratch = Scratch::new()?;
    while after < to {
        server::check_for_interrupts()?;
        after = scratch.step(|| {
            let filter = applier::filter(projection)?.map_err(|reason| unusable(projection, reason))?;
            let wanted = Wanted { target: projection.target(), after, to, most: PAGE, filter: &filter };
            let events = events::read_all(&wanted, &scratch)?;
            let end = events.last().filter(|_| events.len() as i64 == PAGE).map_or(to, StoredEvent::global_position);
            if !events.is_empty() {
                applier(projection)?.apply(&events)?;
            }
            Ok(end)
        })?;
    }
    Ok(after.max(to))
}
