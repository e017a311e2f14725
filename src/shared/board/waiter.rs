//! Sessions that wait until a tenant's horizon, or a projection, has passed a position: one entry a backend.
//!
//! ```text
//! free ──register──▶ waiting, unseen ──(scheduler looks)──▶ waiting, seen ──(passed)──▶ woken ──drop, end of the session──▶ free
//! ```
use super::database::{Database, is_scheduler_running, wake_scheduler};
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::error::failure::{Result, catch};
use crate::pg::process::latch::Latch;
use crate::pg::process::{exit, life};
use crate::pg::shmem::Area;
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};
use std::time::{Duration, Instant};

/// The longest sleep of a session that no scheduler wakes.
const UNATTENDED: Duration = Duration::from_millis(100);

/// What is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A tenant's, by the tenant's id.
    Horizon(i64),
    /// By its id.
    Projection(i64),
}

impl Awaited {
    /// What an entry holds for it: ids are positive.
    fn number(self) -> i64 {
        match self {
            Self::Horizon(tenant_id) => -tenant_id,
            Self::Projection(id) => id,
        }
    }

    fn of(number: i64) -> Self {
        if number < 0 { Self::Horizon(-number) } else { Self::Projection(number) }
    }
}

#[repr(C)]
pub struct Entry {
    /// 0: free.
    database: AtomicU32,
    is_seen: AtomicBool,
    is_woken: AtomicBool,
    awaited: AtomicI64,
    position: AtomicI64,
    latch: Latch,
}

pub static AREA: Area<Entry> = Area::new(c"eventstream waiters", backend_slots, || Entry {
    database: AtomicU32::new(0),
    is_seen: AtomicBool::new(false),
    is_woken: AtomicBool::new(false),
    awaited: AtomicI64::new(0),
    position: AtomicI64::new(0),
    latch: Latch::none(),
});

thread_local! {
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
    /// Counts this backend's waiters: the entry belongs to the newest.
    static NEWEST: Cell<u64> = const { Cell::new(0) };
}

/// This backend's entry while it waits. There is one: a new waiter takes it from an older one, which frees it no more.
#[derive(Debug)]
pub struct Waiter {
    number: u64,
}

impl Waiter {
    /// Waits from now on for `awaited` to pass `position`. Wakes the scheduler, which dispatches that projection once even if it
    /// seems current. Look whether it has passed afterwards, not before.
    pub fn register(awaited: Awaited, position: i64) -> Self {
        release();
        if let (Some(entry), Some(database)) = (own_entry(), Database::mine()) {
            // Before, because the backend's number is gone afterwards.
            exit::before_exit(&EXIT_REGISTERED, release);
            entry.latch.become_mine();
            entry.awaited.store(awaited.number(), SeqCst);
            entry.position.store(position, SeqCst);
            entry.is_seen.store(false, SeqCst);
            entry.is_woken.store(false, SeqCst);
            entry.database.store(database.oid().to_u32(), SeqCst);
            database.waiting.fetch_add(1, SeqCst);
            wake_scheduler();
        }
        NEWEST.set(NEWEST.get() + 1);
        Self { number: NEWEST.get() }
    }

    /// Until woken, at most so long, and at most [`UNATTENDED`] where no scheduler runs. A cancel ends it with an error.
    pub fn wait(&self, at_most: Duration) -> Result<()> {
        let at_most = if is_scheduler_running() { at_most } else { at_most.min(UNATTENDED) };
        let end = Instant::now() + at_most;
        loop {
            if own_entry().is_some_and(|entry| entry.is_woken.swap(false, SeqCst)) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            catch(|| {
                life::sleep(Some(left));
                life::check_for_interrupts();
            })?;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.number == NEWEST.get() {
            release();
        }
    }
}

fn own_entry() -> Option<&'static Entry> {
    AREA.get()?.get(backend_number())
}

fn release() {
    if let Some(entry) = own_entry()
        && entry.database.swap(0, SeqCst) != 0
        && let Some(database) = Database::mine()
    {
        database.waiting.fetch_sub(1, SeqCst);
    }
}

/// The waiters of this process's database. Where nobody waits this is one load.
fn waiting() -> impl Iterator<Item = &'static Entry> {
    let database = Database::mine().filter(|database| database.waiting.load(SeqCst) > 0);
    let oid = database.map_or(0, |database| database.oid().to_u32());
    let entries = if oid == 0 { &[] } else { AREA.all() };
    entries.iter().filter(move |entry| entry.database.load(SeqCst) == oid)
}

/// Wakes those who wait for that, at or below `position`.
pub fn wake(awaited: Awaited, position: i64) {
    wake_all(|other| if other == awaited { position } else { i64::MIN });
}

/// Wakes those who wait at or below the position that what they wait for has reached.
pub fn wake_all(reached: impl Fn(Awaited) -> i64) {
    for entry in waiting() {
        if entry.position.load(SeqCst) <= reached(Awaited::of(entry.awaited.load(SeqCst))) {
            entry.is_woken.store(true, SeqCst);
            entry.latch.set();
        }
    }
}

/// Whether somebody waits for the log itself.
pub fn is_horizon_awaited() -> bool {
    waiting().any(|entry| entry.awaited.load(SeqCst) < 0)
}

/// The projections that somebody waits for and that no scheduler has been told of yet.
pub fn take_unseen() -> Vec<i64> {
    waiting()
        .filter(|entry| !entry.is_seen.swap(true, SeqCst))
        .map(|entry| entry.awaited.load(SeqCst))
        .filter(|&awaited| awaited > 0)
        .collect()
}
