//! One batch of a projection, in the caller's transaction: lock its progress, read from the checkpoint up to the horizon, apply, note.
//!
//! ```text
//! running ──(no event, or all applied)──▶ checkpoint moves ──▶ running
//!    │ an event fails
//!    ▼
//! those before it are applied; attempts + 1 ──(at most max_retries)──▶ running, not before retry_at
//!    │ max_retries are used up
//!    ├─ on_error = skip, and the error is the event's own ──▶ the event goes to the dead letters, the checkpoint past it ──▶ running
//!    └─ on_error = stop, or other events would meet it, too ──▶ stopped, until es_resume_projection or es_skip_event
//! a stream of a state table cannot be folded, or its row not be written ──▶ its newest event goes to the dead letters, whatever on_error is, and the others go on
//! rebuilding (a handler, after its reset) = running, until rebuild_to is reached; a state table: see `rebuild`
//! ```
//!
//! Promises: effects and checkpoint are one transaction's; the events before a failing one stay applied; whatever fails is noted.
use super::applier::{self, Applier};
use super::dead_letter;
use super::events::MOST_BYTES;
use super::events::{self, Wanted};
use super::outcome::Outcome;
use super::progress::{self, Failed, Lock, Progress};
use super::projections::{self, Kind, Projection};
use super::rebuild;
use super::state_table::StateTable;
use crate::log::acting::Rebuilding;
use crate::log::dead_letters::Cause;
use crate::log::horizon;
use crate::log::noted;
use crate::log::read::Filter;
use crate::pg::error::failure::shortened;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::process::test_point::test_point;
use crate::pg::{
    error::report,
    process::{life, server},
};
use crate::present::event::StoredEvent;
use crate::present::protected::Under;
use crate::shared::catalog;
use crate::shared::counters::{self, Counter, Histogram};
use crate::shared::live_settings;
use crate::shared::open_appends::Whose;
use crate::shared::session::as_owner;
use eventstream_core::backoff;
use eventstream_core::counted;
use eventstream_core::error::Error;
use eventstream_core::isolate::{Part, isolate};
use eventstream_core::word::{Mode, OnError, Status};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

thread_local! {
    /// Of the last batch of this backend.
    static UNDER: Cell<Option<Under>> = const { Cell::new(None) };
}

/// One batch of the projection with that id. `is_forced`: also before a failed event's retry is due.
pub fn advance(id: i64, lock: Lock, is_forced: bool) -> Result<Outcome> {
    let Some(progress) = progress::lock(id, lock)? else {
        return Ok(if lock == Lock::Skip { Outcome::Busy } else { Outcome::Gone });
    };
    test_point("locked");
    // What was altered before the lock was free.
    invalidation::take_in()?;
    UNDER.set(Some(Under::now()));
    let Some(projection) = projections::by_id(id)? else { return Ok(Outcome::Gone) };
    if projection.mode == Mode::Inline {
        // Whatever is appended is applied at once; its checkpoint is where it was when it began.
        return Ok(Outcome::Idle { position: progress.position });
    }
    match (progress.status, progress.retry_at) {
        (Status::Paused | Status::Stopped, _) => return Ok(Outcome::Stopped),
        (_, Some(until)) if !is_forced && until > server::clock() => return Ok(Outcome::Waiting { until }),
        _ => {}
    }
    let scratch = Scratch::new()?;
    let _rebuilding = Rebuilding::begin(progress.rebuild_to);
    scratch.inside(|| {
        if let Kind::Table(table) = &projection.kind {
            let step = |is_careful| attempt(|| rebuild::step(&projection, table, &progress, is_careful));
            let mut done = step(false)?;
            if matches!(&done, Err(caught) if caught.is_of_event) {
                // A stream that cannot be folded, or not be written, keeps no other from being filled.
                done = step(true)?;
            }
            match done {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(outcome))) => return Ok(outcome),
                Ok(Err(reason)) => return stop(&projection, &progress, &broken(reason)),
                Err(caught) => return note(&projection, &progress, None, progress.position, &caught),
            }
        }
        batch(&projection, &progress, &scratch)
    })
}

/// Notes what ended the transaction of [`advance`], in another one: which event it was is known only of a batch of one.
pub fn note_failure(id: i64, caught: &Caught) -> Result<Outcome> {
    // Somebody else may have it by now, for as long as they like: they, or the next attempt, will meet what fails.
    let Some(progress) = progress::lock(id, Lock::Skip)? else { return Ok(Outcome::Busy) };
    invalidation::take_in()?;
    let Some(projection) = projections::by_id(id)? else { return Ok(Outcome::Gone) };
    if !matches!(progress.status, Status::Running | Status::Rebuilding) {
        return Ok(Outcome::Stopped);
    }
    let told = UNDER.take().map(|under| under.told(projection.tenant_id, caught)).transpose()?;
    let caught = told.as_ref().unwrap_or(caught);
    let tried = batch_size(&projection, &progress);
    // The rebuild of a state table reads no batch: it fails on none of the events after the checkpoint.
    let is_filling = matches!(projection.kind, Kind::Table(_)) && progress.status == Status::Rebuilding;
    if is_filling {
        return note(&projection, &progress, None, progress.position, caught);
    }
    if tried > 1 {
        let retry_at = server::clock() + micros(live_settings::retry_pause());
        as_owner(Planning::ByIndex, |db, _| {
            let failed = Failed {
                attempts: progress.attempts,
                next_batch: Some(tried / 2),
                position: None,
                retry_at: Some(retry_at),
                caught,
                status: None,
            };
            progress::fail(db, id, &failed)
        })?;
        return Ok(Outcome::Waiting { until: retry_at });
    }
    let scratch = Scratch::new()?;
    scratch.inside(|| {
        let first = match applier::filter(&projection)? {
            Ok(filter) => read_batch(&projection, &filter, progress.position, 1, &scratch)?.events.into_iter().next(),
            Err(_) => None,
        };
        note(&projection, &progress, first.as_ref(), progress.position, caught)
    })
}

/// The events after the checkpoint.
struct Batch {
    events: Vec<StoredEvent>,
    /// Everything up to here was looked at.
    end: i64,
    /// Whether there may be others behind it already.
    is_full: bool,
}

fn read_batch(projection: &Projection, filter: &Filter, after: i64, most: i64, memory: &Scratch) -> Result<Batch> {
    let horizon =
        as_owner(Planning::ByIndex, |_, catalog| horizon::horizon(catalog, Whose::Tenant(projection.tenant_id)))?;
    if after > horizon.last_position {
        return Err(Error::PositionAhead {
            argument: format!("the checkpoint of projection \"{}\"", projection.name),
            position: after,
            last_position: horizon.last_position,
        }
        .into());
    }
    let (mut count, mut bytes, mut is_full) = (0, 0, false);
    let wanted = Wanted { target: projection.target(), after, to: horizon.position, most, filter };
    let events = events::read(&wanted, memory, |event| {
        count += 1;
        bytes += event.size();
        is_full = count == most || bytes >= MOST_BYTES;
        (true, if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let end = events.last().filter(|_| is_full).map_or(horizon.position, StoredEvent::global_position);
    Ok(Batch { events, end: end.max(after), is_full })
}

/// The most events of the next batch: after a failure, the failing event alone.
fn batch_size(projection: &Projection, progress: &Progress) -> i64 {
    let size = if progress.failed_position.is_some() { 1 } else { progress.next_batch.unwrap_or(i64::MAX) };
    size.clamp(1, projection.batch_size)
}

/// After a batch that went well the next may be twice as large, up to the projection's own size.
fn next_batch(projection: &Projection, progress: &Progress) -> Option<i64> {
    progress.next_batch.map(|size| size.saturating_mul(2)).filter(|&size| size < projection.batch_size)
}

fn batch(projection: &Projection, progress: &Progress, memory: &Scratch) -> Result<Outcome> {
    let begun = Instant::now();
    let read = attempt(|| {
        let filter = match applier::filter(projection)? {
            Ok(filter) => filter,
            Err(reason) => return Ok(Err(reason)),
        };
        read_batch(projection, &filter, progress.position, batch_size(projection, progress), memory).map(Ok)
    })?;
    let batch = match read {
        Ok(Ok(batch)) => batch,
        Ok(Err(reason)) => return stop(projection, progress, &broken(reason)),
        Err(caught) => return note(projection, progress, None, progress.position, &caught),
    };
    test_point("read");
    if batch.events.is_empty() {
        if batch.end == progress.position && progress.status != Status::Rebuilding {
            return Ok(Outcome::Idle { position: batch.end });
        }
        return moved(projection, progress, batch.end, 0, false);
    }
    let mut applier = match attempt(|| Applier::new(projection))? {
        Ok(Ok(applier)) => applier,
        Ok(Err(reason)) => return stop(projection, progress, &broken(reason)),
        Err(caught) => return note(projection, progress, None, progress.position, &caught),
    };
    let isolated = isolate(batch.events.len(), |range| {
        // What the handler appends is judged with its events: the batch's commit fails for no invariant that one of them breaks.
        let applied = attempt(|| noted::judged(|| applier.apply(&batch.events[range])))?;
        Ok::<_, crate::pg::error::failure::Failure>(
            applied.map_err(|failure| Part { failure, at: applier.failed_at() }),
        )
    })?;
    counters::add(Counter::EventsProjected, isolated.applied as u64);
    counters::observe(Histogram::Batch, begun.elapsed());
    if !batch.is_full {
        observe_visible(&batch.events[..isolated.applied]);
    }
    test_point("applied");
    let Some(mut caught) = isolated.failure else {
        if let Kind::Table(_) = &projection.kind {
            dead_letter::forget_written(projection, &batch.events, &[], batch.end)?;
        }
        return moved(projection, progress, batch.end, batch.events.len() as i64, batch.is_full);
    };
    let rest = &batch.events[isolated.applied..];
    if let (Kind::Table(table), true) = (&projection.kind, caught.is_of_event) {
        match attempt(|| StateTable::new(projection, table)?.apply_around(rest))? {
            Ok(Ok(passed)) => {
                dead_letter::forget_written(projection, &batch.events, &passed, batch.end)?;
                dead_letter::pass_over(projection, &passed)?;
                return moved(projection, progress, batch.end, batch.events.len() as i64, batch.is_full);
            }
            // What every stream would meet is what has to be mended.
            Ok(Err(other)) | Err(other) => caught = if other.is_of_event { caught } else { other },
        }
    }
    let failed = &batch.events[isolated.applied];
    let before = failed.global_position() - 1;
    if isolated.applied > 0 {
        if let Kind::Table(_) = &projection.kind {
            dead_letter::forget_written(projection, &batch.events[..isolated.applied], &[], before)?;
        }
        moved(projection, progress, before, isolated.applied as i64, false)?;
    }
    note(projection, progress, Some(failed), before, &caught)
}

/// How long it took until events could be seen in a read model; not of one that catches up, because what that shows is old.
fn observe_visible(applied: &[StoredEvent]) {
    let now = server::clock();
    for event in applied {
        let lag = now.saturating_sub(event.recorded_at()).max(0);
        counters::observe(Histogram::Visible, Duration::from_micros(lag.unsigned_abs()));
    }
}

/// Everything up to `position` is applied.
fn moved(projection: &Projection, progress: &Progress, position: i64, events: i64, is_behind: bool) -> Result<Outcome> {
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::advance(db, projection.id, position, events, next_batch(projection, progress))?;
        if progress.status == Status::Rebuilding && progress.rebuild_to.is_none_or(|to| position >= to) {
            catalog::announce_projection_change(catalog)?;
        }
        Ok(())
    })?;
    Ok(Outcome::Advanced { position, events, is_behind })
}

/// What a projection stops for that no error was raised for.
fn broken(reason: String) -> Caught {
    let sqlstate = "55000".into();
    Caught { sqlstate, message: reason, detail: None, constraint: None, column: None, is_of_event: false }
}

/// What cannot get better by itself.
fn stop(projection: &Projection, progress: &Progress, caught: &Caught) -> Result<Outcome> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let failed = Failed {
            attempts: progress.attempts + 1,
            next_batch: None,
            position: None,
            retry_at: None,
            caught,
            status: Some(Status::Stopped),
        };
        progress::fail(db, projection.id, &failed)?;
        catalog::announce_projection_change(catalog)
    })?;
    Ok(Outcome::Stopped)
}

/// A failure: another try later, or what comes after the last one. `event`: the one that fails, where it is known; everything up to
/// `before` is applied.
fn note(
    projection: &Projection,
    progress: &Progress,
    event: Option<&StoredEvent>,
    before: i64,
    caught: &Caught,
) -> Result<Outcome> {
    let position = event.map(StoredEvent::global_position);
    // Positions of others may lie between the checkpoint and the event.
    let is_again = match position {
        Some(_) => progress.failed_position == position,
        None => before == progress.position,
    };
    let attempts = if is_again { progress.attempts + 1 } else { 1 };
    tell(projection, event, attempts, caught)?;
    if i64::from(attempts) > projection.max_retries {
        let is_passed_over = projection.on_error == OnError::Skip && caught.is_of_event;
        let Some(event) = event.filter(|_| is_passed_over) else {
            return as_owner(Planning::ByIndex, |db, catalog| {
                let failed = Failed {
                    attempts,
                    next_batch: None,
                    position,
                    retry_at: None,
                    caught,
                    status: Some(Status::Stopped),
                };
                progress::fail(db, projection.id, &failed)?;
                catalog::announce_projection_change(catalog)?;
                Ok(Outcome::Stopped)
            });
        };
        return as_owner(Planning::ByIndex, |db, _| {
            let reason =
                format!("failed {}: {}", counted(attempts.into(), "time", "times"), shortened(&caught.message));
            let cause = Cause {
                attempts,
                reason: &reason,
                sqlstate: Some(&caught.sqlstate),
                detail: caught.detail.as_deref(),
                outline: None,
            };
            dead_letter::put(db, projection, event, &cause)?;
            let failed = Failed { attempts: 0, next_batch: None, position: None, retry_at: None, caught, status: None };
            progress::fail(db, projection.id, &failed)?;
            progress::advance(db, projection.id, event.global_position(), 1, None)?;
            Ok(Outcome::Advanced { position: event.global_position(), events: 1, is_behind: true })
        });
    }
    counters::add(Counter::ProjectionRetries, 1);
    let pause = backoff::pause(attempts.unsigned_abs(), live_settings::retry_pause(), live_settings::max_retry_pause());
    let until = server::clock() + micros(backoff::spread(pause, projection.id, attempts.unsigned_abs()));
    as_owner(Planning::ByIndex, |db, _| {
        let failed =
            Failed { attempts, next_batch: progress.next_batch, position, retry_at: Some(until), caught, status: None };
        progress::fail(db, projection.id, &failed)
    })?;
    Ok(Outcome::Waiting { until })
}

/// A line in the server's log: what failed on which event.
fn tell(projection: &Projection, event: Option<&StoredEvent>, attempts: i32, caught: &Caught) -> Result<()> {
    let Projection { name, tenant, max_retries, .. } = projection;
    let stream = event.map(StoredEvent::stream).transpose()?;
    let (version, position) = (event.map(StoredEvent::version), event.map(StoredEvent::global_position));
    let at = match (stream, version, position) {
        (Some(stream), Some(version), Some(position)) => {
            format!(" on stream \"{stream}\" at version {version}, global position {position},")
        }
        _ => String::new(),
    };
    let message = format!(
        "eventstream{}: projection \"{name}\" of tenant \"{tenant}\" fails{at} in attempt {attempts} of {}: {}",
        life::in_database(),
        max_retries.saturating_add(1),
        shortened(&caught.message)
    );
    let detail = serde_json::json!({
        "projection": name, "tenant": tenant, "stream": stream, "version": version, "global_position": position,
        "attempts": attempts, "sqlstate": caught.sqlstate, "is_of_event": caught.is_of_event,
    });
    report::failure(&caught.sqlstate, &message, &detail)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}
