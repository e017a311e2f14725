//! Catalogs by their oids, and what they say of a relation.
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};

pub const RELATION: Oid = pg_sys::RelationRelationId;
pub const TYPE: Oid = pg_sys::TypeRelationId;
pub const FUNCTION: Oid = pg_sys::ProcedureRelationId;
pub const SCHEMA: Oid = pg_sys::NamespaceRelationId;
pub const EXTENSION: Oid = pg_sys::ExtensionRelationId;
pub const EVENT_TRIGGER: Oid = pg_sys::EventTriggerRelationId;
pub const INHERITANCE: Oid = ffi::InheritsRelationId;
pub const TRIGGER: Oid = pg_sys::TriggerRelationId;
pub const CONSTRAINT: Oid = ffi::ConstraintRelationId;
pub const RULE: Oid = ffi::RewriteRelationId;
pub const POLICY: Oid = ffi::PolicyRelationId;
pub const COLUMN_DEFAULT: Oid = ffi::AttrDefaultRelationId;
pub const DEPENDENCIES: Oid = ffi::DependRelationId;
pub const DEPENDENCIES_BY_DEPENDER: Oid = ffi::DependDependerIndexId;

/// Whether it is a table, and no temporary one.
///
/// # Safety
/// May raise.
pub unsafe fn is_lasting_table(relation: Oid) -> bool {
    // SAFETY: look-ups in a cache.
    let (kind, persistence) = unsafe { (ffi::get_rel_relkind(relation), ffi::get_rel_persistence(relation)) };
    [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_PARTITIONED_TABLE].contains(&(kind as u8))
        && persistence as u8 != pg_sys::RELPERSISTENCE_TEMP
}
