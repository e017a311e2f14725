//! When the scheduler looks at health and long appends (`ops::watch`), and when a runner makes partitions and takes snapshots
//! (`ops::maintain`). Knows nothing of processes.
//!
//! ```text
//! watch:    the horizon moved, or is held back, or a projection failed ─▶ once a second; else with every idle look
//! maintain: rest ──(the horizon moved: 5 s; else, where there is a runner: a minute)──▶ due ──▶ running ──(report)──▶ rest, or due: there is more
//! ```
use super::job::Done;
use std::time::{Duration, Instant};

const WATCH_PACE: Duration = Duration::from_secs(1);
const MAINTAIN_PACE: Duration = Duration::from_secs(5);
/// What nothing but the clock makes due: snapshots that are old enough to go.
const MAINTAIN_IDLE: Duration = Duration::from_secs(60);
const FAILED_PAUSE: Duration = Duration::from_secs(10);

pub struct Upkeep {
    watched_at: Option<Instant>,
    /// The horizon moved, or a projection failed, since then.
    has_moved: bool,
    /// An open append holds it.
    is_held: bool,
    rested_since: Instant,
    pause: Duration,
    maintained_to: i64,
    is_running: bool,
}

impl Upkeep {
    pub fn new() -> Self {
        Self {
            watched_at: None,
            has_moved: true,
            is_held: false,
            rested_since: Instant::now(),
            pause: MAINTAIN_PACE,
            maintained_to: 0,
            is_running: false,
        }
    }

    pub fn note_horizon(&mut self, has_moved: bool, is_held: bool) {
        self.has_moved |= has_moved;
        self.is_held = is_held;
    }

    /// A projection failed.
    pub fn note_failure(&mut self) {
        self.has_moved = true;
    }

    pub fn begin_watch(&mut self) {
        self.watched_at = Some(Instant::now());
        self.has_moved = false;
    }

    /// What it waited for may last: not before the next idle look.
    pub fn watch_failed(&mut self) {
        self.has_moved = false;
        self.is_held = false;
    }

    /// `idle`: the longest time without.
    pub fn watch_in(&self, idle: Duration) -> Duration {
        let pace = if self.has_moved || self.is_held { WATCH_PACE } else { idle };
        self.watched_at.map_or(Duration::ZERO, |at| pace.saturating_sub(at.elapsed()))
    }

    /// None: not before the horizon moves.
    pub fn maintain_in(&self, horizon: i64, has_runner: bool) -> Option<Duration> {
        let pause = match (horizon > self.maintained_to, has_runner) {
            (true, _) => self.pause,
            (false, true) => self.pause.max(MAINTAIN_IDLE),
            (false, false) => return None,
        };
        (!self.is_running).then(|| pause.saturating_sub(self.rested_since.elapsed()))
    }

    pub fn begun(&mut self, horizon: i64) {
        self.is_running = true;
        self.maintained_to = horizon;
    }

    /// None: its runner died.
    pub fn ended(&mut self, done: Option<Done>) {
        self.is_running = false;
        self.rested_since = Instant::now();
        self.pause = match done {
            Some(Done::Behind { .. }) => Duration::ZERO,
            Some(Done::Current { .. }) => MAINTAIN_PACE,
            _ => FAILED_PAUSE,
        };
        if !matches!(done, Some(Done::Current { .. })) {
            // There is something to do whatever the horizon does.
            self.maintained_to = 0;
        }
    }
}
