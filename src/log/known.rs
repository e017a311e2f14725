//! Streams that this backend has met, by name: whoever follows the log asks for the same ones again and again. A stream's row is never changed
//! once it is committed, so what was found of a settled one stays true.
use super::stream::Stream;
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use eventstream_core::name::StreamName;
use lru::LruCache;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::num::NonZeroUsize;

/// So many are remembered: some 10 MB.
const MOST: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

struct Known {
    /// Of which table: an extension that was made anew has another log.
    table: Oid,
    /// With the tenant. Two tenants' streams of one name take turns.
    streams: LruCache<String, (i64, Stream)>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// The stream, one of whose events the caller knows to be settled.
pub fn settled(db: &Db, catalog: &Catalog, tenant_id: i64, name: &str) -> Result<Option<Stream>> {
    let known = KNOWN.with_borrow_mut(|known| {
        let known = known.as_mut().filter(|known| known.table == catalog.streams)?;
        known.streams.get(name).filter(|(tenant, _)| *tenant == tenant_id).map(|(_, stream)| *stream)
    });
    if known.is_some() {
        return Ok(known);
    }
    let found = whole::look_up(db, catalog, View::Latest, tenant_id, &StreamName::parse(name)?)?;
    if let Some(found) = found {
        KNOWN.with_borrow_mut(|known| {
            if known.as_ref().is_none_or(|known| known.table != catalog.streams) {
                *known = Some(Known { table: catalog.streams, streams: LruCache::new(MOST) });
            }
            if let Some(known) = known {
                known.streams.put(name.to_owned(), (tenant_id, found));
            }
        });
    }
    Ok(found)
}
