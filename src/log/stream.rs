//! Streams: the row that an append locks, the head that it builds on, and the partitions a stream's events are in. The row
//! is changed only when the stream enters a new partition; everything else is read from the newest event.
use super::partition::{self, Partition};
use super::statements::{STREAM_ID, STREAM_ID_AND_TWO, STREAM_KEY, STREAM_ROW, Statement, column};
use crate::pg::catalog::{self, Catalog};
use crate::pg::datum::{Nullable, from_text};
use crate::pg::failure::{Failure, Result};
use crate::pg::plan::{Plan, Row, View};
use crate::pg::probe::Probe;
use crate::pg::sequence;
use crate::pg::session::Db;
use eventstream_core::error::Error;
use eventstream_core::hash::{GENESIS, Hash};
use eventstream_core::name::{EventType, StreamName};
use pgrx::pg_sys::{Datum, INT8OID, Oid, TEXTOID};
use std::cell::RefCell;
use std::rc::Rc;

/// A stream's row.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub id: i64,
    pub first_position: i64,
    /// Lower bound of the partition that holds the newest event.
    pub newest_partition: i64,
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

/// What came of locking.
pub enum Locked {
    /// The stream has events; nobody else appends to it until this transaction ends.
    Existing(Stream, Head),
    /// The row was made just now, with a position that its first event is to have.
    New(Stream),
    /// There is none, and none was to be made.
    Missing,
}

thread_local! {
    static SEGMENT_PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static LOCK: Plan = const { Plan::new(
        "select id, first_position, newest_partition from _eventstream.streams \
         where tenant_id = $1 and name = $2 for no key update",
        STREAM_KEY,
    ) };
    static LOOK_UP: Plan = const { Plan::new(
        "select id, first_position, newest_partition from _eventstream.streams where tenant_id = $1 and name = $2",
        STREAM_KEY,
    ) };
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.streams (id, tenant_id, name, category, first_position, newest_partition) \
         values (nextval('_eventstream.stream_ids'), $1, $2, $3, $4, $5) \
         on conflict (tenant_id, name) do nothing returning id, first_position, newest_partition",
        STREAM_ROW,
    ) };
    static PLACE: Plan = const { Plan::new(
        "update _eventstream.streams set first_position = $2, newest_partition = $3 where id = $1",
        STREAM_ID_AND_TWO,
    ) };
    static ENTER: Plan = const { Plan::new(
        "insert into _eventstream.stream_segments (stream_id, partition, first_version) values ($1, $2, $3)",
        STREAM_ID_AND_TWO,
    ) };
    static SEGMENTS: Plan = const { Plan::new(
        "select partition, first_version from _eventstream.stream_segments where stream_id = $1 order by partition",
        STREAM_ID,
    ) };
    static PAGE_OF_CATEGORY: Plan = const { Plan::new(
        "select id, first_position, newest_partition, name from _eventstream.streams \
         where tenant_id = $1 and category = $2 and id > $3 order by id limit $4",
        &[INT8OID, TEXTOID, INT8OID, INT8OID],
    ) };
    static PAGE: Plan = const { Plan::new(
        "select id, first_position, newest_partition, name, tenant_id from _eventstream.streams \
         where id > $1 and ($2 is null or tenant_id = $2) order by id limit $3",
        STREAM_ID_AND_TWO,
    ) };
}

fn read(row: &Row) -> Result<Stream> {
    Ok(Stream { id: row.int8(0)?, first_position: row.int8(1)?, newest_partition: row.int8(2)? })
}

/// Locks the stream against other appends until the end of the transaction, and makes it where `may_create`.
pub fn lock(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName, may_create: bool) -> Result<Locked> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name.as_str())?)];
    loop {
        if let Some(stream) = LOCK.with(|lock| lock.first(db, View::Write, &key, read))? {
            // Whoever held the lock may have moved the stream to a partition that this session has not heard of. The head is
            // read under a snapshot that is newer than the lock.
            catalog::refresh()?;
            let head = newest(db, catalog, &stream, View::Latest)?;
            return Ok(Locked::Existing(stream, head));
        }
        if !may_create {
            return Ok(Locked::Missing);
        }
        let position = sequence::next(catalog.positions)?;
        let lower = partition::for_append(db, catalog, position)?.lower;
        let category = Some(from_text(name.category())?);
        let row = [key[0], key[1], category, Some(Datum::from(position)), Some(Datum::from(lower))];
        if let Some(stream) = CREATE.with(|create| create.first(db, View::Write, &row, read))? {
            return Ok(Locked::New(stream));
        }
        // Somebody else made it meanwhile, and has committed: lock theirs.
    }
}

/// The stream, without locking it.
pub fn look_up(db: &Db, view: View, tenant_id: i64, name: &StreamName) -> Result<Option<Stream>> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name.as_str())?)];
    LOOK_UP.with(|look_up| look_up.first(db, view, &key, read))
}

/// The newest event: there is always one, unless somebody forced it away.
pub fn newest(db: &Db, catalog: &Catalog, stream: &Stream, view: View) -> Result<Head> {
    let partitions = partition::all(db, catalog)?;
    let head = match partition::by_lower_bound(&partitions, stream.newest_partition) {
        Some(partition) => head_in(db, &partition, stream.id, view)?,
        None => None,
    };
    head.ok_or_else(|| missing(stream, stream.newest_partition))
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
    let mut head = None;
    partition.versions.newest_first(db, view, Datum::from(stream_id), |row| {
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
    let partitions = partition::all(db, catalog)?;
    let mut segments = Vec::with_capacity(1);
    let first = partition::containing(db, catalog, stream.first_position)?
        .ok_or_else(|| missing(stream, stream.first_position))?;
    let only_one = first.lower == stream.newest_partition;
    segments.push(Segment { partition: first, first_version: 1 });
    if only_one {
        return Ok(segments);
    }
    let later = SEGMENTS
        .with(|plan| plan.rows(db, view, 0, &[Some(Datum::from(stream.id))], |row| Ok((row.int8(0)?, row.int8(1)?))))?;
    for (lower, first_version) in later {
        let partition = partition::by_lower_bound(&partitions, lower).ok_or_else(|| missing(stream, lower))?;
        segments.push(Segment { partition, first_version });
    }
    Ok(segments)
}

/// The newest partition that the stream's events are in, and the one before it.
pub fn newest_two(db: &Db, catalog: &Catalog, stream: &Stream) -> Result<Vec<Rc<Partition>>> {
    let first = partition::containing(db, catalog, stream.first_position)?;
    let mut lowers = Vec::with_capacity(2);
    if first.as_ref().is_none_or(|first| first.lower != stream.newest_partition) {
        let probe = SEGMENT_PROBE.take().filter(|(table, _)| *table == catalog.segments);
        let (table, probe) = probe.unwrap_or((catalog.segments, Probe::by_int8(catalog.segments, &[1, 2])));
        probe.newest_first(db, View::Latest, Datum::from(stream.id), |row| {
            lowers.push(row.int8(1)?);
            Ok(lowers.len() < 2)
        })?;
        SEGMENT_PROBE.set(Some((table, probe)));
    }
    let partitions = partition::all(db, catalog)?;
    let mut newest = Vec::with_capacity(2);
    for lower in lowers {
        newest.push(partition::by_lower_bound(&partitions, lower).ok_or_else(|| missing(stream, lower))?);
    }
    if newest.len() < 2 {
        newest.extend(first);
    }
    Ok(newest)
}

/// The segments of `partitions` that hold versions from `from` to `to`.
pub fn holding(segments: &[Segment], from: i64, to: i64) -> impl DoubleEndedIterator<Item = &Segment> {
    segments.iter().enumerate().filter_map(move |(place, segment)| {
        let next = segments.get(place + 1).map_or(i64::MAX, |next| next.first_version);
        (segment.first_version <= to && next > from).then_some(segment)
    })
}

/// Notes the stream's first position, and that its newest event is in the partition from `lower`.
pub fn place(db: &Db, stream: &Stream, lower: i64) -> Result<()> {
    let row = [Some(Datum::from(stream.id)), Some(Datum::from(stream.first_position)), Some(Datum::from(lower))];
    PLACE.with(|place| place.write(db, &row)).map(drop)
}

/// The stream enters the partition from `lower` with `first_version`.
pub fn enter(db: &Db, stream: &Stream, lower: i64, first_version: i64) -> Result<()> {
    let segment = [Some(Datum::from(stream.id)), Some(Datum::from(lower)), Some(Datum::from(first_version))];
    ENTER.with(|enter| enter.write(db, &segment))?;
    place(db, stream, lower)
}

/// Streams by id after `after`, with name and tenant: to walk through all of them in bounded memory.
pub fn page(db: &Db, view: View, after: i64, tenant_id: Option<i64>, count: i64) -> Result<Vec<(Stream, String, i64)>> {
    let args = [Some(Datum::from(after)), tenant_id.map(Datum::from), Some(Datum::from(count))];
    PAGE.with(|page| page.rows(db, view, 0, &args, |row| Ok((read(row)?, row.text(3)?.to_owned(), row.int8(4)?))))
}

/// The streams of a category by id after `after`, with their names.
pub fn page_of_category(
    db: &Db,
    view: View,
    tenant_id: i64,
    category: &str,
    after: i64,
    count: i64,
) -> Result<Vec<(Stream, String)>> {
    let args =
        [Some(Datum::from(tenant_id)), Some(from_text(category)?), Some(Datum::from(after)), Some(Datum::from(count))];
    PAGE_OF_CATEGORY.with(|page| page.rows(db, view, 0, &args, |row| Ok((read(row)?, row.text(3)?.to_owned()))))
}
