//! What verification reads, and what it looks for that is not there.
use super::definition::{Definition, RANGE};
use crate::pg::query::columns::columns;
use pgrx::pg_sys::INT8OID;

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

pub const VERIFY: Definition = (
    concat!(
        "select ",
        verified_columns!(),
        " from {events} e where e.global_position >= $1 and e.global_position <= $2 \
                     and ($3 is null or e.tenant_id + 0 = $3) order by e.global_position"
    ),
    RANGE,
);

pub const VERIFY_STREAM: Definition =
    (concat!("select ", verified_columns!(), " from {events} e where e.stream_id = $1 order by e.version"), &[INT8OID]);

pub const MISSING_FIRST: Definition = (
    "select s.name, 1::bigint, s.first_position from _eventstream.streams s \
                 where s.first_position >= $1 and s.first_position <= $2 and ($3 is null or s.tenant_id = $3) \
                 and not exists (select from {events} e where e.stream_id = s.id and e.version = 1)",
    RANGE,
);

pub const MISSING_SEGMENTS: Definition = (
    "select s.name, g.first_version, null::bigint from _eventstream.stream_segments g \
                 join _eventstream.streams s on s.id = g.stream_id \
                 where g.partition = $1 and ($2 is null or s.tenant_id = $2) \
                 and not exists (select from {events} e where e.stream_id = g.stream_id and e.version = g.first_version)",
    &[INT8OID, INT8OID],
);

pub const MISSING_OF_STREAM: Definition = (
    "select s.name, r.version, r.position from _eventstream.streams s cross join lateral \
                 (select 1::bigint as version, s.first_position as position \
                  where s.first_position >= $1 and s.first_position <= $2 \
                  union all select g.first_version, null from _eventstream.stream_segments g \
                  where g.stream_id = s.id and g.partition = $1) r \
                 where s.id = $3 \
                 and not exists (select from {events} e where e.stream_id = s.id and e.version = r.version)",
    RANGE,
);
