//! The databases on the board: each one's scheduler, whether it sleeps, and who holds it.
//!
//! ```text
//! free ──(launcher, hold, announcement)──▶ taken ──(the database is gone, has no extension, or is not to be served; launcher)──▶ free
//! hold: a session is about to drop, rename or copy the database ─▶ its workers end, none starts ─▶ end of that transaction
//! ```
use super::alone::Alone;
use super::process::Process;
use super::{hall, runner};
use crate::pg::process::test_point::test_point;
use crate::pg::process::{exit, server};
use crate::pg::shmem::Area;
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32};

/// Databases that can be served at a time; those without the extension do not count. The build with test points has so few that a test can
/// take them all.
pub const DATABASES: usize = if cfg!(feature = "pg_test") { 4 } else { 1024 };

/// Whether a database has the extension, as far as the launcher must know: perhaps; a scheduler is looking; a scheduler looked, found none,
/// and none was announced since it began to.
const PERHAPS: u8 = 0;
const LOOKING: u8 = 1;
const WITHOUT: u8 = 2;

#[repr(C, align(64))]
pub struct Database {
    /// 0: nobody's.
    oid: AtomicU32,
    scheduler: Process,
    /// The scheduler sleeps, or is about to look once more before it does.
    is_asleep: AtomicBool,
    extension: AtomicU8,
    /// The last scheduler ended as it should.
    has_ended_well: AtomicBool,
    holds: AtomicU32,
    missing: AtomicU32,
    /// How often what workers look at was changed.
    changes: AtomicU32,
    /// When the scheduler is to look for commands that are due (microseconds since 2000-01-01 UTC).
    due: AtomicI64,
    alone: Alone,
    /// Registered waiters.
    pub waiting: AtomicU32,
}

pub static AREA: Area<Database> = Area::new(
    c"eventstream databases",
    || DATABASES,
    || Database {
        oid: AtomicU32::new(0),
        scheduler: Process::none(),
        is_asleep: AtomicBool::new(false),
        extension: AtomicU8::new(PERHAPS),
        has_ended_well: AtomicBool::new(true),
        holds: AtomicU32::new(0),
        missing: AtomicU32::new(0),
        changes: AtomicU32::new(0),
        due: AtomicI64::new(i64::MAX),
        alone: Alone::none(),
        waiting: AtomicU32::new(0),
    },
);
/// Guards the taking and freeing of entries; held for a scan of the area, within which nothing can be interrupted.
pub static TAKING: Area<AtomicBool> = Area::one(c"eventstream databases lock", || AtomicBool::new(false));
/// How often an entry was taken: who had none looks again where this has changed.
pub static TAKEN: Area<AtomicU32> = Area::one(c"eventstream databases taken", || AtomicU32::new(0));

thread_local! {
    static MINE: Cell<Option<&'static Database>> = const { Cell::new(None) };
    /// What TAKEN was when this process's database had no entry.
    static MISSING_AT: Cell<Option<u32>> = const { Cell::new(None) };
    static HELD: RefCell<Vec<&'static Database>> = const { RefCell::new(Vec::new()) };
    static ANNOUNCED: Cell<bool> = const { Cell::new(false) };
    static WAKES_LAUNCHER: Cell<bool> = const { Cell::new(false) };
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Alone among those who take and free entries; None without preload. Nothing within may raise, or take long.
pub fn exclusively<T>(work: impl FnOnce(&'static [Database]) -> T) -> Option<T> {
    let (databases, taking) = (AREA.get()?, TAKING.first()?);
    while taking.compare_exchange_weak(false, true, SeqCst, SeqCst).is_err() {
        std::thread::yield_now();
    }
    /// Gives it back, also when a panic passes: nobody else would, as long as the server runs.
    struct Taken(&'static AtomicBool);
    impl Drop for Taken {
        fn drop(&mut self) {
            self.0.store(false, SeqCst);
        }
    }
    let _taken = Taken(taking);
    test_point("alone on the board");
    Some(work(databases))
}

impl Database {
    fn find(oid: Oid) -> Option<&'static Self> {
        AREA.get()?.iter().find(|database| database.oid.load(SeqCst) == oid.to_u32())
    }

    /// The entry of that database; None where all are taken, or without preload.
    pub fn take(oid: Oid) -> Option<&'static Self> {
        Self::taking(oid, |_| ())
    }

    fn taking(oid: Oid, then: impl FnOnce(&Self)) -> Option<&'static Self> {
        exclusively(|databases| {
            let known = databases.iter().find(|database| database.oid.load(SeqCst) == oid.to_u32());
            let found = known.or_else(|| {
                let free = databases.iter().find(|database| database.oid.load(SeqCst) == 0)?;
                free.extension.store(PERHAPS, SeqCst);
                free.has_ended_well.store(true, SeqCst);
                free.missing.store(0, SeqCst);
                free.alone.forget();
                free.oid.store(oid.to_u32(), SeqCst);
                if let Some(taken) = TAKEN.first() {
                    taken.fetch_add(1, SeqCst);
                }
                Some(free)
            })?;
            then(found);
            Some(found)
        })?
    }

    /// This process's database. Its entry may have been another's since, where it had no extension for a while.
    pub fn mine() -> Option<&'static Self> {
        let oid = server::database();
        if let Some(mine) = MINE.get().filter(|mine| mine.oid() == oid) {
            return Some(mine);
        }
        let now = TAKEN.first()?.load(SeqCst);
        if oid == pg_sys::InvalidOid || MISSING_AT.get() == Some(now) {
            return None;
        }
        let mine = Self::find(oid);
        MINE.set(mine);
        MISSING_AT.set(if mine.is_none() { Some(now) } else { None });
        mine
    }

    /// The entry of that database, if it has one.
    pub fn known(oid: Oid) -> Option<&'static Self> {
        Self::find(oid)
    }

    /// All that are taken.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        AREA.all().iter().filter(|database| database.oid.load(SeqCst) != 0)
    }

    /// The database is gone: its entry may be another's, unless somebody still uses it.
    pub fn free(&self) {
        exclusively(|_| {
            if self.scheduler.pid().is_none() && !self.is_held() {
                runner::forget(self.oid());
                self.oid.store(0, SeqCst);
            }
        });
    }

    /// The database has no extension, and nobody uses its entry: another one may. False where that is not so any more.
    pub fn free_without_extension(&self) -> bool {
        self.free_where(Self::is_without_extension)
    }

    /// The database is not to be served: where nobody uses its entry, another one may.
    pub fn free_unserved(&self) {
        self.free_where(|_| true);
    }

    fn free_where(&self, may_go: impl FnOnce(&Self) -> bool) -> bool {
        exclusively(|_| {
            let is_unused = self.scheduler.pid().is_none() && !self.is_held() && self.waiting.load(SeqCst) == 0;
            let is_free = is_unused && may_go(self);
            if is_free {
                runner::forget(self.oid());
                self.oid.store(0, SeqCst);
            }
            is_free
        }) == Some(true)
    }

    pub fn oid(&self) -> Oid {
        self.oid.load(SeqCst).into()
    }

    pub fn scheduler(&self) -> &Process {
        &self.scheduler
    }

    /// What its scheduler works on by itself.
    pub fn alone(&self) -> &Alone {
        &self.alone
    }

    /// This process is the scheduler from now on. False where there is one.
    pub fn scheduler_enters(&'static self) -> bool {
        let is_first = exclusively(|_| {
            let is_first = self.scheduler.pid().is_none();
            if is_first {
                self.is_asleep.store(false, SeqCst);
                self.has_ended_well.store(false, SeqCst);
                self.scheduler.enter();
            }
            is_first
        });
        MINE.set(Some(self));
        is_first == Some(true)
    }

    /// To be called when nobody sees this process as connected any more.
    pub fn scheduler_leaves(&self) {
        if self.scheduler.is_me() {
            self.scheduler.leave();
            self.is_asleep.store(false, SeqCst);
        }
    }

    /// A scheduler is started.
    pub fn note_start(&self) {
        self.has_ended_well.store(false, SeqCst);
    }

    /// The scheduler ends because it should: it may be started again as soon as there is a reason.
    pub fn note_good_end(&self) {
        self.has_ended_well.store(true, SeqCst);
    }

    pub fn has_ended_well(&self) -> bool {
        self.has_ended_well.load(SeqCst)
    }

    /// The scheduler is about to look whether the extension is there. One that dies meanwhile has found nothing.
    pub fn looks_for_extension(&self) {
        self.extension.store(LOOKING, SeqCst);
    }

    /// It is there: a scheduler has found it, or it was created.
    pub fn note_extension(&self) {
        self.extension.store(PERHAPS, SeqCst);
    }

    /// The scheduler found none. Of no effect where one was created since it began to look.
    pub fn note_no_extension(&self) {
        let _ = self.extension.compare_exchange(LOOKING, WITHOUT, SeqCst, SeqCst);
    }

    /// No scheduler needs to look before one is created.
    pub fn is_without_extension(&self) -> bool {
        self.extension.load(SeqCst) == WITHOUT
    }

    /// A scheduler has not found it, or not yet.
    pub fn may_lack_extension(&self) -> bool {
        self.extension.load(SeqCst) != PERHAPS
    }

    pub fn set_missing(&self, workers: u32) {
        self.missing.store(workers, SeqCst);
    }

    pub fn missing(&self) -> u32 {
        self.missing.load(SeqCst)
    }

    /// What workers look at was changed, and everybody sees it. Invalidation messages tell the same, but are sent only after a commit is
    /// visible: a scheduler that was woken meanwhile would look, find no message, and sleep.
    pub fn note_change(&self) {
        self.changes.fetch_add(1, SeqCst);
    }

    pub fn changes(&self) -> u32 {
        self.changes.load(SeqCst)
    }

    /// The scheduler looks for commands that are due at that moment at the latest; whether it would have done so later.
    pub fn lower_due(&self, at: i64) -> bool {
        self.due.fetch_min(at, SeqCst) > at
    }

    /// The scheduler is about to look for commands that are due: what is scheduled from now on, it may not see.
    pub fn forget_due(&self) {
        self.due.store(i64::MAX, SeqCst);
    }

    pub fn due(&self) -> i64 {
        self.due.load(SeqCst)
    }

    /// The scheduler is about to look and then to sleep: whoever changes something from now on wakes it.
    pub fn falls_asleep(&self) {
        self.is_asleep.store(true, SeqCst);
    }

    /// Whether nobody has woken the scheduler since it fell asleep.
    pub fn is_asleep(&self) -> bool {
        self.is_asleep.load(SeqCst)
    }

    /// The scheduler looks soon anyway.
    pub fn is_up(&self) {
        self.is_asleep.store(false, SeqCst);
    }

    /// Wakes the scheduler, if it sleeps. The first one of a burst does; for the others this is a load.
    pub fn rouse(&self) {
        if self.is_asleep.load(SeqCst) && self.is_asleep.swap(false, SeqCst) {
            self.scheduler.wake();
        }
    }

    pub fn is_held(&self) -> bool {
        self.holds.load(SeqCst) > 0
    }

    /// Whether a scheduler or a runner may still be connected.
    pub fn has_workers(&self) -> bool {
        self.scheduler.pid().is_some() || runner::of_database(self.oid()).any(|runner| runner.process().pid().is_some())
    }

    /// Ends the scheduler and the runners.
    pub fn terminate_workers(&self) {
        self.scheduler.terminate();
        runner::of_database(self.oid()).for_each(|runner| runner.process().terminate());
    }
}

/// Keeps the workers of that database away until the end of this transaction. Whether the board has room for it.
pub fn hold(oid: Oid) -> Option<&'static Database> {
    end_holds_at_exit();
    let held = Database::taking(oid, |database| {
        database.holds.fetch_add(1, SeqCst);
    })?;
    HELD.with_borrow_mut(|all| all.push(held));
    Some(held)
}

/// The extension was created here: after the commit, the launcher starts a scheduler.
pub fn announce_at_commit() {
    ANNOUNCED.set(true);
}

/// A database was created: after the commit, the launcher looks at it.
pub fn wake_launcher_at_commit() {
    WAKES_LAUNCHER.set(true);
}

pub fn at_end(is_committed: bool) {
    let is_announced = ANNOUNCED.replace(false) && is_committed;
    let mut wakes = (WAKES_LAUNCHER.replace(false) && is_committed) | is_announced;
    if is_announced {
        Database::taking(server::database(), Database::note_extension);
    }
    wakes |= end_holds();
    if wakes {
        hall::wake_launcher();
    }
}

fn end_holds() -> bool {
    HELD.with_borrow_mut(|held| {
        let any = !held.is_empty();
        for database in held.drain(..) {
            database.holds.fetch_sub(1, SeqCst);
        }
        any
    })
}

fn end_holds_at_exit() {
    exit::at_exit(&EXIT_REGISTERED, || {
        if end_holds() {
            hall::wake_launcher();
        }
    });
}

/// Whether a scheduler works for this database.
pub fn is_scheduler_running() -> bool {
    Database::mine().is_some_and(|database| database.scheduler().pid().is_some())
}

/// Wakes this database's scheduler, if it sleeps: once a burst.
pub fn wake_scheduler() {
    if let Some(database) = Database::mine() {
        database.rouse();
    }
}
