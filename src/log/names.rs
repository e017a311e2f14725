//! What is locked in place of names of streams: of those that have no row yet, and of all that were not kept.
use crate::pg::process::lock::LockTag;
use crate::shared::catalog::Catalog;
use eventstream_core::name::StreamName;
use std::hash::{DefaultHasher, Hash as _, Hasher};

/// What stands for the name of a stream that has no row. Two names in 2^48 share it, and wait for each other.
pub fn tag_of_name(catalog: &Catalog, tenant_id: i64, name: &StreamName) -> LockTag {
    let mut hasher = DefaultHasher::new();
    (tenant_id, name.as_str()).hash(&mut hasher);
    let hash = hasher.finish();
    LockTag { table: catalog.streams, object: hash as i64, part: (hash >> 48) as u16 }
}

/// What stands for all names of a tenant's streams that were not kept; no name has it.
pub fn tag_of_unnamed(catalog: &Catalog, tenant_id: i64) -> LockTag {
    LockTag { table: catalog.segments, object: tenant_id, part: 0 }
}
