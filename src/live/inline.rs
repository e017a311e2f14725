//! Inline projections: applied at the end of each append call, in its transaction. Their errors fail the append.
//!
//! ```text
//! created, resumed, rebuilt ─▶ streams locked against appends ─▶ caught up to the last event ─▶ running (commit lets appends go on)
//! paused ─▶ streams locked ─▶ the last position noted ─▶ paused
//! a state table's fold or an upcaster registered anew ─▶ as rebuilt, in that transaction
//! ```
//!
//! Promise: no event falls between catching up and the first append that knows of the projection, which has to get the lock that the
//! other held, and so learns of it.
use super::applier::{self, Applier};
use super::events::{self, Wanted};
use super::progress::{self, Lock, Status};
use super::rebuild;
use super::registry::{self, Kind, Projection};
use super::state_table::StateTable;
use crate::log::append::Target;
use crate::log::horizon;
use crate::pg::catalog;
use crate::pg::failure::Result;
use crate::pg::memory::Scratch;
use crate::pg::plan::Plan;
use crate::pg::server;
use crate::pg::session::{Planning, as_owner};
use crate::pg::subtransaction::attempt;
use crate::state::event::Event;
use eventstream_core::error::Error;
use std::ops::ControlFlow;

/// How many events are applied at once while catching up.
const PAGE: i64 = 500;

thread_local! {
    static LOCK: Plan = const { Plan::new("lock table _eventstream.streams in exclusive mode", &[]) };
}

/// Applies the events that an append wrote, at these positions.
pub fn apply(target: Target, positions: &[i64]) -> Result<()> {
    let (Some(&first), Some(&last)) = (positions.iter().min(), positions.iter().max()) else { return Ok(()) };
    let projections = registry::inline(target.id)?;
    if projections.is_empty() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    scratch.inside(|| {
        for projection in projections.iter() {
            let filter = applier::filter(projection)?.map_err(|reason| unusable(projection, reason))?;
            let wanted = Wanted { target, after: first - 1, to: last, most: i64::MAX, filter: &filter };
            // Others' events may lie in between.
            let events = events::read(&wanted, &scratch, |event| {
                (positions.contains(&event.global_position()), ControlFlow::Continue(()))
            })?;
            if !events.is_empty() {
                Applier::new(projection)?.map_err(|reason| unusable(projection, reason))?.apply(&events)?;
            }
        }
        Ok(())
    })
}

fn unusable(projection: &Projection, reason: String) -> Error {
    Error::ProjectionStopped {
        projection: projection.name.clone(),
        position: None,
        sqlstate: "55000".into(),
        message: reason,
    }
}

/// Keeps everybody from appending until the end of this transaction; the last position there is. Waits for transactions that have appended.
fn lock_appends() -> Result<i64> {
    as_owner(Planning::ByIndex, |db, catalog| {
        LOCK.with(|lock| lock.write(db, &[]))?;
        catalog::refresh()?;
        horizon::last_position(catalog)
    })
}

/// Catches up from `after` and runs from now on, in this transaction.
pub fn attach(projection: &Projection, after: i64) -> Result<()> {
    // Most of it while others still append.
    let mut position = after;
    if !matches!(projection.kind, Kind::Table(_)) {
        let settled = as_owner(Planning::ByIndex, |_, catalog| Ok(horizon::horizon(catalog)?.position))?;
        position = catch_up(projection, position, settled)?;
    }
    let last = lock_appends()?;
    match &projection.kind {
        Kind::Table(table) => rebuild::at_once(projection, table, last)?,
        _ => {
            catch_up(projection, position, last)?;
        }
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::set_status(db, projection.id, Status::Running, Some(last))?;
        catalog::announce_projection_change(catalog)
    })
}

/// Fills the tenant's running state tables again whose states are others now, because a fold or an upcaster was registered: their rows
/// are written by appends alone, which write the rows of their own streams.
pub fn refold(target: Target) -> Result<()> {
    catalog::refresh()?;
    for projection in registry::inline(target.id)?.iter() {
        let Kind::Table(table) = &projection.kind else { continue };
        // Where its fold is gone appends fail, until that is back.
        let Ok(fingerprint) = attempt(|| Ok(StateTable::new(projection, table)?.fold().fingerprint))? else { continue };
        let progress = progress::lock(projection.id, Lock::Wait)?;
        if progress
            .is_some_and(|progress| progress.status == Status::Running && progress.fingerprint != Some(fingerprint))
        {
            attach(projection, 0)?;
        }
    }
    Ok(())
}

/// Stops where it is; events from now on are not applied.
pub fn detach(projection: &Projection) -> Result<()> {
    let last = lock_appends()?;
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
            let end = events.last().filter(|_| events.len() as i64 == PAGE).map_or(to, Event::global_position);
            if !events.is_empty() {
                Applier::new(projection)?.map_err(|reason| unusable(projection, reason))?.apply(&events)?;
            }
            Ok(end)
        })?;
    }
    Ok(after.max(to))
}
