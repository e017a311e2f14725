//! Statements that need a database for themselves: its workers leave it first, and stay away until the transaction ends. They are DROP
//! DATABASE, ALTER DATABASE … RENAME and SET TABLESPACE, CREATE DATABASE … TEMPLATE, and DROP EXTENSION, whose locks a long
//! batch would keep waiting. And COMMIT PREPARED: the workers look at what it changed, as they do after the commit of other transactions.
use super::board::{self, database::Database};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::{databases, server};
use crate::pg::utility::Listener;
use pgrx::pg_sys::Oid;
use std::time::{Duration, Instant};

/// How long to wait for the workers before the statement is tried anyway.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// What [`crate::pg::utility`] tells.
pub static LISTENER: Listener = Listener {
    needs_database: empty,
    creates_database: board::database::wake_launcher_at_commit,
    committed_prepared: note_prepared_commit,
};

/// Sends the workers of that database away, and keeps them away until this transaction ends.
fn empty(oid: Oid) -> Result<()> {
    // A runner whose handler does that would wait for itself.
    if board::process::is_worker() {
        return Ok(());
    }
    let Some(held) = board::database::hold(oid) else { return Ok(()) };
    let end = Instant::now() + PATIENCE;
    held.terminate_workers();
    while held.has_workers() && Instant::now() < end {
        server::pause(PAUSE)?;
    }
    Ok(())
}

/// What the transaction noted for its commit went with the session that prepared it: everything that it may have been.
fn note_prepared_commit() -> Result<()> {
    board::wake_at_commit();
    if Database::mine().is_none_or(Database::may_lack_extension) {
        invalidation::take_in()?;
        if databases::has_extension()? {
            board::database::announce_at_commit();
        }
    }
    Ok(())
}
