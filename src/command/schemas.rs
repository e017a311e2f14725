//! What this backend keeps of declared event types: the versions of those that it has met, and the schemas that it has judged by, ready; and making schemas ready and judging by them, whoever
//! does so.
//!
//! Promises: nothing is read before it is needed, by the primary key; what is kept is bounded, whatever tenants and event types there are, and
//! forgotten as soon as any declaration may have changed. A cancel or a timeout ends a judgement.
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::catalog::rules_generation;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::schema::{Breach, Schema, Undecided};
use lru::LruCache;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// About what a backend keeps at most: schemas of 4 MB of text, made ready.
const MOST_BYTES: usize = 64 << 20;
/// So many bytes takes a schema for each byte of its text, when it is ready.
const READY: usize = 16;
/// So often a judgement begins again that something interrupted which wanted no end of it.
const MOST_INTERRUPTIONS: usize = 3;
/// What keeping anything takes.
const ENTRY: usize = 256;

thread_local! {
    static VERSIONS: Plan = const { Plan::new(
        "select schema_version, appendable, json_schema is not null from _eventstream.event_types where tenant_id = $1 and event_type = $2",
        &[INT8OID, TEXTOID],
    ) };
    static SCHEMA: Plan = const { Plan::new(
        "select json_schema::text from _eventstream.event_types where tenant_id = $1 and event_type = $2 and schema_version = $3",
        &[INT8OID, TEXTOID, INT4OID],
    ) };
    static KEPT: RefCell<Cache> = RefCell::new(Cache::new(0));
}

/// A declared schema version.
#[derive(Clone, Copy)]
pub struct Version {
    pub is_appendable: bool,
    pub has_schema: bool,
}

/// Of an event type; none: it is not declared.
pub type Versions = BTreeMap<i32, Version>;

/// Tenant, event type, and the version of a schema; None: its versions.
type Key = (i64, String, Option<i32>);

#[derive(Clone)]
enum Kept {
    Versions(Rc<Versions>),
    Schema(Option<Rc<Schema>>),
}

struct Cache {
    generation: u64,
    bytes: usize,
    entries: LruCache<Key, (usize, Kept)>,
}

impl Cache {
    fn new(generation: u64) -> Self {
        Self { generation, bytes: 0, entries: LruCache::unbounded() }
    }

    fn put(&mut self, key: Key, bytes: usize, kept: Kept) {
        if let Some((before, _)) = self.entries.put(key, (bytes, kept)) {
            self.bytes -= before;
        }
        self.bytes += bytes;
        while self.bytes > MOST_BYTES
            && let Some((_, (oldest, _))) = self.entries.pop_lru()
        {
            self.bytes -= oldest;
        }
    }
}

/// As it is kept, or as `load` reads it, with the bytes that it takes. What is read is not kept where something changed meanwhile (`shared::known`).
fn of(key: Key, load: impl FnOnce(&Key) -> Result<(usize, Kept)>) -> Result<Kept> {
    let before = rules_generation();
    let found = KEPT.with_borrow_mut(|cache| {
        if cache.generation != before {
            *cache = Cache::new(before);
        }
        cache.entries.get(&key).map(|(_, kept)| kept.clone())
    });
    if let Some(found) = found {
        return Ok(found);
    }
    let (bytes, loaded) = load(&key)?;
    if rules_generation() == before {
        KEPT.with_borrow_mut(|cache| {
            if cache.generation == before {
                let bytes = bytes + ENTRY + key.1.len();
                cache.put(key, bytes, loaded.clone());
            }
        });
    }
    Ok(loaded)
}

/// The declared versions of an event type.
pub fn versions(tenant_id: i64, event_type: &str) -> Result<Rc<Versions>> {
    let kept = of((tenant_id, event_type.to_owned(), None), |_| {
        let mut versions = Versions::new();
        as_owner(Planning::ByIndex, |db, _| {
            let key = [Some(Datum::from(tenant_id)), Some(from_text(event_type)?)];
            VERSIONS.with(|plan| {
                plan.rows(db, View::Latest, 0, &key, |row| {
                    let version = Version { is_appendable: row.boolean(1)?, has_schema: row.boolean(2)? };
                    versions.insert(row.int4(0)?, version);
                    Ok(())
                })
            })
        })?;
        Ok((versions.len() * size_of::<(i32, Version)>() * 2, Kept::Versions(Rc::new(versions))))
    })?;
    match kept {
        Kept::Versions(versions) => Ok(versions),
        Kept::Schema(_) => Ok(Rc::default()),
    }
}

/// The schema of a declared version that has one, ready. Errors: ES005 where it is none, which no declaration lets in.
pub fn schema(tenant_id: i64, event_type: &str, version: i32) -> Result<Option<Rc<Schema>>> {
    let kept = of((tenant_id, event_type.to_owned(), Some(version)), |_| {
        let text = as_owner(Planning::ByIndex, |db, _| {
            let key = [Some(Datum::from(tenant_id)), Some(from_text(event_type)?), Some(Datum::from(version))];
            SCHEMA.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(row.text_opt(0)?.map(ToOwned::to_owned))))
        })?;
        let Some(text) = text.flatten() else { return Ok((0, Kept::Schema(None))) };
        Ok((text.len() * READY, Kept::Schema(Some(Rc::new(ready(&text)?)))))
    })?;
    match kept {
        Kept::Schema(schema) => Ok(schema),
        Kept::Versions(_) => Ok(None),
    }
}

/// Makes a schema ready. Errors: ES005; a cancel or a timeout ends it.
pub fn ready(text: &str) -> Result<Schema> {
    Ok(made(text)??)
}

/// The same; the inner error is what is wrong with the schema.
pub fn made(text: &str) -> Result<std::result::Result<Schema, Error>> {
    let made = Schema::parse(text, server::is_interrupted);
    if made.is_err() && server::is_interrupted() {
        server::check_for_interrupts()?;
        // What interrupted it, if anything did, wanted no end.
        return Ok(Schema::parse(text, || false));
    }
    Ok(made)
}

/// What of a payload, JSON as text, breaks the schema; the inner error is why it is left undecided. A cancel or a timeout ends it.
pub fn breach(schema: &Schema, payload: &[u8]) -> Result<std::result::Result<Option<Breach>, Undecided>> {
    judged(payload, |payload, wants_end| schema.breach(payload, wants_end))
}

/// All of that which counts ([`Schema::breaches`]).
pub fn breaches(
    schema: &Schema,
    payload: &[u8],
    counts: impl Fn(&Breach) -> bool,
) -> Result<std::result::Result<Vec<Breach>, Undecided>> {
    judged(payload, |payload, wants_end| schema.breaches(payload, wants_end, &counts))
}

fn judged<T>(
    payload: &[u8],
    judge: impl Fn(&str, fn() -> bool) -> std::result::Result<T, Undecided>,
) -> Result<std::result::Result<T, Undecided>> {
    // What PostgreSQL prints is UTF-8, as its database is.
    let payload = String::from_utf8_lossy(payload);
    for _ in 0..MOST_INTERRUPTIONS {
        match judge(&payload, server::is_interrupted) {
            Err(Undecided::Ended) => server::check_for_interrupts()?,
            judged => return Ok(judged),
        }
    }
    Ok(judge(&payload, || false))
}
