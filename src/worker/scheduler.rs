//! The scheduler of a database: learns how far the log is settled, gives projections that are behind to runners, and tells those who wait.
//!
//! ```text
//! start ─▶ enter the board ──(held, or there is one)──▶ end
//!   ─▶ look: the horizon, the list of projections if it changed ─▶ give jobs ─▶ sleep ─┬─(an append ended, a change)──▶ look
//!                                                                                      ├─(a report, something is due)──▶ give jobs
//!                                                                                      └─(nothing for idle_interval)──▶ look
//! after a look that found something new: the next one 2 ms later, and nobody needs to wake it
//! no extension, held, not served any more, max_workers = 0, SIGTERM ─▶ its runners end, and so does it; the launcher knows when to start it again
//! ```
use super::dispatch::Book;
use super::job::{self, Done};
use super::team::{Ended, Team};
use super::upkeep::Upkeep;
use crate::live::schedule::{self, Entry};
use crate::live::watch;
use crate::log::horizon::{Horizon, horizon};
use crate::pg::board::database::Database;
use crate::pg::board::{self, Awaited, waiter};
use crate::pg::catalog::{self, Catalog};
use crate::pg::failure::{Caught, Result};
use crate::pg::worker::{Arguments, worker_function};
use crate::pg::{databases, live_settings, notify, process};
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How soon after a look that found something new the next one comes: a burst of appends costs one wake-up each time.
const PACE: Duration = Duration::from_millis(2);
/// How often NOTIFY is sent at most.
const NOTIFY_PACE: Duration = Duration::from_millis(20);
/// After a look that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// A projection whose runners die so often in a row has failed.
const OFTEN: u32 = 3;
const CHANNEL: &std::ffi::CStr = c"eventstream";

worker_function!("eventstream_scheduler", serve serve);

thread_local! {
    static SERVED: Cell<Option<&'static Database>> = const { Cell::new(None) };
}

fn leave() {
    if let Some(database) = SERVED.take() {
        database.scheduler_leaves();
        // Afterwards: a runner that comes later finds no scheduler, and ends.
        database.terminate_workers();
    }
}

fn serve(oid: Oid, _: Arguments) -> Result<()> {
    let Some(database) = Database::take(oid) else { return Ok(()) };
    process::at_exit(leave);
    if !database.scheduler_enters() {
        return Ok(());
    }
    SERVED.set(Some(database));
    // In this order: whoever holds the database does so first and looks for us afterwards.
    if !database.is_held() {
        process::connect(Some(oid))?;
        Scheduler::new(database).run()?;
    }
    database.note_good_end();
    Ok(())
}

/// Of the list of projections: by invalidation messages, and by the board.
type Generation = (u64, u32);

/// What a look found.
struct Seen {
    position: i64,
    /// An open transaction has appended.
    is_held: bool,
    generation: Generation,
    entries: Option<Vec<Entry>>,
    is_notified: bool,
}

struct Scheduler {
    database: &'static Database,
    book: Book,
    team: Team,
    upkeep: Upkeep,
    /// Of the last look.
    horizon: i64,
    /// Of the list of projections; None: it must be read.
    generation: Option<Generation>,
    listed_at: Instant,
    /// None: when somebody wakes it.
    next_look: Option<Instant>,
    notified: i64,
    notified_at: Instant,
}

impl Scheduler {
    fn new(database: &'static Database) -> Self {
        let now = Instant::now();
        Self {
            database,
            book: Book::new(),
            team: Team::new(database.oid(), database.scheduler().pid().unwrap_or_default()),
            upkeep: Upkeep::new(),
            horizon: 0,
            generation: None,
            listed_at: now,
            next_look: Some(now),
            notified: 0,
            notified_at: now,
        }
    }

    fn run(mut self) -> Result<()> {
        while self.may_go_on()? {
            self.take_reports()?;
            if self.must_look() && !self.look()? {
                break;
            }
            for awaited in waiter::take_unseen() {
                self.book.want(awaited);
            }
            self.watch()?;
            self.staff()?;
            self.give_jobs()?;
            let nap = self.nap();
            process::show_activity(None);
            if !process::rest(Some(nap))? {
                break;
            }
        }
        Ok(())
    }

    fn may_go_on(&mut self) -> Result<bool> {
        if process::reload()? {
            // It may say that this database is not served any more.
            (self.generation, self.next_look) = (None, Some(Instant::now()));
        }
        Ok(!self.database.is_held() && live_settings::max_workers() > 0)
    }

    fn must_look(&self) -> bool {
        let is_time = |at: Instant| at <= Instant::now();
        !self.database.is_asleep() && self.next_look.is_none()
            || self.next_look.is_some_and(is_time)
            || self.is_idle_time()
    }

    fn is_idle_time(&self) -> bool {
        self.listed_at.elapsed() >= live_settings::idle_interval()
    }

    /// False where there is nothing to serve any more.
    fn look(&mut self) -> Result<bool> {
        // Before the look: what changes after it wakes us.
        self.database.falls_asleep();
        self.next_look = None;
        let is_idle_time = self.is_idle_time();
        let database = self.database;
        let known = if is_idle_time { None } else { self.generation };
        let notify_beyond = (self.notified_at.elapsed() >= NOTIFY_PACE).then_some(self.notified);
        let seen = process::transaction("eventstream scheduler", || see(database, known, notify_beyond))?;
        let seen = match seen {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(false),
            Err(_) => {
                self.generation = None;
                self.listed_at = Instant::now();
                self.next_look = Some(self.listed_at + FAILED_PAUSE);
                return Ok(true);
            }
        };
        let now = Instant::now();
        if let Some(entries) = seen.entries {
            self.book.replace(&entries);
            self.generation = Some(seen.generation);
            self.listed_at = now;
        }
        self.upkeep.note_horizon(seen.position > self.horizon, seen.is_held);
        if seen.position > self.horizon {
            self.horizon = seen.position;
            self.database.is_up();
            self.next_look = Some(now + PACE);
        }
        waiter::wake(Awaited::Horizon, seen.position);
        if seen.is_notified {
            (self.notified, self.notified_at) = (seen.position, now);
        } else if self.notified < seen.position {
            self.next_look = self.next_look.or(Some(self.notified_at + NOTIFY_PACE));
        }
        if board::should_give_a_slot() {
            self.team.give_a_slot();
        }
        Ok(true)
    }

    /// Health, and what holds the horizon for too long. What fails is told in the log, and tried again.
    fn watch(&mut self) -> Result<()> {
        if self.upkeep.should_watch(live_settings::idle_interval()) {
            let _ = process::transaction("eventstream scheduler", watch::watch)?;
        }
        Ok(())
    }

    fn maintain_in(&self) -> Option<Duration> {
        self.upkeep.maintain_in(self.horizon, self.team.has_members())
    }

    fn staff(&mut self) -> Result<()> {
        // Upkeep wants one, also where there is no projection.
        let least = usize::from(self.team.has_members() || self.maintain_in().is_some_and(|left| left.is_zero()));
        let wanted = live_settings::max_workers().min(self.book.len().max(least));
        let missing = self.team.size_to(wanted)?;
        self.database.set_missing(missing as u32);
        Ok(())
    }

    fn take_reports(&mut self) -> Result<()> {
        for (projection, ended) in self.team.take_reports()? {
            match ended {
                Ended::Done(done) if projection == job::MAINTAIN => self.upkeep.ended(Some(done)),
                _ if projection == job::MAINTAIN => self.upkeep.ended(None),
                Ended::Done(done) => self.note(projection, done),
                Ended::Overdue => {
                    self.note_death(projection, "57014", "it ran on after eventstream.handler_timeout")?
                }
                Ended::Lost if self.book.lost(projection) >= OFTEN => {
                    self.note_death(projection, "57P01", "its runner ended in the middle of it")?;
                }
                Ended::Lost => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, projection: i64, done: Done) {
        if let Done::Current { position } | Done::Behind { position } = done {
            waiter::wake(Awaited::Projection(projection), position);
        }
        if matches!(done, Done::Waiting { .. } | Done::Off) {
            self.upkeep.note_failure();
        }
        if self.book.ended(projection, done) {
            self.generation = None;
        }
    }

    /// In the place of the runner that cannot any more.
    fn note_death(&mut self, projection: i64, sqlstate: &str, message: &str) -> Result<()> {
        let message = format!("the batch was ended: {message}");
        let caught = Caught { sqlstate: sqlstate.into(), message, detail: None };
        let done = job::note_failure(projection, &caught)?;
        self.note(projection, done);
        Ok(())
    }

    fn give_jobs(&mut self) -> Result<()> {
        let mut free = self.team.free();
        while let Some((projection, place)) = self.book.next(self.horizon, &free) {
            self.book.begun(projection, place, self.horizon);
            self.team.give(place, projection);
            free.retain(|other| *other != place);
        }
        let maintains = self.maintain_in().is_some_and(|left| left.is_zero());
        if let Some(place) = free.pop().filter(|_| maintains) {
            self.upkeep.begun(self.horizon);
            self.team.give(place, job::MAINTAIN);
        }
        // Where no runner can be had at all, the scheduler does the work.
        if self.team.is_out_of_reach() {
            if let Some((projection, place)) = self.book.next(self.horizon, &[usize::MAX]) {
                self.book.begun(projection, place, self.horizon);
                let done = job::run(projection)?;
                self.note(projection, done);
            } else if maintains {
                self.upkeep.begun(self.horizon);
                self.upkeep.ended(Some(job::run(job::MAINTAIN)?));
            }
        }
        Ok(())
    }

    fn nap(&mut self) -> Duration {
        let now = Instant::now();
        let mut nap = live_settings::idle_interval().saturating_sub(self.listed_at.elapsed());
        if let Some(at) = self.next_look {
            nap = nap.min(at.saturating_duration_since(now));
        }
        if !self.team.free().is_empty() || self.team.is_out_of_reach() {
            nap = nap.min(self.book.due_in(self.horizon).unwrap_or(nap));
            nap = nap.min(self.maintain_in().unwrap_or(nap));
        } else if !self.team.has_members() {
            nap = nap.min(self.maintain_in().unwrap_or(nap));
        }
        nap = nap.min(self.upkeep.watch_in(live_settings::idle_interval()));
        if self.database.missing() > 0 {
            nap = nap.min(self.team.retry_in());
        }
        self.team.end_overdue(live_settings::handler_timeout()).map_or(nap, |left| nap.min(left))
    }
}

/// In a transaction; None where there is nothing to serve. `known` is the generation of the list that is known.
fn see(database: &Database, known: Option<Generation>, notify_beyond: Option<i64>) -> Result<Option<Seen>> {
    if known.is_none() {
        let is_there = databases::has_extension()?;
        database.note_extension(is_there);
        if !is_there || !live_settings::is_database_served(&databases::own_name()?) {
            return Ok(None);
        }
    }
    let Horizon { position, last_position } = horizon(&Catalog::current()?)?;
    let generation = (catalog::projections_generation(), database.changes());
    let entries = if known == Some(generation) { None } else { Some(schedule::entries()?) };
    let is_notified = notify_beyond.is_some_and(|before| position > before);
    if is_notified {
        notify::send(CHANNEL, &position.to_string())?;
    }
    Ok(Some(Seen { position, is_held: position < last_position, generation, entries, is_notified }))
}
