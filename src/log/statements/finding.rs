//! Finding events and streams in a partition: its ends, heads, places.
use super::definition::{Definition, RANGE};
use crate::pg::query::columns::columns;
use pgrx::pg_sys::{INT8OID, TEXTOID};

pub const NEWEST: Definition =
    ("select global_position, stream_id, recorded_at from {events} order by global_position desc limit 1", &[]);

pub const OLDEST: Definition =
    ("select global_position, stream_id, recorded_at from {events} order by global_position limit 1", &[]);

pub const EXISTS: Definition = ("select 1::bigint from {events} where global_position = $1 limit 1", &[INT8OID]);

pub const NEWEST_WITHIN: Definition = (
    "select max(global_position) from {events} where global_position > $2 and global_position <= $3 and tenant_id = $1",
    RANGE,
);

pub const RECORDED_LAST: Definition = (
    "select recorded_at, global_position from {events} where tenant_id = $1 \
                 and (category, global_position) > ($2, $3) and (category, global_position) <= ($2, $4) \
                 order by recorded_at desc limit 1",
    &[INT8OID, TEXTOID, INT8OID, INT8OID],
);

pub const HEAD_UP_TO: Definition = (
    "select * from {events} \
                 where stream_id = $1 and global_position + 0 <= $2 order by version desc limit 1",
    &[INT8OID, INT8OID],
);

pub const STREAMS_FROM: Definition =
    ("select distinct stream_id from {events} where global_position >= $1", &[INT8OID]);

pub const PLACES: Definition = (
    "select global_position, stream_id, version from {events} where tenant_id = $1 \
                 and (category, global_position) > ($2, $3) and (category, global_position) <= ($2, $4) \
                 order by category, global_position limit $5",
    &[INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID],
);

columns! {
    /// How many events of a kind there are.
    pub mod tally, tally_columns;
    CATEGORY = "category",
    EVENT_TYPE = "event_type",
    SCHEMA_VERSION = "schema_version",
    EVENTS = "count(*)",
    BYTES = "sum(bytes)::bigint",
    LAST_RECORDED_AT = "max(recorded_at)",
    LAST_POSITION = "max(global_position)",
}

pub const TALLY: Definition = (
    concat!(
        "select ",
        tally_columns!(),
        " from (select category, event_type, schema_version, recorded_at, global_position, \
                     coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(metadata), 0) as bytes from {events} \
                     where (tenant_id, global_position) > ($1, $2) and (tenant_id, global_position) <= ($1, $3) \
                     order by tenant_id, global_position limit $4) e group by category, event_type, schema_version"
    ),
    &[INT8OID, INT8OID, INT8OID, INT8OID],
);
