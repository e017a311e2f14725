//! Shared memory by which sessions, the launcher, schedulers and runners find and wake one another. Nothing that correctness needs is
//! in it: it wakes, it never remembers. Where the library is not preloaded there is none, and everything here does nothing.
//!
//! Owns: the databases that are served ([`database`]), the runners' mailboxes ([`runner`]), who waits for what ([`waiter`]),
//! and what this transaction wants to be done once its end is visible to others.
pub mod database;
pub mod runner;
pub mod waiter;

use crate::pg::process::latch::Latch;
use crate::pg::process::life::{self, Signal};
use crate::pg::process::server;
use crate::pg::shmem::Area;
use database::Database;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32};
pub use waiter::{Awaited, Waiter};

/// A process that can be woken.
#[repr(C)]
pub struct Process {
    /// 0: there is none.
    pid: AtomicI32,
    latch: Latch,
}

impl Process {
    const fn none() -> Self {
        Self { pid: AtomicI32::new(0), latch: Latch::none() }
    }

    /// This process, from now on.
    fn enter(&self) {
        self.latch.become_mine();
        self.pid.store(server::pid(), SeqCst);
        IS_WORKER.set(true);
    }

    fn leave(&self) {
        self.pid.store(0, SeqCst);
    }

    fn is_me(&self) -> bool {
        self.pid.load(SeqCst) == server::pid()
    }

    /// None where there is none.
    pub fn pid(&self) -> Option<i32> {
        Some(self.pid.load(SeqCst)).filter(|&pid| pid != 0)
    }

    /// Never raises.
    pub fn wake(&self) {
        if self.pid.load(SeqCst) != 0 {
            self.latch.set();
        }
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid() {
            life::signal(pid, Signal::Terminate);
        }
    }
}

/// What there is one of.
#[repr(C)]
pub struct Hall {
    launcher: Process,
    /// 1 once it has run: it may be about to be started again, but it will come.
    has_launcher: AtomicU32,
    /// Databases for whose scheduler the launcher finds no free worker slot.
    starving: AtomicU32,
    /// The database (0: none) that needs a partition which no worker can be had for: for that position, of that size.
    partition_for: AtomicU32,
    partition: [AtomicI64; 2],
}

pub static HALL: Area<Hall> = Area::one(c"eventstream board", || Hall {
    launcher: Process::none(),
    has_launcher: AtomicU32::new(0),
    starving: AtomicU32::new(0),
    partition_for: AtomicU32::new(0),
    partition: [AtomicI64::new(0), AtomicI64::new(0)],
});

fn hall() -> Option<&'static Hall> {
    HALL.first()
}

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    static WAKES: Cell<bool> = const { Cell::new(false) };
    static PASSED: RefCell<Vec<(i64, i64)>> = const { RefCell::new(Vec::new()) };
}

/// This transaction changed what workers look at: its database's scheduler is woken after the commit.
pub fn wake_at_commit() {
    WAKES.set(true);
}

/// After the commit, sessions that wait for that projection at or below `position` are woken.
pub fn note_passed_at_commit(projection: i64, position: i64) {
    PASSED.with_borrow_mut(|passed| passed.push((projection, position)));
}

/// Whether this process is the launcher, a scheduler or a runner.
pub fn is_worker() -> bool {
    IS_WORKER.get()
}

/// Whether a scheduler works for this database.
pub fn is_scheduler_running() -> bool {
    Database::mine().is_some_and(|database| database.scheduler().pid().is_some())
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
    // The end of an append moves the horizon also where it was rolled back.
    if wakes || has_appended {
        wake_scheduler();
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

/// Wakes this database's scheduler, if it sleeps: once a burst.
pub fn wake_scheduler() {
    if let Some(database) = Database::mine() {
        database.rouse();
    }
}

/// The launcher begins, or wakes up again.
pub fn launcher_enters() {
    if let Some(hall) = hall() {
        hall.launcher.enter();
        hall.has_launcher.store(1, SeqCst);
    }
}

pub fn launcher_leaves() {
    if let Some(hall) = hall()
        && hall.launcher.is_me()
    {
        hall.launcher.leave();
    }
}

/// Makes the launcher look at all databases.
pub fn wake_launcher() {
    if let Some(hall) = hall() {
        hall.launcher.wake();
    }
}

/// Asks the launcher, whose worker slot is its own whatever happens, to make a partition in this database. False where there is none. Another
/// database may take the place of the wish: whoever waits wishes again.
pub fn wish_for_partition(database: Oid, partition: [i64; 2]) -> bool {
    let Some(hall) = hall().filter(|hall| hall.has_launcher.load(SeqCst) != 0) else { return false };
    if hall.partition_for.load(SeqCst) == 0 {
        for (place, part) in hall.partition.iter().zip(partition) {
            place.store(part, SeqCst);
        }
        hall.partition_for.store(database.to_u32(), SeqCst);
    }
    hall.launcher.wake();
    true
}

/// Whether a partition is wished for.
pub fn is_partition_wished() -> bool {
    hall().is_some_and(|hall| hall.partition_for.load(SeqCst) != 0)
}

/// The partition that is wished for; by that it is wished for no more.
pub fn take_partition_wish() -> Option<(Oid, [i64; 2])> {
    let hall = hall()?;
    let partition = [hall.partition[0].load(SeqCst), hall.partition[1].load(SeqCst)];
    let database = hall.partition_for.swap(0, SeqCst);
    (database != 0).then(|| (database.into(), partition))
}

/// How many databases' schedulers found no free worker slot.
pub fn set_starving(databases: u32) {
    if let Some(hall) = hall() {
        hall.starving.store(databases, SeqCst);
    }
}

/// Whether there is such a database.
pub fn is_any_starving() -> bool {
    hall().is_some_and(|hall| hall.starving.load(SeqCst) > 0)
}

/// Whether a scheduler should give one of its runners' slots to a database that has none; true once for each such database.
pub fn should_give_a_slot() -> bool {
    let less = |starving: u32| starving.checked_sub(1);
    hall()
        .is_some_and(|hall| hall.starving.load(SeqCst) > 0 && hall.starving.fetch_update(SeqCst, SeqCst, less).is_ok())
}
