//! A runner's job and its report, as they pass through a mailbox: what the numbers on the board mean. A job is a projection's id,
//! [`MAINTAIN`], or the commands of a tenant that are due ([`commands_of`]).
use crate::command::scheduled::run::{self, Step, Turn};
use crate::ops::watch;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::process::life;
use crate::pg::process::test_point::test_point;
use crate::projection::advance;
use crate::projection::outcome::Outcome;
use crate::projection::progress::Lock;
use crate::shared::board::runner::{self, Report};
use crate::shared::live_settings;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The job that is no projection: one step of upkeep.
pub const MAINTAIN: i64 = 0;

/// How long a runner keeps to one projection that is behind, or to the commands of one tenant, before it reports.
const TURN: Duration = Duration::from_millis(50);

/// How long the note of a failure may take, which the scheduler writes for a runner that died.
const NOTE_PATIENCE: Duration = Duration::from_secs(5);

/// The job that is the commands of that tenant.
pub const fn commands_of(tenant_id: i64) -> i64 {
    -tenant_id
}

/// The tenant whose commands the job is.
pub fn tenant_of(job: i64) -> Option<i64> {
    (job < MAINTAIN).then_some(-job)
}

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
    let done = match tenant_of(job) {
        Some(tenant_id) => command(tenant_id),
        None if job == MAINTAIN => maintain(),
        None => advance(job),
    };
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

/// Executes the commands of a tenant that are due, for a turn at most. The report has the time of the next one where the position would be; i64::MAX: there is none.
fn command(tenant_id: i64) -> Result<Done> {
    let began = Instant::now();
    life::show_activity(Some("scheduled commands"));
    let mut turn = Turn::new(tenant_id);
    loop {
        runner::note_part(0);
        // Each one has the whole time.
        runner::get_on();
        life::begin_timeout(live_settings::handler_timeout());
        let step = life::transaction("a scheduled command could not be executed", || turn.step())?;
        life::end_timeout();
        let rested = match step {
            Ok(Step::Ran) => None,
            Ok(Step::Rest { until }) => Some(Done::Current { position: until.unwrap_or(i64::MAX) }),
            Err(caught) => note_command_failure(runner::part(), |id| run::note_failure(id, &caught))?,
        };
        life::tidy_up()?;
        if let Some(done) = rested {
            return Ok(done);
        }
        if began.elapsed() >= TURN || life::must_stop() {
            return Ok(Done::Behind { position: 0 });
        }
    }
}

/// Notes by `note` what ended the transaction in which a command was executed; what to report where that is of no use, or fails.
fn note_command_failure(id: i64, note: impl FnOnce(i64) -> Result<()>) -> Result<Option<Done>> {
    if id == 0 {
        return Ok(Some(Done::Unnoted));
    }
    let noted = life::bounded("the failure of a scheduled command could not be noted", NOTE_PATIENCE, || note(id))?;
    Ok(noted.is_err().then_some(Done::Unnoted))
}

/// In the place of a runner that did not come back from that command.
pub fn note_death_of_command(id: i64, sqlstate: &str, message: &str) -> Result<()> {
    note_command_failure(id, |id| run::note_death(id, sqlstate, message)).map(drop)
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
