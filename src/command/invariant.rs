//! Registering invariants. Registering again replaces; whoever enters the tenant's gate afterwards is judged by it (src/command/ruling.rs), and it waits for who has entered before. Sole owner of
//! the table invariants: what it holds, the function's source as it was registered too, is what an act of administration says.
use crate::access::notice_of_new_categories;
use crate::log::target::Target;
use crate::log::{acting, gate, noted};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::shared::catalog::announce_invariant_change;
use crate::shared::session::as_owner;
use crate::state::folds;
use crate::usercode::handler::{self, Purpose};
use eventstream_core::error::Error;
use eventstream_core::name::{Category, EventType, check_label};
use eventstream_core::rules::Requirement;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID, JSONBOID, Oid, TEXTARRAYOID, TEXTOID};

/// The most categories, and event types, of one.
const MOST: usize = 1000;

/// What es_register_invariant is given.
pub struct Definition<'a> {
    pub name: &'a str,
    /// Each once.
    pub categories: Vec<String>,
    pub event_types: Option<Vec<String>>,
    pub handler: Option<Oid>,
    pub fold: Option<&'a str>,
    pub require: Option<Jsonb<'a>>,
}

thread_local! {
    static CATEGORIES: Plan = const { Plan::new(
        "select categories from _eventstream.invariants where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
    static REGISTER: Plan = const { Plan::new(
        "insert into _eventstream.invariants (tenant_id, name, categories, event_types, handler, fold, require, source, \
                                              registrant, registrant_oid, search_path) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, to_regrole(quote_ident($9))::oid, $10) on conflict (tenant_id, name) do update \
         set categories = excluded.categories, event_types = excluded.event_types, handler = excluded.handler, fold = excluded.fold, \
             require = excluded.require, source = excluded.source, registrant = excluded.registrant, \
             registrant_oid = excluded.registrant_oid, search_path = excluded.search_path, registered_at = clock_timestamp()",
        &[INT8OID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID],
    ) };
    static UNREGISTER: Plan = const { Plan::new(
        "delete from _eventstream.invariants where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
}

impl Definition<'_> {
    /// Errors: ES005, ES011.
    pub fn check(&mut self) -> Result<()> {
        check_label("name", self.name)?;
        each_once("categories", &mut self.categories)?;
        for category in &self.categories {
            Category::parse("categories", category)?;
        }
        if let Some(event_types) = &mut self.event_types {
            each_once("event_types", event_types)?;
            for event_type in event_types {
                EventType::parse_as("event_types", event_type)?;
            }
        }
        match (self.handler, self.require) {
            (Some(_), Some(_)) => {
                Err(invalid("require", "must be NULL where a handler is given: register two invariants"))
            }
            (None, None) => Err(invalid("require", "must be given, or handler: what has to hold")),
            (Some(_), None) if self.fold.is_some() => {
                Err(invalid("fold", "must be NULL where a handler is given: it is shown events, and no state"))
            }
            (Some(_), None) => Ok(()),
            (None, Some(require)) => {
                if require.measure(Requirement::MOST_BYTES as u64)?.bytes > Requirement::MOST_BYTES as u64 {
                    return Err(invalid("require", format!("must have at most {} bytes", Requirement::MOST_BYTES)));
                }
                Requirement::parse(&String::from_utf8_lossy(require.text()?))?;
                Ok(())
            }
        }
    }
}

fn each_once(argument: &str, names: &mut Vec<String>) -> Result<()> {
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(invalid(argument, "must name at least one"));
    }
    if names.len() > MOST {
        return Err(invalid(argument, format!("must name at most {MOST}, not {}", names.len())));
    }
    Ok(())
}

/// The categories of the invariant of that name, if there is one.
pub fn categories_of(tenant_id: i64, name: &str) -> Result<Option<Vec<String>>> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
    let found = as_owner(Planning::ByIndex, |db, _| {
        CATEGORIES.with(|plan| plan.first(db, View::Latest, &key, |row| row.text_array_opt(0)))
    })?;
    Ok(found.flatten())
}

/// A definition that was checked. Errors: ES005, ES010, 55P03.
pub fn register(target: Target, definition: &Definition) -> Result<()> {
    server::must_be_writable(c"es_register_invariant")?;
    acting::refuse("es_register_invariant")?;
    if categories_of(target.id, definition.name)?.is_some() {
        noted::must_be_none(target.id)?;
    }
    if definition.require.is_some() {
        for category in &definition.categories {
            folds::of(target.id, category, definition.fold)?;
        }
    }
    notice_of_new_categories(
        target.id,
        Some(&definition.categories),
        "what is appended to it is judged from its first event on",
    )?;
    let registrant = server::current_role();
    let (role, search_path) = (server::role_name(registrant)?, handler::search_path_now()?);
    let check =
        |oid| as_owner(Planning::ByIndex, |db, _| handler::for_registration(db, Purpose::Invariant, oid, registrant));
    let found = definition.handler.map(check).transpose()?;
    gate::close(target)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let source = found.as_ref().map(|found| Jsonb::parse(&found.definition)).transpose()?;
        let row: [Nullable; 10] = [
            Some(Datum::from(target.id)),
            Some(from_text(definition.name)?),
            Some(text_array_of(&definition.categories)?),
            definition.event_types.as_deref().map(text_array_of).transpose()?,
            found.as_ref().map(|found| from_text(&found.name)).transpose()?,
            definition.fold.map(from_text).transpose()?,
            definition.require.map(Jsonb::datum),
            source.map(Jsonb::datum),
            Some(from_text(&role)?),
            Some(from_text(&search_path)?),
        ];
        REGISTER.with(|plan| plan.write(db, &row))?;
        announce_invariant_change(catalog)
    })
}

/// Errors: ES005 where there is none.
pub fn unregister(tenant_id: i64, name: &str) -> Result<()> {
    server::must_be_writable(c"es_unregister_invariant")?;
    acting::refuse("es_unregister_invariant")?;
    noted::must_be_none(tenant_id)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
        if UNREGISTER.with(|plan| plan.write(db, &key))? == 0 {
            return Err(Error::InvalidArgument {
                argument: "name".into(),
                reason: format!("must be that of an invariant, and there is none called {}", shown(name)),
                hint: Some("What is registered: select name, categories from eventstream.invariants;".into()),
            }
            .into());
        }
        announce_invariant_change(catalog)
    })
}
