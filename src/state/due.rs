//! es_maintain's share in snapshots: takes those that are due (at versions that are multiples of the fold's snapshot_every), and
//! removes those that need not stay. Promises: one call does a bounded amount of work, takes up where the last one ended, waits
//! for nobody, and a stream or fold that fails stops no other.
//!
//! ```text
//! fold's row locked? ── no ──▶ next fold (somebody else is at it, or is registering it)
//!    │ yes
//!    ▼
//! events of its category after the noted position, in the order of the log ─ version % snapshot_every = 0 ─▶ fold, store
//!    │                                                     (its definition has changed: from the first position again)
//!    ▼
//! a page of stored snapshots after the noted stream ─▶ retention ─▶ position and stream noted
//! ```
use super::answer;
use super::folding::Folding;
use super::folds::{self, Fold};
use super::moment::Moment;
use super::retention::{self, Retention, Streams};
use super::snapshot;
use crate::log::places::{self, Place};
use crate::log::target::Target;
use crate::log::{horizon, stream};
use crate::pg::error::failure::{Caught, Result};
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{from_text, varlena};
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use crate::shared::settings;
use eventstream_core::hash::{Hash, fingerprint};
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID, TEXTOID};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub taken: i64,
    /// Streams and folds that failed; each was the subject of a WARNING.
    pub failed: i64,
    pub removed: i64,
    /// Whether another call would find something to do at once.
    pub has_more: bool,
}

/// After so long no other step is begun; one step is one snapshot, or one page of events.
const ENOUGH: Duration = Duration::from_millis(700);
/// The most events looked at, and snapshots taken, a fold and call.
const MOST_EVENTS: i64 = 100_000;
const MOST_SNAPSHOTS: i64 = 1_000;
/// Streams of one fold that fail before its turn ends.
const MOST_FAILURES: usize = 3;
/// Events looked at, and snapshots reviewed, at once.
const PAGE: i64 = 10_000;

thread_local! {
    // Those that waited longest come first, so that none starves where the time is short.
    static LIST: Plan = const { Plan::new(
        "select f.tenant_id, t.name, f.name from _eventstream.folds f \
         join _eventstream.tenants t on t.id = f.tenant_id \
         left join _eventstream.snapshot_progress p on p.tenant_id = f.tenant_id and p.fold = f.name \
         where $1 is null or f.tenant_id = $1 order by p.advanced_at nulls first, f.tenant_id, f.name collate \"C\"",
        &[INT8OID],
    ) };
    static LOCK: Plan = const { Plan::new(
        "select 1 from _eventstream.folds where tenant_id = $1 and name = $2 for update skip locked",
        &[INT8OID, TEXTOID],
    ) };
    static READ_PROGRESS: Plan = const { Plan::new(
        "select fingerprint, global_position, reviewed_stream from _eventstream.snapshot_progress \
         where tenant_id = $1 and fold = $2",
        &[INT8OID, TEXTOID],
    ) };
    static NOTE_PROGRESS: Plan = const { Plan::new(
        "insert into _eventstream.snapshot_progress (tenant_id, fold, fingerprint, global_position, reviewed_stream) \
         values ($1, $2, $3, $4, $5) on conflict (tenant_id, fold) do update \
         set fingerprint = excluded.fingerprint, global_position = excluded.global_position, \
             reviewed_stream = excluded.reviewed_stream, advanced_at = excluded.advanced_at",
        &[INT8OID, TEXTOID, BYTEAOID, INT8OID, INT8OID],
    ) };
}

/// How far a fold's snapshots are taken, and reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    position: i64,
    reviewed_stream: i64,
}

/// A snapshot that failed.
pub struct Failed<'a> {
    pub tenant: &'a str,
    /// None: not known.
    pub category: Option<&'a str>,
    pub what: String,
    pub caught: Caught,
}

impl Failed<'_> {
    /// The message of users' code, in which a payload may stand, only where it `is_shown`.
    pub fn in_words(&self, is_shown: bool) -> String {
        let Self { what, caught, .. } = self;
        if is_shown {
            format!("{what}: {}", caught.message)
        } else {
            format!("{what}: {}, whose message is shown to roles that may read its events", caught.sqlstate)
        }
    }
}

/// Takes what failed.
pub type Say<'a> = &'a mut dyn FnMut(&Failed) -> Result<()>;

/// Runs until there is nothing to do or it is enough. `tenant_id`: None = every tenant.
pub fn run(tenant_id: Option<i64>, say: Say) -> Result<Done> {
    let begun = Instant::now();
    let folds = as_owner(Planning::ByIndex, |db, _| {
        LIST.with(|list| {
            list.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                Ok((row.int8(0)?, row.text(1)?.to_owned(), row.text(2)?.to_owned()))
            })
        })
    })?;
    let mut done = Done::default();
    let scratch = Scratch::new()?;
    for (place, (id, tenant, fold)) in folds.iter().enumerate() {
        scratch.step(|| one_fold(Target { id: *id, name: tenant }, fold, begun, &mut done, say))?;
        if begun.elapsed() > ENOUGH {
            done.has_more |= place + 1 < folds.len();
            break;
        }
    }
    if done.taken + done.failed > 0 {
        counters::add(Counter::SnapshotsFailed, done.failed as u64);
        counters::set_failed_snapshots(done.failed as u64);
    }
    Ok(done)
}

fn one_fold(target: Target, name: &str, begun: Instant, done: &mut Done, say: Say) -> Result<()> {
    let key = [Some(Datum::from(target.id)), Some(from_text(name)?)];
    if as_owner(Planning::ByIndex, |db, _| LOCK.with(|lock| lock.first(db, View::Write, &key, |_| Ok(()))))?.is_none() {
        return Ok(());
    }
    // What was registered before the lock was free.
    invalidation::take_in()?;
    let mut failed = |caught: Caught, category: Option<&str>, done: &mut Done| {
        done.failed += 1;
        say(&Failed { tenant: target.name, category, what: format!("fold \"{name}\" takes no snapshots"), caught })
    };
    let fold = match attempt(|| folds::named(target.id, name))? {
        Ok(Some(fold)) => fold,
        Ok(None) => return Ok(()),
        Err(caught) => return failed(caught, None, done),
    };
    let mut folding = match attempt(|| Folding::new(target, &fold))? {
        Ok(folding) => folding,
        Err(caught) => return failed(caught, Some(&fold.category), done),
    };
    let before = read_progress(target, &fold)?;
    let mut progress = before.unwrap_or(Progress { position: 0, reviewed_stream: 0 });
    progress.position = take_due(&mut folding, progress.position, begun, done, say)?;
    as_owner(Planning::ByIndex, |db, _| {
        let end = retention::end_of_page(db, progress.reviewed_stream, PAGE)?;
        let streams = Streams { after: progress.reviewed_stream, to: end.unwrap_or(i64::MAX) };
        done.removed += retention::apply(db, target, &fold, streams, configured())? as i64;
        progress.reviewed_stream = end.unwrap_or(0);
        done.has_more |= end.is_some();
        if before == Some(progress) { Ok(()) } else { note_progress(db, target, &fold, progress) }
    })
}

fn configured() -> Retention {
    let cutoff = settings::snapshot_max_age().map(|age| server::clock() - age * 1_000_000);
    Retention { keep: settings::snapshot_keep(), cutoff }
}

/// What the progress is of: another definition, category or snapshot_every begins again from the first position.
fn progress_of(fold: &Fold) -> Hash {
    let definition = fold.fingerprint.map(|byte| format!("{byte:02x}")).concat();
    fingerprint(&["progress", &definition, &fold.category, &fold.snapshot_every.to_string()])
}

/// None where there is none yet, or it is of something else.
fn read_progress(target: Target, fold: &Fold) -> Result<Option<Progress>> {
    let key = [Some(Datum::from(target.id)), Some(from_text(&fold.name)?)];
    let found = as_owner(Planning::ByIndex, |db, _| {
        READ_PROGRESS.with(|plan| {
            plan.first(db, View::Latest, &key, |row| {
                let fingerprint = row.bytes_opt(0)?.and_then(|bytes| Hash::try_from(bytes).ok());
                Ok((fingerprint, Progress { position: row.int8(1)?, reviewed_stream: row.int8(2)? }))
            })
        })
    })?;
    Ok(found.filter(|(fingerprint, _)| *fingerprint == Some(progress_of(fold))).map(|(_, progress)| progress))
}

fn note_progress(db: &Db, target: Target, fold: &Fold, progress: Progress) -> Result<()> {
    let row = [
        Some(Datum::from(target.id)),
        Some(from_text(&fold.name)?),
        Some(varlena(&progress_of(fold))?),
        Some(Datum::from(progress.position)),
        Some(Datum::from(progress.reviewed_stream)),
    ];
    NOTE_PROGRESS.with(|plan| plan.write(db, &row)).map(drop)
}

/// Takes the due snapshots after a position; the position up to which none is due any more.
fn take_due(folding: &mut Folding, mut position: i64, begun: Instant, done: &mut Done, say: Say) -> Result<i64> {
    let every = folding.fold.snapshot_every;
    let of = places::Of { tenant_id: folding.target.id, category: &folding.fold.category };
    // Without preload, what open transactions commit behind the walk is passed over, and costs only the speed that its snapshot would
    // have given.
    let to = as_owner(Planning::ByIndex, |_, catalog| Ok(horizon::end_of_log(catalog)?.of(of.tenant_id)))?;
    let scratch = Scratch::new()?;
    let (mut looked_at, mut taken) = (0, 0);
    // A stream that failed once would fail again at its later versions.
    let mut failed = HashSet::new();
    while position < to && looked_at < MOST_EVENTS {
        let mut due = Vec::new();
        let after = position;
        let end = scratch.step(|| {
            as_owner(Planning::ByIndex, |db, catalog| {
                places::walk(db, catalog, of, (after, to), PAGE, &mut |place| {
                    if place.version % every == 0 {
                        due.push(place);
                    }
                    Ok(())
                })
            })
        })?;
        for place in due {
            if failed.contains(&place.stream_id) {
                position = place.global_position;
                continue;
            }
            // One at least, so that every call gets on.
            if taken == MOST_SNAPSHOTS || (taken > 0 && begun.elapsed() > ENOUGH) {
                done.has_more = true;
                return Ok(position);
            }
            if scratch.step(|| take(folding, place, done, say))? {
                taken += 1;
            } else {
                failed.insert(place.stream_id);
            }
            // Also past one that failed: what mends it (another definition, another upcaster) begins again from the first.
            position = place.global_position;
            if failed.len() == MOST_FAILURES {
                done.has_more = true;
                return Ok(position);
            }
        }
        position = end;
        looked_at += PAGE;
        if begun.elapsed() > ENOUGH {
            break;
        }
    }
    done.has_more |= position < to;
    Ok(position)
}

/// Takes the snapshot at one event, where it is not there yet; whether that went well.
fn take(folding: &mut Folding, place: Place, done: &mut Done, say: Say) -> Result<bool> {
    let (fold, target) = (folding.fold, folding.target);
    let found = as_owner(Planning::ByIndex, |db, catalog| {
        if snapshot::is_there(db, catalog, fold, place.stream_id, place.version)? {
            return Ok(None);
        }
        Ok(stream::page(db, View::Latest, place.stream_id - 1, None, 1)?.pop())
    })?;
    let Some((found, name, _)) = found.filter(|(found, ..)| found.id == place.stream_id) else { return Ok(true) };
    let moment = Moment { version: Some(place.version), ..Moment::NOW };
    let of = snapshot::Of { target, stream: &name, fold };
    let folded = attempt(|| {
        let answer = answer::of_stream(folding, &name, found, moment, View::Latest)?;
        snapshot::must_be_kept(of, &answer).map(|()| answer)
    })?;
    match folded {
        Ok(answer) => {
            snapshot::keep(of, found, &answer, View::Latest)?;
            done.taken += 1;
            counters::add(Counter::SnapshotsTaken, 1);
            // At once where only a few stay of each stream: the walk may be far ahead of the review.
            let retention = configured();
            if retention.keep.is_some() && retention.cutoff.is_none() {
                done.removed += as_owner(Planning::ByIndex, |db, _| {
                    retention::apply(db, target, fold, Streams::one(found.id), retention)
                })? as i64;
            }
            Ok(true)
        }
        Err(caught) => {
            done.failed += 1;
            let what =
                format!("fold \"{}\" takes no snapshot of stream \"{name}\" at version {}", fold.name, place.version);
            say(&Failed { tenant: target.name, category: Some(&fold.category), what, caught })?;
            Ok(false)
        }
    }
}
