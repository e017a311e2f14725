//! The log as subscriptions read it: places first, then facts.
use super::definition::{Definition, wanted};
use crate::pg::query::columns::columns;
use pgrx::pg_sys::{INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID};

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
    /// What a dead letter says of an event.
    pub mod fact, fact_columns;
    POSITION = "e.global_position",
    STREAM_ID = "e.stream_id",
    STREAM = "s.name",
    VERSION = "e.version",
    EVENT_TYPE = "e.event_type",
    SLOT = "s.slot::int",
}

pub const OFFERS_ALL: Definition = (
    concat!(
        "select ",
        offer_columns!(),
        " from {events} where (tenant_id, global_position) > ($1, $2) and (tenant_id, global_position) <= ($1, $3) \
                     order by tenant_id, global_position limit $4"
    ),
    &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
);

pub const OFFERS_BY_CATEGORY: Definition = (
    concat!(
        "select ",
        offer_columns!(),
        " from {events} where tenant_id = $1 and (category, global_position) > ($7, $2) \
                     and (category, global_position) <= ($7, $3) order by category, global_position limit $4"
    ),
    &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID],
);

pub const OFFERS_AT: Definition = (
    concat!("select ", offer_columns!(), " from {events} where global_position = any ($1) order by global_position"),
    // The numbers are those of the statements above.
    &[INT8ARRAYOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
);

pub const OFFERS_OF_STREAM: Definition = (
    concat!(
        "select global_position, version, \
                     coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(metadata), 0) + 300 \
                     from {events} where stream_id = $1 and version > $2 and global_position + 0 <= $3 and ",
        wanted!("$5", "$6"),
        " order by version limit $4"
    ),
    &[INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID],
);

pub const FACTS_AT: Definition = (
    concat!(
        "select ",
        fact_columns!(),
        " from {events} e join _eventstream.streams s on s.id = e.stream_id where e.global_position = any ($1)"
    ),
    &[INT8ARRAYOID],
);
