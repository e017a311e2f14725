//! A scheduled command that is not wanted any more.
use crate::log::dead_letters;
use crate::log::gate;
use crate::log::target::Target;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::shared::session::as_owner;
use crate::shared::{transaction, trial};
use eventstream_core::command::key::check_key;
use eventstream_core::command::scheduled::Stage;
use eventstream_core::name::check_text;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID, TEXTARRAYOID, TEXTOID};
use std::cell::Cell;

/// The longest reason, in bytes.
const MOST_REASON_BYTES: usize = 1024;

thread_local! {
    /// The command that is being executed; 0: none is.
    static AT_WORK: Cell<i64> = const { Cell::new(0) };
    static CATEGORIES: Plan = const { Plan::new(
        "select category, finished_at is null from _eventstream.scheduled_commands \
         where tenant_id = $1 and command_key = $2 and ($3 is null or category = any ($3)) order by category",
        &[INT8OID, TEXTOID, TEXTARRAYOID],
    ) };
    static UNSCHEDULE: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = 'unscheduled', finished_at = clock_timestamp(), due_at = null, payload = null, metadata = null, reason = $4 \
         where tenant_id = $1 and command_key = $2 and category = $3 and finished_at is null and id <> $5 returning id",
        &[INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID],
    ) };
    static UNSCHEDULE_ALL: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = 'unscheduled', finished_at = clock_timestamp(), due_at = null, payload = null, metadata = null, reason = $2 \
         where id = any (array(select id from _eventstream.scheduled_commands where tenant_id = $1 and finished_at is null for update skip locked)) \
         returning id",
        &[INT8OID, TEXTOID],
    ) };
    static WITHDRAW: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = 'unscheduled', finished_at = clock_timestamp(), due_at = null, payload = null, metadata = null, reason = $2 where id = $1",
        &[INT8OID, TEXTOID],
    ) };
    static STAGE: Plan = const { Plan::new(
        "select stage from _eventstream.scheduled_commands where tenant_id = $1 and command_key = $2 and category = $3",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
}

/// Until this is dropped, the command with that id is being executed: it does not take itself back.
pub struct AtWork(i64);

impl AtWork {
    pub fn begin(id: i64) -> Self {
        Self(AT_WORK.replace(id))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.set(self.0);
    }
}

/// The scheduled command that this session is executing; 0: none.
pub fn at_work() -> i64 {
    AT_WORK.get()
}

/// Whose key is not wanted any more, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unwanted<'a> {
    pub key: &'a str,
    pub category: &'a str,
    pub reason: &'a str,
}

/// Errors: ES005.
pub fn check_reason(reason: &str) -> Result<&str> {
    Ok(check_text("reason", reason, MOST_REASON_BYTES)?)
}

/// The category in which the key is scheduled, of those `allowed` (None: all); None: in none. Errors: ES005 where it could be one of several.
pub fn category_of(target: Target, key: &str, allowed: Option<&[String]>) -> Result<Option<String>> {
    let row = [
        Some(Datum::from(target.id)),
        Some(from_text(&trial::key(check_key(key)?))?),
        allowed.map(text_array_of).transpose()?,
    ];
    let mut found = as_owner(Planning::ByIndex, |db, _| {
        CATEGORIES
            .with(|plan| plan.rows(db, View::Latest, 0, &row, |row| Ok((row.text(0)?.to_owned(), row.boolean(1)?))))
    })?;
    if found.iter().any(|(_, may_run)| *may_run) {
        // What is over needs nobody to say so.
        found.retain(|(_, may_run)| *may_run);
    }
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().take(10).map(|(category, _)| category.as_str()).collect();
        let reason = format!("must be given: the key {} is scheduled in {}", shown(key), names.join(", "));
        return Err(invalid("category", reason));
    }
    Ok(found.pop().map(|(category, _)| category))
}

/// None of the tenant's is wanted any more, but for those that somebody has in hand: they are waited for by nobody who has the tenant's gate.
pub fn unschedule_all(target: Target, reason: &str) -> Result<()> {
    as_owner(Planning::ByIndex, |db, _| {
        transaction::note_append();
        let key = [Some(Datum::from(target.id)), Some(from_text(reason)?)];
        let unscheduled = UNSCHEDULE_ALL.with(|plan| plan.rows(db, View::Write, 0, &key, |row| row.int8(0)))?;
        unscheduled.into_iter().try_for_each(|id| dead_letters::forget_command(db, id))
    })
}

/// That one is not, whose row this transaction has taken: somebody had it in hand when the tenant was closed.
pub fn withdraw(id: i64, reason: &str) -> Result<()> {
    as_owner(Planning::ByIndex, |db, _| {
        transaction::note_append();
        WITHDRAW.with(|plan| plan.write(db, &[Some(Datum::from(id)), Some(from_text(reason)?)]))?;
        dead_letters::forget_command(db, id)
    })
}

impl Unwanted<'_> {
    /// The stage of the command from now on; None: there is none of that key. Waits for who else unschedules it, or has sent its key,
    /// and not for a runner, which undoes what it has executed in vain: who unschedules one has often locked a stream before that it appends to.
    pub fn unschedule(&self, target: Target) -> Result<Option<String>> {
        server::must_be_writable(c"es_unschedule_command")?;
        // A closing takes back what is pending, and passes by what somebody has in hand.
        gate::enter(target.id)?;
        let key =
            [Some(Datum::from(target.id)), Some(from_text(&trial::key(self.key))?), Some(from_text(self.category)?)];
        let at_work = Some(Datum::from(at_work()));
        let row: [Nullable; 5] = [key[0], key[1], key[2], Some(from_text(self.reason)?), at_work];
        as_owner(Planning::ByIndex, |db, _| {
            // Said to be undone, it is not done after a crash.
            transaction::note_append();
            if let Some(id) = UNSCHEDULE.with(|plan| plan.first(db, View::Write, &row, |row| row.int8(0)))? {
                dead_letters::forget_command(db, id)?;
                return Ok(Some(Stage::Unscheduled.as_str().to_owned()));
            }
            STAGE.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(row.text(0)?.to_owned())))
        })
    }
}
