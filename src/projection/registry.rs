//! The projections of the current database, as this backend knows them: read once, and again when one of them has changed
//! (src/shared/catalog.rs counts). What moves (status, checkpoint, failures) is in `progress`.
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::function::call::Registrant;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::catalog;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

/// What is called for the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A handler for one event; schema-qualified, without its arguments.
    Event(String),
    /// A handler for a batch.
    Batch(String),
    /// A state table.
    Table(Table),
}

/// A state table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Schema-qualified and quoted.
    pub name: String,
    pub category: String,
    /// None: the category's default one.
    pub fold: Option<String>,
    /// As es_create_state_table was given them: a JSON array.
    pub columns: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Async,
    Inline,
}

/// What comes after the last retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Stop,
    Skip,
}

/// A projection as it was created.
pub struct Projection {
    pub id: i64,
    pub tenant_id: i64,
    pub tenant: String,
    pub name: String,
    pub kind: Kind,
    pub mode: Mode,
    pub categories: Option<Vec<String>>,
    pub event_types: Option<Vec<String>>,
    pub batch_size: i64,
    pub on_error: OnError,
    pub max_retries: i64,
    pub reset: Option<String>,
    pub registrant: Registrant,
}

impl Projection {
    pub fn target(&self) -> Target<'_> {
        Target { id: self.tenant_id, name: &self.tenant }
    }
}

#[derive(Default)]
struct Registry {
    generation: u64,
    by_id: HashMap<i64, Option<Rc<Projection>>>,
    /// By tenant.
    inline: HashMap<i64, Rc<Vec<Rc<Projection>>>>,
}

macro_rules! columns {
    () => {
        "select p.id, p.tenant_id, t.name, p.name, p.kind, p.mode, p.handler, p.categories, p.event_types, p.batch_size, \
                p.on_error, p.max_retries, p.reset, p.fold, p.columns::text, \
                coalesce(r.rolname::text, p.registrant), p.search_path, r.oid, p.table_name \
         from _eventstream.projections p join _eventstream.tenants t on t.id = p.tenant_id \
         left join pg_roles r on r.oid = _eventstream.role_of(p.registrant, p.registrant_oid, (select _eventstream.is_home())) "
    };
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
    static BY_ID: Plan = const { Plan::new(concat!(columns!(), "where p.id = $1"), &[INT8OID]) };
    static INLINE: Plan = const { Plan::new(
        concat!(columns!(), "join _eventstream.projection_progress g on g.projection_id = p.id \
                             where p.tenant_id = $1 and p.mode = 'inline' and g.status = 'running' order by p.id"),
        &[INT8OID],
    ) };
    static ID: Plan = const { Plan::new(
        "select id from _eventstream.projections where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
}

/// Forgets everything where something has changed.
fn up_to_date<T>(work: impl FnOnce(&mut Registry) -> T) -> T {
    let generation = catalog::projections_generation();
    REGISTRY.with_borrow_mut(|registry| {
        if registry.generation != generation {
            *registry = Registry { generation, ..Registry::default() };
        }
        work(registry)
    })
}

/// What `load` reads, kept by `keep` unless something changed meanwhile: a statement's snapshot is older than the invalidations that its locks
/// take in, so what it reads may be what was there before a change that counts as known already.
fn loaded<T: Clone>(load: impl FnOnce() -> Result<T>, keep: impl FnOnce(&mut Registry, T)) -> Result<T> {
    let generation = catalog::projections_generation();
    let found = load()?;
    if catalog::projections_generation() == generation {
        up_to_date(|registry| keep(registry, found.clone()));
    }
    Ok(found)
}

/// The id of the projection of that name. Errors: ES020.
pub fn id(tenant_id: i64, name: &str) -> Result<i64> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
    as_owner(Planning::ByIndex, |db, _| ID.with(|plan| plan.first(db, View::Latest, &key, |row| row.int8(0))))?
        .ok_or_else(|| Error::ProjectionNotFound { projection: name.into() }.into())
}

/// None where there is none any more.
pub fn by_id(id: i64) -> Result<Option<Rc<Projection>>> {
    if let Some(known) = up_to_date(|registry| registry.by_id.get(&id).cloned()) {
        return Ok(known);
    }
    let key = [Some(Datum::from(id))];
    loaded(
        || {
            let found =
                as_owner(Planning::ByIndex, |db, _| BY_ID.with(|plan| plan.first(db, View::Latest, &key, read)));
            Ok(found?.map(Rc::new))
        },
        |registry, found| {
            registry.by_id.insert(id, found);
        },
    )
}

/// The tenant's inline projections that run, in the order in which they were created.
pub fn inline(tenant_id: i64) -> Result<Rc<Vec<Rc<Projection>>>> {
    if let Some(known) = up_to_date(|registry| registry.inline.get(&tenant_id).cloned()) {
        return Ok(known);
    }
    let key = [Some(Datum::from(tenant_id))];
    loaded(
        || {
            let found = as_owner(Planning::ByIndex, |db, _| {
                INLINE.with(|plan| plan.rows(db, View::Latest, 0, &key, |row| read(row).map(Rc::new)))
            });
            found.map(Rc::new)
        },
        |registry, found| {
            registry.inline.insert(tenant_id, found);
        },
    )
}

fn read(row: &Row) -> Result<Projection> {
    let broken = || Error::Internal { what: "a projection's row is not whole".into() };
    let categories = row.text_array_opt(7)?;
    let kind = match row.text(4)? {
        "event" => Kind::Event(row.text(6)?.to_owned()),
        "batch" => Kind::Batch(row.text(6)?.to_owned()),
        _ => Kind::Table(Table {
            name: row.text(18)?.to_owned(),
            category: categories.iter().flatten().next().cloned().ok_or_else(broken)?,
            fold: row.text_opt(13)?.map(ToOwned::to_owned),
            columns: row.text(14)?.to_owned(),
        }),
    };
    Ok(Projection {
        id: row.int8(0)?,
        tenant_id: row.int8(1)?,
        tenant: row.text(2)?.to_owned(),
        name: row.text(3)?.to_owned(),
        kind,
        mode: if row.text(5)? == "inline" { Mode::Inline } else { Mode::Async },
        categories,
        event_types: row.text_array_opt(8)?,
        batch_size: row.int8(9)?,
        on_error: if row.text(10)? == "skip" { OnError::Skip } else { OnError::Stop },
        max_retries: row.int8(11)?,
        reset: row.text_opt(12)?.map(ToOwned::to_owned),
        registrant: Registrant {
            role: row.text(15)?.to_owned(),
            oid: row.oid_opt(17),
            search_path: CString::new(row.text(16)?).map_err(|_| broken())?,
        },
    })
}
