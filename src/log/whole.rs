//! Whether a transaction's snapshot shows a stream whole. Above READ COMMITTED it shows what was committed before it and what the transaction
//! has appended itself; an append builds on what is committed by then, so events of others may lie hidden below its own. What is asked
//! of such a stream as of the snapshot is refused (40001): there was no moment of which it would be the answer.
//!
//! Only a transaction that has appended can meet this, and only where it keeps its snapshot: nobody else pays for the check.
use super::last_append;
use super::partition::{self, Partition};
use super::statements::{Statement, column};
use super::stream::{self, Stream};
use super::tags;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::Bound;
use crate::shared::catalog::Catalog;
use crate::shared::transaction::End;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use pgrx::pg_sys::Datum;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// What this transaction has appended.
struct Own {
    /// No event of its lies before this position.
    from: i64,
    /// Runs of versions that are its own, by stream: what was looked at once is not looked at again.
    runs: HashMap<i64, (i64, i64)>,
}

/// So many runs are remembered.
const MOST_RUNS: usize = 10_000;

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// This transaction has appended at these positions.
pub fn note(positions: &[i64]) {
    if let Some(&from) = positions.iter().min() {
        OWN.with_borrow_mut(|own| {
            own.get_or_insert_with(|| Own { from, runs: HashMap::new() });
        });
    }
}

/// Called at the end of a (sub)transaction that appended.
pub fn on_end(end: End) {
    last_append::on_end(end);
    tags::on_end(end);
    OWN.with_borrow_mut(|own| match (end, &mut *own) {
        (End::SubtransactionRolledBack(_), Some(own)) => own.runs.clear(),
        (End::SubtransactionRolledBack(_), None) => {}
        (End::Committed | End::RolledBack, own) => *own = None,
    });
}

/// Whether a stream may be torn in this view.
pub fn is_in_question(view: View) -> bool {
    view == View::Caller && server::keeps_its_snapshot() && OWN.with_borrow(Option::is_some)
}

/// Whether the snapshot shows any events of a stream, which was looked up as of now. Errors: 40001 where it does not show all that lie below
/// the newest of them.
pub fn is_shown(db: &Db, catalog: &Catalog, stream: &Stream, name: &str) -> Result<bool> {
    // Segments as of now: the snapshot may hide the one that an own event is in.
    let partitions = stream::newest_partitions(db, catalog, stream, View::Latest, usize::MAX)?;
    let Some(newest) = newest_up_to(db, &partitions, stream, i64::MAX)? else { return Ok(false) };
    let mut lowest = newest;
    while lowest.is_own {
        let known = OWN.with_borrow(|own| own.as_ref().and_then(|own| own.runs.get(&stream.id).copied()));
        if let Some((from, _)) = known.filter(|(from, to)| (*from..=*to).contains(&lowest.version)) {
            lowest.version = from;
        }
        if lowest.version == 1 {
            break;
        }
        let below = lowest.version - 1;
        match newest_up_to(db, &partitions, stream, below)?.filter(|shown| shown.version == below) {
            Some(shown) if shown.is_own => lowest = shown,
            Some(_) => break,
            None => return Err(Error::NotInSnapshot { stream: name.into(), version: below }.into()),
        }
    }
    if newest.is_own {
        remember(stream.id, (lowest.version, newest.version));
    }
    Ok(true)
}

fn remember(stream_id: i64, run: (i64, i64)) {
    OWN.with_borrow_mut(|own| {
        if let Some(own) = own {
            if own.runs.len() >= MOST_RUNS {
                own.runs.clear();
            }
            own.runs.insert(stream_id, run);
        }
    });
}

/// An event that the snapshot shows.
#[derive(Clone, Copy)]
struct Shown {
    version: i64,
    is_own: bool,
}

/// The newest one up to a version; `partitions`: the stream's, newest first.
fn newest_up_to(db: &Db, partitions: &[Rc<Partition>], stream: &Stream, version: i64) -> Result<Option<Shown>> {
    let bounds = [Bound::at_most(2, version)];
    let mut shown = None;
    for partition in partitions {
        partition.versions.newest_first(db, View::Caller, Datum::from(stream.id), &bounds, |row| {
            shown = Some(Shown { version: row.int8(column::VERSION)?, is_own: row.is_own()? });
            Ok(false)
        })?;
        if shown.is_some() {
            break;
        }
    }
    Ok(shown)
}

/// For what is asked of many streams at once, as of the snapshot. Errors: 40001 where it does not show whole what this transaction has
/// appended to, of the tenant's streams (None: of all).
pub fn must_be_shown(db: &Db, catalog: &Catalog, tenant_id: Option<i64>) -> Result<()> {
    if !is_in_question(View::Caller) {
        return Ok(());
    }
    let Some(from) = OWN.with_borrow(|own| own.as_ref().map(|own| own.from)) else { return Ok(()) };
    let mut ids = BTreeSet::new();
    for partition in partition::all(db, catalog)?.iter().filter(|partition| partition.upper > from) {
        let plan = partition.plan(Statement::StreamsFrom);
        ids.extend(plan.rows(db, View::Caller, 0, &[Some(Datum::from(from))], |row| row.int8(0))?);
    }
    for id in ids {
        let found = stream::page(db, View::Latest, id - 1, None, 1)?.pop();
        if let Some((stream, name, tenant)) = found.filter(|(stream, ..)| stream.id == id)
            && tenant_id.is_none_or(|wanted| wanted == tenant)
        {
            is_shown(db, catalog, &stream, &name)?;
        }
    }
    Ok(())
}

/// What to say of an event that is not there below others. Nothing is folded over such a gap, whoever made it.
pub fn gap(db: &Db, stream: &Stream, version: i64) -> Failure {
    let is_hidden = OWN.with_borrow(Option::is_some);
    match stream::page(db, View::Latest, stream.id - 1, None, 1).map(|mut found| found.pop()) {
        Err(failure) => failure,
        Ok(Some((_, name, _))) if is_hidden => Error::NotInSnapshot { stream: name, version }.into(),
        Ok(_) => {
            Error::Internal { what: format!("stream {} has no event at version {version}: run es_verify()", stream.id) }
                .into()
        }
    }
}

/// The stream, without locking it. Errors: 40001 where the view is the snapshot of a transaction that does not show it whole.
pub fn look_up(db: &Db, catalog: &Catalog, view: View, tenant_id: i64, name: &StreamName) -> Result<Option<Stream>> {
    if is_in_question(view)
        && let Some(stream) = stream::probe_name(db, catalog, View::Latest, tenant_id, name)?
    {
        return Ok(is_shown(db, catalog, &stream, name.as_str())?.then_some(stream));
    }
    stream::probe_name(db, catalog, view, tenant_id, name)
}
