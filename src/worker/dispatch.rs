//! What the scheduler knows of each projection, and which one is next. Knows nothing of processes; it may be wrong about any projection, and is
//! put right by the next report.
//!
//! ```text
//! current ──(its tenant's horizon moves, or somebody waits for it)──▶ behind ──(its pause is over, a runner is free)──▶ running ──(report)──▶ current, behind
//!                                                                                          └─(the runner died, or was taken away)──▶ behind
//! failed: as behind, but not before its retry.
//! ```
//! Runners are shared fairly between tenants: the tenant that has fewest of them comes first, of those with as few the one whose last turn began
//! longest ago, and up to half of the runners stay free for tenants that have none. So handlers that take their time keep back nobody but their own
//! tenant, and where there is one runner alone another tenant waits for one turn, however many projections that tenant has.
//! They are advanced in rounds: one begins when a horizon has moved, some time after the one before, and takes each of them to its tenant's horizon
//! that it began with, one after another. What somebody waits for comes at once, and what is far behind need not wait for a round.
use super::job::Done;
use crate::log::horizon::Horizons;
use crate::pg::process::server;
use crate::projection::schedule::Entry;
use eventstream_core::backoff;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long after a round the next one begins at the earliest, so that a burst is one batch; later where several projections move, so that
/// they leave the processors to those who append.
const PACE: Duration = Duration::from_millis(2);
const PACE_FOR_EACH_OTHER: Duration = Duration::from_millis(4);
const LONGEST_PACE: Duration = Duration::from_millis(20);
/// One that had something to do within this time moves.
const MOVING: Duration = Duration::from_secs(1);
/// One that somebody else advances, or that says that there is nothing to do although it is listed.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
const OFF_PAUSE: Duration = Duration::from_secs(1);
/// One whose runner died: at once for the first time, then after growing pauses. One whose failure could not be noted: after these pauses.
const LOST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_LOST_PAUSE: Duration = Duration::from_secs(60);

struct Known {
    tenant_id: i64,
    position: i64,
    /// Microseconds since 2000-01-01 UTC.
    retry_at: Option<i64>,
    not_before: Instant,
    /// Since when it waits for a runner.
    ready_since: Option<Instant>,
    /// Its tenant's horizon when it was dispatched, and when that was.
    running: Option<(i64, Instant)>,
    /// The runner that had it last, and keeps states of its.
    last_place: Option<usize>,
    /// When it last had something to do.
    moved_at: Option<Instant>,
    is_wanted: bool,
    is_rebuilding: bool,
    times_lost: u32,
    times_unnoted: u32,
}

impl Known {
    /// Behind what it is to be taken to.
    fn is_behind(&self, goal: &Horizons) -> bool {
        self.running.is_none() && (self.is_rebuilding || self.position < goal.of(self.tenant_id))
    }

    fn is_ready(&self, goal: &Horizons, now: Instant, clock: i64) -> bool {
        let is_due = self.not_before <= now && self.retry_at.is_none_or(|retry_at| retry_at <= clock);
        self.is_wanted && self.running.is_none() || self.is_behind(goal) && is_due
    }
}

/// The runners there are, and those of them that are free.
#[derive(Clone, Copy)]
pub struct Runners<'a> {
    pub all: usize,
    pub free: &'a [usize],
}

/// How many runners each tenant that has projections has now.
struct Shares {
    busy: HashMap<i64, usize>,
    /// Tenants without one.
    idle: usize,
}

impl Shares {
    fn busy(&self, tenant_id: i64) -> usize {
        self.busy.get(&tenant_id).copied().unwrap_or(0)
    }

    /// Whether the tenant may have one more: its first one always; another one while enough are left for tenants that have none.
    fn may_have_more(&self, tenant_id: i64, runners: Runners) -> bool {
        self.busy(tenant_id) == 0 || runners.free.len() > self.idle.min(runners.all / 2)
    }
}

/// The projections of a database.
pub struct Book {
    known: HashMap<i64, Known>,
    /// When each tenant was last given a runner.
    turns: HashMap<i64, Instant>,
    /// The horizons that the round takes them to.
    goal: Horizons,
    /// When the round began, how long it takes at least, and among how many that time is shared out.
    started: Instant,
    pace: Duration,
    moving: u32,
}

impl Book {
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            turns: HashMap::new(),
            goal: Horizons::default(),
            started: Instant::now(),
            pace: Duration::ZERO,
            moving: 1,
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes over what the database says of them.
    pub fn replace(&mut self, entries: &[Entry]) {
        let now = Instant::now();
        self.known.retain(|id, known| known.running.is_some() || entries.iter().any(|entry| entry.id == *id));
        self.turns.retain(|tenant_id, _| entries.iter().any(|entry| entry.tenant_id == *tenant_id));
        for entry in entries {
            let known = self.known.entry(entry.id).or_insert_with(|| Known {
                tenant_id: entry.tenant_id,
                position: entry.position,
                retry_at: entry.retry_at,
                not_before: now,
                ready_since: None,
                running: None,
                last_place: None,
                moved_at: None,
                is_wanted: false,
                is_rebuilding: entry.is_rebuilding,
                times_lost: 0,
                times_unnoted: 0,
            });
            if known.running.is_none() {
                known.position = entry.position;
                known.retry_at = entry.retry_at;
                known.is_rebuilding = entry.is_rebuilding;
            } else if entry.is_rebuilding {
                // The rebuild may have begun behind the runner's last look, which then says that there is nothing to do.
                known.is_wanted = true;
            }
        }
    }

    /// Dispatches that projection once even if it seems current.
    pub fn want(&mut self, id: i64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.is_wanted = true;
        }
    }

    fn shares(&self) -> Shares {
        let mut busy: HashMap<i64, usize> = HashMap::new();
        for known in self.known.values() {
            *busy.entry(known.tenant_id).or_default() += usize::from(known.running.is_some());
        }
        let idle = busy.values().filter(|&&count| count == 0).count();
        Shares { busy, idle }
    }

    /// Of the tenant that has fewest runners, and had its turn longest ago, the projection that waited longest for one of the free ones, and the runner that had it last,
    /// or else any.
    pub fn next(&mut self, horizons: &Horizons, runners: Runners) -> Option<(i64, usize)> {
        let (now, clock) = (Instant::now(), server::clock());
        if self.has_new_goal(horizons) && self.next_round() <= now {
            self.begin_round(horizons, now);
        }
        for known in self.known.values_mut() {
            if !known.is_ready(&self.goal, now, clock) {
                known.ready_since = None;
            } else if known.ready_since.is_none() {
                known.ready_since = Some(now);
            }
        }
        let free = runners.free;
        let first_free = *free.first()?;
        let is_alone = self.room_at() <= now;
        let shares = self.shares();
        let ready = self.known.iter().filter(|(_, known)| known.ready_since.is_some() && (is_alone || known.is_wanted));
        let may_run = ready.filter(|(_, known)| shares.may_have_more(known.tenant_id, runners));
        let turn = |known: &Known| (shares.busy(known.tenant_id), self.turns.get(&known.tenant_id));
        let (id, known) = may_run.min_by_key(|(id, known)| (turn(known), known.ready_since, **id))?;
        let theirs = |place: &usize| self.known.values().any(|known| known.last_place == Some(*place));
        let place = known
            .last_place
            .filter(|place| free.contains(place))
            .or_else(|| free.iter().copied().find(|place| !theirs(place)))
            .unwrap_or(first_free);
        Some((*id, place))
    }

    /// When the next one may be dispatched: when the one before has ended, or in its part of the round, so that those whose turns are short
    /// do not take all processors at once, and a long one holds up nobody.
    fn room_at(&self) -> Instant {
        let begun = self.known.values().filter_map(|known| known.running).map(|(_, since)| since).max();
        begun.map_or(self.started, |since| since + self.pace / self.moving)
    }

    pub fn begun(&mut self, id: i64, place: usize, horizons: &Horizons) {
        if let Some(known) = self.known.get_mut(&id) {
            let now = Instant::now();
            known.running = Some((horizons.of(known.tenant_id), now));
            self.turns.insert(known.tenant_id, now);
            known.last_place = Some(place);
            known.ready_since = None;
            known.is_wanted = false;
        }
    }

    /// Whether the list of projections should be looked at again.
    pub fn ended(&mut self, id: i64, done: Done) -> bool {
        let now = Instant::now();
        let Some(known) = self.known.get_mut(&id) else { return true };
        let Some((horizon, since)) = known.running.take() else { return true };
        known.times_lost = 0;
        known.times_unnoted = if done == Done::Unnoted { known.times_unnoted + 1 } else { 0 };
        known.retry_at = None;
        known.not_before = now;
        match done {
            Done::Current { position } => {
                if position > known.position {
                    known.moved_at = Some(now);
                }
                known.position = position.max(horizon);
                known.is_rebuilding = false;
                known.not_before = now + (now - since).min(LONGEST_PACE);
            }
            Done::Behind { position } => {
                known.moved_at = Some(now);
                known.position = position;
                // More to do, whatever the checkpoint says: the rows of a rebuild lie before it.
                known.is_rebuilding = true;
            }
            Done::Busy => known.not_before = now + BUSY_PAUSE,
            Done::Waiting { until } => known.retry_at = Some(until),
            Done::Unnoted => {
                known.not_before = now + backoff::pause(known.times_unnoted, LOST_PAUSE, LONGEST_LOST_PAUSE);
            }
            Done::Off => known.not_before = now + OFF_PAUSE,
        }
        done == Done::Off
    }

    /// Whether a round would take one of them further.
    fn has_new_goal(&self, horizons: &Horizons) -> bool {
        self.known.values().any(|known| horizons.of(known.tenant_id) > self.goal.of(known.tenant_id))
    }

    fn begin_round(&mut self, horizons: &Horizons, now: Instant) {
        let moves = |known: &&Known| known.moved_at.is_some_and(|at| now - at < MOVING);
        self.moving = self.known.values().filter(moves).count().max(1) as u32;
        self.pace = PACE.max(PACE_FOR_EACH_OTHER * (self.moving - 1)).min(LONGEST_PACE);
        (self.goal, self.started) = (horizons.clone(), now);
    }

    /// When a new horizon is of use to them.
    pub fn next_round(&self) -> Instant {
        self.started + self.pace
    }

    /// Its runner was taken away, which says nothing of it.
    pub fn spared(&mut self, id: i64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.running = None;
            known.last_place = None;
            known.not_before = Instant::now();
        }
    }

    /// Its runner died. How often in a row that happened.
    pub fn lost(&mut self, id: i64) -> u32 {
        self.spared(id);
        let Some(known) = self.known.get_mut(&id) else { return 0 };
        if known.times_lost > 0 {
            known.not_before += backoff::pause(known.times_lost, LOST_PAUSE, LONGEST_LOST_PAUSE);
        }
        known.times_lost += 1;
        known.times_lost
    }

    /// How long until a projection may be dispatched; None: nothing is due.
    pub fn due_in(&self, horizons: &Horizons, runners: Runners) -> Option<Duration> {
        let (now, clock) = (Instant::now(), server::clock());
        let room_in = self.room_at().saturating_duration_since(now);
        let shares = self.shares();
        // What may not have a runner now is due when another one's turn ends.
        let behind = self.known.values().filter(|known| known.is_behind(&self.goal));
        let behind = behind.filter(|known| shares.may_have_more(known.tenant_id, runners));
        let due = behind.map(|known| {
            let retry = known.retry_at.map_or(0, |retry_at| retry_at.saturating_sub(clock).max(0));
            let pause = known.not_before.saturating_duration_since(now);
            pause.max(Duration::from_micros(retry.unsigned_abs())).max(room_in)
        });
        let round = self.has_new_goal(horizons).then(|| self.next_round().saturating_duration_since(now));
        due.chain(round).min()
    }
}
