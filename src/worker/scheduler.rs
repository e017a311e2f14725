//! The scheduler of a database: learns how far the log is settled, gives projections that are behind and commands that are due to runners, and tells those who wait.
//!
//! ```text
//! start ─▶ enter the board ──(held, or there is one)──▶ end
//!   ─▶ look: the horizon, the list of projections if it changed ─▶ give jobs ─▶ sleep ─┬─(an append ended, a change)──▶ look
//!                                                                                      ├─(a report, something is due)──▶ give jobs
//!                                                                                      └─(nothing for idle_interval)──▶ look
//! a command is scheduled, and due before the first that it knows of ─▶ it sleeps shorter; one is due ─▶ look at the agenda ─▶ give jobs
//! after a look that failed: the next one a second later, twice as long each time, up to a minute; a reload ends the pause
//! after a look that found something new: the next one 2 ms later, or when the projections' next round begins, and nobody needs to wake it
//! no extension, held, not served any more, max_workers = 0, SIGTERM ─▶ its runners end, and so does it; the launcher knows when to start it again
//! ```
use super::agenda::Agenda;
use super::alone;
use super::dispatch::{Book, Runners};
use super::job::{self, Done};
use super::seen::{Generation, see};
use super::team::{Ended, Team};
use super::upkeep::Upkeep;
use crate::command::scheduled::run;
use crate::log::horizon::Horizons;
use crate::ops::watch;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::process::life::worker_function;
use crate::pg::process::worker::Arguments;
use crate::pg::process::{life, notify, server};
use crate::shared::board;
use crate::shared::board::database::Database;
use crate::shared::board::waiter::{self, Awaited};
use crate::shared::live_settings;
use eventstream_core::backoff;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// How soon after a look that found something new the next one comes: a burst of appends costs one wake-up each time.
const PACE: Duration = Duration::from_millis(2);
/// How often NOTIFY is sent at most.
const NOTIFY_PACE: Duration = Duration::from_millis(20);
/// How long a notification may wait for others': one session that hangs in the middle of its commit holds up all of the server.
const NOTIFY_PATIENCE: Duration = Duration::from_millis(500);
/// How long a look, and one at health, may take: meanwhile nothing is given to runners. Each lock is waited for as long as
/// `life::LOCK_PATIENCE` says at most.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
const WATCH_PATIENCE: Duration = Duration::from_secs(5);
/// After a look, or a notification, that failed: the first pause, and the longest.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_FAILED_PAUSE: Duration = Duration::from_secs(60);
/// A projection whose runners die so often in a row has failed.
const OFTEN: u32 = 3;
/// Where it is told that a tenant's horizon has moved, with the newest of all, and where a change of health: the name of the check.
const CHANNEL: &CStr = c"eventstream";
const ALERTS: &CStr = c"eventstream_alert";

worker_function!("eventstream_scheduler", serve serve);

thread_local! {
    static SERVED: Cell<Option<&'static Database>> = const { Cell::new(None) };
}

fn leave() {
    if let Some(database) = SERVED.take() {
        alone::leave(database);
        database.scheduler_leaves();
        // Afterwards: a runner that comes later finds no scheduler, and ends.
        database.terminate_workers();
    }
}

fn serve(oid: Oid, _: Arguments) -> Result<()> {
    let Some(database) = Database::take(oid) else { return Ok(()) };
    life::at_exit(leave);
    if !database.scheduler_enters() {
        return Ok(());
    }
    SERVED.set(Some(database));
    // In this order: whoever holds the database does so first and looks for us afterwards.
    if !database.is_held() {
        life::connect(Some(oid))?;
        Scheduler::new(database).run()?;
    }
    database.note_good_end();
    Ok(())
}

struct Scheduler {
    database: &'static Database,
    book: Book,
    agenda: Agenda,
    team: Team,
    upkeep: Upkeep,
    /// Of the last look.
    horizons: Horizons,
    tenants: usize,
    /// Of the list of projections; None: it must be read.
    generation: Option<Generation>,
    listed_at: Instant,
    /// In a row.
    failed_looks: u32,
    /// At the earliest; None: when somebody wakes it.
    next_look: Option<Instant>,
    notified: Horizons,
    notified_at: Instant,
    notify_failures: u32,
    /// To be told.
    alerts: BTreeSet<String>,
}

impl Scheduler {
    fn new(database: &'static Database) -> Self {
        let now = Instant::now();
        Self {
            database,
            book: Book::new(),
            agenda: Agenda::new(),
            team: Team::new(database.oid(), database.scheduler().pid().unwrap_or_default()),
            upkeep: Upkeep::new(),
            horizons: Horizons::default(),
            tenants: 0,
            generation: None,
            listed_at: now,
            failed_looks: 0,
            next_look: Some(now),
            notified: Horizons::default(),
            notified_at: now,
            notify_failures: 0,
            alerts: BTreeSet::new(),
        }
    }

    fn run(mut self) -> Result<()> {
        self.take_over()?;
        while self.may_go_on()? {
            let transactions = life::transactions();
            self.take_reports()?;
            if self.must_look() && !self.look()? {
                break;
            }
            self.look_at_agenda()?;
            for awaited in waiter::take_unseen() {
                self.book.want(awaited);
            }
            self.watch()?;
            self.staff()?;
            self.give_jobs()?;
            self.notify()?;
            // A transaction that waited for a lock may have taken in what woke us.
            let has_missed_nothing = life::transactions() == transactions;
            let nap = if has_missed_nothing { self.nap() } else { Duration::ZERO };
            let nap = life::report_statistics()?.map_or(nap, |left| nap.min(left));
            life::show_activity(None);
            if !life::rest(Some(nap))? {
                break;
            }
        }
        Ok(())
    }

    fn may_go_on(&mut self) -> Result<bool> {
        if life::reload()? {
            // It may say that this database is not served any more.
            (self.generation, self.next_look) = (None, Some(Instant::now()));
        }
        Ok(!self.database.is_held() && live_settings::max_workers() > 0)
    }

    fn must_look(&self) -> bool {
        let is_time = |at: Instant| at <= Instant::now();
        !self.database.is_asleep() && self.next_look.is_none()
            || self.look_at().is_some_and(is_time)
            || self.is_idle_time()
    }

    /// None: when somebody wakes it.
    fn look_at(&self) -> Option<Instant> {
        let is_for_projections = !waiter::is_horizon_awaited();
        self.next_look.map(|at| if is_for_projections { at.max(self.book.next_round()) } else { at })
    }

    fn is_idle_time(&self) -> bool {
        self.idle_in().is_zero()
    }

    /// How long until it looks without a reason.
    fn idle_in(&self) -> Duration {
        match self.failed_looks {
            0 => live_settings::idle_interval().saturating_sub(self.listed_at.elapsed()),
            // next_look says when.
            _ => LONGEST_FAILED_PAUSE,
        }
    }

    /// False where there is nothing to serve any more.
    fn look(&mut self) -> Result<bool> {
        // Before the look: what changes after it wakes us.
        self.database.falls_asleep();
        self.next_look = None;
        let is_idle_time = self.is_idle_time();
        let database = self.database;
        let known = if is_idle_time { None } else { self.generation };
        let seen = life::bounded("eventstream scheduler", LOOK_PATIENCE, || see(database, known))?;
        let seen = match seen {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(false),
            Err(_) => {
                self.generation = None;
                self.failed_looks += 1;
                let pause = backoff::pause(self.failed_looks, FAILED_PAUSE, LONGEST_FAILED_PAUSE);
                self.next_look = Some(Instant::now() + pause);
                return Ok(true);
            }
        };
        self.failed_looks = 0;
        let now = Instant::now();
        if let Some((entries, tenants)) = seen.entries {
            self.book.replace(&entries);
            self.tenants = tenants;
            self.generation = Some(seen.generation);
            self.listed_at = now;
            self.agenda.forget();
        }
        let have_moved = seen.horizons.have_moved(&self.horizons, self.tenants);
        self.upkeep.note_horizon(have_moved, seen.horizons.is_held());
        self.horizons = seen.horizons;
        if have_moved {
            self.database.is_up();
            self.next_look = Some(now + PACE);
        }
        waiter::wake_all(|awaited| match awaited {
            Awaited::Horizon(tenant_id) => self.horizons.of(tenant_id),
            Awaited::Projection(_) => i64::MIN,
        });
        if board::hall::should_give_a_slot() {
            self.team.give_a_slot();
        }
        Ok(true)
    }

    /// None: when somebody schedules a command. Not where looks fail.
    fn agenda_in(&self) -> Option<Duration> {
        let look_in = || self.agenda.look_in(self.database.due(), server::clock());
        (self.failed_looks == 0).then(look_in).flatten()
    }

    fn look_at_agenda(&mut self) -> Result<()> {
        if !self.agenda_in().is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        // Before the look: what is scheduled after it is told to the board.
        self.database.forget_due();
        let due = match life::bounded("eventstream scheduler", LOOK_PATIENCE, run::agenda)? {
            Ok(agenda) => self.agenda.replace(&agenda, server::clock()),
            Err(_) => self.agenda.look_failed(server::clock()),
        };
        self.database.lower_due(due);
        Ok(())
    }

    /// Health, and what holds the horizon for too long. What fails is told in the log, and tried again.
    fn watch(&mut self) -> Result<()> {
        if self.watch_in().is_some_and(|left| left.is_zero()) {
            self.upkeep.begin_watch();
            match life::bounded("eventstream scheduler could not look at health", WATCH_PATIENCE, watch::watch)? {
                Ok(changed) => self.alerts.extend(changed),
                Err(_) => self.upkeep.watch_failed(),
            }
        }
        Ok(())
    }

    /// In a transaction of its own: a full queue, or a session that holds it up, keeps back nothing but the notifications. What could not be
    /// told is told later.
    fn notify(&mut self) -> Result<()> {
        if !self.notify_in().is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        let (position, alerts) = (self.newest(), &self.alerts);
        let is_new = self.is_to_be_notified();
        let sent = life::bounded("eventstream scheduler could not notify", NOTIFY_PATIENCE, || {
            alerts.iter().try_for_each(|name| notify::send(ALERTS, name))?;
            if is_new { notify::send(CHANNEL, &position.to_string()) } else { Ok(()) }
        })?;
        self.notified_at = Instant::now();
        match sent {
            Ok(()) => {
                self.notified = self.horizons.clone();
                self.notify_failures = 0;
                self.alerts.clear();
            }
            Err(_) => self.notify_failures += 1,
        }
        Ok(())
    }

    /// Up to where at least one tenant is settled.
    fn newest(&self) -> i64 {
        self.horizons.highest(self.tenants)
    }

    fn is_to_be_notified(&self) -> bool {
        self.horizons.have_moved(&self.notified, self.tenants)
    }

    /// None: there is nothing to tell.
    fn notify_in(&self) -> Option<Duration> {
        let pause = match self.notify_failures {
            0 => NOTIFY_PACE,
            failures => backoff::pause(failures, FAILED_PAUSE, LONGEST_FAILED_PAUSE),
        };
        let is_something_new = self.is_to_be_notified() || !self.alerts.is_empty();
        is_something_new.then(|| pause.saturating_sub(self.notified_at.elapsed()))
    }

    /// None: what makes looks fail would make that fail, too.
    fn watch_in(&self) -> Option<Duration> {
        (self.failed_looks == 0).then(|| self.upkeep.watch_in(live_settings::idle_interval()))
    }

    /// None: as [`Self::watch_in`], or not before the horizon moves.
    fn maintain_in(&self) -> Option<Duration> {
        if self.failed_looks > 0 { None } else { self.upkeep.maintain_in(self.newest(), self.team.has_members()) }
    }

    fn staff(&mut self) -> Result<()> {
        // Upkeep wants one, also where there is no projection.
        let least = usize::from(self.team.has_members() || self.maintain_in().is_some_and(|left| left.is_zero()));
        let most = live_settings::max_workers();
        let wanted = (self.book.len() + self.agenda.wants()).max(least);
        let missing = self.team.size_to(most.min(wanted), most)?;
        self.database.set_missing(missing as u32);
        Ok(())
    }

    fn take_reports(&mut self) -> Result<()> {
        for (projection, ended) in self.team.take_reports()? {
            if let Some(tenant_id) = job::tenant_of(projection) {
                self.take_command_report(tenant_id, &ended)?;
                continue;
            }
            match ended {
                Ended::Done(done) if projection == job::MAINTAIN => self.upkeep.ended(Some(done)),
                _ if projection == job::MAINTAIN => self.upkeep.ended(None),
                Ended::Done(done) => self.note(projection, done),
                Ended::Overdue(_) => {
                    self.note_death(projection, "57014", "it ran on after eventstream.handler_timeout")?
                }
                Ended::Lost(_) if self.book.lost(projection) >= OFTEN => {
                    self.note_death(projection, "57P01", "its runner ended in the middle of it")?;
                }
                Ended::Lost(_) => {}
                Ended::Spared => self.book.spared(projection),
            }
        }
        Ok(())
    }

    fn take_command_report(&mut self, tenant_id: i64, ended: &Ended) -> Result<()> {
        let now = server::clock();
        let due = match *ended {
            Ended::Done(done) => self.agenda.ended(tenant_id, done, now),
            Ended::Spared => {
                self.agenda.spared(tenant_id);
                now
            }
            Ended::Overdue(command) => {
                self.agenda.spared(tenant_id);
                job::note_death_of_command(command, "57014", "it ran on after eventstream.handler_timeout")?;
                now
            }
            Ended::Lost(command) => {
                if self.agenda.lost(tenant_id, command) {
                    job::note_death_of_command(command, "57P01", "its runner ended in the middle of it")?;
                }
                now
            }
        };
        self.database.lower_due(due);
        Ok(())
    }

    fn note(&mut self, projection: i64, done: Done) {
        if let Done::Current { position } | Done::Behind { position } = done {
            waiter::wake(Awaited::Projection(projection), position);
        }
        if matches!(done, Done::Waiting { .. } | Done::Unnoted | Done::Off) {
            self.upkeep.note_failure();
        }
        if self.book.ended(projection, done) {
            self.generation = None;
        }
    }

    /// What the scheduler before this one did not come back from may be told as that work's failure.
    fn take_over(&mut self) -> Result<()> {
        let Some(lost) = alone::take_lost(self.database)? else { return Ok(()) };
        if lost.job == job::MAINTAIN {
            self.upkeep.ended(None);
        } else if let Some((sqlstate, message)) = alone::failure(&lost, OFTEN) {
            match job::tenant_of(lost.job) {
                Some(_) => job::note_death_of_command(lost.part, sqlstate, message)?,
                None => self.note_death(lost.job, sqlstate, message)?,
            }
        }
        Ok(())
    }

    /// In the place of the runner that cannot any more.
    fn note_death(&mut self, projection: i64, sqlstate: &str, message: &str) -> Result<()> {
        let message = format!("the batch was ended: {message}");
        let caught = Caught {
            sqlstate: sqlstate.into(),
            message,
            detail: None,
            constraint: None,
            column: None,
            is_of_event: false,
        };
        let done = job::note_failure(projection, &caught)?;
        self.note(projection, done);
        Ok(())
    }

    fn give_jobs(&mut self) -> Result<()> {
        let mut free = self.team.free();
        let all = self.team.len();
        // Commands first: they have a time. Where there is one runner alone, it takes turns.
        if all > 1 || !self.agenda.had_last_turn() {
            self.give_commands(&mut free, all);
        }
        let kept = if all > 1 && free.len() == 1 && self.agenda.keeps_one() { free.pop() } else { None };
        while let Some((projection, place)) = self.book.next(&self.horizons, Runners { all, free: &free }) {
            self.book.begun(projection, place, &self.horizons);
            self.team.give(place, projection);
            free.retain(|other| *other != place);
            self.agenda.others_have_turn();
        }
        self.give_commands(&mut free, all);
        let maintains = self.maintain_in().is_some_and(|left| left.is_zero());
        if let Some(place) = free.pop().or(kept).filter(|_| maintains) {
            self.upkeep.begun(self.newest());
            self.team.give(place, job::MAINTAIN);
        }
        // Where no runner can be had at all, the scheduler does the work.
        if self.team.is_out_of_reach() {
            if let Some(tenant_id) = self.agenda.next(1, 1) {
                self.agenda.begun(tenant_id);
                let done = alone::run(self.database, job::commands_of(tenant_id))?;
                self.take_command_report(tenant_id, &Ended::Done(done))?;
            }
            if let Some((projection, place)) = self.book.next(&self.horizons, Runners { all: 1, free: &[usize::MAX] }) {
                self.book.begun(projection, place, &self.horizons);
                let done = alone::run(self.database, projection)?;
                self.note(projection, done);
            } else if maintains {
                self.upkeep.begun(self.newest());
                self.upkeep.ended(Some(alone::run(self.database, job::MAINTAIN)?));
            }
        }
        Ok(())
    }

    /// As many runners as commands that are due may have.
    fn give_commands(&mut self, free: &mut Vec<usize>, all: usize) {
        let others = self.book.due_in(&self.horizons, Runners { all, free });
        let most = if others.is_some_and(|due| due.is_zero()) { all.div_ceil(2) } else { all };
        let more = if self.team.may_grow() { live_settings::max_workers().saturating_sub(all) } else { 0 };
        while let (Some(tenant_id), Some(&place)) = (self.agenda.next(most, free.len() + more), free.last()) {
            self.agenda.begun(tenant_id);
            self.team.give(place, job::commands_of(tenant_id));
            free.pop();
        }
    }

    fn nap(&mut self) -> Duration {
        let now = Instant::now();
        let mut nap = self.idle_in();
        if let Some(at) = self.look_at() {
            nap = nap.min(at.saturating_duration_since(now));
        }
        let (all, free) = (self.team.len(), self.team.free());
        if !free.is_empty() || self.team.is_out_of_reach() {
            let only_me = [usize::MAX];
            let free = if free.is_empty() { &only_me[..] } else { &free };
            let runners = Runners { all: all.max(1), free };
            nap = nap.min(self.book.due_in(&self.horizons, runners).unwrap_or(nap));
            nap = nap.min(self.maintain_in().unwrap_or(nap));
        } else if !self.team.has_members() {
            nap = nap.min(self.maintain_in().unwrap_or(nap));
        }
        nap = nap.min(self.agenda_in().unwrap_or(nap));
        nap = nap.min(self.watch_in().unwrap_or(nap));
        nap = nap.min(self.notify_in().unwrap_or(nap));
        if self.database.missing() > 0 {
            nap = nap.min(self.team.retry_in());
        }
        self.team.end_overdue(live_settings::handler_timeout()).map_or(nap, |left| nap.min(left))
    }
}
