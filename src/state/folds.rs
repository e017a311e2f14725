//! The folds and upcasters of the current database, as this backend knows them: read once, and again when one of them, or any
//! function of the database, has changed (src/shared/catalog.rs counts). Owns what a fold's fingerprint covers.

use crate::pg::error::failure::Result;
use crate::pg::function::call::Registrant;
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text};
use crate::present::upcast::Upcasters;
use crate::present::upcasters;
use crate::shared::catalog::{self, Catalog};
use crate::shared::failing;
use crate::shared::known::Known;
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Handler, Purpose};
use crate::usercode::registrant_of;
use eventstream_core::error::Error;
use eventstream_core::hash::{Hash, fingerprint};
use eventstream_core::rules::Rules;
use eventstream_core::word::{Order, Word};
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::cell::RefCell;
use std::rc::Rc;
use std::thread::LocalKey;

/// How a fold folds.
pub enum How {
    /// The reason where the function cannot be used any more.
    Handler(std::result::Result<Handler, String>),
    Rules(Rules),
}

pub struct Fold {
    pub name: String,
    /// Empty: of no one category, for what queries match.
    pub category: String,
    pub how: How,
    pub initial_state: Rc<Stored>,
    pub snapshot_every: i64,
    pub order: Order,
    pub registrant: Registrant,
    pub upcasters: Rc<Upcasters>,
    /// Two states of the same events with the same fingerprint are the same.
    pub fingerprint: Hash,
}

impl Fold {
    /// Whether its handler is still what was registered.
    pub fn is_usable(&self) -> bool {
        !matches!(self.how, How::Handler(Err(_)))
    }

    /// What notes of its failures are found by (src/shared/failing.rs): it, as it is defined now.
    pub fn key(&self, tenant_id: i64) -> i64 {
        let definition = self.fingerprint.map(|byte| format!("{byte:02x}")).concat();
        failing::key(&["failing", &tenant_id.to_string(), &self.name, &self.category, &definition])
    }
}

type Key = (i64, String);
type Folds = Known<Key, Option<Rc<Fold>>>;

columns! {
    mod of_fold, selected;
    NAME = "f.name",
    CATEGORY = "f.category",
    HANDLER = "f.handler",
    RULES = "f.rules",
    INITIAL_STATE = "f.initial_state",
    SNAPSHOT_EVERY = "f.snapshot_every",
    ORDER = "f.fold_order",
    REGISTRANT = "coalesce(r.rolname::text, f.registrant)",
    SEARCH_PATH = "f.search_path",
    REGISTRANT_OID = "r.oid",
}

macro_rules! select {
    () => {
        concat!("select ", selected!(), " from _eventstream.folds f", registrant_of!("f"))
    };
}

thread_local! {
    static FOLDS_BY_NAME: RefCell<Folds> = RefCell::default();
    static FOLDS_BY_CATEGORY: RefCell<Folds> = RefCell::default();
    static BY_NAME: Plan = const { Plan::new(
        concat!(select!(), "where f.tenant_id = $1 and f.name = $2"),
        &[INT8OID, TEXTOID],
    ) };
    static DEFAULT: Plan = const { Plan::new(
        concat!(select!(), "where f.tenant_id = $1 and f.category = $2 and f.is_default"),
        &[INT8OID, TEXTOID],
    ) };
}

/// The fold of that name (None: the default one) for streams of the category. Errors: ES010.
pub fn of(tenant_id: i64, category: &str, name: Option<&str>) -> Result<Rc<Fold>> {
    let found = match name {
        Some(name) => named(tenant_id, name)?.filter(|fold| fold.category == category),
        None => default(tenant_id, category)?,
    };
    found.ok_or_else(|| {
        Error::FoldNotFound { fold: name.map(ToOwned::to_owned), category: Some(category.into()) }.into()
    })
}

/// The fold of that name that folds what queries match, whatever its category. Errors: ES010.
pub fn of_queries(tenant_id: i64, name: Option<&str>) -> Result<Rc<Fold>> {
    let named = name.map_or(Ok(None), |name| named(tenant_id, name))?;
    let is_of_category = named.is_some();
    named.filter(|fold| fold.category.is_empty()).ok_or_else(|| {
        // One of a category is not what is missing.
        let fold = name.filter(|_| !is_of_category).map(ToOwned::to_owned);
        Error::FoldNotFound { fold, category: None }.into()
    })
}

/// Whether the fold of that name is one for queries.
pub fn is_of_queries(tenant_id: i64, name: &str) -> Result<bool> {
    Ok(named(tenant_id, name)?.is_some_and(|fold| fold.category.is_empty()))
}

/// The fold of that name, whatever its category.
pub fn named(tenant_id: i64, name: &str) -> Result<Option<Rc<Fold>>> {
    known(&FOLDS_BY_NAME, tenant_id, name, &BY_NAME)
}

fn default(tenant_id: i64, category: &str) -> Result<Option<Rc<Fold>>> {
    known(&FOLDS_BY_CATEGORY, tenant_id, category, &DEFAULT)
}

fn known(
    folds: &'static LocalKey<RefCell<Folds>>,
    tenant_id: i64,
    key: &str,
    plan: &'static LocalKey<Plan>,
) -> Result<Option<Rc<Fold>>> {
    let generation = catalog::folds_generation();
    let found =
        Known::of(folds, catalog::folds_generation, (tenant_id, key.to_owned()), || load(tenant_id, key, plan))?;
    if let Some(fold) = &found {
        fold.upcasters.protected.note_shown(generation, tenant_id);
    }
    Ok(found)
}

fn load(tenant_id: i64, key: &str, plan: &'static LocalKey<Plan>) -> Result<Option<Rc<Fold>>> {
    let upcasters = upcasters::of(tenant_id)?;
    as_owner(Planning::ByIndex, |db, _: &Catalog| {
        let args: [Nullable; 2] = [Some(Datum::from(tenant_id)), Some(from_text(key)?)];
        let found = plan.with(|plan| plan.first(db, View::Latest, &args, FoldRow::read))?;
        found.map(|stored| stored.fold(db, upcasters).map(Rc::new)).transpose()
    })
}

/// A row of the table.
struct FoldRow {
    name: String,
    category: String,
    handler: Option<String>,
    rules: Option<String>,
    initial_state: Stored,
    initial_text: String,
    snapshot_every: i64,
    order: Order,
    registrant: Registrant,
}

fn printed(document: Jsonb) -> Result<String> {
    Ok(String::from_utf8_lossy(document.text()?).into_owned())
}

impl FoldRow {
    fn read(row: &Row) -> Result<Self> {
        let missing = || Error::Internal { what: "a fold's row is not whole".into() };
        let initial = row.jsonb_opt(of_fold::INITIAL_STATE)?.ok_or_else(missing)?;
        Ok(Self {
            name: row.text(of_fold::NAME)?.to_owned(),
            category: row.text(of_fold::CATEGORY)?.to_owned(),
            handler: row.text_opt(of_fold::HANDLER)?.map(ToOwned::to_owned),
            rules: row.jsonb_opt(of_fold::RULES)?.map(printed).transpose()?,
            initial_state: Stored::keep(initial),
            initial_text: printed(initial)?,
            snapshot_every: row.int8(of_fold::SNAPSHOT_EVERY)?,
            order: Order::named(row.text(of_fold::ORDER)?).ok_or_else(missing)?,
            registrant: handler::registrant(row, [of_fold::REGISTRANT, of_fold::SEARCH_PATH, of_fold::REGISTRANT_OID])?,
        })
    }

    fn fold(self, db: &Db, upcasters: Rc<Upcasters>) -> Result<Fold> {
        let (how, definition) = match (self.handler, self.rules) {
            (Some(name), _) => {
                let found = handler::registered(db, Purpose::Fold, &name)?;
                let definition = found.as_ref().map_or_else(String::clone, |found| found.definition.clone());
                (How::Handler(found), format!("handler {name} {definition}"))
            }
            (None, Some(rules)) => (How::Rules(Rules::parse(&rules)?), format!("rules {rules}")),
            (None, None) => return Err(Error::Internal { what: "a fold has neither handler nor rules".into() }.into()),
        };
        // Functions are given every event.
        let named = match &how {
            How::Rules(rules) => Some(rules.event_types().map(ToOwned::to_owned).collect::<Vec<_>>()),
            How::Handler(_) => None,
        };
        let path = self.registrant.search_path.to_string_lossy().into_owned();
        let fingerprint = fingerprint(&[
            "fold",
            &definition,
            &path,
            &self.initial_text,
            self.order.as_str(),
            &upcasters.definition(named.as_deref()),
        ]);
        Ok(Fold {
            name: self.name,
            category: self.category,
            how,
            initial_state: Rc::new(self.initial_state),
            snapshot_every: self.snapshot_every,
            order: self.order,
            registrant: self.registrant,
            upcasters,
            fingerprint,
        })
    }
}
