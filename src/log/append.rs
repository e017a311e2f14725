//! Append, the only writer of events, called by the door in alone (src/command/write.rs). Owns the order of steps that the invariants rest on:
//!
//! ```text
//! the tenant's gate → lock the buckets of tags, then the streams' rows and the names of new or absent ones, sorted → heads under newer snapshots → retry? expected version? condition?
//!   → entry (lower bounds of position and recorded_at) → positions → rows of new streams → recorded_at → hash chain → insert
//! ```
//!
//! A call that only checks versions ends with the judge. Promises: one writer a stream, versions without gaps, everything in one call or nothing (the caller's transaction), and
//! that version, position, recorded_at and max_occurred_at never fall along a stream.
use super::acting;
use super::behind_lock::Known;
use super::condition::Condition;
use super::event::NewEvent;
use super::fresh_id::new_event_id;
use super::judge::{Look, Rules, Verdict, judge, old_retry};
use super::last_append::{self, LastAppend};
use super::partition::{self, Partition};
use super::request::Request;
use super::stream::{self, Head, Locked, Stream};
use super::tags::{TagRows, of_correlation};
use super::target::Target;
use super::whole;
use super::{buckets, condition, first_append, highest, identity, locks};
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::{sequence, server};
use crate::pg::query::insert::Inserter;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, from_uuid, keep_varlena, text_array_of, varlena};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends;
use crate::shared::session::as_owner;
use crate::shared::{transaction, trial};
use eventstream_core::error::Error;
use eventstream_core::hash::{EventFields, Uuid, chain_hash, content_digest};
use eventstream_core::time::{next_recorded_at, pg_to_unix_us};
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::rc::Rc;

thread_local! {
    static READ_ADDRESS: Plan = const { Plan::new("select inet_client_addr()", &[]) };
    static CLIENT_ADDRESS: Cell<Option<Nullable>> = const { Cell::new(None) };
}

/// What every event of a call has in common.
struct Call<'a> {
    db: &'a Db,
    catalog: &'a Catalog,
    target: Target<'a>,
    tenant_id: Nullable,
    tenant_uuid: Uuid,
    recorded_by: String,
    recorded_by_datum: Nullable,
    recorded_from: Nullable,
}

/// What an append did.
pub struct Appended {
    /// What came of each stream, in the order given.
    pub streams: Vec<LastAppend>,
    /// Where each of them stands behind what was written; None where nothing was.
    pub written: Vec<Option<Known>>,
    /// Of the events that were written, in order; none where all of it is a retry.
    pub positions: Vec<i64>,
}

/// Appends to all the streams or to none. Behind the tenant's gate, which whoever calls has entered.
pub fn append(
    target: Target,
    requests: &mut [Request],
    rules: &dyn Rules,
    condition: Option<&Condition>,
) -> Result<Appended> {
    // Acts say it themselves: who did them may be gone by the commit.
    let is_said = requests.iter().flat_map(|request| &request.events).all(|event| event.recorded_by.is_some());
    let recorded_by = if is_said { String::new() } else { acting::recorded_by()? };
    as_owner(Planning::ByIndex, |db, catalog| {
        transaction::call_at_end(whole::on_end);
        let mut call = Call {
            db,
            catalog,
            target,
            tenant_id: Some(Datum::from(target.id)),
            tenant_uuid: Uuid::default(),
            recorded_by_datum: Some(from_text(&recorded_by)?),
            recorded_by,
            recorded_from: client_address(db)?,
        };
        buckets::lock(catalog, target.id, requests, condition.map(|condition| &condition.query))?;
        let mut locks = locks::lock_all(db, catalog, target.id, requests)?;
        let look = Look { db, catalog, rules };
        let mut verdicts = judge_under(condition, look, target.id, requests, &locks.streams)?;
        judge_new(rules, requests, &locks.streams, &verdicts)?;
        let mut positions = Vec::new();
        while verdicts.iter().any(|verdict| matches!(verdict, Verdict::New)) {
            first_append::note(db, catalog)?;
            call.tenant_uuid = identity::tenant_uuid(db, catalog, target.id)?;
            take_entry(catalog, target.id)?;
            positions = draw_positions(&call, requests)?;
            if make_streams(&call, requests, &mut locks.streams, &positions)? {
                break;
            }
            // Somebody else has made one of the streams meanwhile: what builds on it is judged again, and comes after it.
            positions.clear();
            verdicts = judge(look, requests, &locks.streams)?;
        }
        locks.let_names_go()?;
        whole::note(&positions);
        trial::note(&positions);
        let appended = write_all(&call, requests, locks.streams, verdicts, positions)?;
        last_append::note_written(appended.positions.len() as u64);
        Ok(appended)
    })
}

/// Writes what is new at these positions.
fn write_all(
    call: &Call,
    requests: &[Request],
    locked: Vec<Locked>,
    verdicts: Vec<Verdict>,
    positions: Vec<i64>,
) -> Result<Appended> {
    let (mut streams, mut written) = (Vec::with_capacity(requests.len()), Vec::with_capacity(requests.len()));
    let mut left = positions.as_slice();
    let mut tags = TagRows::default();
    for ((request, locked), verdict) in requests.iter().zip(locked).zip(verdicts) {
        let (last, known) = match verdict {
            Verdict::Checked(version) => (LastAppend::nothing(request.stream.as_str(), version), None),
            Verdict::Retry(last) => (last, None),
            Verdict::New => {
                let (own, others) = left.split_at(request.events.len().min(left.len()));
                left = others;
                let (last, known) = write(call, request, locked, own, &mut tags)?;
                (last, Some(known))
            }
        };
        if !request.is_check() {
            last_append::remember(call.target.id, last.clone());
        }
        streams.push(last);
        written.push(known);
    }
    tags.close()?;
    Ok(Appended { streams, written, positions })
}

/// Judges, and whether a condition holds.
fn judge_under(
    condition: Option<&Condition>,
    look: Look,
    tenant_id: i64,
    requests: &[Request],
    locked: &[Locked],
) -> Result<Vec<Verdict>> {
    let verdicts = judge(look, requests, locked)?;
    let is_retry = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Retry(_)));
    match condition.filter(|_| !is_retry) {
        None => Ok(verdicts),
        Some(condition) => match condition::judge(look.db, look.catalog, tenant_id, condition) {
            Ok(()) => Ok(verdicts),
            Err(failure) => old_retry(look, requests, locked)?.ok_or(failure),
        },
    }
}

/// Whether what is new may be recorded.
fn judge_new(rules: &dyn Rules, requests: &mut [Request], locked: &[Locked], verdicts: &[Verdict]) -> Result<()> {
    for ((request, locked), verdict) in requests.iter_mut().zip(locked).zip(verdicts) {
        if matches!(verdict, Verdict::New) {
            rules.judge(request, locked.found())?;
        }
    }
    Ok(())
}

/// Says, before the first position of the tenant is taken, from which position and recorded_at on this transaction may own events of it.
fn take_entry(catalog: &Catalog, tenant_id: i64) -> Result<()> {
    if open_appends::holds(tenant_id) {
        return Ok(());
    }
    let now = server::clock();
    open_appends::announce(tenant_id, now);
    let bounds = || -> Result<()> {
        let (last_position, _) = sequence::last(catalog.positions)?;
        open_appends::hold(last_position + 1);
        let (floor, _) = sequence::last(catalog.recorded_floor)?;
        open_appends::hold_recorded_at(now.max(floor));
        Ok(())
    };
    // An entry that was only announced would keep every reader waiting.
    bounds().inspect_err(|_| open_appends::give_up())?;
    transaction::note_append();
    Ok(())
}

/// The client's address, which a session never changes; NULL for a unix socket.
fn client_address(db: &Db) -> Result<Nullable> {
    if let Some(known) = CLIENT_ADDRESS.get() {
        return Ok(known);
    }
    let found =
        READ_ADDRESS.with(|plan| plan.first(db, View::Caller, &[], |row| row.get(0).map(keep_varlena).transpose()))?;
    CLIENT_ADDRESS.set(Some(found.flatten()));
    Ok(found.flatten())
}

/// One for each event, in the order given.
fn draw_positions(call: &Call, requests: &[Request]) -> Result<Vec<i64>> {
    let count = requests.iter().map(|request| request.events.len()).sum();
    // A sequence that was set back hands out positions again. They are compared with what was known *before* they are taken: racing
    // appends would refuse each other by what is known afterwards.
    let mut highest = highest::known(call.db, call.catalog)?;
    let mut positions = Vec::with_capacity(count);
    for _ in 0..count {
        let position = sequence::next(call.catalog.positions)?;
        if position <= highest {
            return Err(Error::PositionReused { position, highest }.into());
        }
        highest = position;
        positions.push(position);
    }
    highest::note(call.catalog, highest);
    Ok(positions)
}

/// Makes the rows of the streams that begin with these positions. False where somebody else has made one of them, and has committed: that one
/// is locked now.
fn make_streams(call: &Call, requests: &[Request], locked: &mut [Locked], positions: &[i64]) -> Result<bool> {
    let mut next = 0;
    let mut new = Vec::new();
    for (place, request) in requests.iter().enumerate() {
        if matches!(locked[place], Locked::Free(_) | Locked::Made(_)) {
            new.push((place, positions.get(next).copied().unwrap_or_default()));
        }
        next += request.events.len();
    }
    new.sort_by_key(|&(place, _)| requests[place].stream.as_str());
    for (place, first_position) in new {
        let name = &requests[place].stream;
        match locked[place] {
            Locked::Free(kept) => {
                let Some(made) = stream::make(call.db, call.catalog, call.target.id, name, kept, first_position)?
                else {
                    locked[place] = locks::lock(call.db, call.catalog, call.target.id, &requests[place], true)?;
                    return Ok(false);
                };
                locked[place] = Locked::Made(made);
            }
            // By an attempt before.
            Locked::Made(stream) => {
                let stream = Stream { first_position, ..stream };
                stream::place(call.db, &stream)?;
                locked[place] = Locked::Made(stream);
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Writes the events of one stream at these positions.
fn write(
    call: &Call,
    request: &Request,
    locked: Locked,
    positions: &[i64],
    tags: &mut TagRows,
) -> Result<(LastAppend, Known)> {
    let (stream, mut head) = match locked {
        Locked::Existing(stream, head, _) => (stream, head),
        Locked::Made(stream) => (stream, stream::genesis()),
        Locked::Free(_) | Locked::Missing => {
            return Err(Error::StreamNotFound { stream: request.stream.as_str().into() }.into());
        }
    };
    let last = (head.version > 0).then_some(head.recorded_at);
    let (floor, bound) = recorded_from(call)?;
    let recorded_at = next_recorded_at(trial::clock(), last, floor, bound);
    let category = Some(from_text(request.stream.category())?);
    let mut open: Option<(Rc<Partition>, Inserter)> = None;
    let mut event_ids = Vec::with_capacity(request.events.len());
    for (event, &position) in request.events.iter().zip(positions) {
        if open.as_ref().is_none_or(|(partition, _)| !partition.contains(position)) {
            if let Some((_, inserter)) = open.take() {
                inserter.close()?;
            }
            let partition = partition::for_append(call.db, call.catalog, position)?;
            let inserter = Inserter::open(call.db, partition.table_oid)?;
            enter(call, &stream, &head, &partition, position)?;
            open = Some((partition, inserter));
        }
        let Some((partition, inserter)) = &mut open else { continue };
        tags.put(call.db, call.catalog, partition, call.target.id, &event.tags, position)?;
        if let Some(correlation) = of_correlation(event.metadata.value)? {
            tags.put(call.db, call.catalog, partition, call.target.id, &[&correlation], position)?;
        }
        let event_id = event.event_id.map_or_else(new_event_id, Ok)?;
        let recorded = Recorded { stream_id: stream.id, position, recorded_at, category };
        head = insert(call, request, &recorded, &head, event, &event_id, inserter)?;
        event_ids.push(event_id);
    }
    if let Some((_, inserter)) = open {
        inserter.close()?;
    }
    let stream_name = request.stream.as_str().into();
    let (version, positions) = (head.version, positions.to_vec());
    Ok((LastAppend { stream: stream_name, version, positions, event_ids, replayed: false }, Known { stream, head }))
}

/// The floor of recorded_at, and what this transaction has said of its own; a test has a clock of its own, and keeps to neither.
fn recorded_from(call: &Call) -> Result<(i64, i64)> {
    if trial::is_on() {
        return Ok((i64::MIN, i64::MIN));
    }
    let (floor, _) = sequence::last(call.catalog.recorded_floor)?;
    Ok((floor, open_appends::held_recorded_at(call.target.id).unwrap_or(floor)))
}

/// Notes that the stream's next event goes to another partition than its head.
fn enter(call: &Call, stream: &Stream, head: &Head, partition: &Partition, position: i64) -> Result<()> {
    if head.version > 0 && !partition.contains(head.global_position) {
        return stream::enter(call.db, call.catalog, stream, partition.lower, head.version + 1, position);
    }
    Ok(())
}

/// Where and when an event is recorded.
struct Recorded {
    stream_id: i64,
    position: i64,
    recorded_at: i64,
    category: Nullable,
}

/// Writes one event behind `head`, and gives the new head.
fn insert(
    call: &Call,
    request: &Request,
    recorded: &Recorded,
    head: &Head,
    event: &NewEvent,
    event_id: &[u8; 16],
    into: &mut Inserter,
) -> Result<Head> {
    let version = head.version + 1;
    let recorded_at = recorded.recorded_at;
    let occurred_at = event.occurred_at.unwrap_or(recorded_at);
    let max_occurred_at = occurred_at.max(head.max_occurred_at);
    let salt = server::random_bytes()?;
    let hash = chain_hash(
        &head.chain_hash,
        &EventFields {
            tenant_uuid: &call.tenant_uuid,
            stream: request.stream.as_str(),
            version,
            event_id,
            event_type: event.event_type,
            schema_version: event.schema_version(),
            subject: event.subject,
            tags: &event.tags,
            occurred_at_unix_us: pg_to_unix_us(occurred_at),
            recorded_at_unix_us: pg_to_unix_us(recorded_at),
            recorded_by: event.recorded_by.unwrap_or(&call.recorded_by),
            content_digest: &content_digest(&salt, event.payload.text, event.metadata.text),
        },
    );
    // In the order of the table's columns (sql/log/tables.sql).
    into.put(&[
        call.tenant_id,
        Some(Datum::from(recorded.stream_id)),
        Some(Datum::from(version)),
        Some(Datum::from(recorded.position)),
        Some(Datum::from(occurred_at)),
        Some(Datum::from(max_occurred_at)),
        Some(Datum::from(recorded_at)),
        Some(from_uuid(event_id)?),
        Some(Datum::from(event.schema_version())),
        Some(from_text(event.event_type)?),
        recorded.category,
        event.recorded_by.map(from_text).transpose()?.or(call.recorded_by_datum),
        event.subject.map(from_text).transpose()?,
        call.recorded_from,
        Some(varlena(&salt)?),
        Some(varlena(&hash)?),
        Some(event.payload.value.datum()),
        Some(event.metadata.value.datum()),
        (!event.tags.is_empty()).then(|| text_array_of(&event.tags)).transpose()?,
    ])?;
    Ok(Head {
        version,
        chain_hash: hash,
        recorded_at,
        max_occurred_at,
        global_position: recorded.position,
        closed: false,
    })
}
