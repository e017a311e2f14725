//! Append, the only writer of events. Owns the order of steps that the invariants rest on:
//!
//! ```text
//! the tenant's gate → lock the streams' rows and the names of new ones, sorted → heads under newer snapshots → retry? expected version?
//!   → slot (lower bounds of position and recorded_at) → positions → rows of new streams → recorded_at → hash chain → insert
//! ```
//!
//! Promises: one writer a stream, versions without gaps, everything in one call or nothing (the caller's transaction), and
//! that version, position, recorded_at and max_occurred_at never fall along a stream.
use super::acting;
use super::event::NewEvent;
use super::last_append::{self, LastAppend};
use super::partition::{self, Partition};
use super::retry;
use super::stream::{self, Absent, Head, Locked, Stream};
use super::target::Target;
use super::whole;
use super::{first_append, gate, highest, identity};
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::{sequence, server};
use crate::pg::query::insert::Inserter;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, from_uuid, keep_varlena, varlena};
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};
use crate::shared::open_appends;
use crate::shared::session::as_owner;
use crate::shared::transaction;
use eventstream_core::error::Error;
use eventstream_core::event_id::EventIds;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::hash::{EventFields, Uuid, chain_hash, content_digest};
use eventstream_core::name::StreamName;
use eventstream_core::time::{PG_EPOCH_UNIX_US, next_recorded_at, pg_to_unix_us};
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How many names of streams to be made a call keeps at once: the server's table of locks is not endless. Among more, two calls that make the
/// same stream within microseconds may meet at its row, the one waiting for the other with its slot taken.
const MOST_NAMES: usize = 64;

/// What is to be appended to one stream.
pub struct Request<'a> {
    pub stream: StreamName<'a>,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent<'a>>,
    /// Whether the stream must have events already (es_close_stream).
    pub must_exist: bool,
}

thread_local! {
    static EVENT_IDS: RefCell<EventIds> = RefCell::new(EventIds::default());
    static READ_ADDRESS: Plan = const { Plan::new("select inet_client_addr()", &[]) };
    static WRITTEN: Cell<u64> = const { Cell::new(0) };
    static CLIENT_ADDRESS: Cell<Option<Nullable>> = const { Cell::new(None) };
}

/// A fresh event id, larger than this session's last one.
pub fn new_event_id() -> Result<[u8; 16]> {
    let now_unix_ms = (server::clock() + PG_EPOCH_UNIX_US) / 1000;
    let random = server::random_bytes()?;
    Ok(EVENT_IDS.with_borrow_mut(|ids| ids.next(now_unix_ms as u64, random)))
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
    /// Of the events that were written, in order; none where all of it is a retry.
    pub positions: Vec<i64>,
}

/// How many events this session has written so far.
pub fn written() -> u64 {
    WRITTEN.get()
}

/// Appends to all the streams or to none.
pub fn append(target: Target, requests: &[Request]) -> Result<Appended> {
    server::must_be_writable(c"an append")?;
    let recorded_by = match acting::current() {
        Some(acting) => acting.role.clone(),
        None => server::role_name(server::session_role())?,
    };
    gate::enter(target.id)?;
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
        let mut locked = lock_all(&call, requests)?;
        let mut first_times = judge(&call, requests, &locked)?;
        let mut appended = Appended { streams: Vec::with_capacity(requests.len()), positions: Vec::new() };
        while first_times.iter().any(Option::is_none) {
            first_append::note(db, catalog)?;
            call.tenant_uuid = identity::tenant_uuid(db, catalog, target.id)?;
            take_slot(catalog, target.id)?;
            appended.positions = draw_positions(&call, requests)?;
            if make_streams(&call, requests, &mut locked, &appended.positions)? {
                break;
            }
            // Somebody else has made one of the streams meanwhile: what builds on it is judged again, and comes after it.
            appended.positions.clear();
            first_times = judge(&call, requests, &locked)?;
        }
        whole::note(&appended.positions);
        let mut positions = appended.positions.as_slice();
        for ((request, locked), first_time) in requests.iter().zip(locked).zip(first_times) {
            let last = match first_time {
                Some(last) => last,
                None => {
                    let (own, others) = positions.split_at(request.events.len().min(positions.len()));
                    positions = others;
                    write(&call, request, locked, own)?
                }
            };
            last_append::remember(last.clone());
            appended.streams.push(last);
        }
        WRITTEN.set(WRITTEN.get() + appended.positions.len() as u64);
        if !appended.positions.is_empty() {
            counters::add(Counter::Appends, 1);
            counters::add(Counter::EventsAppended, appended.positions.len() as u64);
        }
        Ok(appended)
    })
}

/// Says, before the first position of the tenant is taken, from which position and recorded_at on this transaction may own events of it.
fn take_slot(catalog: &Catalog, tenant_id: i64) -> Result<()> {
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
    // A slot that was only announced would keep every reader waiting.
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

/// Locks all streams, in sorted order so that two calls never wait for each other in a circle.
fn lock_all(call: &Call, requests: &[Request]) -> Result<Vec<Locked>> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&place| requests[place].stream.as_str());
    let mut locked: Vec<Option<Locked>> = requests.iter().map(|_| None).collect();
    let mut names = 0;
    for place in order {
        let stream = lock(call, &requests[place], names < MOST_NAMES)?;
        names += usize::from(matches!(stream, Locked::Free(_)));
        locked[place] = Some(stream);
    }
    locked
        .into_iter()
        .map(|locked| locked.ok_or_else(|| Error::Internal { what: "a stream was not locked".into() }.into()))
        .collect()
}

fn lock(call: &Call, request: &Request, keeps_name: bool) -> Result<Locked> {
    let absent = match !request.must_exist && request.expected.accepts(0) {
        false => Absent::Leave,
        true if keeps_name => Absent::Keep,
        true => Absent::Guess,
    };
    let has_ids = request.events.iter().any(|event| event.event_id.is_some());
    let partitions = if has_ids { retry::PARTITIONS } else { 1 };
    stream::lock(call.db, call.catalog, call.target.id, &request.stream, absent, partitions)
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
                    locked[place] = lock(call, &requests[place], true)?;
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

/// Decides for each stream whether its events are new or a retry. Errors: ES001, ES002, ES003, ES006.
fn judge(call: &Call, requests: &[Request], locked: &[Locked]) -> Result<Vec<Option<LastAppend>>> {
    for request in requests {
        refuse_repeated_ids(request.stream.as_str(), &request.events)?;
    }
    let mut first_times = requests
        .iter()
        .zip(locked)
        .map(|(request, locked)| first_time(call, request, locked, false))
        .collect::<Result<Vec<_>>>()?;
    // What was appended together is found together, however far one of the streams has gone on since.
    if first_times.iter().any(Option::is_some) {
        for ((request, locked), known) in requests.iter().zip(locked).zip(&mut first_times) {
            if known.is_none() {
                *known = first_time(call, request, locked, true)?;
            }
        }
    }
    for ((request, locked), _) in
        requests.iter().zip(locked).zip(&first_times).filter(|(_, first_time)| first_time.is_none())
    {
        refuse_wrong_head(request, locked)?;
    }
    refuse_half_a_retry(requests, &first_times)?;
    Ok(first_times)
}

/// What these events came to when they were first appended, None where they are new; `anywhere`: looked for in all of the stream's partitions.
fn first_time(call: &Call, request: &Request, locked: &Locked, anywhere: bool) -> Result<Option<LastAppend>> {
    let Locked::Existing(stream, head, newest) = locked else { return Ok(None) };
    let name = request.stream.as_str();
    let batch =
        retry::Batch { name, stream, head, view: View::Latest, expected: request.expected, events: &request.events };
    let among = if anywhere { retry::Among::All } else { retry::Among::Newest(newest) };
    let first_time = retry::first_time(call.db, call.catalog, &batch, among)?;
    Ok(first_time.map(|first_time| LastAppend {
        stream: name.into(),
        version: first_time.version,
        positions: first_time.positions,
        event_ids: request.events.iter().filter_map(|event| event.event_id).collect(),
        replayed: true,
    }))
}

/// Errors: ES001, ES002, ES003.
fn refuse_wrong_head(request: &Request, locked: &Locked) -> Result<()> {
    let stream = || request.stream.as_str().into();
    match locked {
        Locked::Existing(_, head, _) => {
            refuse_conflict(request, head.version)?;
            if head.closed {
                return Err(Error::StreamClosed { stream: stream(), version: head.version }.into());
            }
            Ok(())
        }
        Locked::Missing if request.must_exist => Err(Error::StreamNotFound { stream: stream() }.into()),
        Locked::Free(_) | Locked::Made(_) | Locked::Missing => refuse_conflict(request, 0),
    }
}

fn refuse_conflict(request: &Request, actual: i64) -> Result<()> {
    match request.expected.as_option() {
        Some(expected) if !request.expected.accepts(actual) => {
            counters::add(Counter::Conflicts, 1);
            Err(Error::VersionConflict { stream: request.stream.as_str().into(), expected, actual }.into())
        }
        _ => Ok(()),
    }
}

/// Errors: ES006.
pub fn refuse_repeated_ids(stream: &str, events: &[NewEvent]) -> Result<()> {
    let mut ids: Vec<[u8; 16]> = events.iter().filter_map(|event| event.event_id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::EventIdReused {
            stream: stream.into(),
            event_id: eventstream_core::event_id::to_uuid_text(&pair[0]),
            version: None,
            reason: "in one batch".into(),
        }
        .into()),
    }
}

/// All or nothing was written the first time, so all or nothing is a retry.
fn refuse_half_a_retry(requests: &[Request], first_times: &[Option<LastAppend>]) -> Result<()> {
    let replayed = first_times.iter().flatten().count();
    match first_times.iter().flatten().next() {
        Some(first) if replayed < requests.len() => Err(Error::EventIdReused {
            stream: first.stream.clone(),
            event_id: first.event_ids.first().map(eventstream_core::event_id::to_uuid_text).unwrap_or_default(),
            version: Some(first.version),
            reason: format!("but the events of only {replayed} of these {} streams are there", requests.len()),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Writes the events of one stream at these positions.
fn write(call: &Call, request: &Request, locked: Locked, positions: &[i64]) -> Result<LastAppend> {
    let (stream, mut head) = match locked {
        Locked::Existing(stream, head, _) => (stream, head),
        Locked::Made(stream) => (stream, stream::genesis()),
        Locked::Free(_) | Locked::Missing => {
            return Err(Error::StreamNotFound { stream: request.stream.as_str().into() }.into());
        }
    };
    let (floor, _) = sequence::last(call.catalog.recorded_floor)?;
    let last = (head.version > 0).then_some(head.recorded_at);
    let bound = open_appends::held_recorded_at(call.target.id).unwrap_or(floor);
    let recorded_at = next_recorded_at(server::clock(), last, floor, bound);
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
        let Some((_, inserter)) = &mut open else { continue };
        let event_id = event.event_id.map_or_else(new_event_id, Ok)?;
        let place = Place { stream_id: stream.id, position, recorded_at, category };
        head = insert(call, request, &place, &head, event, &event_id, inserter)?;
        event_ids.push(event_id);
    }
    if let Some((_, inserter)) = open {
        inserter.close()?;
    }
    Ok(LastAppend {
        stream: request.stream.as_str().into(),
        version: head.version,
        positions: positions.to_vec(),
        event_ids,
        replayed: false,
    })
}

/// Notes that the stream's next event goes to another partition than its head.
fn enter(call: &Call, stream: &Stream, head: &Head, partition: &Partition, position: i64) -> Result<()> {
    if head.version > 0 && !partition.contains(head.global_position) {
        return stream::enter(call.db, call.catalog, stream, partition.lower, head.version + 1, position);
    }
    Ok(())
}

/// Where and when an event is recorded.
struct Place {
    stream_id: i64,
    position: i64,
    recorded_at: i64,
    category: Nullable,
}

/// Writes one event behind `head`, and gives the new head.
fn insert(
    call: &Call,
    request: &Request,
    place: &Place,
    head: &Head,
    event: &NewEvent,
    event_id: &[u8; 16],
    into: &mut Inserter,
) -> Result<Head> {
    let version = head.version + 1;
    let recorded_at = place.recorded_at;
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
            schema_version: event.schema_version,
            subject: event.subject,
            tags: &[],
            occurred_at_unix_us: pg_to_unix_us(occurred_at),
            recorded_at_unix_us: pg_to_unix_us(recorded_at),
            recorded_by: &call.recorded_by,
            content_digest: &content_digest(&salt, event.payload.text, event.metadata.text),
        },
    );
    // In the order of the table's columns (sql/log/tables.sql).
    into.put(&[
        call.tenant_id,
        Some(Datum::from(place.stream_id)),
        Some(Datum::from(version)),
        Some(Datum::from(place.position)),
        Some(Datum::from(occurred_at)),
        Some(Datum::from(max_occurred_at)),
        Some(Datum::from(recorded_at)),
        Some(from_uuid(event_id)?),
        Some(Datum::from(event.schema_version)),
        Some(from_text(event.event_type)?),
        place.category,
        call.recorded_by_datum,
        event.subject.map(from_text).transpose()?,
        call.recorded_from,
        Some(varlena(&salt)?),
        Some(varlena(&hash)?),
        Some(event.payload.value.datum()),
        Some(event.metadata.value.datum()),
    ])?;
    Ok(Head { version, chain_hash: hash, recorded_at, max_occurred_at, global_position: place.position, closed: false })
}
