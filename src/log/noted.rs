//! Which events of this transaction invariants are to be shown: noted when they are appended, judged when the transaction commits (src/command/judged.rs), or, what a
//! projection's handler appends, before its subtransaction ends.
//!
//! ```text
//! an append that an invariant covers ─▶ positions noted ─┬─▶ BEFORE COMMIT, behind acts of administration: all of them judged
//!      a savepoint is rolled back ─▶ forgotten ──────────┴─▶ a handler's work is over: those of its subtransaction judged
//! ```
//! Promises: what is judged is what the transaction has appended and not rolled back, in the order of the log; what would come after the judgement is refused; a
//! transaction that no invariant covers pays nothing.
use super::partition;
use super::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::process::xact;
use crate::pg::query::plan::View;
use crate::pg::query::row::Row;
use crate::shared::catalog::Catalog;
use crate::shared::settings;
use crate::shared::transaction::{self, Due, End};
use eventstream_core::error::Error;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What one call, or several in a row, have appended to a stream.
struct Run {
    tenant_id: i64,
    stream: String,
    positions: Vec<i64>,
    /// So many events are noted before it.
    before: i64,
    done_in: u32,
    /// The table of events of the log that it is of: the transaction may drop that one, and make another.
    log: Oid,
}

impl Run {
    /// How many events are noted up to its end.
    fn up_to(&self) -> i64 {
        self.before + self.positions.len() as i64
    }
}

/// Events of a tenant.
#[derive(Default)]
pub struct Noted {
    pub tenant: String,
    pub streams: Vec<String>,
    /// In the order of the log: positions, and which of the streams each is of.
    pub places: Vec<(i64, usize)>,
}

/// What is to be judged, by the tenants' ids.
pub type ByTenant = BTreeMap<i64, Noted>;

type Judge = fn(&ByTenant) -> Result<()>;

static JUDGED_BY: OnceLock<Judge> = OnceLock::new();

/// Has that judge; once a process, from _PG_init.
pub fn init(judge: Judge) {
    JUDGED_BY.get_or_init(|| judge);
}

thread_local! {
    /// In the order of time: what was done in a subtransaction and in those that began after it is the end of it.
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
    /// The names of their tenants.
    static TENANTS: RefCell<BTreeMap<i64, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes events of a stream that an append has just written. Errors: ES007 where they are too many.
pub fn note(target: Target, stream: &str, positions: impl Iterator<Item = i64>) -> Result<()> {
    let (done_in, log) = (xact::current_subtransaction(), Catalog::current()?.events);
    transaction::call_last_before_commit(Due { before_commit: judge_all, on_end });
    TENANTS.with_borrow_mut(|tenants| {
        tenants.entry(target.id).or_insert_with(|| target.name.to_owned());
    });
    let count = RUNS.with_borrow_mut(|runs| {
        let goes_on =
            |run: &Run| (run.tenant_id, run.done_in, run.log) == (target.id, done_in, log) && run.stream == stream;
        if !runs.last().is_some_and(goes_on) {
            let (before, stream) = (runs.last().map_or(0, Run::up_to), stream.to_owned());
            runs.push(Run { tenant_id: target.id, stream, positions: Vec::new(), before, done_in, log });
        }
        runs.last_mut().map_or(0, |run| {
            run.positions.extend(positions);
            run.up_to()
        })
    });
    let limit = settings::max_invariant_events();
    if count > limit {
        return Err(Error::LimitExceeded {
            setting: "eventstream.max_invariant_events",
            limit,
            actual: Some(count),
            what: format!("this transaction has appended {count} events that are judged at its commit"),
        }
        .into());
    }
    Ok(())
}

/// Errors: 0A000 once the judgement was made: nobody would judge it.
pub fn must_be_in_time(stream: &str) -> Result<()> {
    if !transaction::is_committing() {
        return Ok(());
    }
    Err(Error::FeatureNotSupported {
        what: format!(
            "stream {} cannot be appended to while its transaction commits: its invariants have been judged",
            shown(stream)
        ),
        hint: Some("Append before the commit: a trigger that is deferred is early enough.".into()),
    }
    .into())
}

/// Errors: 0A000 where this transaction has appended what a tenant's invariants judge at its commit: whoever changes one before that would not be judged by it.
pub fn must_be_none(tenant_id: i64) -> Result<()> {
    if !RUNS.with_borrow(|runs| runs.iter().any(|run| run.tenant_id == tenant_id)) {
        return Ok(());
    }
    Err(Error::FeatureNotSupported {
        what: "an invariant cannot be replaced or unregistered in a transaction that has appended events which invariants judge at its commit".into(),
        hint: Some("Commit first, and change it in a transaction of its own.".into()),
    }
    .into())
}

/// Runs `work`, and judges what it has appended. To be called in the subtransaction that is to be rolled back where that breaks an invariant.
pub fn judged<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let since = xact::current_subtransaction();
    let made = work()?;
    judge(since)?;
    Ok(made)
}

fn judge_all() -> Result<()> {
    judge(0)
}

/// What was done in that subtransaction, and in those that began after it.
fn judge(since: u32) -> Result<()> {
    let Some(judge) = JUDGED_BY.get() else { return Ok(()) };
    if RUNS.with_borrow(|runs| runs.last().is_none_or(|run| run.done_in < since)) {
        return Ok(());
    }
    let log = Catalog::events_if_any()?;
    let mut due = ByTenant::new();
    RUNS.with_borrow(|runs| {
        let first = runs.partition_point(|run| run.done_in < since);
        for run in runs[first..].iter().filter(|run| Some(run.log) == log) {
            let noted = due.entry(run.tenant_id).or_default();
            let stream = noted.streams.len();
            noted.streams.push(run.stream.clone());
            noted.places.extend(run.positions.iter().map(|&position| (position, stream)));
        }
    });
    TENANTS.with_borrow(|tenants| {
        for (tenant_id, noted) in &mut due {
            noted.places.sort_unstable();
            noted.tenant = tenants.get(tenant_id).cloned().unwrap_or_default();
        }
    });
    judge(&due)
}

/// Gives the rows of these events, which are this transaction's own, to `each`, in the order of the log, with which of the streams each is of.
pub fn read(db: &Db, catalog: &Catalog, noted: &Noted, each: &mut dyn FnMut(usize, &Row) -> Result<()>) -> Result<()> {
    for partition in partition::all(db, catalog)?.iter() {
        let from = noted.places.partition_point(|&(position, _)| position < partition.lower);
        let to = noted.places.partition_point(|&(position, _)| position < partition.upper);
        for &(position, stream) in &noted.places[from..to] {
            partition.positions.in_order(db, View::Latest, Datum::from(position), &[], |row| {
                each(stream, row)?;
                Ok(false)
            })?;
        }
    }
    Ok(())
}

fn on_end(end: End) {
    RUNS.with_borrow_mut(|runs| match end {
        End::Committed | End::RolledBack => *runs = Vec::new(),
        End::SubtransactionRolledBack(this) => {
            runs.retain(|run| run.done_in < this);
            if runs.is_empty() {
                transaction::nothing_last();
            }
        }
    });
    if !matches!(end, End::SubtransactionRolledBack(_)) {
        TENANTS.set(BTreeMap::new());
    }
}
