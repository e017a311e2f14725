//! Locks on tags: of a tenant's tags some share a bucket, by a hash, and a bucket is what is locked, by who appends events that bear one of its tags and by who
//! must not be overtaken by such an append. So the locks of a transaction are bounded however many tags it meets.
//!
//! A call whose events are in many buckets takes none of them: it opposes all of the tenant's conditions at once, by a lock that neither kind keeps its own kind from.
//!
//! Promises: a bucket is shared by appends, and had alone by conditions, until the end of the transaction; the buckets of a call are locked in their order, each once
//! and as strongly as the call needs it, behind the tenant's gate and before names and rows of streams.
use super::condition::Query;
use super::request::Request;
use crate::pg::error::failure::Result;
use crate::pg::process::lock::LockTag;
use crate::shared::catalog::Catalog;
use crate::shared::settings;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Which bucket a tag is in. The same in every session of a server: the number of buckets is fixed at its start.
fn bucket_of(tenant_id: i64, tag: &str) -> u16 {
    let mut hasher = DefaultHasher::new();
    (tenant_id, tag).hash(&mut hasher);
    (hasher.finish() % u64::from(settings::tag_buckets())) as u16
}

/// The most buckets that a call shares; beyond it, it opposes conditions.
const MOST_SHARED: usize = 64;

/// What conditions share, and those oppose whose events are in many buckets.
fn conditions(catalog: &Catalog, tenant_id: i64) -> LockTag {
    LockTag { table: catalog.tag_partitions, object: tenant_id, part: 0 }
}

/// The buckets of these tags.
pub fn of<'a>(tenant_id: i64, tags: impl Iterator<Item = &'a str>) -> BTreeSet<u16> {
    tags.map(|tag| bucket_of(tenant_id, tag)).collect()
}

/// Has these buckets as [`lock`] has those of events, beside what [`hold`] was given, `held` and the query's: out of the order of locks, and so without waiting.
/// Whether all of them were had.
pub fn share(
    catalog: &Catalog,
    tenant_id: i64,
    buckets: &BTreeSet<u16>,
    (held, query): (&BTreeSet<u16>, Option<&Query>),
) -> Result<bool> {
    // What is held more strongly would be refused while somebody waits for it.
    if held.len() > MOST_SHARED {
        return Ok(true);
    }
    if buckets.len() > MOST_SHARED {
        return conditions(catalog, tenant_id).try_oppose();
    }
    let alone = of(tenant_id, query.iter().flat_map(|query| query.locked_tags()));
    for &part in buckets.difference(&alone) {
        if !(LockTag { table: catalog.event_tags, object: tenant_id, part }).try_share()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Locks the buckets of all tags of these events as one of many, and those that the query's items are kept by alone.
pub fn lock(catalog: &Catalog, tenant_id: i64, requests: &[Request], query: Option<&Query>) -> Result<()> {
    let events = requests.iter().flat_map(|request| &request.events);
    hold(catalog, tenant_id, &of(tenant_id, events.flat_map(|event| event.tags.iter().copied())), query)
}

/// Locks these buckets as one of many, and those that the query's items are kept by alone.
pub fn hold(catalog: &Catalog, tenant_id: i64, shared: &BTreeSet<u16>, query: Option<&Query>) -> Result<()> {
    let mut buckets: BTreeMap<u16, bool> = shared.iter().map(|&bucket| (bucket, false)).collect();
    let has_many = buckets.len() > MOST_SHARED;
    if has_many {
        buckets.clear();
    }
    for tag in query.iter().flat_map(|query| query.locked_tags()) {
        buckets.insert(bucket_of(tenant_id, tag), true);
    }
    let lock = |part| LockTag { table: catalog.event_tags, object: tenant_id, part };
    let conditions = conditions(catalog, tenant_id);
    match (has_many, buckets.values().any(|&is_alone| is_alone)) {
        (false, false) => {}
        (false, true) => conditions.share()?,
        (true, false) => conditions.oppose()?,
        // It is both.
        (true, true) => conditions.lock()?,
    }
    for (part, is_alone) in buckets {
        if is_alone { lock(part).lock()? } else { lock(part).share()? }
    }
    Ok(())
}
