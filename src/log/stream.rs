//! Streams: the row that an append locks, the head that it builds on, and the partitions a stream's events are in. The row
//! is never changed once it is committed: the newest segment says where the newest event is, and that event everything else.
use super::names::tag_of_name;
use super::partition::{self, Partition};
use super::statements::{
    STREAM_AND_POSITION, STREAM_KEY, STREAM_PAGE, STREAM_ROW, Statement, column, segment, stream_column,
};
use super::{highest, identity};
use crate::pg::error::failure::{Failure, Result};
use crate::pg::invalidation;
use crate::pg::process::lock::{self, LockTag};
use crate::pg::process::server;
use crate::pg::process::session::Db;
use crate::pg::query::columns::number;
use crate::pg::query::insert::Inserter;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::{Bound, Presence, Probe, RowLock, RowStrength};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::Catalog;
use crate::shared::trial;
use eventstream_core::command::boundary::Found;
use eventstream_core::delivery::slot_of;
use eventstream_core::error::Error;
use eventstream_core::hash::{GENESIS, Hash};
use eventstream_core::name::{EventType, StreamName};
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::rc::Rc;

/// Columns of the indexes that are probed, by their numbers: streams_name_key, stream_segments_pkey.
const NAME_KEY: &[i16] = &[number(stream_column::TENANT_ID), number(stream_column::NAME)];
const SEGMENT_KEY: &[i16] = &[number(segment::STREAM_ID), number(segment::PARTITION)];

/// The first position of a stream that a test has reserved.
const NOWHERE: i64 = 0;

/// A stream's row.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub id: i64,
    pub first_position: i64,
}

/// The newest event of a stream, as far as the next one builds on it.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: i64,
    pub chain_hash: Hash,
    pub recorded_at: i64,
    pub max_occurred_at: i64,
    pub global_position: i64,
    pub closed: bool,
}

/// What is to become of a stream that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Leave,
    /// It is to be made: its name is kept for this transaction until [`make`].
    Keep,
    /// It is to be made, by a call that makes so many that their names cannot all be kept.
    Guess,
    /// It is to stay absent, and its name is shared.
    Forbid,
}

/// How a stream is to be locked.
pub struct Hold {
    pub strength: RowStrength,
    pub absent: Absent,
    /// Whether its name is shared, with whoever wants the same, until the end of the transaction.
    pub shares_name: bool,
    /// How many of its newest partitions the caller wants to know.
    pub partitions: usize,
    /// The version that it is expected to have; 0: any.
    pub expected: i64,
}

/// What came of locking.
pub enum Locked {
    /// The stream has events; nobody else appends to it until this transaction ends. With its newest partitions, newest first.
    Existing(Stream, Head, Vec<Rc<Partition>>),
    /// There is none, and it is to be made; nobody else makes it before [`make`] where the name is kept.
    Free(Option<LockTag>),
    /// The row was made by this call, with the position that its first event is to have.
    Made(Stream),
    /// There is none, and none is to be made.
    Missing,
}

impl Locked {
    /// What an append is judged by.
    pub fn found(&self) -> Found {
        match self {
            Self::Existing(_, head, _) => Found { version: head.version, is_closed: head.closed },
            Self::Free(_) | Self::Made(_) | Self::Missing => Found::NOTHING,
        }
    }
}

thread_local! {
    static NAME_PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static SEGMENT_PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static LOCK: Plan = const { Plan::new(
        "select id, first_position from _eventstream.streams where tenant_id = $1 and name = $2 for no key update",
        STREAM_KEY,
    ) };
    static LOCK_SHARED: Plan = const { Plan::new(
        "select id, first_position from _eventstream.streams where tenant_id = $1 and name = $2 for share",
        STREAM_KEY,
    ) };
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.streams (id, tenant_id, name, category, first_position, slot) \
         values (nextval('_eventstream.stream_ids'), $1, $2, $3, $4, $5) \
         on conflict (tenant_id, name) do nothing returning id, first_position",
        STREAM_ROW,
    ) };
    static PLACE: Plan = const { Plan::new(
        "update _eventstream.streams set first_position = $2 where id = $1",
        STREAM_AND_POSITION,
    ) };
    static PAGE: Plan = const { Plan::new(
        "select id, first_position, name, tenant_id from _eventstream.streams \
         where id > $1 and ($2 is null or tenant_id = $2) order by id limit $3",
        STREAM_PAGE,
    ) };
}

fn read(row: &Row) -> Result<Stream> {
    Ok(Stream { id: row.int8(0)?, first_position: row.int8(1)? })
}

/// Locks the stream against other appends until the end of the transaction; where there is none, its name as `hold` says. Whoever
/// is making it is waited for here, so that nobody waits for a stranger with an entry.
///
/// Rows alone know no line: who may share a row goes past a writer who waits for it, and where there is always one of them the writer waits
/// for ever. So those who check a stream share its name as well, and a writer who has to wait does it with the name.
pub fn lock(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName, hold: &Hold) -> Result<Locked> {
    if trial::is_on() && probe_name(db, catalog, View::Latest, tenant_id, name)?.is_none() {
        let reserved = probe_row(db, catalog, View::Latest, tenant_id, name)?;
        let reserved = reserved.filter(|stream| stream.first_position == NOWHERE);
        return Ok(reserved.map_or_else(|| to_a_trial(hold.absent), Locked::Made));
    }
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name.as_str())?)];
    let Hold { strength, absent, partitions, .. } = *hold;
    let mut kept = None;
    if hold.shares_name {
        share_name(db, catalog, tenant_id, name, &key)?;
    }
    loop {
        if !is_known_absent(db, catalog, tenant_id, name)? {
            let waits = strength == RowStrength::Check || kept.is_some();
            match lock_row(db, catalog, (strength, waits), &key, tenant_id)? {
                RowLock::Locked(stream) => {
                    let_go(kept)?;
                    // Whoever held the lock may have moved the stream to a partition that this session has not heard of. The head is
                    // read under a snapshot that is newer than the lock.
                    invalidation::take_in()?;
                    let newest = newest_partitions(db, catalog, &stream, View::Latest, partitions)?;
                    let head = newest_in(db, &stream, &newest, View::Latest, hold.expected)?;
                    return Ok(Locked::Existing(stream, head, newest));
                }
                RowLock::Busy => {
                    kept = Some(keep_name(catalog, tenant_id, name)?);
                    continue;
                }
                RowLock::Nowhere | RowLock::Changed => {}
            }
        }
        if absent == Absent::Leave {
            let_go(kept)?;
            return Ok(Locked::Missing);
        }
        if absent == Absent::Keep && kept.is_none() {
            kept = Some(keep_name(catalog, tenant_id, name)?);
        }
        match with_name_probe(catalog, |probe| presence(db, probe, tenant_id, name))? {
            Presence::Nowhere if absent == Absent::Forbid => return Ok(Locked::Missing),
            Presence::Nowhere => return Ok(Locked::Free(kept)),
            Presence::There => server::check_for_interrupts()?,
            Presence::Coming(transaction) => lock::wait_for_end_of(transaction)?,
        }
    }
}

/// What a test locks of a stream that is not its own: nothing, lest it wait for others, or they for it.
fn to_a_trial(absent: Absent) -> Locked {
    match absent {
        Absent::Leave | Absent::Forbid => Locked::Missing,
        Absent::Keep | Absent::Guess => Locked::Free(None),
    }
}

/// Makes the row of a stream that a test is given, before its events. Until the first of them it is absent to everybody.
pub fn reserve(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName) -> Result<()> {
    make(db, catalog, tenant_id, name, None, NOWHERE).map(drop)
}

/// Stands in the line of those who check the stream. Who has its name alone may be waiting for its row, and the row may be this transaction's:
/// then there is no line to stand in, and to wait would be a deadlock.
fn share_name(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName, key: &[Nullable; 2]) -> Result<()> {
    let tag = tag_of_name(catalog, tenant_id, name);
    if tag.try_share()? {
        return Ok(());
    }
    // As strong as a writer: who only shares the row with others must not pass one who waits for it.
    let how = (RowStrength::Append, false);
    if !is_known_absent(db, catalog, tenant_id, name)?
        && matches!(lock_row(db, catalog, how, key, tenant_id)?, RowLock::Locked(_))
    {
        return Ok(());
    }
    tag.share()
}

/// The locked row, if there is one and it is had.
fn lock_row(
    db: &Db,
    catalog: &Catalog,
    how: (RowStrength, bool),
    key: &[Nullable; 2],
    tenant_id: i64,
) -> Result<RowLock<Stream>> {
    let bounds = key[1].map(|name| [Bound::equal_text(2, name)]);
    let locked = with_name_probe(catalog, |probe| {
        probe.lock(db, how, Datum::from(tenant_id), bounds.as_ref().map_or(&[], |bounds| bounds), read_row)
    })?;
    if !matches!(locked, RowLock::Changed) {
        return Ok(locked);
    }
    // By this transaction, or by force.
    let statement = if how.0 == RowStrength::Check { &LOCK_SHARED } else { &LOCK };
    let found = statement.with(|lock| lock.first(db, View::Write, key, read))?;
    Ok(found.map_or(RowLock::Nowhere, RowLock::Locked))
}

pub(super) fn read_row(row: &Row) -> Result<Stream> {
    Ok(Stream { id: row.int8(stream_column::ID)?, first_position: row.int8(stream_column::FIRST_POSITION)? })
}

pub(super) fn presence(db: &Db, probe: &Probe, tenant_id: i64, name: &StreamName) -> Result<Presence> {
    probe.presence(db, Datum::from(tenant_id), &[Bound::equal_text(2, from_text(name.as_str())?)], |_| Ok(()))
}

fn keep_name(catalog: &Catalog, tenant_id: i64, name: &StreamName) -> Result<LockTag> {
    let tag = tag_of_name(catalog, tenant_id, name);
    tag.lock()?;
    Ok(tag)
}

fn let_go(kept: Option<LockTag>) -> Result<()> {
    kept.map_or(Ok(()), LockTag::unlock)
}

/// Makes the row of a stream that [`lock`] found free, and lets its name go: whoever meets the row waits for this transaction. None where
/// somebody else has made it, and has committed: only where its name was not kept.
pub fn make(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    name: &StreamName,
    kept: Option<LockTag>,
    first_position: i64,
) -> Result<Option<Stream>> {
    let slot = slot_of(&identity::tenant_uuid(db, catalog, tenant_id)?, name.as_str());
    let row = [
        Some(Datum::from(tenant_id)),
        Some(from_text(name.as_str())?),
        Some(from_text(name.category())?),
        Some(Datum::from(first_position)),
        Some(Datum::from(slot as i16)),
    ];
    let made = CREATE.with(|create| create.first(db, View::Write, &row, read))?;
    if trial::is_on() && made.is_none() {
        return Err(trial::refusal(name.as_str()).into());
    }
    if server::is_serializable() {
        // Behind the row: who looks from now on meets that.
        tag_of_name(catalog, tenant_id, name).note_taking()?;
    }
    let_go(kept)?;
    Ok(made)
}

/// In SERIALIZABLE: whether there is no such stream, and none that is being made, where the transaction's dependency on that is noted for this
/// name alone. What would be found is left to the caller's look.
fn is_known_absent(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName) -> Result<bool> {
    if !server::is_serializable() {
        return Ok(false);
    }
    tag_of_name(catalog, tenant_id, name).note_look()?;
    Ok(with_name_probe(catalog, |probe| presence(db, probe, tenant_id, name))? == Presence::Nowhere)
}

pub fn probe_name(db: &Db, catalog: &Catalog, view: View, tenant_id: i64, name: &StreamName) -> Result<Option<Stream>> {
    Ok(probe_row(db, catalog, view, tenant_id, name)?.filter(|stream| stream.first_position > trial::after(0)))
}

fn probe_row(db: &Db, catalog: &Catalog, view: View, tenant_id: i64, name: &StreamName) -> Result<Option<Stream>> {
    if is_known_absent(db, catalog, tenant_id, name)? {
        return Ok(None);
    }
    let bounds = [Bound::equal_text(2, from_text(name.as_str())?)];
    let mut found = None;
    with_name_probe(catalog, |probe| {
        probe.in_order(db, view, Datum::from(tenant_id), &bounds, |columns| {
            // Streams that others make are none of a test's.
            if !trial::is_on() || columns.is_own()? {
                found = Some(read_row(columns)?);
            }
            Ok(false)
        })
    })?;
    Ok(found)
}

pub(super) fn with_name_probe<T>(catalog: &Catalog, ask: impl FnOnce(&Probe) -> Result<T>) -> Result<T> {
    let probe = NAME_PROBE.take().filter(|(table, _)| *table == catalog.streams);
    let (table, probe) = probe.unwrap_or((catalog.streams, Probe::by_int8(catalog.streams, NAME_KEY)));
    let outcome = ask(&probe);
    NAME_PROBE.set(Some((table, probe)));
    outcome
}

/// The newest event: there is always one, unless somebody forced it away.
pub fn newest(db: &Db, catalog: &Catalog, stream: &Stream, view: View) -> Result<Head> {
    newest_in(db, stream, &newest_partitions(db, catalog, stream, view, 1)?, view, 0)
}

/// From version `expected` on first: a scan of an index looks at all that is wanted of a page, whose last entry is wanted here alone.
fn newest_in(db: &Db, stream: &Stream, newest: &[Rc<Partition>], view: View, expected: i64) -> Result<Head> {
    let newest = newest.first().ok_or_else(|| missing(stream, stream.first_position))?;
    let bounds = [Bound::at_least(2, expected)];
    let mut head = head_within(db, newest, stream.id, if expected > 0 { &bounds } else { &[] }, view)?;
    if head.is_none() && expected > 0 {
        head = head_in(db, newest, stream.id, view)?;
    }
    head.ok_or_else(|| missing(stream, newest.lower))
}

/// Somebody forced events away, or a partition.
fn missing(stream: &Stream, position: i64) -> Failure {
    let what = format!("stream {} has no events in the partition of position {position}: run es_verify()", stream.id);
    Error::Internal { what }.into()
}

/// Reads what is needed of a row of events.
pub fn read_head(row: &Row) -> Result<Head> {
    Ok(Head {
        version: row.int8(column::VERSION)?,
        chain_hash: row.hash(column::CHAIN_HASH)?,
        recorded_at: row.int8(column::RECORDED_AT)?,
        max_occurred_at: row.int8(column::MAX_OCCURRED_AT)?,
        closed: row.text(column::EVENT_TYPE)? == EventType::STREAM_CLOSED,
        global_position: row.int8(column::GLOBAL_POSITION)?,
    })
}

/// The stream's newest event within one partition.
pub fn head_in(db: &Db, partition: &Partition, stream_id: i64, view: View) -> Result<Option<Head>> {
    head_within(db, partition, stream_id, &[], view)
}

/// The newest one of them before `version`.
pub fn head_before(db: &Db, partition: &Partition, stream_id: i64, version: i64, view: View) -> Result<Option<Head>> {
    head_within(db, partition, stream_id, &[Bound::at_most(2, version - 1)], view)
}

fn head_within(db: &Db, partition: &Partition, stream_id: i64, bounds: &[Bound], view: View) -> Result<Option<Head>> {
    let mut head = None;
    partition.versions.newest_first(db, view, Datum::from(stream_id), bounds, |row| {
        head = Some(read_head(row)?);
        Ok(false)
    })?;
    Ok(head)
}

/// The newest event with global_position <= `up_to`.
pub fn head_up_to(db: &Db, catalog: &Catalog, stream: &Stream, up_to: i64, view: View) -> Result<Option<Head>> {
    if stream.first_position > up_to {
        return Ok(None);
    }
    let args: [Nullable; 2] = [Some(Datum::from(stream.id)), Some(Datum::from(up_to))];
    for segment in segments(db, catalog, stream, view)?.iter().rev().filter(|segment| segment.partition.lower <= up_to)
    {
        if let Some(head) = segment.partition.plan(Statement::HeadUpTo).first(db, view, &args, read_head)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// The previous chain hash and so on before version 1.
pub fn genesis() -> Head {
    Head {
        version: 0,
        chain_hash: GENESIS,
        recorded_at: i64::MIN,
        max_occurred_at: i64::MIN,
        global_position: 0,
        closed: false,
    }
}

/// A run of versions within one partition, from `first_version` on.
#[derive(Clone)]
pub struct Segment {
    pub partition: Rc<Partition>,
    pub first_version: i64,
}

/// Where the stream's events are, oldest first.
pub fn segments(db: &Db, catalog: &Catalog, stream: &Stream, view: View) -> Result<Vec<Segment>> {
    let first = partition::containing(db, catalog, stream.first_position)?
        .ok_or_else(|| missing(stream, stream.first_position))?;
    let mut segments = later_segments(db, catalog, stream, view, usize::MAX)?;
    segments.push(Segment { partition: first, first_version: 1 });
    segments.reverse();
    Ok(segments)
}

/// The `most` newest partitions that the stream's events are in, newest first.
pub fn newest_partitions(
    db: &Db,
    catalog: &Catalog,
    stream: &Stream,
    view: View,
    most: usize,
) -> Result<Vec<Rc<Partition>>> {
    let first = partition::containing(db, catalog, stream.first_position)?;
    if let Some(first) = &first
        && highest::is_within(catalog, first)?
    {
        return Ok(vec![Rc::clone(first)]);
    }
    let later = later_segments(db, catalog, stream, view, most)?;
    let mut newest: Vec<_> = later.into_iter().map(|segment| segment.partition).collect();
    if newest.len() < most {
        newest.extend(first);
    }
    Ok(newest)
}

/// The `most` newest segments after the first, newest first.
fn later_segments(db: &Db, catalog: &Catalog, stream: &Stream, view: View, most: usize) -> Result<Vec<Segment>> {
    let probe = SEGMENT_PROBE.take().filter(|(table, _)| *table == catalog.segments);
    let (table, probe) = probe.unwrap_or((catalog.segments, Probe::by_int8(catalog.segments, SEGMENT_KEY)));
    let mut rows = Vec::new();
    probe.newest_first(db, view, Datum::from(stream.id), &[], |row| {
        rows.push((row.int8(segment::PARTITION)?, row.int8(segment::FIRST_VERSION)?));
        Ok(rows.len() < most)
    })?;
    SEGMENT_PROBE.set(Some((table, probe)));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut partitions = partition::all(db, catalog)?;
    if rows.iter().any(|&(lower, _)| partition::by_lower_bound(&partitions, lower).is_none()) {
        // The rows are newer than what this session has heard of.
        invalidation::take_in()?;
        partitions = partition::all(db, catalog)?;
    }
    rows.into_iter()
        .map(|(lower, first_version)| {
            let partition = partition::by_lower_bound(&partitions, lower).ok_or_else(|| missing(stream, lower))?;
            Ok(Segment { partition, first_version })
        })
        .collect()
}

/// The segments of `partitions` that hold versions from `from` to `to`.
pub fn holding(segments: &[Segment], from: i64, to: i64) -> impl DoubleEndedIterator<Item = &Segment> {
    segments.iter().enumerate().filter_map(move |(place, segment)| {
        let next = segments.get(place + 1).map_or(i64::MAX, |next| next.first_version);
        (segment.first_version <= to && next > from).then_some(segment)
    })
}

/// Notes another first position of a stream that this call has made.
pub fn place(db: &Db, stream: &Stream) -> Result<()> {
    PLACE
        .with(|place| place.write(db, &[Some(Datum::from(stream.id)), Some(Datum::from(stream.first_position))]))
        .map(drop)
}

/// The stream enters the partition from `lower` with `first_version`, at `position`.
pub fn enter(db: &Db, catalog: &Catalog, stream: &Stream, lower: i64, first_version: i64, position: i64) -> Result<()> {
    let mut segments = Inserter::open(db, catalog.segments)?;
    segments.put(&[stream.id, lower, first_version, position].map(|value| Some(Datum::from(value))))?;
    segments.close()
}

/// Streams by id after `after`, with name and tenant: to walk through all of them in bounded memory.
pub fn page(db: &Db, view: View, after: i64, tenant_id: Option<i64>, count: i64) -> Result<Vec<(Stream, String, i64)>> {
    let args = [Some(Datum::from(after)), tenant_id.map(Datum::from), Some(Datum::from(count))];
    PAGE.with(|page| page.rows(db, view, 0, &args, |row| Ok((read(row)?, row.text(2)?.to_owned(), row.int8(3)?))))
}
