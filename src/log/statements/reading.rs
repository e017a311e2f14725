//! Reading events of a stream and of the log, for the door.
use super::definition::{Definition, RANGE, STREAM_RANGE, wanted};
use crate::pg::query::columns::columns;
use pgrx::pg_sys::{INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID, UUIDOID};

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

columns! {
    /// What a partition has of a stream: how much, since when, and up to when.
    pub mod size, size_columns;
    EVENTS = "count(*)",
    BYTES = "coalesce(sum(pg_column_size(e.*)), 0)::bigint",
    FIRST_OCCURRED_AT = "(select f.occurred_at from {events} f where f.stream_id = $1 order by f.version limit 1)",
    LAST_OCCURRED_AT = "(select l.occurred_at from {events} l where l.stream_id = $1 order by l.version desc limit 1)",
    FIRST_RECORDED_AT = "min(e.recorded_at)",
    LAST_RECORDED_AT = "max(e.recorded_at)",
    FIRST_POSITION = "min(e.global_position)",
    LAST_POSITION = "max(e.global_position)",
}

pub const READ_FORWARD: Definition = (
    concat!(
        "select ",
        stream_event_columns!(),
        " from {events} e where e.stream_id = $3 and e.version >= $4 and e.version <= $7 \
                     and ($5 is null or e.occurred_at <= $5) and ",
        wanted!("$8", "$9"),
        " order by e.version limit $6"
    ),
    STREAM_RANGE,
);

pub const READ_BACKWARD: Definition = (
    concat!(
        "select ",
        stream_event_columns!(),
        " from {events} e where e.stream_id = $3 and e.version <= $4 and e.version >= $7 \
                     and ($5 is null or e.occurred_at <= $5) and ",
        wanted!("$8", "$9"),
        " order by e.version desc limit $6"
    ),
    STREAM_RANGE,
);

pub const BY_VERSIONS: Definition = (
    "select * from {events} \
                 where stream_id = $1 and version >= $2 and version <= $3",
    RANGE,
);

pub const LOG_ALL: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from (select * from {events} where (tenant_id, global_position) > ($2, $3) \
                     and (tenant_id, global_position) <= ($2, $4) and ",
        wanted!("$6", "$7"),
        " order by tenant_id, global_position limit $5) e order by e.global_position"
    ),
    &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
);

pub const LOG_BY_CATEGORY: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from (select * from {events} where tenant_id = $2 and (category, global_position) > ($8, $3) \
                     and (category, global_position) <= ($8, $4) and ",
        wanted!("$6", "$7"),
        " order by category, global_position limit $5) e order by e.global_position"
    ),
    &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID],
);

pub const LOG_BACKWARD: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from (select * from {events} where (tenant_id, global_position) < ($2, $3) \
                     and (tenant_id, global_position) > ($2, 0) and ",
        wanted!("$5", "$6"),
        " order by tenant_id desc, global_position desc limit $4) e order by e.global_position desc"
    ),
    &[TEXTOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
);

pub const BY_EVENT_ID: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from {events} e \
                     where e.event_id = $3 and e.tenant_id + 0 = $2 and ($4 is null or e.category = any ($4)) and e.global_position + 0 > $5 \
                     order by e.global_position"
    ),
    &[TEXTOID, INT8OID, UUIDOID, TEXTARRAYOID, INT8OID],
);

pub const EVENTS_AT: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from {events} e \
                     where e.global_position = any ($2) order by e.global_position"
    ),
    &[TEXTOID, INT8ARRAYOID],
);

pub const EVENTS_AT_BACKWARD: Definition = (
    concat!(
        "select ",
        event_columns!(),
        " from {events} e \
                     where e.global_position = any ($2) order by e.global_position desc"
    ),
    &[TEXTOID, INT8ARRAYOID],
);

pub const SIZE: Definition =
    (concat!("select ", size_columns!(), " from {events} e where e.stream_id = $1"), &[INT8OID]);
