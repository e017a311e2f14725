//! The state of a stream at a moment: which events count, where to start (the initial state, a snapshot, the cache), and the fold
//! of the rest. Promise: the answer is the one that folding every event that counts from the first on would give; where
//! to start only decides how soon it comes.
//!
//! A state at version S can be started from when every event up to S counts and, in the order of valid time, none that comes
//! after S occurred before any of them.
use super::cache;
use super::folding::{AfterEach, Folding};
use super::folds::Fold;
use super::kept::{Answer, From};
use super::moment::{Moment, Selection};
use super::snapshot;
use super::walk::Walk;
use crate::log::behind_lock::Known;
use crate::log::scan::{Late, Opened};
use crate::log::stream::Stream;
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::List;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::word::Order;
use std::rc::Rc;
use std::time::{Duration, Instant};

struct Start {
    from: From,
    version: i64,
    state: Rc<Stored>,
    snapshot_problems: Vec<String>,
    took: Duration,
}

impl Start {
    fn new(from: From, version: i64, state: Rc<Stored>) -> Self {
        Self { from, version, state, snapshot_problems: Vec::new(), took: Duration::ZERO }
    }
}

/// The state of a stream, by name; None where there is none. `view`: [`View::Caller`], or [`View::Latest`] behind its lock.
pub fn by_name(folding: &mut Folding, name: &StreamName, moment: Moment, view: View) -> Result<Option<Answer>> {
    let tenant_id = folding.target.id;
    let open = |db: &Db, catalog: &Catalog| {
        let found = whole::look_up(db, catalog, view, tenant_id, name)?;
        found.map(|found| Opened::open(db, catalog, found, view)).transpose()
    };
    of_opened(folding, name.as_str(), moment, view, open)
}

/// The state of a stream that was looked up.
pub fn of_stream(folding: &mut Folding, name: &str, stream: Stream, moment: Moment, view: View) -> Result<Answer> {
    let open = |db: &Db, catalog: &Catalog| Opened::open(db, catalog, stream, view).map(Some);
    must_be_there(of_opened(folding, name, moment, view, open)?)
}

/// The state, as of now, of a stream that this transaction has locked.
pub fn of_locked(folding: &mut Folding, name: &str, known: &Known) -> Result<Answer> {
    let open = |db: &Db, catalog: &Catalog| Opened::locked(db, catalog, known).map(Some);
    must_be_there(of_opened(folding, name, Moment::NOW, View::Latest, open)?)
}

fn must_be_there(answer: Option<Answer>) -> Result<Answer> {
    answer.ok_or_else(|| Error::Internal { what: "a stream was not opened".into() }.into())
}

/// The state of the stream that `open` opens in that view; None where it opens none.
fn of_opened(
    folding: &mut Folding,
    name: &str,
    moment: Moment,
    view: View,
    open: impl FnOnce(&Db, &Catalog) -> Result<Option<Opened>>,
) -> Result<Option<Answer>> {
    let of = snapshot::Of { target: folding.target, stream: name, fold: folding.fold };
    let began = Instant::now();
    let prepared = as_owner(Planning::ByIndex, |db, catalog| {
        let Some(opened) = open(db, catalog)? else { return Ok(None) };
        let selection = Selection::of(db, &opened, moment)?;
        let (mut start, lates) = start(db, catalog, of, &opened, &selection, view)?;
        start.took = began.elapsed();
        Ok(Some(Prepared { opened, selection, start, lates }))
    })?;
    prepared.map(|prepared| prepared.answer(folding, name, moment)).transpose()
}

/// What counts, and where to start.
struct Prepared {
    opened: Opened,
    selection: Selection,
    start: Start,
    lates: List<Late>,
}

impl Prepared {
    fn answer(self, folding: &mut Folding, name: &str, moment: Moment) -> Result<Answer> {
        let Self { opened, selection, start, lates } = self;
        let answer = go_on(folding, name, &opened, selection, start, lates, None)?;
        if moment == Moment::NOW && answer.may_be_kept && (answer.folded > 0 || answer.from == From::Snapshot) {
            let (version, chain_hash) = (opened.head.version, opened.head.chain_hash);
            let fingerprint = folding.fold.fingerprint;
            let state = Rc::clone(&answer.state);
            let entry = cache::Entry { version, chain_hash, fingerprint, state, is_settled: false };
            cache::put(opened.stream.id, &folding.fold.name, entry);
        }
        Ok(answer)
    }
}

/// The state made of the events selected, of a stream that is open.
pub fn of_selection(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    view: View,
) -> Result<Answer> {
    let (fold, target) = (folding.fold, folding.target);
    let (start, lates) = as_owner(Planning::ByIndex, |db, catalog| {
        let of = snapshot::Of { target, stream: name, fold };
        start(db, catalog, of, opened, &selection, view)
    })?;
    go_on(folding, name, opened, selection, start, lates, None)
}

/// Folds every event that counts, from the first on.
pub fn from_first_event(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    after_each: Option<AfterEach>,
) -> Result<Answer> {
    let lates = as_owner(Planning::ByIndex, |db, _| lates_to_fold(db, folding.fold, opened, &selection, 0))?;
    let start = initial(folding.fold)?;
    go_on(folding, name, opened, selection, start, lates, after_each)
}

/// Folds every event that counts, trusting no snapshot and nothing that is kept: at most a state that the caller folded so before,
/// with its version, which is gone on from where nothing later belongs before it.
pub fn refold(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    before: Option<(i64, Rc<Stored>)>,
) -> Result<Answer> {
    let (start, lates) = as_owner(Planning::ByIndex, |db, _| {
        if let Some((version, state)) = before
            && let Some(event) = opened.head_at(db, version)?
        {
            let lates = lates_to_fold(db, folding.fold, opened, &selection, version)?;
            if earliest_before(folding.fold, &lates, event.max_occurred_at).is_none() {
                return Ok((Start::new(From::InitialState, version, state), lates));
            }
        }
        Ok((initial(folding.fold)?, lates_to_fold(db, folding.fold, opened, &selection, 0)?))
    })?;
    go_on(folding, name, opened, selection, start, lates, None)
}

fn go_on(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    start: Start,
    lates: List<Late>,
    after_each: Option<AfterEach>,
) -> Result<Answer> {
    let began = Instant::now();
    let newest_late = lates.iter().map(|late| late.version).max().unwrap_or(0);
    let mut walk = Walk::new(folding.fold.order, start.version, selection.prefix, List::of(lates.iter().copied())?);
    folding.take_skipped();
    let (state, folded) = if walk.is_done() {
        (start.state, 0)
    } else {
        let (state, folded) = folding.run(name, opened, &start.state, &mut walk, after_each)?;
        (Rc::new(state), folded)
    };
    Ok(Answer {
        state,
        may_be_kept: !folding.take_skipped(),
        version: selection.prefix.max(newest_late),
        head_version: opened.head.version,
        selection,
        from: start.from,
        from_version: start.version,
        folded,
        lates,
        snapshot_problems: start.snapshot_problems,
        looked_up_in: start.took,
        folded_in: began.elapsed(),
    })
}

fn initial(fold: &Fold) -> Result<Start> {
    Ok(Start::new(From::InitialState, 0, Rc::clone(&fold.initial_state)))
}

/// The late events that have to be folded when folding starts after `version`.
fn lates_to_fold(db: &Db, fold: &Fold, opened: &Opened, selection: &Selection, version: i64) -> Result<List<Late>> {
    match fold.order {
        // Those in the prefix are folded as they come.
        Order::Version => selection.lates_after(db, opened, selection.prefix),
        Order::OccurredAt => selection.lates_after(db, opened, version),
    }
}

/// The newest state that can be started from, and the late events that are to be folded after it.
fn start(
    db: &Db,
    catalog: &Catalog,
    of: snapshot::Of,
    opened: &Opened,
    selection: &Selection,
    view: View,
) -> Result<(Start, List<Late>)> {
    let fold = of.fold;
    let mut best: Option<(Start, List<Late>)> = None;
    if let Some((start, max_occurred_at)) = cached(db, fold, opened, selection)? {
        let lates = lates_to_fold(db, fold, opened, selection, start.version)?;
        if earliest_before(fold, &lates, max_occurred_at).is_none() {
            best = Some((start, lates));
        }
    }
    let mut problems = Vec::new();
    let reached = best.as_ref().map_or(0, |(start, _)| start.version);
    // Only a snapshot that saves more than an automatic one would is worth looking for.
    if selection.prefix - reached > fold.snapshot_every.min(MOST_WITHOUT_SNAPSHOT) {
        let mut up_to = selection.prefix;
        while let Some(found) = snapshot::newest_up_to(db, catalog, of, opened, view, up_to, &mut problems)? {
            if found.version <= reached {
                break;
            }
            let lates = lates_to_fold(db, fold, opened, selection, found.version)?;
            let Some(before) = earliest_before(fold, &lates, found.max_occurred_at) else {
                counters::add(Counter::SnapshotHits, 1);
                let mut start = Start::new(From::Snapshot, found.version, Rc::new(found.state));
                start.snapshot_problems = problems;
                return Ok((start, lates));
            };
            // A late event belongs before it: go back to where everything occurred no later than that event.
            up_to = (found.version - 1).min(opened.until(db, found.version - 1, before)?);
        }
        counters::add(Counter::SnapshotMisses, 1);
    }
    let (mut start, lates) = match best {
        Some(best) => best,
        None => (initial(fold)?, lates_to_fold(db, fold, opened, selection, 0)?),
    };
    start.snapshot_problems = problems;
    Ok((start, lates))
}

/// So many events are folded as soon as a snapshot is found.
const MOST_WITHOUT_SNAPSHOT: i64 = 50;

/// The earliest occurred_at among the late events that belong before a state whose newest event occurred at `max_occurred_at`.
fn earliest_before(fold: &Fold, lates: &[Late], max_occurred_at: i64) -> Option<i64> {
    match fold.order {
        Order::Version => None,
        Order::OccurredAt => {
            lates.iter().map(|late| late.occurred_at).filter(|&occurred_at| occurred_at < max_occurred_at).min()
        }
    }
}

/// The state that the backend keeps, if this view of the stream has the event it was made at, and it counts.
fn cached(db: &Db, fold: &Fold, opened: &Opened, selection: &Selection) -> Result<Option<(Start, i64)>> {
    let entry =
        cache::get(opened.stream.id, &fold.name, &fold.fingerprint).filter(|entry| entry.version <= selection.prefix);
    if let Some(entry) = entry
        && let Some(event) = opened.head_at(db, entry.version)?
        && event.chain_hash == entry.chain_hash
    {
        counters::add(Counter::CacheHits, 1);
        let start = Start::new(From::Cache, entry.version, entry.state);
        return Ok(Some((start, event.max_occurred_at)));
    }
    counters::add(Counter::CacheMisses, 1);
    Ok(None)
}
