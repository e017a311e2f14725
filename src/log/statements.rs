//! The statements that append, look up and read events in one partition. `{events}` is the partition's table: appends, heads
//! and stream reads never plan over all partitions. `x + 0 = …` keeps a condition away from an index that must not be used, and so does a
//! comparison of rows: `(category, global_position) > (…)` can only be asked of the index that has them in this order.
use crate::pg::query::columns::columns;
use pgrx::pg_sys::{INT2OID, INT8ARRAYOID, INT8OID, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, UUIDOID};

/// Places of the columns of a row of events, from 0, in the order of sql/log/tables.sql.
pub mod column {
    pub const TENANT_ID: usize = 0;
    pub const STREAM_ID: usize = 1;
    pub const VERSION: usize = 2;
    pub const GLOBAL_POSITION: usize = 3;
    pub const OCCURRED_AT: usize = 4;
    pub const MAX_OCCURRED_AT: usize = 5;
    pub const RECORDED_AT: usize = 6;
    pub const EVENT_ID: usize = 7;
    pub const SCHEMA_VERSION: usize = 8;
    pub const EVENT_TYPE: usize = 9;
    pub const CATEGORY: usize = 10;
    pub const RECORDED_BY: usize = 11;
    pub const SUBJECT: usize = 12;
    pub const SALT: usize = 14;
    pub const CHAIN_HASH: usize = 15;
    pub const PAYLOAD: usize = 16;
    pub const METADATA: usize = 17;
    pub const TAGS: usize = 18;
}

/// Places of the columns of a row of stream_segments, and its key by number, from 1.
pub mod segment {
    pub const PARTITION: usize = 1;
    pub const FIRST_VERSION: usize = 2;
    pub const KEY: &[i16] = &[1, 2];
}

/// What is asked of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    Newest,
    Oldest,
    Exists,
    HeadUpTo,
    ByVersions,
    ReadForward,
    ReadBackward,
    LogAll,
    LogByCategory,
    LogBackward,
    BySubject,
    ByEventId,
    Size,
    Verify,
    VerifyStream,
    MissingFirst,
    MissingSegments,
    MissingOfStream,
    Places,
    NewestWithin,
    OffersAll,
    OffersByCategory,
    OffersAt,
    OffersOfStream,
    FactsAt,
    EventsAt,
    EventsAtBackward,
    StreamsFrom,
}

pub const STATEMENTS: usize = Statement::StreamsFrom as usize + 1;

const RANGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
const STREAM_RANGE: &[Oid] =
    &[TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID];

/// The columns of type eventstream.event, for an event `e` and the tenant's name `$1`. The stream is looked up for each event: a join would be
/// planned for as many events as there may be, and go through all streams.
macro_rules! event_columns {
    () => {
        "e.global_position, (select s.name from _eventstream.streams s where s.id = e.stream_id), e.version, e.event_id, e.event_type, e.schema_version, e.payload, e.metadata, \
         e.subject, e.occurred_at, e.recorded_at, e.category, $1, e.recorded_by, e.salt, e.chain_hash, e.tags"
    };
}

/// The same for a stream whose name is `$2`.
macro_rules! stream_event_columns {
    () => {
        "e.global_position, $2, e.version, e.event_id, e.event_type, e.schema_version, e.payload, e.metadata, \
         e.subject, e.occurred_at, e.recorded_at, e.category, $1, e.recorded_by, e.salt, e.chain_hash, e.tags"
    };
}

/// Whether a filter lets an event through: event types, and what upcasters turn into one of them, as `schema version:event type`.
macro_rules! wanted {
    ($types:literal, $older:literal) => {
        concat!(
            "(",
            $types,
            " is null or event_type = any (",
            $types,
            ") or ",
            $older,
            " is not null and schema_version::text || ':' || event_type = any (",
            $older,
            "))"
        )
    };
}

/// What decides on a delivery: the place, whether the filters want the event, and its size. `$5`, `$6`: event types.
macro_rules! offer_columns {
    () => {
        concat!(
            "global_position, stream_id, ",
            wanted!("$5", "$6"),
            ", coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(metadata), 0) + 300"
        )
    };
}

columns! {
    /// What verification recomputes a chain from, of an event `e`.
    pub mod verified, verified_columns;
    STREAM_ID = "e.stream_id",
    VERSION = "e.version",
    GLOBAL_POSITION = "e.global_position",
    TENANT_ID = "e.tenant_id",
    EVENT_ID = "e.event_id",
    EVENT_TYPE = "e.event_type",
    SCHEMA_VERSION = "e.schema_version",
    CATEGORY = "e.category",
    SUBJECT = "e.subject",
    OCCURRED_AT = "e.occurred_at",
    MAX_OCCURRED_AT = "e.max_occurred_at",
    RECORDED_AT = "e.recorded_at",
    RECORDED_BY = "e.recorded_by",
    SALT = "e.salt",
    CHAIN_HASH = "e.chain_hash",
    PAYLOAD = "e.payload",
    METADATA = "e.metadata",
    TAGS = "e.tags",
    STREAM = "case when e.version = 1 then \
              (select array[s.tenant_id::text, s.first_position::text, s.name, s.category, s.slot::text] \
               from _eventstream.streams s where s.id = e.stream_id) end",
}

impl Statement {
    /// The SQL, and the types of its parameters.
    pub fn definition(self) -> (&'static str, &'static [Oid]) {
        match self {
            Statement::Newest => (
                "select global_position, stream_id, recorded_at from {events} order by global_position desc limit 1",
                &[],
            ),
            Statement::Oldest => {
                ("select global_position, stream_id, recorded_at from {events} order by global_position limit 1", &[])
            }
            Statement::Exists => ("select 1::bigint from {events} where global_position = $1 limit 1", &[INT8OID]),
            Statement::HeadUpTo => (
                "select * from {events} \
                 where stream_id = $1 and global_position + 0 <= $2 order by version desc limit 1",
                &[INT8OID, INT8OID],
            ),
            Statement::ByVersions => (
                "select * from {events} \
                 where stream_id = $1 and version >= $2 and version <= $3",
                RANGE,
            ),
            Statement::ReadForward => (
                concat!(
                    "select ",
                    stream_event_columns!(),
                    " from {events} e where e.stream_id = $3 and e.version >= $4 and e.version <= $7 \
                     and ($5 is null or e.occurred_at <= $5) and ",
                    wanted!("$8", "$9"),
                    " order by e.version limit $6"
                ),
                STREAM_RANGE,
            ),
            Statement::ReadBackward => (
                concat!(
                    "select ",
                    stream_event_columns!(),
                    " from {events} e where e.stream_id = $3 and e.version <= $4 and e.version >= $7 \
                     and ($5 is null or e.occurred_at <= $5) and ",
                    wanted!("$8", "$9"),
                    " order by e.version desc limit $6"
                ),
                STREAM_RANGE,
            ),
            Statement::LogAll => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from (select * from {events} where (tenant_id, global_position) > ($2, $3) \
                     and (tenant_id, global_position) <= ($2, $4) and ",
                    wanted!("$6", "$7"),
                    " order by tenant_id, global_position limit $5) e order by e.global_position"
                ),
                &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
            ),
            Statement::LogByCategory => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from (select * from {events} where tenant_id = $2 and (category, global_position) > ($8, $3) \
                     and (category, global_position) <= ($8, $4) and ",
                    wanted!("$6", "$7"),
                    " order by category, global_position limit $5) e order by e.global_position"
                ),
                &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID],
            ),
            Statement::LogBackward => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from (select * from {events} where (tenant_id, global_position) < ($2, $3) \
                     and (tenant_id, global_position) > ($2, 0) and ",
                    wanted!("$5", "$6"),
                    " order by tenant_id desc, global_position desc limit $4) e order by e.global_position desc"
                ),
                &[TEXTOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
            ),
            Statement::BySubject => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from (select * from {events} where tenant_id = $2 and subject = $3 and global_position + 0 > $4 \
                     and ($6 is null or category = any ($6)) order by global_position limit $5) e order by e.global_position"
                ),
                &[TEXTOID, INT8OID, TEXTOID, INT8OID, INT8OID, TEXTARRAYOID],
            ),
            Statement::ByEventId => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from {events} e \
                     where e.event_id = $3 and e.tenant_id + 0 = $2 and ($4 is null or e.category = any ($4)) \
                     order by e.global_position"
                ),
                &[TEXTOID, INT8OID, UUIDOID, TEXTARRAYOID],
            ),
            Statement::Size => (
                "select count(*), coalesce(sum(pg_column_size(e.*)), 0)::bigint, \
                 (select f.occurred_at from {events} f where f.stream_id = $1 order by f.version limit 1), \
                 (select l.occurred_at from {events} l where l.stream_id = $1 order by l.version desc limit 1), \
                 min(e.recorded_at), max(e.recorded_at), min(e.global_position), max(e.global_position) \
                 from {events} e where e.stream_id = $1",
                &[INT8OID],
            ),
            Statement::Verify => (
                concat!(
                    "select ",
                    verified_columns!(),
                    " from {events} e where e.global_position >= $1 and e.global_position <= $2 \
                     and ($3 is null or e.tenant_id + 0 = $3) order by e.global_position"
                ),
                RANGE,
            ),
            Statement::VerifyStream => (
                concat!("select ", verified_columns!(), " from {events} e where e.stream_id = $1 order by e.version"),
                &[INT8OID],
            ),
            Statement::MissingFirst => (
                "select s.name, 1::bigint, s.first_position from _eventstream.streams s \
                 where s.first_position >= $1 and s.first_position <= $2 and ($3 is null or s.tenant_id = $3) \
                 and not exists (select from {events} e where e.stream_id = s.id and e.version = 1)",
                RANGE,
            ),
            Statement::MissingSegments => (
                "select s.name, g.first_version, null::bigint from _eventstream.stream_segments g \
                 join _eventstream.streams s on s.id = g.stream_id \
                 where g.partition = $1 and ($2 is null or s.tenant_id = $2) \
                 and not exists (select from {events} e where e.stream_id = g.stream_id and e.version = g.first_version)",
                &[INT8OID, INT8OID],
            ),
            Statement::MissingOfStream => (
                "select s.name, r.version, r.position from _eventstream.streams s cross join lateral \
                 (select 1::bigint as version, s.first_position as position \
                  where s.first_position >= $1 and s.first_position <= $2 \
                  union all select g.first_version, null from _eventstream.stream_segments g \
                  where g.stream_id = s.id and g.partition = $1) r \
                 where s.id = $3 \
                 and not exists (select from {events} e where e.stream_id = s.id and e.version = r.version)",
                RANGE,
            ),
            Statement::OffersAll => (
                concat!(
                    "select ",
                    offer_columns!(),
                    " from {events} where (tenant_id, global_position) > ($1, $2) and (tenant_id, global_position) <= ($1, $3) \
                     order by tenant_id, global_position limit $4"
                ),
                &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
            ),
            Statement::OffersByCategory => (
                concat!(
                    "select ",
                    offer_columns!(),
                    " from {events} where tenant_id = $1 and (category, global_position) > ($7, $2) \
                     and (category, global_position) <= ($7, $3) order by category, global_position limit $4"
                ),
                &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID],
            ),
            Statement::OffersAt => (
                concat!(
                    "select ",
                    offer_columns!(),
                    " from {events} where global_position = any ($1) order by global_position"
                ),
                // The numbers are those of the statements above.
                &[INT8ARRAYOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
            ),
            Statement::OffersOfStream => (
                concat!(
                    "select global_position, version, \
                     coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(metadata), 0) + 300 \
                     from {events} where stream_id = $1 and version > $2 and global_position + 0 <= $3 and ",
                    wanted!("$5", "$6"),
                    " order by version limit $4"
                ),
                &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
            ),
            Statement::FactsAt => (
                "select e.global_position, e.stream_id, s.name, e.version, e.event_type, s.slot::int \
                 from {events} e join _eventstream.streams s on s.id = e.stream_id where e.global_position = any ($1)",
                &[INT8ARRAYOID],
            ),
            Statement::EventsAt => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from {events} e \
                     where e.global_position = any ($2) order by e.global_position"
                ),
                &[TEXTOID, INT8ARRAYOID],
            ),
            Statement::StreamsFrom => {
                ("select distinct stream_id from {events} where global_position >= $1", &[INT8OID])
            }
            Statement::EventsAtBackward => (
                concat!(
                    "select ",
                    event_columns!(),
                    " from {events} e \
                     where e.global_position = any ($2) order by e.global_position desc"
                ),
                &[TEXTOID, INT8ARRAYOID],
            ),
            Statement::Places => (
                "select global_position, stream_id, version from {events} where tenant_id = $1 \
                 and (category, global_position) > ($2, $3) and (category, global_position) <= ($2, $4) \
                 order by category, global_position limit $5",
                &[INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID],
            ),
            Statement::NewestWithin => (
                "select max(global_position) from {events} where global_position > $2 and global_position <= $3 and tenant_id = $1",
                RANGE,
            ),
        }
    }
}

/// Parameters of the statements in `stream.rs`.
pub const STREAM_KEY: &[Oid] = &[INT8OID, TEXTOID];
pub const STREAM_ROW: &[Oid] = &[INT8OID, TEXTOID, TEXTOID, INT8OID, INT2OID];
pub const STREAM_AND_POSITION: &[Oid] = &[INT8OID, INT8OID];
pub const STREAM_PAGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
