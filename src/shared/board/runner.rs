//! The runners on the board, each with a mailbox of one job. The scheduler of their database takes a place, starts a runner for it, and gives
//! it jobs; the runner enters, works and reports.
//!
//! ```text
//! free ──(scheduler)──▶ taken ──(the runner's start)──▶ entered ──(its end)──▶ free
//! mailbox of an entered one: empty ──(scheduler)──▶ job ──(runner)──▶ report ──(scheduler)──▶ empty
//! ```
use super::process::Process;
use crate::pg::process::{life, server};
use crate::pg::shmem::Area;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32};

const EMPTY: u8 = 0;
const JOB: u8 = 1;
const REPORT: u8 = 2;

/// What a runner says of its last job; what the numbers mean is between it and the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub kind: u8,
    pub number: i64,
}

#[repr(C, align(64))]
pub struct Runner {
    /// 0: nobody's.
    database: AtomicU32,
    /// The scheduler that took the place.
    owner: AtomicI32,
    process: Process,
    stage: AtomicU8,
    kind: AtomicU8,
    job: AtomicI64,
    number: AtomicI64,
    /// How often it has said that it gets on.
    beats: AtomicU32,
    /// Which part of its job it is at, where that has a number.
    part: AtomicI64,
}

pub static AREA: Area<Runner> = Area::new(c"eventstream runners", server::worker_processes, || Runner {
    database: AtomicU32::new(0),
    owner: AtomicI32::new(0),
    process: Process::none(),
    stage: AtomicU8::new(EMPTY),
    kind: AtomicU8::new(0),
    job: AtomicI64::new(0),
    number: AtomicI64::new(0),
    beats: AtomicU32::new(0),
    part: AtomicI64::new(0),
});

thread_local! {
    /// The place that this process is in.
    static OWN: Cell<Option<&'static Runner>> = const { Cell::new(None) };
    /// The part of its job that this process is at, and where others see it.
    static PART: Cell<i64> = const { Cell::new(0) };
    static SHOWN: Cell<Option<&'static AtomicI64>> = const { Cell::new(None) };
}

/// This process is at that part of its job; 0: at none that has a number.
pub fn note_part(part: i64) {
    PART.set(part);
    if let Some(shown) = SHOWN.get() {
        shown.store(part, SeqCst);
    }
}

/// This process's part is to be seen there.
pub fn show_part(place: &'static AtomicI64) {
    SHOWN.set(Some(place));
}

/// The part that this process was at last; 0: none.
pub fn part() -> i64 {
    PART.get()
}

/// A part of this process's job is done: if it is a runner, the next part gets the whole time.
pub fn get_on() {
    life::renew_timeout();
    if let Some(own) = OWN.get() {
        own.beats.fetch_add(1, SeqCst);
    }
}

/// The places that are taken for that database.
pub fn of_database(oid: Oid) -> impl Iterator<Item = &'static Runner> {
    AREA.all().iter().filter(move |runner| runner.database.load(SeqCst) == oid.to_u32())
}

/// Frees the places of that database in which no runner is: it never started, and whoever took them is gone.
pub fn forget(oid: Oid) {
    for runner in of_database(oid) {
        if runner.process.pid().is_none() {
            runner.free();
        }
    }
}

/// A place for a runner of that database, whose scheduler this process is, but none of `except`; None where there is none.
pub fn take(oid: Oid, except: impl Fn(usize) -> bool) -> Option<(usize, &'static Runner)> {
    let me = server::pid();
    AREA.all().iter().enumerate().filter(|(place, _)| !except(*place)).find(|(_, runner)| {
        let is_taken = runner.database.compare_exchange(0, oid.to_u32(), SeqCst, SeqCst).is_ok();
        if is_taken {
            runner.stage.store(EMPTY, SeqCst);
            runner.owner.store(me, SeqCst);
        }
        is_taken
    })
}

/// The place with that number.
pub fn at(place: usize) -> Option<&'static Runner> {
    AREA.all().get(place)
}

impl Runner {
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn free(&self) {
        self.owner.store(0, SeqCst);
        self.stage.store(EMPTY, SeqCst);
        self.database.store(0, SeqCst);
    }

    /// Whether the runner that this scheduler started is in the place.
    pub fn is_occupied_for(&self, owner: i32) -> bool {
        self.owner.load(SeqCst) == owner && self.process.pid().is_some()
    }

    /// The runner for which this scheduler took the place never came.
    pub fn free_if_owned_by(&self, owner: i32) {
        if self.owner.load(SeqCst) == owner {
            self.free();
        }
    }

    /// This process is the runner from now on, if `owner` took the place for it.
    pub fn enters(&'static self, owner: i32) -> bool {
        let is_mine = self.owner.load(SeqCst) == owner;
        if is_mine {
            self.process.enter();
            OWN.set(Some(self));
            show_part(&self.part);
        }
        is_mine
    }

    /// To be called when nobody sees this process as connected any more.
    pub fn leaves(&self) {
        if self.process.is_me() {
            self.process.leave();
            self.free();
        }
    }

    /// Puts a job into the mailbox, which must be empty, and wakes the runner.
    pub fn give(&self, job: i64) {
        self.job.store(job, SeqCst);
        self.part.store(0, SeqCst);
        self.stage.store(JOB, SeqCst);
        self.process.wake();
    }

    /// The job to do, if there is one.
    pub fn job(&self) -> Option<i64> {
        (self.stage.load(SeqCst) == JOB).then(|| self.job.load(SeqCst))
    }

    pub fn report(&self, report: Report) {
        self.kind.store(report.kind, SeqCst);
        self.number.store(report.number, SeqCst);
        self.stage.store(REPORT, SeqCst);
    }

    /// Which part of its job it is at; 0: none.
    pub fn part(&self) -> i64 {
        self.part.load(SeqCst)
    }

    /// A number that changes while the runner gets on with a job that takes long.
    pub fn beats(&self) -> u32 {
        self.beats.load(SeqCst)
    }

    /// Takes the report of the last job, if it is done.
    pub fn take_report(&self) -> Option<Report> {
        (self.stage.load(SeqCst) == REPORT).then(|| {
            let report = Report { kind: self.kind.load(SeqCst), number: self.number.load(SeqCst) };
            self.stage.store(EMPTY, SeqCst);
            report
        })
    }
}
