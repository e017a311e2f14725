//! A runner's job and its report, as they pass through a mailbox: what the numbers on the board mean. A job is a projection's id, or
//! [`MAINTAIN`].
use crate::ops::watch;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::process::life;
use crate::pg::process::test_point::test_point;
use crate::projection::advance;
use crate::projection::outcome::Outcome;
use crate::projection::progress::Lock;
use crate::shared::board::runner::Report;
use crate::shared::live_settings;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The job that is no projection: one step of upkeep.
pub const MAINTAIN: i64 = 0;

/// How long a runner keeps to one projection that is behind before it reports.
const TURN: Duration = Duration::from_millis(50);

/// How long the note of a failure may take, which the scheduler writes for a runner that died.
const NOTE_PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// The projection whose last turn ended before it was current.
    static BEHIND: Cell<Option<i64>> = const { Cell::new(None) };
}

/// What became of a projection that was advanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is at that position, and has seen what there was.
    Current { position: i64 },
    /// It is at that position, and there is more.
    Behind { position: i64 },
    /// Somebody else advances it.
    Busy,
    /// It failed, and is tried again then (microseconds since 2000-01-01 UTC).
    Waiting { until: i64 },
    /// It failed, and that could not even be noted.
    Unnoted,
    /// It is not to be advanced.
    Off,
}

impl From<Outcome> for Done {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Idle { position } | Outcome::Advanced { position, is_behind: false, .. } => {
                Self::Current { position }
            }
            Outcome::Advanced { position, is_behind: true, .. } => Self::Behind { position },
            Outcome::Busy => Self::Busy,
            Outcome::Waiting { until } => Self::Waiting { until },
            Outcome::Stopped | Outcome::Gone => Self::Off,
        }
    }
}

impl From<Done> for Report {
    fn from(done: Done) -> Self {
        let (kind, number) = match done {
            Done::Current { position } => (0, position),
            Done::Behind { position } => (1, position),
            Done::Busy => (2, 0),
            Done::Waiting { until } => (3, until),
            Done::Unnoted => (4, 0),
            Done::Off => (5, 0),
        };
        Self { kind, number }
    }
}

impl From<Report> for Done {
    fn from(Report { kind, number }: Report) -> Self {
        match kind {
            0 => Self::Current { position: number },
            1 => Self::Behind { position: number },
            2 => Self::Busy,
            3 => Self::Waiting { until: number },
            4 => Self::Unnoted,
            _ => Self::Off,
        }
    }
}

pub fn run(job: i64) -> Result<Done> {
    let done = if job == MAINTAIN { maintain() } else { advance(job) };
    life::show_activity(None);
    done
}

/// Whether there is more to do tells whether it is behind.
fn maintain() -> Result<Done> {
    life::show_activity(Some("maintenance"));
    life::begin_timeout(live_settings::handler_timeout());
    let more = life::transaction("upkeep failed", watch::maintain)?;
    life::end_timeout();
    life::tidy_up()?;
    Ok(match more {
        Ok(true) => Done::Behind { position: 0 },
        Ok(false) => Done::Current { position: 0 },
        Err(_) => Done::Off,
    })
}

/// Advances the projection batch by batch while it is behind, for a turn at most. It is gentle until it turns out that it is far behind.
fn advance(projection: i64) -> Result<Done> {
    let began = Instant::now();
    life::show_activity(Some(&format!("projection {projection}")));
    let what = format!("projection {projection} could not be advanced");
    life::work_gently(BEHIND.take() != Some(projection));
    loop {
        life::begin_timeout(live_settings::handler_timeout());
        let outcome = life::transaction(&what, || {
            let outcome = advance::advance(projection, Lock::Skip, false);
            test_point("noted");
            outcome
        })?;
        test_point("committed");
        life::end_timeout();
        let done = match outcome {
            Ok(outcome) => outcome.into(),
            Err(caught) => note_failure(projection, &caught)?,
        };
        life::tidy_up()?;
        life::work_gently(false);
        if !matches!(done, Done::Behind { .. }) {
            return Ok(done);
        }
        if began.elapsed() >= TURN || life::must_stop() {
            BEHIND.set(Some(projection));
            return Ok(done);
        }
    }
}

/// Notes what ended the transaction of a batch, in one of its own.
pub fn note_failure(projection: i64, caught: &Caught) -> Result<Done> {
    let what = format!("the failure of projection {projection} could not be noted");
    let noted = life::bounded(&what, NOTE_PATIENCE, || {
        let outcome = advance::note_failure(projection, caught);
        test_point("failure noted");
        outcome
    })?;
    Ok(noted.map_or(Done::Unnoted, Done::from))
}
