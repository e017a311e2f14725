//! What a scheduler sees to beside projections: it watches the database for its operators, and has upkeep done.
//!
//! ```text
//! watch: once a second while something moves, else every idle_interval
//! upkeep: due ──(a free runner, or no projections at all)──▶ under way ─┬─(there is more)──▶ due
//!   ▲                                                                   └─(done, or failed)──▶ resting
//!   └──(idle_interval is over)────────────────────────────────────────────────────────────────────┘
//! ```
use crate::live::watch;
use crate::pg::failure::Result;
use crate::pg::{live_settings, process};
use std::time::{Duration, Instant};

/// The job of a runner that is to do upkeep: no projection has this id.
pub const UPKEEP: i64 = 0;

const WATCH_PACE: Duration = Duration::from_secs(1);

pub struct Upkeep {
    watched_at: Instant,
    has_moved: bool,
    /// None: it is under way.
    next: Option<Instant>,
}

impl Upkeep {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { watched_at: now, has_moved: true, next: Some(now) }
    }

    /// Something has changed that a look at the database's health might tell.
    pub fn note_move(&mut self) {
        self.has_moved = true;
    }

    fn watch_in(&self) -> Duration {
        let pace = if self.has_moved { WATCH_PACE } else { live_settings::idle_interval() };
        pace.saturating_sub(self.watched_at.elapsed())
    }

    /// Watches, where it is time. What fails is told in the log.
    pub fn watch(&mut self) -> Result<()> {
        if self.watch_in().is_zero() {
            self.watched_at = Instant::now();
            self.has_moved = false;
            let _ = process::transaction("eventstream could not look after its operators", watch::watch)?;
        }
        Ok(())
    }

    pub fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= Instant::now())
    }

    pub fn begun(&mut self) {
        self.next = None;
    }

    pub fn ended(&mut self, has_more: bool) {
        let pause = if has_more { Duration::ZERO } else { live_settings::idle_interval() };
        self.next = Some(Instant::now() + pause);
    }

    /// How long until there is something to do. `can_begin`: there is somebody for the upkeep.
    pub fn nap(&self, can_begin: bool) -> Duration {
        let upkeep = self.next.filter(|_| can_begin).map(|next| next.saturating_duration_since(Instant::now()));
        upkeep.map_or(self.watch_in(), |upkeep| upkeep.min(self.watch_in()))
    }
}

/// One step, in a transaction of its own; whether there is more to do. What fails is told in the log.
pub fn step() -> Result<bool> {
    process::show_activity(Some("upkeep"));
    process::begin_timeout(live_settings::handler_timeout());
    let done = process::transaction("upkeep failed", watch::maintain)?;
    process::end_timeout();
    process::tidy_up()?;
    process::show_activity(None);
    Ok(done.unwrap_or(false))
}
