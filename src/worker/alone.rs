//! The scheduler's own work, where no runner can be had at all: users' code may hang in it, or end the process. So the process ends itself where nobody else would, and what it was at is on the
//! board: its successor takes it for a failure of that after so many in a row as where it was a runner.
use super::job::{self, Done};
use crate::pg::error::failure::Result;
use crate::pg::process::{deadline, life};
use crate::shared::board::alone::Lost;
use crate::shared::board::database::Database;
use crate::shared::board::runner;

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

/// This process ends: says on the board why, if its own work is what it ends of.
pub fn leave(database: &Database) {
    if deadline::has_ended_process() {
        database.alone().note_overdue();
    }
}

/// What to say of the work that the scheduler before this one did not come back from, where it is that work's failure: of one that let all cancels pass, or the last of `often` in a row.
pub fn failed(database: &Database, often: u32) -> Option<(Lost, &'static str, &'static str)> {
    let lost = database.alone().take_lost()?;
    match (lost.is_overdue, lost.times >= often) {
        (true, _) => Some((lost, "57014", "it ran on after eventstream.handler_timeout")),
        (false, true) => Some((lost, "57P01", "its runner ended in the middle of it")),
        (false, false) => None,
    }
}
