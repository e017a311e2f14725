//! Commands for later that were not executed at their time, or not at all.
use super::check::{Check, Level, Writing, seconds};
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::shared::live_settings;
use crate::shared::session::as_owner;
use eventstream_core::{counted, shown};
use pgrx::pg_sys::{Datum, INT8OID, TIMESTAMPTZOID};

columns! {
    mod of, selected;
    TENANT = "t.name",
    PENDING = "s.pending",
    LATE = "s.late",
    FIRST = "s.first",
    OLDEST = "s.command_key",
    SQLSTATE = "s.error_sqlstate",
    DEAD = "(select count(*) from _eventstream.dead_letters d where d.tenant_id = t.id and d.scheduled_id is not null)",
}

thread_local! {
    // Of those that may still run, by their index; a tenant's dead ones by its dead letters.
    static STANDING: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from _eventstream.tenants t cross join lateral ( \
             select count(*) as pending, count(*) filter (where run_at <= $2) as late, min(run_at) as first, \
                    (array_agg(command_key order by run_at))[1] as command_key, (array_agg(error_sqlstate order by run_at))[1] as error_sqlstate \
             from (select run_at, command_key, error_sqlstate from _eventstream.scheduled_commands \
                   where tenant_id = t.id and finished_at is null and due_at is not null order by due_at, id limit $3) next) s \
             where $1 is null or t.id = $1 order by t.name collate \"C\""
        ),
        &[INT8OID, TIMESTAMPTZOID, INT8OID],
    ) };
}

/// How many of a tenant's commands are looked at: those that are due first.
const MOST: i64 = 1_000;

/// The commands of a tenant.
pub struct Scheduled {
    pub tenant: String,
    /// At most [`MOST`].
    pub pending: i64,
    /// Their time was longer ago than eventstream.lag_threshold.
    pub late: i64,
    /// For how long the oldest of those whose time has come has waited.
    pub late_seconds: f64,
    pub dead: i64,
    /// Key and last error of the oldest.
    oldest: Option<(String, Option<String>)>,
}

/// Of a tenant, or (None) of every one.
pub fn standing(tenant_id: Option<i64>) -> Result<Vec<Scheduled>> {
    let now = server::clock();
    let limit = live_settings::lag_threshold().map(|limit| limit.as_micros() as i64);
    let late = limit.map_or(i64::MIN, |limit| now.saturating_sub(limit));
    let arguments = [tenant_id.map(Datum::from), Some(Datum::from(late)), Some(Datum::from(MOST))];
    as_owner(Planning::ByIndex, |db, _| {
        STANDING.with(|standing| {
            standing.rows(db, View::Latest, 0, &arguments, |row| {
                let error = row.text_opt(of::SQLSTATE)?.map(ToOwned::to_owned);
                Ok(Scheduled {
                    tenant: row.text(of::TENANT)?.to_owned(),
                    pending: row.int8(of::PENDING)?,
                    late: row.int8(of::LATE)?,
                    late_seconds: row
                        .int8_opt(of::FIRST)
                        .map_or(0.0, |first| now.saturating_sub(first).max(0) as f64 / 1e6),
                    dead: row.int8(of::DEAD)?,
                    oldest: row.text_opt(of::OLDEST)?.map(|key| (key.to_owned(), error)),
                })
            })
        })
    })
}

/// A row for each tenant that has some that are late, and one for each that has dead ones.
pub fn checks(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let all = standing(tenant_id)?;
    let late = all.iter().filter(|scheduled| scheduled.late > 0).map(|scheduled| late(scheduled, writing));
    let dead = all.iter().filter(|scheduled| scheduled.dead > 0).map(|scheduled| dead(scheduled, writing));
    Ok(late.chain(dead).collect())
}

fn late(scheduled: &Scheduled, writing: &Writing) -> Check {
    let commands = counted(scheduled.late, "command", "commands");
    let oldest = scheduled.oldest.as_ref().map_or_else(String::new, |(key, error)| {
        let failed = error.as_ref().map_or_else(String::new, |sqlstate| format!(", which failed with {sqlstate}"));
        format!("; the oldest: key {}{failed}", shown(key))
    });
    let detail = format!(
        "{commands} scheduled for more than eventstream.lag_threshold ago were not executed yet, the first for {}{oldest}. What fails is tried again by itself; else look at \
         the checks workers and activation, and at eventstream.max_workers",
        seconds(scheduled.late_seconds)
    );
    let fix = format!(
        "{}select command_key, stream, command_type, run_at, due_at, attempts, error_sqlstate, error_message from eventstream.scheduled_commands \
         where stage = 'pending' and run_at < now() order by run_at;",
        writing.choice(Some(&scheduled.tenant))
    );
    Check::bad("scheduled commands", Level::Warning, "late", detail, fix).of(&scheduled.tenant)
}

fn dead(scheduled: &Scheduled, writing: &Writing) -> Check {
    let commands = counted(scheduled.dead, "scheduled command", "scheduled commands");
    let detail = format!(
        "{commands} could not be executed and went to the dead letters: mend the cause, then try again, or give up with es_drop_dead_letter(id, reason)"
    );
    let fix = format!(
        "{}select {}es_retry_dead_letter(id) from eventstream.dead_letters where command_key is not null order by id;",
        writing.choice(Some(&scheduled.tenant)),
        writing.schema()
    );
    Check::bad("dead letters of scheduled commands", Level::Critical, "dead letters", detail, fix).of(&scheduled.tenant)
}
