//! Which tenants have commands that are due, and how many runners work on them. Knows nothing of processes; it may be wrong, and is put right by the next look.
//!
//! ```text
//! (the board says that something is due) ─▶ a look ─▶ due ──(a free runner)──▶ running ──(report)──▶ the board is told when the next one is
//! ```
//! Each tenant that has something due gets a runner before any gets a second one; one that has much gets more, but half of all that there are where projections wait:
//! they have the others. A runner that dies is at one command, and one that many die of has failed.
use super::job::Done;
use crate::command::scheduled::run::Agenda as OfTenant;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How soon after a look the next one comes.
const PACE: Duration = Duration::from_millis(2);
/// How many commands that are due are one runner's.
const SHARE: usize = 8;
/// A command whose runners die so often in a row has failed.
const OFTEN: u32 = 3;
/// How soon one looks again while some are due: who is at one may be at it for long (µs).
const LATE_PAUSE: i64 = 100_000;
/// After how long what could not be noted, or looked up, is tried again (µs).
const FAILED_PAUSE: i64 = 1_000_000;

/// Of a tenant.
#[derive(Default)]
struct Lanes {
    wanted: usize,
    running: usize,
}

pub struct Agenda {
    lanes: BTreeMap<i64, Lanes>,
    /// When each tenant was last given a runner.
    turns: HashMap<i64, Instant>,
    looked_at: Option<Instant>,
    /// Whether there is any that may still run.
    is_any: bool,
    /// It was given a runner, and nobody else since.
    had_last_turn: bool,
    /// How often the runner of a command has died.
    lost: HashMap<i64, u32>,
}

impl Agenda {
    pub fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            turns: HashMap::new(),
            looked_at: None,
            is_any: false,
            had_last_turn: false,
            lost: HashMap::new(),
        }
    }

    /// Everything is to be looked up again.
    pub fn forget(&mut self) {
        self.looked_at = None;
    }

    /// How long until the next look, where the board says that something is due at `due`.
    pub fn look_in(&self, due: i64, clock: i64) -> Option<Duration> {
        let Some(looked_at) = self.looked_at else { return Some(Duration::ZERO) };
        let pace = PACE.saturating_sub(looked_at.elapsed());
        (due < i64::MAX).then(|| Duration::from_micros(due.saturating_sub(clock).max(0).unsigned_abs()).max(pace))
    }

    /// Takes over what the database says at `clock`; when to look again.
    pub fn replace(&mut self, agenda: &[OfTenant], clock: i64) -> i64 {
        self.looked_at = Some(Instant::now());
        self.is_any = !agenda.is_empty();
        self.lanes.retain(|_, lanes| {
            lanes.wanted = 0;
            lanes.running > 0
        });
        self.turns.retain(|tenant_id, _| agenda.iter().any(|of| of.tenant_id == *tenant_id));
        for OfTenant { tenant_id, due, .. } in agenda.iter().filter(|of| of.due > 0) {
            let lanes = self.lanes.entry(*tenant_id).or_default();
            // Each that runs is at one of them.
            lanes.wanted = due.saturating_sub(lanes.running).div_ceil(SHARE);
        }
        let late = agenda.iter().any(|of| of.due > 0).then(|| clock.saturating_add(LATE_PAUSE));
        agenda.iter().filter_map(|of| of.next).chain(late).min().unwrap_or(i64::MAX)
    }

    /// What cannot be looked up now: when it is to be tried again.
    pub fn look_failed(&mut self, clock: i64) -> i64 {
        self.looked_at = Some(Instant::now());
        clock.saturating_add(FAILED_PAUSE)
    }

    fn running(&self) -> usize {
        self.lanes.values().map(|lanes| lanes.running).sum()
    }

    /// Runners that it has or could use.
    pub fn wants(&self) -> usize {
        self.lanes.values().map(|lanes| lanes.running + lanes.wanted).sum()
    }

    /// Whether a runner is to be kept from projections: what is due later finds one.
    pub fn keeps_one(&self) -> bool {
        self.is_any && self.running() == 0
    }

    /// The tenant that gets a runner now, if one may, of so many that they all may have together, and of those that are `free` or may be started: of those that have fewest the one that had its turn longest
    /// ago. The last that is free is nobody's second one: what a tenant has may run for long, and others come.
    pub fn next(&self, most: usize, free: usize) -> Option<i64> {
        if self.running() >= most.max(1) {
            return None;
        }
        let wanting = self.lanes.iter().filter(|(_, lanes)| lanes.wanted > 0 && (lanes.running == 0 || free > 1));
        let turn = |(tenant_id, lanes): &(&i64, &Lanes)| (lanes.running, self.turns.get(tenant_id));
        wanting.min_by_key(turn).map(|(tenant_id, _)| *tenant_id)
    }

    pub fn begun(&mut self, tenant_id: i64) {
        let lanes = self.lanes.entry(tenant_id).or_default();
        lanes.wanted = lanes.wanted.saturating_sub(1);
        lanes.running += 1;
        self.turns.insert(tenant_id, Instant::now());
        self.had_last_turn = true;
    }

    pub fn had_last_turn(&self) -> bool {
        self.had_last_turn
    }

    /// A projection was given a runner.
    pub fn others_have_turn(&mut self) {
        self.had_last_turn = false;
    }

    /// A runner's turn is over. When the board is to say that something is due.
    pub fn ended(&mut self, tenant_id: i64, done: Done, clock: i64) -> i64 {
        self.spared(tenant_id);
        match done {
            Done::Current { position } => position,
            Done::Unnoted => clock.saturating_add(FAILED_PAUSE),
            _ => clock,
        }
    }

    /// Its runner is gone.
    pub fn spared(&mut self, tenant_id: i64) {
        if let Some(lanes) = self.lanes.get_mut(&tenant_id) {
            lanes.running = lanes.running.saturating_sub(1);
        }
    }

    /// Its runner died at that command (0: at none). Whether that is the command's failure by now.
    pub fn lost(&mut self, tenant_id: i64, command: i64) -> bool {
        self.spared(tenant_id);
        if command == 0 {
            return false;
        }
        let times = self.lost.entry(command).or_default();
        *times += 1;
        let is_often = *times >= OFTEN;
        if is_often {
            self.lost.remove(&command);
        }
        is_often
    }
}
