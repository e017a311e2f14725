//! Snapshots: a state at a version, stored. Promises: a snapshot serves only where its checksum is right, its event still has
//! the chain hash it had, and its fold is what it was; where anything differs, a WARNING says so and the events are folded
//! instead. Losing or damaging any of them changes no answer.
//!
//! Locks: whoever writes or deletes snapshots of a fold holds the fold's row, shared (`share`), or alone and without waiting
//! (es_maintain, in `due`): so es_maintain waits for nobody, and no two of them ever wait for each other.
use super::folds::Fold;
use super::kept::Answer;
use super::source;
use crate::log::identity;
use crate::log::scan::Opened;
use crate::log::stream::Stream;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::{number, table};
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::{Bound, Probe};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{from_text, varlena};
use crate::shared::catalog::Catalog;
use crate::shared::counters::Counter;
use crate::shared::failing::{self, Failing, Kind};
use crate::shared::session::as_owner;
use crate::shared::{counters, settings};
use eventstream_core::error::Error;
use eventstream_core::hash::{Hash, SnapshotFields, Uuid, snapshot_checksum};
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID, JSONBOID, Oid, TEXTOID};
use std::cell::RefCell;

table! {
    /// The table snapshots.
    pub mod column;
    STREAM_ID,
    FOLD,
    VERSION,
    CHAIN_HASH,
    FINGERPRINT,
    CHECKSUM,
    TAKEN_AT,
    STATE,
}

/// The columns of its primary key, by their numbers, and their places in it, from 1.
const KEY: &[i16] = &[number(column::STREAM_ID), number(column::FOLD), number(column::VERSION)];
const FOLD: i16 = 2;
const VERSION: i16 = 3;

thread_local! {
    static PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static STORE: Plan = const { Plan::new(
        "insert into _eventstream.snapshots (stream_id, fold, version, chain_hash, fingerprint, checksum, state) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (stream_id, fold, version) do update \
         set chain_hash = excluded.chain_hash, fingerprint = excluded.fingerprint, checksum = excluded.checksum, \
             state = excluded.state, taken_at = excluded.taken_at",
        &[INT8OID, TEXTOID, INT8OID, BYTEAOID, BYTEAOID, BYTEAOID, JSONBOID],
    ) };
    static SHARE: Plan = const { Plan::new(
        "select 1 from _eventstream.folds where tenant_id = $1 and name = $2 for share",
        &[INT8OID, TEXTOID],
    ) };
    static COUNT: Plan = const { Plan::new(
        "select count(*) from _eventstream.snapshots where stream_id = $1",
        &[INT8OID],
    ) };
}

/// Which stream's, of which fold.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub target: Target<'a>,
    pub stream: &'a str,
    pub fold: &'a Fold,
}

/// A snapshot that serves.
pub struct Found {
    pub version: i64,
    pub max_occurred_at: i64,
    pub state: Stored,
}

/// A stored one, as it is.
struct Claim {
    version: i64,
    taken_at: i64,
    /// What is wrong with it by itself, if anything.
    problem: Option<&'static str>,
    chain_hash: Hash,
    /// Where nothing is wrong with it, and it is of this fold.
    state: Option<Stored>,
}

/// A stored one that was looked at for its own sake.
pub enum Judged {
    Serves(Stored),
    /// It was taken with an earlier definition of the fold: nothing is wrong with it, and it is never used.
    OfEarlierDefinition,
    Broken(&'static str),
}

fn checksum(
    tenant_uuid: &Uuid,
    of: Of,
    version: i64,
    chain_hash: &Hash,
    fingerprint: &Hash,
    state: Jsonb,
) -> Result<Hash> {
    Ok(snapshot_checksum(&SnapshotFields {
        tenant_uuid,
        stream: of.stream,
        fold: &of.fold.name,
        version,
        chain_hash,
        fingerprint,
        state_text: state.text()?,
    }))
}

fn read(tenant_uuid: &Uuid, of: Of, row: &Row) -> Result<Claim> {
    let (version, taken_at) = (row.int8(column::VERSION)?, row.int8(column::TAKEN_AT)?);
    let hash = |place| row.bytes_opt(place).map(|bytes| bytes.and_then(|bytes| Hash::try_from(bytes).ok()));
    let (chain_hash, fingerprint) = (hash(column::CHAIN_HASH)?, hash(column::FINGERPRINT)?);
    let is_of_this_fold = fingerprint == Some(of.fold.fingerprint);
    let mut claim = Claim { version, taken_at, problem: None, chain_hash: chain_hash.unwrap_or_default(), state: None };
    let (Some(chain_hash), Some(fingerprint)) = (chain_hash, fingerprint) else {
        claim.problem = Some("its chain hash or its fingerprint is not 32 bytes long");
        return Ok(claim);
    };
    let Some(state) = row.jsonb_opt(column::STATE)? else { return Ok(claim) };
    if hash(column::CHECKSUM)? != Some(checksum(tenant_uuid, of, version, &chain_hash, &fingerprint, state)?) {
        claim.problem = Some("its checksum is wrong");
    } else if is_of_this_fold {
        claim.state = Some(Stored::keep(state));
    }
    Ok(claim)
}

/// The newest snapshot at or before `version` that serves. Those of an earlier definition of the fold are passed over; what is
/// wrong with others is added to `problems`.
pub fn newest_up_to(
    db: &Db,
    catalog: &Catalog,
    of: Of,
    opened: &Opened,
    view: View,
    mut version: i64,
    problems: &mut Vec<String>,
) -> Result<Option<Found>> {
    let mut is_first = true;
    while version > 0 {
        let claim = claim_up_to(db, catalog, of, opened.stream.id, view, version, is_first)?;
        let Some(claim) = claim else { return Ok(None) };
        is_first = false;
        match judge(db, opened, &claim)? {
            Ok(max_occurred_at) => {
                if let Some(state) = claim.state {
                    return Ok(Some(Found { version: claim.version, max_occurred_at, state }));
                }
            }
            Err(problem) => {
                counters::add(Counter::SnapshotsInvalid, 1);
                note_damage(of, opened.stream.id, &claim);
                problems.push(format!("at version {}: {problem}", claim.version));
                report::warning(&format!(
                    "snapshot of stream \"{}\" at version {} by fold \"{}\" is not used: {problem}; the events are folded instead",
                    of.stream, claim.version, of.fold.name
                ))?;
            }
        }
        version = claim.version - 1;
    }
    Ok(None)
}

/// Health shows it for as long as it is there, and none of the tenant is met after it: so no tenant's take the places of another's.
fn note_damage(of: Of, stream_id: i64, claim: &Claim) {
    let key = failing::key(&["damaged", &of.target.id.to_string()]);
    let damaged = Failing { key, stream_id, version: claim.version, position: claim.taken_at, counted: 0 };
    failing::note(Kind::Snapshot, damaged);
}

/// The one at exactly `version`; None where there is none.
pub fn at(db: &Db, catalog: &Catalog, of: Of, opened: &Opened, view: View, version: i64) -> Result<Option<Judged>> {
    let bounds = [
        Bound::equal_text(FOLD, from_text(&of.fold.name)?),
        Bound::at_least(VERSION, version),
        Bound::at_most(VERSION, version),
    ];
    let tenant_uuid = identity::tenant_uuid(db, catalog, of.target.id)?;
    let mut claim = None;
    probe(db, catalog, view, opened.stream.id, &bounds, |row| {
        claim = Some(read(&tenant_uuid, of, row)?);
        Ok(false)
    })?;
    let Some(claim) = claim else { return Ok(None) };
    Ok(Some(match (judge(db, opened, &claim)?, claim.state) {
        (Err(problem), _) => Judged::Broken(problem),
        (Ok(_), Some(state)) => Judged::Serves(state),
        (Ok(_), None) => Judged::OfEarlierDefinition,
    }))
}

/// Whether there is one at exactly `version`, of the fold as it is now; it is not looked into.
pub fn is_there(db: &Db, catalog: &Catalog, fold: &Fold, stream_id: i64, version: i64) -> Result<bool> {
    let bounds = [
        Bound::equal_text(FOLD, from_text(&fold.name)?),
        Bound::at_least(VERSION, version),
        Bound::at_most(VERSION, version),
    ];
    let mut is_there = false;
    probe(db, catalog, View::Latest, stream_id, &bounds, |row| {
        is_there = row.bytes_opt(column::FINGERPRINT)? == Some(&fold.fingerprint);
        Ok(false)
    })?;
    Ok(is_there)
}

/// The event's max_occurred_at; or what is wrong.
fn judge(db: &Db, opened: &Opened, claim: &Claim) -> Result<std::result::Result<i64, &'static str>> {
    if let Some(problem) = claim.problem {
        return Ok(Err(problem));
    }
    Ok(match opened.head_at(db, claim.version)? {
        None => Err("the stream has no such version"),
        Some(event) if event.chain_hash != claim.chain_hash => Err("its event has another chain hash"),
        Some(event) => Ok(event.max_occurred_at),
    })
}

/// The newest claim at or before `version`; `of_any`: also one that names another fingerprint, which its checksum may deny.
fn claim_up_to(
    db: &Db,
    catalog: &Catalog,
    of: Of,
    stream_id: i64,
    view: View,
    version: i64,
    of_any: bool,
) -> Result<Option<Claim>> {
    let bounds = [Bound::equal_text(FOLD, from_text(&of.fold.name)?), Bound::at_most(VERSION, version)];
    let tenant_uuid = identity::tenant_uuid(db, catalog, of.target.id)?;
    let mut claim = None;
    probe(db, catalog, view, stream_id, &bounds, |row| {
        let counts = of_any || row.bytes_opt(column::FINGERPRINT)? == Some(&of.fold.fingerprint);
        if counts {
            claim = Some(read(&tenant_uuid, of, row)?);
        }
        Ok(!counts)
    })?;
    Ok(claim)
}

/// The snapshots of a stream within `bounds`, newest first.
fn probe(
    db: &Db,
    catalog: &Catalog,
    view: View,
    stream_id: i64,
    bounds: &[Bound],
    each: impl FnMut(&Row) -> Result<bool>,
) -> Result<()> {
    let probe = PROBE.take().filter(|(table, _)| *table == catalog.snapshots);
    let (table, probe) = probe.unwrap_or((catalog.snapshots, Probe::by_int8(catalog.snapshots, KEY)));
    let outcome = probe.newest_first(db, view, Datum::from(stream_id), bounds, each);
    PROBE.set(Some((table, probe)));
    outcome
}

/// Keeps the fold and its snapshots from es_maintain, and from being replaced, until the end of the transaction; whether it is
/// there at all.
pub fn share(target: Target, fold: &str) -> Result<bool> {
    as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(Datum::from(target.id)), Some(from_text(fold)?)];
        Ok(SHARE.with(|share| share.first(db, View::Write, &key, |_| Ok(())))?.is_some())
    })
}

/// How many the stream has, of whatever fold.
pub fn count(stream_id: i64) -> Result<i64> {
    let count = as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(Datum::from(stream_id))];
        COUNT.with(|count| count.first(db, View::Caller, &key, |row| row.int8(0)))
    })?;
    Ok(count.unwrap_or(0))
}

/// Refuses a state that is no function of the chain. Errors: ES013.
pub fn must_be_kept(of: Of, answer: &Answer) -> Result<()> {
    if answer.may_be_kept {
        return Ok(());
    }
    Err(Error::FoldFailed {
        fold: of.fold.name.clone(),
        stream: of.stream.into(),
        version: answer.version,
        reason: "a failed upcaster was skipped, and such a state is not kept".into(),
    }
    .into())
}

/// Keeps an answer as a snapshot, in place of what may be there.
pub fn keep(of: Of, stream: Stream, answer: &Answer, view: View) -> Result<()> {
    must_be_kept(of, answer)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let opened = Opened::open(db, catalog, stream, view)?;
        let missing = || Error::Internal { what: format!("version {} is gone", answer.version) };
        let event = opened.head_at(db, answer.version)?.ok_or_else(missing)?;
        store(db, catalog, of, stream.id, answer.version, &event.chain_hash, &answer.state)
    })
}

/// Refuses a state that would be larger as text than a state may be: numbers such as 1e131071 take little room until they are printed.
fn refuse_unprintable(of: Of, version: i64, state: Jsonb) -> Result<()> {
    let most = settings::max_state_bytes();
    let bytes = state.measure(most as u64)?.bytes;
    source::refuse_large(usize::try_from(bytes).unwrap_or(usize::MAX), most, &of.fold.name, of.stream, version)
}

/// Stores a state at a version, in place of what may be there.
fn store(
    db: &Db,
    catalog: &Catalog,
    of: Of,
    stream_id: i64,
    version: i64,
    chain_hash: &Hash,
    state: &Stored,
) -> Result<()> {
    refuse_unprintable(of, version, state.view())?;
    let tenant_uuid = identity::tenant_uuid(db, catalog, of.target.id)?;
    let checksum = checksum(&tenant_uuid, of, version, chain_hash, &of.fold.fingerprint, state.view())?;
    let row = [
        Some(Datum::from(stream_id)),
        Some(from_text(&of.fold.name)?),
        Some(Datum::from(version)),
        Some(varlena(chain_hash)?),
        Some(varlena(&of.fold.fingerprint)?),
        Some(varlena(&checksum)?),
        Some(state.view().datum()),
    ];
    STORE.with(|store| store.write(db, &row)).map(drop)
}
