//! What the scheduler does for operators each time it looks around: transactions that hold the horizon for too long are dealt with as
//! eventstream.on_long_append says, and changes of health are told. To be called in a transaction, outside of `as_owner`.
use super::health;
use super::health::check::{Check, Level};
pub use super::maintain::maintain;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::{
    error::report,
    process::{life, server},
};
use crate::shared::live_settings::{OnLongAppend, max_append_transaction, on_long_append};
use crate::shared::open_appends::{self, Held};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT4OID};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// An open transaction: its process, and since when it appends.
type Transaction = (i32, i64);

/// A check: tenant and name.
type Name = (Option<String>, String);

thread_local! {
    static IS_BUSY: Plan = const { Plan::new(
        "select state is null or state in ('active', 'fastpath function call') from pg_stat_activity where pid = $1",
        &[INT4OID],
    ) };
    /// The steps that were taken against transactions that are still open.
    static TAKEN: RefCell<HashSet<(Transaction, Step)>> = RefCell::default();
    /// What was told last of each check that was not ok.
    static TOLD: RefCell<HashMap<Name, (Level, &'static str)>> = RefCell::default();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Log,
    Cancel,
    Terminate,
}

/// One look around. What kinds of checks changed, for NOTIFY, to which any role may listen, of whatever tenant: it is the caller's, because a notification that cannot be sent must
/// not undo what was seen.
pub fn watch() -> Result<Vec<String>> {
    look_at_long_appends()?;
    tell_changes(&health::look(None)?)
}

fn look_at_long_appends() -> Result<()> {
    let held = open_appends::holders();
    TAKEN.with_borrow_mut(|taken| {
        taken.retain(|((pid, since), _)| held.iter().any(|held| held.pid == *pid && held.since == *since));
    });
    let Some(limit) = max_append_transaction() else { return Ok(()) };
    let now = server::clock();
    for held in held {
        let open_for = now - held.since;
        if open_for > limit.as_micros() as i64 {
            deal_with(&held, open_for)?;
        }
    }
    Ok(())
}

fn is_new(held: &Held, step: Step) -> bool {
    TAKEN.with_borrow_mut(|taken| taken.insert(((held.pid, held.since), step)))
}

fn deal_with(held: &Held, open_for: i64) -> Result<()> {
    let who = || -> Result<String> {
        let at = held.position.map_or_else(String::new, |position| format!(" at position {position}"));
        Ok(format!(
            "eventstream{}: the transaction of process {} has appended, is open since {} ({:.1} s) and holds the horizon{at}",
            life::in_database(),
            held.pid,
            server::print_time_utc(held.since)?,
            open_for as f64 / 1e6
        ))
    };
    if is_new(held, Step::Log) {
        report::warning(&who()?)?;
    }
    match on_long_append() {
        OnLongAppend::Log => Ok(()),
        OnLongAppend::Cancel => {
            let pid = [Some(Datum::from(held.pid))];
            let is_busy = as_owner(Planning::ByIndex, |db, _| {
                IS_BUSY.with(|plan| plan.first(db, View::Latest, &pid, |row| row.boolean(0)))
            })?;
            if is_busy == Some(true) && is_new(held, Step::Cancel) && open_appends::cancel(held)? {
                report::warning(&format!("{}: its statement is cancelled", who()?))?;
            }
            Ok(())
        }
        OnLongAppend::Terminate => {
            if is_new(held, Step::Terminate) && open_appends::terminate(held)? {
                report::warning(&format!("{}: its session is terminated", who()?))?;
            }
            Ok(())
        }
    }
}

/// A WARNING in the server's log for each check that is no longer as it was told last; their kinds.
fn tell_changes(checks: &[Check]) -> Result<Vec<String>> {
    let mut told = TOLD.take();
    let mut changed: Vec<String> = Vec::new();
    let mut now_bad = HashMap::new();
    for check in checks.iter().filter(|check| check.level > Level::Ok) {
        let name = (check.tenant.clone(), check.name.clone());
        let state = (check.level, check.problem);
        if told.remove(&name) != Some(state) {
            let fix = check.fix.as_deref().map_or_else(String::new, |fix| format!("; to mend it: {fix}"));
            let (here, level) = (life::in_database(), check.level.as_str());
            report::warning(&format!("eventstream{here}: {} is {level}: {}{fix}", of(&name), check.detail))?;
            changed.push(kind(&check.name));
        }
        now_bad.insert(name, state);
    }
    // What is left was bad, and is ok or gone.
    for name in told.into_keys() {
        report::log(&format!("eventstream{}: {} is ok again", life::in_database(), of(&name)))?;
        changed.push(kind(&name.1));
    }
    TOLD.set(now_bad);
    changed.sort();
    changed.dedup();
    Ok(changed)
}

/// Kinds of checks that have two words.
const OF_TWO_WORDS: [&str; 9] = [
    "command keys",
    "damaged snapshots",
    "dead letters",
    "event types",
    "protected fields",
    "protected tables",
    "refused tokens",
    "scheduled commands",
    "token role",
];

/// A check's name without that of what it is about.
fn kind(name: &str) -> String {
    let first = || name.split(' ').next().unwrap_or_default();
    OF_TWO_WORDS.into_iter().find(|kind| name.starts_with(kind)).unwrap_or_else(first).to_owned()
}

fn of((tenant, name): &Name) -> String {
    match tenant {
        Some(tenant) => format!("{name} (tenant {tenant})"),
        None => name.clone(),
    }
}
