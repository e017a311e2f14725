//! The runners of one database: how many there are, what each does, and which have died.
//!
//! ```text
//! wanted ──(a free worker slot)──▶ started ──(it enters its place)──▶ free ◀──job, report──▶ busy
//!   any of them ──(its end)──▶ gone: its job is free again
//! ```
use super::job::Done;
use super::runner::RUNNER;
use crate::pg::error::failure::Result;
use crate::pg::process::worker::{self, Started};
use crate::shared::board::runner::{self, Runner};
use pgrx::pg_sys::Oid;
use std::time::{Duration, Instant};

/// How often to ask for a worker slot where there was none, and after one was given away.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(5);
const GIVEN_PAUSE: Duration = Duration::from_secs(15);
/// A runner that nobody needs any more stays for so long, with the states that it keeps.
const IDLE_LIFE: Duration = Duration::from_secs(60);
/// A runner that ended soon after its start is not replaced at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long after its timeout a batch that catches its cancels may go on before its runner is ended.
const GRACE: Duration = Duration::from_secs(5);

struct Member {
    place: usize,
    runner: &'static Runner,
    started: Started,
    since: Instant,
    /// Since when it has no job, if it has none.
    free_since: Instant,
    has_entered: bool,
    is_leaving: bool,
    is_overdue: bool,
    job: Option<(i64, Instant)>,
    /// What the runner had beaten when its job's time was set.
    beats: u32,
}

/// How a job ended.
pub enum Ended {
    Done(Done),
    /// The runner died, at that part of the job.
    Lost(i64),
    /// The runner was ended, because there were too many.
    Spared,
    /// The runner was ended, because it let the cancel pass, at that part.
    Overdue(i64),
}

pub struct Team {
    oid: Oid,
    /// This process.
    owner: i64,
    members: Vec<Member>,
    not_before: Instant,
    /// There was none the last time.
    has_no_slot: bool,
}

impl Team {
    pub fn new(oid: Oid, owner: i32) -> Self {
        runner::forget(oid);
        Self { oid, owner: owner.into(), members: Vec::new(), not_before: Instant::now(), has_no_slot: false }
    }

    fn staying(&self) -> usize {
        self.members.iter().filter(|member| !member.is_leaving).count()
    }

    /// How many runners there are.
    pub fn len(&self) -> usize {
        self.staying()
    }

    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether there was a worker slot the last time that one was wanted.
    pub fn may_grow(&self) -> bool {
        !self.has_no_slot
    }

    /// Nobody is there, and nobody can be had.
    pub fn is_out_of_reach(&self) -> bool {
        self.members.is_empty() && self.has_no_slot
    }

    /// Starts runners until there are `wanted`, and stops those beyond `most`, and those beyond `wanted` that had nothing to do for a while;
    /// how many could not be had.
    pub fn size_to(&mut self, wanted: usize, most: usize) -> Result<usize> {
        while self.staying() > most && self.stop_one(Duration::ZERO) {}
        while self.staying() > wanted && self.stop_one(IDLE_LIFE) {}
        while self.staying() < wanted && self.not_before <= Instant::now() {
            self.has_no_slot = !self.start_one()?;
            if self.has_no_slot {
                self.not_before = Instant::now() + NO_SLOT_PAUSE;
            }
        }
        Ok(wanted.saturating_sub(self.staying()))
    }

    /// When to try again to start one, if it has to wait.
    pub fn retry_in(&self) -> Duration {
        self.not_before.saturating_duration_since(Instant::now())
    }

    fn start_one(&mut self) -> Result<bool> {
        // A place that was left is not taken again before its runner's end was seen.
        let is_known = |place| self.members.iter().any(|member| member.place == place);
        let Some((place, runner)) = runner::take(self.oid, is_known) else { return Ok(false) };
        let Some(started) = worker::start(RUNNER, self.oid, [place as i64, self.owner])? else {
            runner.free();
            return Ok(false);
        };
        let since = Instant::now();
        let (has_entered, is_leaving, is_overdue) = (false, false, false);
        let beats = runner.beats();
        self.members.push(Member {
            place,
            runner,
            started,
            since,
            free_since: since,
            has_entered,
            is_leaving,
            is_overdue,
            job: None,
            beats,
        });
        Ok(true)
    }

    /// Tells one to end: that which has had no job for longest, and for so long at least; where that is no time at all, also one at work.
    fn stop_one(&mut self, idle: Duration) -> bool {
        let staying = self.members.iter_mut().filter(|member| !member.is_leaving && member.has_entered);
        let may_end =
            |member: &&mut Member| idle.is_zero() || member.job.is_none() && member.free_since.elapsed() >= idle;
        let first = staying.filter(may_end).min_by_key(|member| (member.job.is_some(), member.free_since));
        let Some(member) = first else { return false };
        member.is_leaving = true;
        member.runner.process().terminate();
        true
    }

    /// Gives one's worker slot to a database that has none.
    pub fn give_a_slot(&mut self) {
        if self.stop_one(Duration::ZERO) {
            self.has_no_slot = true;
            self.not_before = Instant::now() + GIVEN_PAUSE;
        }
    }

    /// The places of those who can take a job.
    pub fn free(&self) -> Vec<usize> {
        let free = self.members.iter().filter(|one| one.has_entered && !one.is_leaving && one.job.is_none());
        free.map(|member| member.place).collect()
    }

    pub fn give(&mut self, place: usize, job: i64) {
        if let Some(member) = self.members.iter_mut().find(|member| member.place == place) {
            member.job = Some((job, Instant::now()));
            member.runner.give(job);
        }
    }

    /// Sees who has come, who has gone, and what they say.
    pub fn take_reports(&mut self) -> Result<Vec<(i64, Ended)>> {
        let mut reports = Vec::new();
        let mut gone = Vec::new();
        for (number, member) in self.members.iter_mut().enumerate() {
            // Whether it is there is asked first: what it said before it went counts.
            let is_there = member.runner.is_occupied_for(self.owner as i32);
            if is_there
                && let Some(report) = member.runner.take_report()
                && let Some((job, _)) = member.job.take()
            {
                member.free_since = Instant::now();
                reports.push((job, Ended::Done(report.into())));
            }
            if is_there {
                member.has_entered = true;
            } else if member.has_entered || member.started.is_over()? {
                gone.push(number);
            }
        }
        for number in gone.into_iter().rev() {
            let member = self.members.swap_remove(number);
            if let Some((job, _)) = member.job {
                let ended = match (member.is_overdue, member.is_leaving) {
                    (true, _) => Ended::Overdue(member.runner.part()),
                    (false, true) => Ended::Spared,
                    (false, false) => Ended::Lost(member.runner.part()),
                };
                reports.push((job, ended));
            }
            if !member.has_entered {
                member.runner.free_if_owned_by(self.owner as i32);
            }
            if member.since.elapsed() < SHORT_LIFE {
                self.not_before = self.not_before.max(Instant::now() + SHORT_LIFE);
            }
        }
        Ok(reports)
    }

    /// Ends the runners whose batch let its timeout's cancel pass; how long until the next one is due.
    pub fn end_overdue(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let limit = timeout? + GRACE;
        let mut next = None::<Duration>;
        for member in self.members.iter_mut().filter(|member| !member.is_leaving) {
            let Some((_, since)) = &mut member.job else { continue };
            let beats = member.runner.beats();
            if std::mem::replace(&mut member.beats, beats) != beats {
                *since = Instant::now();
            }
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                (member.is_leaving, member.is_overdue) = (true, true);
                member.runner.process().terminate();
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        next
    }
}
