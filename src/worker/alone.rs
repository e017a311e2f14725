//! The scheduler's own work, where no runner can be had at all: users' code may hang in it, or end the process. So the process ends itself where nobody else would, and what it was at is on the
//! board: its successor takes it for a failure of that after so many in a row as where it was a runner.
use super::job::{self, Done};
use crate::pg::error::failure::Result;
use crate::pg::process::{deadline, life};
use crate::shared::board::alone::Lost;
use crate::shared::board::database::Database;
use crate::shared::board::runner;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(100);

/// Does that job, in the place of a runner.
pub fn run(database: &'static Database, job: i64) -> Result<Done> {
    let alone = database.alone();
    alone.begins(job);
    runner::show_part(alone.part());
    life::watch_itself(true)?;
    let done = job::run(job)?;
    life::watch_itself(false)?;
    alone.ends();
    Ok(done)
}

/// This process ends: says on the board why, if its own work is what it ends of. Its successor need not wait then: everything else of the database would, too.
pub fn leave(database: &Database) {
    if deadline::has_ended_process() {
        database.alone().note_overdue();
    }
    if database.alone().is_at_it() {
        database.note_good_end();
    }
}

/// What the scheduler before this one did not come back from. Whatever ends one after the other must not take a processor: it is told after a pause.
pub fn take_lost(database: &Database) -> Result<Option<Lost>> {
    let lost = database.alone().take_lost();
    if lost.is_some() {
        life::rest(Some(PAUSE))?;
    }
    Ok(lost)
}

/// What to say of that work, where it is its failure: it let all cancels pass, or is lost `often` in a row.
pub fn failure(lost: &Lost, often: u32) -> Option<(&'static str, &'static str)> {
    match (lost.is_overdue, lost.times >= often) {
        (true, _) => Some(("57014", "it ran on after eventstream.handler_timeout")),
        (false, true) => Some(("57P01", "its runner ended in the middle of it")),
        (false, false) => None,
    }
}
