//! What a statement is, and what several have: parameters, and the filter by types.
use pgrx::pg_sys::{INT8OID, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID};

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
pub(super) use wanted;

/// A statement, and the types of its parameters.
pub type Definition = (&'static str, &'static [Oid]);

pub const RANGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
pub const STREAM_RANGE: &[Oid] =
    &[TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID];
