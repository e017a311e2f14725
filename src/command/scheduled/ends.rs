//! What becomes of a scheduled command's row after an attempt.
use crate::command::covered;
use crate::log::dead_letters::{self, Cause};
use crate::pg::error::failure::{Caught, Result, shortened};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::pg::{error::report, process::life};
use crate::shared::counters::{self, Counter};
use crate::shared::live_settings;
use crate::shared::session::as_owner;
use crate::shared::transaction;
use eventstream_core::command::scheduled::{Next, Patience, Stage};
use eventstream_core::{counted, shown};
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID};

thread_local! {
    static TAKE: Plan = const { Plan::new(
        "select id from _eventstream.scheduled_commands where id = $1 and stage = 'pending' for update skip locked",
        &[INT8OID],
    ) };
    static FINISH: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = $2, attempts = $3, error_sqlstate = $4, error_message = $5, error_detail = $6, finished_at = clock_timestamp(), due_at = null, \
             payload = null, metadata = null \
         where id = $1",
        &[INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static WITHHOLD: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands set error_message = $2, error_detail = null where tenant_id = $1 and error_message is not null",
        &[INT8OID, TEXTOID],
    ) };
    static FAIL: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = $2, attempts = $3, error_sqlstate = $4, error_message = $5, error_detail = $6, due_at = $7 \
         where id = $1",
        &[INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID],
    ) };
}

/// What was said of a tenant's commands that failed is not told any more, and `instead` is.
pub fn withhold(db: &Db, tenant_id: i64, instead: &str) -> Result<()> {
    WITHHOLD.with(|plan| plan.write(db, &[Some(Datum::from(tenant_id)), Some(from_text(instead)?)])).map(drop)
}

/// Which command was tried, and the how manieth time.
pub struct Tried<'a> {
    pub id: i64,
    pub tenant_id: i64,
    pub key: &'a str,
    pub stream: &'a str,
    pub command_type: &'a str,
    /// This one included.
    pub attempts: i32,
}

/// Locks the row of a command that is to be executed yet. False where it is not, or somebody has it in hand: nobody waits with what a command has locked.
pub fn take(id: i64) -> Result<bool> {
    let taken = as_owner(Planning::ByIndex, |db, _| {
        TAKE.with(|plan| plan.first(db, View::Write, &[Some(Datum::from(id))], |_| Ok(())))
    })?;
    Ok(taken.is_some())
}

/// It was executed.
pub fn done(tried: &Tried) -> Result<()> {
    counters::add(Counter::ScheduledDone, 1);
    as_owner(Planning::ByIndex, |db, _| finish(db, tried, Stage::Done, None))
}

/// It came to nothing: what that means for it. `is_hopeless`: it is not worth another attempt.
pub fn failed(tried: &Tried, caught: &Caught, is_hopeless: bool) -> Result<()> {
    // Whatever was raised may repeat what was asked.
    let withheld = covered::has_secrets(tried.tenant_id, tried.command_type)?.then(|| Caught {
        message: covered::WITHHELD.into(),
        detail: None,
        ..caught.clone()
    });
    let caught = withheld.as_ref().unwrap_or(caught);
    let patience = Patience {
        retries: live_settings::command_retries(),
        first: live_settings::retry_pause(),
        longest: live_settings::max_retry_pause(),
    };
    let next = match patience.after(tried.id, tried.attempts.unsigned_abs(), &caught.sqlstate) {
        Next::Again(_) if is_hopeless => Next::Dead,
        next => next,
    };
    as_owner(Planning::ByIndex, |db, _| match next {
        Next::Refused => {
            counters::add(Counter::ScheduledRefused, 1);
            finish(db, tried, Stage::Refused, Some(caught))
        }
        Next::Again(pause) => {
            let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX / 4);
            fail(db, tried, caught, Stage::Pending, Some(server::clock().saturating_add(pause)))
        }
        Next::Dead => {
            fail(db, tried, caught, Stage::Dead, None)?;
            let reason =
                format!("failed {}: {}", counted(tried.attempts.into(), "time", "times"), shortened(&caught.message));
            let cause = Cause {
                attempts: tried.attempts,
                reason: &reason,
                sqlstate: Some(&caught.sqlstate),
                detail: caught.detail.as_deref(),
                outline: None,
            };
            dead_letters::put_command(db, tried.tenant_id, tried.id, tried.stream, &cause)
        }
    })
}

/// Whoever sees that it is over must find it so after a crash, too.
fn finish(db: &Db, tried: &Tried, stage: Stage, caught: Option<&Caught>) -> Result<()> {
    transaction::note_append();
    let [id, attempts, sqlstate, message, detail] = of(tried, caught)?;
    let row = [id, Some(from_text(stage.as_str())?), attempts, sqlstate, message, detail];
    FINISH.with(|plan| plan.write(db, &row)).map(drop)
}

fn fail(db: &Db, tried: &Tried, caught: &Caught, stage: Stage, due_at: Option<i64>) -> Result<()> {
    counters::add(Counter::ScheduledFailed, 1);
    transaction::note_append();
    tell(tried, caught, stage)?;
    let [id, attempts, sqlstate, message, detail] = of(tried, Some(caught))?;
    let row = [id, Some(from_text(stage.as_str())?), attempts, sqlstate, message, detail, due_at.map(Datum::from)];
    FAIL.with(|plan| plan.write(db, &row)).map(drop)
}

/// The id, and what there is to say of the attempt.
fn of(tried: &Tried, caught: Option<&Caught>) -> Result<[Nullable; 5]> {
    Ok([
        Some(Datum::from(tried.id)),
        Some(Datum::from(tried.attempts)),
        caught.map(|caught| from_text(&caught.sqlstate)).transpose()?,
        caught.map(|caught| from_text(shortened(&caught.message))).transpose()?,
        caught.and_then(|caught| caught.detail.as_deref()).map(|detail| from_text(shortened(detail))).transpose()?,
    ])
}

/// A line in the server's log.
fn tell(tried: &Tried, caught: &Caught, stage: Stage) -> Result<()> {
    let Tried { tenant_id, key, stream, command_type, attempts, .. } = tried;
    let is_hushed = covered::is_hushed(*tenant_id, command_type)?;
    let said = if is_hushed { covered::WITHHELD } else { shortened(&caught.message) };
    let then = if stage == Stage::Dead { ", and is a dead letter now" } else { "" };
    let message = format!(
        "eventstream{}: scheduled command {} with the key {} for stream {} fails in attempt {attempts}{then}: {}",
        life::in_database(),
        shown(command_type),
        shown(key),
        shown(stream),
        said
    );
    let detail = serde_json::json!({
        "command_key": key, "stream": stream, "command_type": command_type, "attempts": attempts, "sqlstate": caught.sqlstate,
    });
    report::failure(&caught.sqlstate, &message, &detail)
}
