//! Deciders as this backend knows them: which function decides on the commands of a category, as whom, and which commands it takes. Read once, and again when one of them, or
//! any function of the database, has changed (src/shared/catalog.rs counts). A schema is made ready once a backend.
use super::schemas;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call::{Function, Registrant};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::catalog;
use crate::shared::known::Known;
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Handler, Purpose};
use crate::usercode::registrant_of;
use eventstream_core::command::decided::CommandElement;
use eventstream_core::error::Error;
use eventstream_core::schema::Schema;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A registered function; the reason where it cannot be used any more.
type Found = std::result::Result<Handler, String>;

/// A command that a decider takes.
struct CommandType {
    /// JSON as text; None: any payload.
    schema: Option<String>,
    ready: OnceCell<std::result::Result<Schema, Error>>,
}

pub struct Decider {
    pub name: String,
    pub category: String,
    /// Of its category; None: the default one.
    pub fold: Option<String>,
    handler: Found,
    boundary: Option<Found>,
    /// None: any.
    commands: Option<BTreeMap<String, CommandType>>,
    pub registrant: Registrant,
}

columns! {
    mod of, selected;
    NAME = "d.name",
    CATEGORY = "d.category",
    HANDLER = "d.handler",
    BOUNDARY = "d.boundary",
    FOLD = "d.fold",
    COMMANDS = "d.commands",
    REGISTRANT = "coalesce(r.rolname::text, d.registrant)",
    SEARCH_PATH = "d.search_path",
    REGISTRANT_OID = "r.oid",
}

macro_rules! select {
    () => {
        concat!("select ", selected!(), " from _eventstream.deciders d", registrant_of!("d"))
    };
}

type Key = (i64, String);
type Cache = RefCell<Known<Key, Option<Rc<Decider>>>>;

thread_local! {
    static BY_NAME: Cache = RefCell::default();
    static BY_CATEGORY: Cache = RefCell::default();
    static NAMED: Plan = const { Plan::new(
        concat!(select!(), "where d.tenant_id = $1 and d.name = $2"),
        &[INT8OID, TEXTOID],
    ) };
    static DEFAULT: Plan = const { Plan::new(
        concat!(select!(), "where d.tenant_id = $1 and d.category = $2 and d.is_default"),
        &[INT8OID, TEXTOID],
    ) };
    static TAKING: Plan = const { Plan::new(
        "select from _eventstream.deciders where tenant_id = $1 and (commands is null or commands ? $2) limit 1",
        &[INT8OID, TEXTOID],
    ) };
}

/// Whether some decider of the tenant takes commands of that type.
pub fn is_taken(tenant_id: i64, command_type: &str) -> Result<bool> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(command_type)?)];
    as_owner(Planning::ByIndex, |db, _| TAKING.with(|plan| plan.first(db, View::Latest, &key, |_| Ok(()))))
        .map(|found| found.is_some())
}

/// The decider of that name (None: the default one) for streams of the category. Errors: ES036.
pub fn of(tenant_id: i64, category: &str, name: Option<&str>) -> Result<Rc<Decider>> {
    let found = match name {
        Some(name) => named(tenant_id, name)?.filter(|decider| decider.category == category),
        None => Known::of(&BY_CATEGORY, catalog::deciders_generation, (tenant_id, category.to_owned()), || {
            load(tenant_id, category, &DEFAULT)
        })?,
    };
    found.ok_or_else(|| {
        undecided(Undecided::NotFound { decider: name.map(ToOwned::to_owned), category: Some(category.into()) })
    })
}

/// The decider of that name, whatever its category.
pub fn named(tenant_id: i64, name: &str) -> Result<Option<Rc<Decider>>> {
    Known::of(&BY_NAME, catalog::deciders_generation, (tenant_id, name.to_owned()), || load(tenant_id, name, &NAMED))
}

pub fn undecided(undecided: Undecided) -> Failure {
    Error::Undecided(Box::new(undecided)).into()
}

fn load(tenant_id: i64, key: &str, plan: &'static std::thread::LocalKey<Plan>) -> Result<Option<Rc<Decider>>> {
    as_owner(Planning::ByIndex, |db, _| {
        let args = [Some(Datum::from(tenant_id)), Some(from_text(key)?)];
        Ok(plan.with(|plan| plan.first(db, View::Latest, &args, |row| read(db, row)))?.map(Rc::new))
    })
}

fn read(db: &Db, row: &Row) -> Result<Decider> {
    let registered = |purpose, name: &str| handler::registered(db, purpose, name);
    Ok(Decider {
        name: row.text(of::NAME)?.to_owned(),
        category: row.text(of::CATEGORY)?.to_owned(),
        fold: row.text_opt(of::FOLD)?.map(ToOwned::to_owned),
        handler: registered(Purpose::Decider, row.text(of::HANDLER)?)?,
        boundary: row.text_opt(of::BOUNDARY)?.map(|name| registered(Purpose::Boundary, name)).transpose()?,
        commands: row.jsonb_opt(of::COMMANDS)?.map(commands).transpose()?,
        registrant: handler::registrant(row, [of::REGISTRANT, of::SEARCH_PATH, of::REGISTRANT_OID])?,
    })
}

/// As they were registered.
fn commands(document: Jsonb) -> Result<BTreeMap<String, CommandType>> {
    let mut commands = BTreeMap::new();
    each_command(document, &mut |name, command| {
        let schema = command.schema.map(Jsonb::text).transpose()?;
        let schema = schema.map(|schema| String::from_utf8_lossy(schema).into_owned());
        commands.insert(name.to_owned(), CommandType { schema, ready: OnceCell::new() });
        Ok(())
    })?;
    Ok(commands)
}

/// Gives each command of a list of them to `each`. Errors: ES005, named by its place.
pub fn each_command<'a>(
    document: Jsonb<'a>,
    each: &mut dyn FnMut(&'a str, CommandElement<'a, Jsonb<'a>>) -> Result<()>,
) -> Result<()> {
    document.each(|name, command: Value| {
        command.read().and_then(|command| each(name, command)).map_err(|failure| failure.within(|| name.to_owned()))
    })
}

impl Decider {
    /// Whether the decider takes the command with this payload, JSON as text. Errors: ES016, ES035.
    pub fn must_take(&self, command_type: &str, payload: &[u8]) -> Result<()> {
        let Some(commands) = &self.commands else { return Ok(()) };
        let Some(command) = commands.get(command_type) else {
            return Err(undecided(Undecided::TypeUnknown {
                decider: self.name.clone(),
                command_type: command_type.into(),
                known: commands.keys().cloned().collect(),
            }));
        };
        let Some(schema) = &command.schema else { return Ok(()) };
        let ready = match command.ready.get() {
            Some(ready) => ready,
            None => {
                let made = schemas::made(schema)?;
                command.ready.get_or_init(|| made)
            }
        };
        let schema = ready.as_ref().map_err(Clone::clone)?;
        must_satisfy(schema, "the payload", (&self.name, command_type), payload)
    }

    pub fn has_boundary(&self) -> bool {
        self.boundary.is_some()
    }

    /// Whether what its boundary is may depend on more than the command.
    pub fn looks_for_its_boundary(&self) -> bool {
        matches!(&self.boundary, Some(Ok(boundary)) if !boundary.is_immutable)
    }

    /// Ready to be called; it must be by the end of the current memory context. Errors: ES037.
    pub fn function(&self) -> Result<Function> {
        self.callable(&self.handler)
    }

    /// The same of what says its boundary; None: only the command's stream.
    pub fn boundary(&self) -> Result<Option<Function>> {
        self.boundary.as_ref().map(|boundary| self.callable(boundary)).transpose()
    }

    fn callable(&self, found: &Found) -> Result<Function> {
        let unusable = |reason: String| undecided(Undecided::Unusable { decider: self.name.clone(), reason });
        let handler = found.as_ref().map_err(|reason| unusable(reason.clone()))?;
        handler::callable(handler, &self.registrant)?.map_err(unusable)
    }
}

/// Whether a payload, JSON as text, is one of that command of that decider. Errors: ES016.
pub fn must_satisfy(
    schema: &Schema,
    what: &'static str,
    (decider, command_type): (&str, &str),
    payload: &[u8],
) -> Result<()> {
    let (decider, command_type) = (decider.to_owned(), command_type.to_owned());
    match schemas::breach(schema, payload)? {
        Ok(None) => Ok(()),
        Ok(Some(breach)) => Err(undecided(Undecided::PayloadRefused { what, decider, command_type, breach })),
        Err(reason) => {
            let reason = reason.to_string();
            Err(undecided(Undecided::PayloadUnjudged { what, decider, command_type, reason }))
        }
    }
}
