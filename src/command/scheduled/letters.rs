//! Scheduled commands that are dead letters: executed after all, or given up.
use crate::log::dead_letters;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::Plan;
use crate::pg::value::datum::from_text;
use crate::shared::board;
use crate::shared::session::as_owner;
use crate::shared::transaction;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID, TIMESTAMPTZOID};

thread_local! {
    static REVIVE: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands set stage = 'pending', attempts = 0, due_at = greatest(run_at, $2) where id = $1 and stage = 'dead'",
        &[INT8OID, TIMESTAMPTZOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = 'dropped', finished_at = clock_timestamp(), payload = null, metadata = null, reason = $2 where id = $1 and stage = 'dead'",
        &[INT8OID, TEXTOID],
    ) };
}

/// A runner executes it, as if it had not been tried. Errors: ES005 where somebody else has taken its dead letter.
pub fn retry(tenant_id: i64, id: i64, scheduled_id: i64) -> Result<()> {
    let now = server::clock();
    // First the command, then its letter, as whoever unschedules it does.
    as_owner(Planning::ByIndex, |db, _| {
        transaction::note_append();
        REVIVE.with(|plan| plan.write(db, &[Some(Datum::from(scheduled_id)), Some(Datum::from(now))]))
    })?;
    dead_letters::take(tenant_id, id)?;
    board::note_due_at_commit(now);
    Ok(())
}

/// It is not executed. To be called before its dead letter is taken.
pub fn drop(scheduled_id: i64, reason: &str) -> Result<()> {
    as_owner(Planning::ByIndex, |db, _| {
        transaction::note_append();
        DROP.with(|plan| plan.write(db, &[Some(Datum::from(scheduled_id)), Some(from_text(reason)?)]))
            .map(std::mem::drop)
    })
}
