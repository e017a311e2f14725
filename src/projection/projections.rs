//! The projections of the current database, as this backend knows them: read once, and again when one of them has changed
//! (src/shared/catalog.rs counts). What moves (status, checkpoint, failures) is in `progress`.
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::function::call::Registrant;
use crate::pg::process::lock::LockTag;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::catalog::{self, Catalog};
use crate::shared::known::Known;
use crate::shared::session::as_owner;
use crate::shared::trial;
use crate::usercode::handler;
use crate::usercode::registrant_of;
use eventstream_core::error::Error;
use eventstream_core::word::{Mode, OnError, ProjectionKind, Word};
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, TEXTOID};
use std::cell::RefCell;
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

columns! {
    /// What is selected of a projection.
    mod of, selected;
    ID = "p.id",
    TENANT_ID = "p.tenant_id",
    TENANT = "t.name",
    NAME = "p.name",
    KIND = "p.kind",
    MODE = "p.mode",
    HANDLER = "p.handler",
    CATEGORIES = "p.categories",
    EVENT_TYPES = "p.event_types",
    BATCH_SIZE = "p.batch_size",
    ON_ERROR = "p.on_error",
    MAX_RETRIES = "p.max_retries",
    RESET = "p.reset",
    FOLD = "p.fold",
    COLUMNS = "p.columns::text",
    REGISTRANT = "coalesce(r.rolname::text, p.registrant)",
    SEARCH_PATH = "p.search_path",
    REGISTRANT_OID = "r.oid",
    TABLE = "p.table_name",
}

macro_rules! from {
    () => {
        concat!(
            " from _eventstream.projections p join _eventstream.tenants t on t.id = p.tenant_id",
            registrant_of!("p")
        )
    };
}

type Kept<V> = RefCell<Known<i64, V>>;

thread_local! {
    static PROJECTIONS: Kept<Option<Rc<Projection>>> = RefCell::default();
    /// By tenant.
    static RUNNING_INLINE: Kept<Rc<Vec<Rc<Projection>>>> = RefCell::default();
    static BY_ID: Plan = const { Plan::new(concat!("select ", selected!(), from!(), "where p.id = $1"), &[INT8OID]) };
    static RUNNING: Plan = const { Plan::new(
        concat!("select ", selected!(), from!(), "join _eventstream.projection_progress g on g.projection_id = p.id \
                where p.tenant_id = $1 and (p.mode = 'inline' or $2) and g.status = 'running' order by p.id"),
        &[INT8OID, BOOLOID],
    ) };
    static ID: Plan = const { Plan::new(
        "select id from _eventstream.projections where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
}

/// Shared by whoever makes a projection of the tenant, until the end of the transaction; locked by who needs that none comes meanwhile.
pub fn making(tenant_id: i64) -> Result<LockTag> {
    Ok(LockTag { table: Catalog::current()?.projections, object: tenant_id, part: 0 })
}

/// The id of the projection of that name. Errors: ES020.
pub fn id(tenant_id: i64, name: &str) -> Result<i64> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
    as_owner(Planning::ByIndex, |db, _| ID.with(|plan| plan.first(db, View::Latest, &key, |row| row.int8(0))))?
        .ok_or_else(|| Error::ProjectionNotFound { projection: name.into() }.into())
}

/// None where there is none any more.
pub fn by_id(id: i64) -> Result<Option<Rc<Projection>>> {
    Known::of(&PROJECTIONS, catalog::projections_generation, id, || {
        let key = [Some(Datum::from(id))];
        let found = as_owner(Planning::ByIndex, |db, _| BY_ID.with(|plan| plan.first(db, View::Latest, &key, read)));
        Ok(found?.map(Rc::new))
    })
}

/// The tenant's inline projections that run, in the order in which they were created.
pub fn inline(tenant_id: i64) -> Result<Rc<Vec<Rc<Projection>>>> {
    Known::of(&RUNNING_INLINE, catalog::projections_generation, tenant_id, || running(tenant_id, false))
}

/// Those that are brought up with what is appended: the inline ones, and, in a test, those that workers run.
pub fn at_once(tenant_id: i64) -> Result<Rc<Vec<Rc<Projection>>>> {
    if trial::is_on() { running(tenant_id, true) } else { inline(tenant_id) }
}

fn running(tenant_id: i64, with_asynchronous: bool) -> Result<Rc<Vec<Rc<Projection>>>> {
    let key = [Some(Datum::from(tenant_id)), Some(Datum::from(with_asynchronous))];
    let found = as_owner(Planning::ByIndex, |db, _| {
        RUNNING.with(|plan| plan.rows(db, View::Latest, 0, &key, |row| read(row).map(Rc::new)))
    });
    found.map(Rc::new)
}

fn read(row: &Row) -> Result<Projection> {
    let broken = || Error::Internal { what: "a projection's row is not whole".into() };
    let categories = row.text_array_opt(of::CATEGORIES)?;
    let kind = match ProjectionKind::named(row.text(of::KIND)?).ok_or_else(broken)? {
        ProjectionKind::Event => Kind::Event(row.text(of::HANDLER)?.to_owned()),
        ProjectionKind::Batch => Kind::Batch(row.text(of::HANDLER)?.to_owned()),
        ProjectionKind::Table => Kind::Table(Table {
            name: row.text(of::TABLE)?.to_owned(),
            category: categories.iter().flatten().next().cloned().ok_or_else(broken)?,
            fold: row.text_opt(of::FOLD)?.map(ToOwned::to_owned),
            columns: row.text(of::COLUMNS)?.to_owned(),
        }),
    };
    Ok(Projection {
        id: row.int8(of::ID)?,
        tenant_id: row.int8(of::TENANT_ID)?,
        tenant: row.text(of::TENANT)?.to_owned(),
        name: row.text(of::NAME)?.to_owned(),
        kind,
        mode: Mode::named(row.text(of::MODE)?).ok_or_else(broken)?,
        categories,
        event_types: row.text_array_opt(of::EVENT_TYPES)?,
        batch_size: row.int8(of::BATCH_SIZE)?,
        on_error: OnError::named(row.text(of::ON_ERROR)?).ok_or_else(broken)?,
        max_retries: row.int8(of::MAX_RETRIES)?,
        reset: row.text_opt(of::RESET)?.map(ToOwned::to_owned),
        registrant: handler::registrant(row, [of::REGISTRANT, of::SEARCH_PATH, of::REGISTRANT_OID])?,
    })
}
