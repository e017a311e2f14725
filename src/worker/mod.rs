//! The background workers. They decide when something is done; `projection` and `ops` do it; nothing that correctness needs is theirs: each can die
//! at any moment, and its successor goes on at the checkpoints.
//!
//! ```text
//! launcher (one a server) ─▶ scheduler (one a database that has the extension) ─▶ runners (up to eventstream.max_workers each)
//! ```
mod agenda;
mod alone;
mod dispatch;
mod job;
mod launcher;
mod runner;
mod scheduler;
mod seen;
mod team;
mod upkeep;

/// Registers the launcher; once a process, from _PG_init.
pub fn init() {
    launcher::init();
}
