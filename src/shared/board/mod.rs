//! Shared memory by which sessions, the launcher, schedulers and runners find and wake one another. Nothing that correctness needs is
//! in it: it wakes, it never remembers. Where the library is not preloaded there is none, and everything here does nothing.
//!
//! Owns: the launcher and its wishes ([`hall`]), the databases that are served ([`database`]), what a scheduler works on by itself
//! ([`alone`]), the runners' mailboxes ([`runner`]), who waits for what ([`waiter`]),
//! and what this transaction wants to be done once its end is visible to others.
pub mod alone;
pub mod database;
pub mod hall;
pub mod process;
pub mod runner;
pub mod waiter;

use database::Database;
use std::cell::{Cell, RefCell};
use waiter::Awaited;

thread_local! {
    static WAKES: Cell<bool> = const { Cell::new(false) };
    /// When the first command that this transaction has scheduled is due.
    static DUE: Cell<Option<i64>> = const { Cell::new(None) };
    static PASSED: RefCell<Vec<(i64, i64)>> = const { RefCell::new(Vec::new()) };
}

/// This transaction changed what workers look at: its database's scheduler is woken after the commit.
pub fn wake_at_commit() {
    WAKES.set(true);
}

/// This transaction has scheduled a command that is due then (microseconds since 2000-01-01 UTC): the scheduler hears of it after the commit.
pub fn note_due_at_commit(at: i64) {
    DUE.set(Some(DUE.get().map_or(at, |due| due.min(at))));
}

/// After the commit, sessions that wait for that projection at or below `position` are woken.
pub fn note_passed_at_commit(projection: i64, position: i64) {
    PASSED.with_borrow_mut(|passed| passed.push((projection, position)));
}

/// Whether this database has an entry on the board, or may still get one.
pub fn has_place() -> bool {
    Database::mine().is_some() || Database::all().count() < database::DATABASES
}

/// How many workers of this database could not be had, because max_worker_processes is too low.
pub fn missing_workers() -> u32 {
    Database::mine().map_or(0, Database::missing)
}

/// After a transaction's end is visible to others. Never raises: at most one latch is set where nobody waits.
pub fn at_end(is_committed: bool, has_appended: bool) {
    let wakes = WAKES.replace(false) && is_committed;
    if wakes && let Some(database) = Database::mine() {
        database.note_change();
    }
    if let Some(at) = DUE.take().filter(|_| is_committed)
        && let Some(database) = Database::mine()
        && database.lower_due(at)
    {
        database.scheduler().wake();
    }
    // The end of an append moves the horizon also where it was rolled back.
    if wakes || has_appended {
        database::wake_scheduler();
    }
    PASSED.with_borrow_mut(|passed| {
        if is_committed {
            for &(projection, position) in &*passed {
                waiter::wake(Awaited::Projection(projection), position);
            }
        }
        passed.clear();
    });
    database::at_end(is_committed);
}
