//! A runner: advances the projections that the scheduler of its database puts into its mailbox, one at a time.
//!
//! ```text
//! start ─▶ enter the place ──(held, or its scheduler is gone)──▶ end
//!   ─▶ sleep ──(job)──▶ batches, each in a transaction ─▶ report, wake the scheduler ─▶ sleep
//!                        └─ error: abort, note the failure in a transaction of its own
//! SIGTERM: end, also in the middle of a handler; the batch is undone, and its projection is free again
//! ```
use super::job;
use crate::pg::error::failure::Result;
use crate::pg::process::life;
use crate::pg::process::life::worker_function;
use crate::pg::process::test_point::test_point;
use crate::pg::process::worker::{Arguments, Kind};
use crate::shared::board::database::Database;
use crate::shared::board::runner::{self, Runner};
use pgrx::pg_sys::Oid;
use std::cell::Cell;

pub(super) const RUNNER: Kind = Kind { name: c"eventstream runner", entry: c"eventstream_runner" };

worker_function!("eventstream_runner", serve serve);

thread_local! {
    static PLACE: Cell<Option<(&'static Database, &'static Runner)>> = const { Cell::new(None) };
}

fn leave() {
    if let Some((database, place)) = PLACE.take() {
        place.leaves();
        database.scheduler().wake();
    }
}

/// `place` on the board, taken for this runner by the scheduler with process id `owner`.
fn serve(oid: Oid, [place, owner]: Arguments) -> Result<()> {
    let place = usize::try_from(place).ok().and_then(runner::at);
    let (Some(place), Some(database)) = (place, Database::take(oid)) else { return Ok(()) };
    life::at_exit(leave);
    if !place.enters(owner as i32) {
        return Ok(());
    }
    PLACE.set(Some((database, place)));
    // In this order: whoever holds the database, or ends as its scheduler, does so first and looks for us afterwards.
    if database.is_held() || database.scheduler().pid() != Some(owner as i32) {
        return Ok(());
    }
    life::connect(Some(oid))?;
    life::show_activity(None);
    database.scheduler().wake();
    loop {
        if let Some(projection) = place.job() {
            let done = job::run(projection)?;
            place.report(done.into());
            test_point("reported");
            database.scheduler().wake();
        }
        life::reload()?;
        let nap = life::report_statistics()?;
        if place.job().is_none() && !life::rest(nap)? || life::must_stop() {
            return Ok(());
        }
    }
}
