//! What is protected in the current database, as this backend knows it: of events, by the schema version that they are stored in, and of commands.
//!
//! Promises: where a tenant has no rule, asking costs one look in a map; rules count from their commit on, in every session.
use crate::log::retry::Residuals;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::invalidation;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog;
use crate::shared::known::Known;
use crate::shared::portions;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::hash::fingerprint;
use eventstream_core::protect::{Cover, Mask, Protection, Protections};
use eventstream_core::schema::Breach;
use eventstream_core::word::{Protects, Word};
use pgrx::pg_sys::{Datum, INT8OID};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

columns! {
    mod of, selected;
    KIND = "kind",
    EVENT_TYPE = "event_type",
    SCHEMA_VERSION = "schema_version",
    POINTERS = "pointers",
    CLEAR_POINTERS = "clear_pointers",
    METADATA_POINTERS = "metadata_pointers",
    CREATED_AT = "created_at",
}

thread_local! {
    /// By tenant, until the end of the transaction.
    static BEFORE: RefCell<BTreeMap<i64, Rc<Protected>>> = const { RefCell::new(BTreeMap::new()) };
    static SEEN: Plan = const { Plan::new(
        "select max(created_at) from _eventstream.protections where tenant_id = $1 and kind = 'event' \
         and (pointers is null or pointers <> '{}' or metadata_pointers <> '{}')",
        &[INT8OID],
    ) };
    static NONE: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
    static PROTECTED: RefCell<Known<i64, Rc<Protected>>> = RefCell::default();
    static LOAD: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from _eventstream.protections where tenant_id = $1 \
             order by kind, event_type collate \"C\", schema_version"
        ),
        &[INT8OID],
    ) };
}

/// What is told instead of what failures said.
pub const WITHHELD: &str = "not told: fields of the event are protected";

/// What is protected in a tenant.
#[derive(Default)]
pub struct Protected {
    pub events: Protections,
    pub commands: Protections,
    /// Everything that a state depends on of it, by types of events, in their order.
    definitions: Vec<(String, String)>,
    /// When the newest rule of events came that hides anything (microseconds since 2000-01-01 UTC): what was made of events before may repeat what it hides.
    pub events_since: Option<i64>,
    /// When the rule of each type of commands came, or of each operation outside.
    commands_since: BTreeMap<String, i64>,
    /// What was protected when this transaction began to take back rules, or to change them: that passes for nobody in it either, or a rollback would leave no trace of who looked.
    pub before: Option<Rc<Protected>>,
    /// All of that, to be compared.
    rules: Rc<str>,
}

impl Protected {
    /// Whether what is said of a payload of that event type and schema version may come of what is hidden of it.
    pub fn may_make(&self, (event_type, schema_version): (&str, i32), breach: &Breach) -> bool {
        match self.events.of(event_type, schema_version) {
            Cover::By(protection) => !protection.payload.is_empty() && protection.payload.may_make(breach),
            _ => false,
        }
    }

    /// Everything that a state depends on of it, where no other types of events say anything to its fold (None: all do).
    pub fn definition(&self, of: Option<&BTreeSet<&str>>) -> String {
        let counts = |name: &str| of.is_none_or(|names| names.contains(name));
        let own = self.definitions.iter().filter(|(name, _)| counts(name)).map(|(_, definition)| definition.as_str());
        // States that are made meanwhile are nobody else's.
        let before = self.before.as_ref().map_or_else(String::new, |before| format!("before{}", before.definition(of)));
        own.collect::<String>() + &before
    }

    /// To be called where something is shown by what was found of a tenant in that generation.
    pub fn note_shown(&self, generation: u64, tenant_id: i64) {
        portions::note_shown(generation, tenant_id, &self.rules);
    }

    /// Whether there is a rule of that, of whichever version: what no rule names is hidden, too.
    pub fn hides_some(&self, kind: Protects, name: &str) -> bool {
        let all = if kind == Protects::Event { &self.events } else { &self.commands };
        !matches!(all.of(name, 1), Cover::Free)
    }

    /// Whether all of all events is shown.
    pub fn shows_all_events(&self) -> bool {
        self.all().all(|protected| protected.events.is_empty())
    }

    /// Everything that hides in this transaction.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        self.before.as_deref().into_iter().chain([self])
    }

    /// What is not told of commands of that type, or of operations outside of that name; None: all is.
    pub fn told_of_command(&self, name: &str) -> Option<&Mask> {
        self.before.as_ref().and_then(|before| before.of_command(name)).or_else(|| self.of_command(name))
    }

    /// Whether the rule of such commands is newer than what was kept of one at that time: they are not compared as it was.
    pub fn is_of_commands_since(&self, name: &str, kept_at: i64) -> bool {
        self.commands_since.get(name).is_some_and(|&since| kept_at <= since)
    }

    /// What is protected of commands of that type, or of operations outside of that name; None: nothing.
    pub fn of_command(&self, name: &str) -> Option<&Mask> {
        match self.commands.of(name, 1) {
            Cover::By(protection) if !protection.payload.is_empty() => Some(&protection.payload),
            _ => None,
        }
    }
}

/// Of a tenant; reserved streams have no rules. Within a statement, or a cursor, nothing else takes in what was committed since it began.
pub fn of(tenant_id: i64) -> Result<Rc<Protected>> {
    invalidation::take_in()?;
    let before = catalog::folds_generation();
    let found = Known::of(&PROTECTED, catalog::folds_generation, tenant_id, || load(tenant_id).map(Rc::new))?;
    if found.shows_all_events() && before == catalog::folds_generation() {
        NONE.set((before, tenant_id));
    }
    found.note_shown(before, tenant_id);
    Ok(found)
}

/// Whether the caller's snapshot is older than a rule of events: what it shows was written before that, and may repeat what is hidden by now.
pub fn is_newer_than_snapshot(tenant_id: i64) -> Result<bool> {
    if is_known_to_be_none(tenant_id)? {
        return Ok(false);
    }
    let Some(since) = of(tenant_id)?.events_since else { return Ok(false) };
    let seen = as_owner(Planning::ByIndex, |db, _| {
        SEEN.with(|plan| plan.first(db, View::Caller, &[Some(Datum::from(tenant_id))], |row| Ok(row.int8_opt(0))))
    })?;
    Ok(seen.flatten().is_none_or(|seen| seen < since))
}

/// How often this session has found what is protected to be another than the same transaction had found before, now that it has looked again.
pub fn changes() -> Result<u64> {
    portions::tenants().into_iter().try_for_each(|tenant_id| of(tenant_id).map(|_| ()))?;
    Ok(portions::changes())
}

/// To be called before rules of a tenant are taken back, or changed: until the end of the transaction, or [`unveil`], they count as they were, too.
pub fn keep_until_commit(tenant_id: i64) -> Result<()> {
    let before = of(tenant_id)?;
    if before.before.is_none() {
        BEFORE.with_borrow_mut(|all| {
            all.entry(tenant_id).or_insert(before);
        });
        catalog::forget_protections();
    }
    Ok(())
}

/// The transaction commits, or has ended.
pub fn unveil() {
    if !BEFORE.take().is_empty() {
        catalog::forget_protections();
    }
}

/// Whether no events of the tenant are protected, where that was asked last: for whoever asks row by row.
pub fn is_known_to_be_none(tenant_id: i64) -> Result<bool> {
    invalidation::take_in()?;
    let generation = catalog::folds_generation();
    Ok(NONE.get() == (generation, tenant_id) && portions::note_shown_again(generation, tenant_id))
}

/// What rules a work began under, in this backend, that may yet leave a text behind when its transaction is over.
#[derive(Clone, Copy)]
pub struct Under(u64);

impl Under {
    /// To be called behind a lock that keeps es_protect waiting.
    pub fn now() -> Self {
        Self(catalog::folds_generation())
    }

    /// What may be told of a failure of that work, behind such a lock again: a rule that came in between may hide what it says.
    pub fn told(self, tenant_id: i64, caught: &Caught) -> Result<Caught> {
        let protected = of(tenant_id)?;
        let caught = caught.clone();
        if self.0 == catalog::folds_generation() || protected.events.is_empty() {
            return Ok(caught);
        }
        Ok(Caught { message: WITHHELD.into(), detail: None, ..caught })
    }
}

fn load(tenant_id: i64) -> Result<Protected> {
    let mut protected = Protected::default();
    as_owner(Planning::ByIndex, |db, _| {
        LOAD.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
                let broken = || Error::Internal { what: "a rule of protected fields is not whole".into() };
                let pointers = row.text_array_opt(of::POINTERS)?;
                let clear = row.text_array_opt(of::CLEAR_POINTERS)?;
                let metadata = row.text_array_opt(of::METADATA_POINTERS)?.ok_or_else(broken)?;
                let (name, version) = (row.text(of::EVENT_TYPE)?, row.int4(of::SCHEMA_VERSION)?);
                let protection = Protection::new(pointers.as_deref(), clear.as_deref(), &metadata)?;
                let kind = Protects::named(row.text(of::KIND)?).ok_or_else(broken)?;
                if kind == Protects::Event {
                    let hides = (!protection.is_empty()).then(|| row.int8(of::CREATED_AT)).transpose()?;
                    protected.events_since = protected.events_since.max(hides);
                    let version = version.to_string();
                    let printed = |parts: &[&str]| fingerprint(parts).map(|byte| format!("{byte:02x}")).concat();
                    let list = |pointers: &[String]| printed(&pointers.iter().map(String::as_str).collect::<Vec<_>>());
                    let form = if pointers.is_some() { "pointers" } else { "clear" };
                    let listed = list(pointers.as_deref().or(clear.as_deref()).unwrap_or_default());
                    let definition = printed(&[name, &version, form, &listed, &list(&metadata)]);
                    protected.definitions.push((name.to_owned(), definition));
                }
                let all = match kind {
                    Protects::Event => &mut protected.events,
                    Protects::Command => {
                        protected.commands_since.insert(name.to_owned(), row.int8(of::CREATED_AT)?);
                        &mut protected.commands
                    }
                };
                all.add(name.to_owned(), version, protection);
                Ok(())
            })
        })
    })?;
    protected.before = BEFORE.with_borrow(|all| all.get(&tenant_id).cloned());
    if let Some(before) = &protected.before {
        protected.events_since = protected.events_since.max(before.events_since);
    }
    let before = protected.before.as_ref().map_or("", |before| &before.rules);
    protected.rules = format!("{:?}{:?}{before}", protected.events, protected.commands).into();
    Ok(protected)
}

impl Residuals for Protected {
    fn protects(&self) -> bool {
        !self.shows_all_events()
    }

    fn unprotected<'a>(&self, event_type: &str, schema_version: i32, payload: Jsonb<'a>) -> Result<Option<Jsonb<'a>>> {
        let before = self.before.as_ref().map(|before| before.unprotected(event_type, schema_version, payload));
        let Some(payload) = before.transpose()?.unwrap_or(Some(payload)) else { return Ok(None) };
        match self.events.of(event_type, schema_version) {
            Cover::Free => Ok(Some(payload)),
            Cover::Missing { .. } => Ok(None),
            Cover::By(protection) => Ok(Some(payload.residual(&protection.payload)?.0.unwrap_or(payload))),
        }
    }
}
