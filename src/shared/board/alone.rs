//! What a scheduler works on by itself, where no runner can be had, and what became of it: users' code may end the process, and whoever comes after it must not meet the same again and again.
//!
//! ```text
//! none ──(the scheduler begins a job)──▶ at it ──(it is done)──▶ none
//!                                          └──(the process ends)──▶ left behind ──(the next scheduler takes it over)──▶ none, and counted
//! ```
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};

#[repr(C)]
pub struct Alone {
    is_at_it: AtomicBool,
    is_overdue: AtomicBool,
    job: AtomicI64,
    /// Which part of the job it is at, where that has a number.
    part: AtomicI64,
    /// What the last one was left behind at, and how often in a row.
    lost_job: AtomicI64,
    lost_part: AtomicI64,
    times: AtomicU32,
}

/// How a scheduler ended in the middle of its own work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub job: i64,
    pub part: i64,
    /// How often in a row, this one included.
    pub times: u32,
    /// It let all cancels pass.
    pub is_overdue: bool,
}

impl Alone {
    pub const fn none() -> Self {
        Self {
            is_at_it: AtomicBool::new(false),
            is_overdue: AtomicBool::new(false),
            job: AtomicI64::new(0),
            part: AtomicI64::new(0),
            lost_job: AtomicI64::new(0),
            lost_part: AtomicI64::new(0),
            times: AtomicU32::new(0),
        }
    }

    /// Another database's, from now on.
    pub fn forget(&self) {
        self.is_at_it.store(false, SeqCst);
        self.times.store(0, SeqCst);
    }

    pub fn begins(&self, job: i64) {
        self.job.store(job, SeqCst);
        self.part.store(0, SeqCst);
        self.is_overdue.store(false, SeqCst);
        self.is_at_it.store(true, SeqCst);
    }

    pub fn is_at_it(&self) -> bool {
        self.is_at_it.load(SeqCst)
    }

    /// Where the part is noted.
    pub fn part(&self) -> &AtomicI64 {
        &self.part
    }

    /// Also where the job has failed: what matters is that the process is there.
    pub fn ends(&self) {
        self.is_at_it.store(false, SeqCst);
        if self.lost_job.load(SeqCst) == self.job.load(SeqCst) && self.lost_part.load(SeqCst) == self.part.load(SeqCst)
        {
            self.times.store(0, SeqCst);
        }
    }

    pub fn note_overdue(&self) {
        self.is_overdue.store(true, SeqCst);
    }

    /// What the scheduler before this one was in the middle of when it ended; it is told once.
    pub fn take_lost(&self) -> Option<Lost> {
        if !self.is_at_it.swap(false, SeqCst) {
            return None;
        }
        let (job, part) = (self.job.load(SeqCst), self.part.load(SeqCst));
        let before = (self.lost_job.swap(job, SeqCst), self.lost_part.swap(part, SeqCst));
        let times = if before == (job, part) { self.times.load(SeqCst).saturating_add(1) } else { 1 };
        self.times.store(times, SeqCst);
        Some(Lost { job, part, times, is_overdue: self.is_overdue.load(SeqCst) })
    }
}
