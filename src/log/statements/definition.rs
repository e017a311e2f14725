//! What a statement is, and parameters that several have.
use pgrx::pg_sys::{INT8OID, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID};

/// A statement, and the types of its parameters.
pub type Definition = (&'static str, &'static [Oid]);

pub const RANGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
pub const STREAM_RANGE: &[Oid] =
    &[TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID];
