//! Registering folds and upcasters. Registering again replaces; every session notices at the commit (src/shared/catalog.rs), and
//! snapshots of the definition before stop counting, because they carry its fingerprint.
use crate::log::document::print;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::announce_fold_change;
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Purpose};
use eventstream_core::error::Error;
use eventstream_core::name::{Category, EventType, FoldName};
use eventstream_core::rules::Rules;
use eventstream_core::word::Order;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{BOOLOID, Datum, INT4OID, INT8OID, JSONBOID, Oid, TEXTOID};

/// What es_register_fold is given.
pub struct Definition<'a> {
    pub name: &'a str,
    /// Empty: of no one category, for what queries match.
    pub category: &'a str,
    pub handler: Option<Oid>,
    pub rules: Option<Jsonb<'a>>,
    pub initial_state: Jsonb<'a>,
    pub snapshot_every: i64,
    pub order: Order,
    pub is_default: bool,
}

/// What es_register_upcaster is given.
pub struct UpcasterDefinition<'a> {
    pub event_type: &'a str,
    pub from_schema_version: i32,
    pub handler: Oid,
    /// None = the same.
    pub to_event_type: Option<&'a str>,
}

thread_local! {
    static CLEAR_DEFAULT: Plan = const { Plan::new(
        "update _eventstream.folds set is_default = false \
         where tenant_id = $1 and category = $2 and name <> $3 and is_default returning name",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static CATEGORY: Plan = const { Plan::new(
        "select category from _eventstream.folds where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
    static REGISTER: Plan = const { Plan::new(
        "insert into _eventstream.folds (tenant_id, name, category, handler, rules, initial_state, snapshot_every, \
                                         fold_order, is_default, registrant, registrant_oid, search_path) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_regrole(quote_ident($10))::oid, $11) on conflict (tenant_id, name) do update \
         set handler = excluded.handler, rules = excluded.rules, \
             initial_state = excluded.initial_state, snapshot_every = excluded.snapshot_every, \
             fold_order = excluded.fold_order, is_default = excluded.is_default, registrant = excluded.registrant, \
             registrant_oid = excluded.registrant_oid, search_path = excluded.search_path, registered_at = clock_timestamp() \
         where folds.category = excluded.category",
        &[INT8OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, INT8OID, TEXTOID, BOOLOID, TEXTOID, TEXTOID],
    ) };
    static UNREGISTER: Plan = const { Plan::new(
        "delete from _eventstream.folds where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
    static DELETE_SNAPSHOTS: Plan = const { Plan::new(
        "delete from _eventstream.snapshots n using _eventstream.streams s \
         where s.id = n.stream_id and s.tenant_id = $1 and n.fold = $2",
        &[INT8OID, TEXTOID],
    ) };
    static DELETE_PROGRESS: Plan = const { Plan::new(
        "delete from _eventstream.snapshot_progress where tenant_id = $1 and fold = $2",
        &[INT8OID, TEXTOID],
    ) };
    static REGISTER_UPCASTER: Plan = const { Plan::new(
        "insert into _eventstream.upcasters (tenant_id, event_type, from_schema_version, to_event_type, handler, \
                                             registrant, registrant_oid, search_path) \
         values ($1, $2, $3, $4, $5, $6, to_regrole(quote_ident($6))::oid, $7) on conflict (tenant_id, event_type, from_schema_version) do update \
         set to_event_type = excluded.to_event_type, handler = excluded.handler, registrant = excluded.registrant, \
             registrant_oid = excluded.registrant_oid, search_path = excluded.search_path, registered_at = clock_timestamp()",
        &[INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static UNREGISTER_UPCASTER: Plan = const { Plan::new(
        "delete from _eventstream.upcasters where tenant_id = $1 and event_type = $2 and from_schema_version = $3",
        &[INT8OID, TEXTOID, INT4OID],
    ) };
}

/// A name that is another category's: everything that names the fold would be left without one.
fn of_another(name: &str, category: &str) -> Error {
    Error::InvalidArgument {
        argument: "name".into(),
        reason: if category.is_empty() {
            format!("must be new in the tenant: {} is a fold for queries, of no one category", shown(name))
        } else {
            format!(
                "must be new in the tenant, or of the same category: {} is the fold of category {}",
                shown(name),
                shown(category)
            )
        },
        hint: Some(format!(
            "Choose another name. To move the name, unregister that fold first: select es_unregister_fold({});",
            quote_literal(name)
        )),
    }
}

/// Returns the fold that was the category's default one until now, if another was. Errors: ES005, ES011 for the rules.
pub fn register(tenant_id: i64, definition: &Definition) -> Result<Option<String>> {
    FoldName::parse(definition.name)?;
    if !definition.category.is_empty() {
        Category::parse("category", definition.category)?;
    }
    if definition.snapshot_every < 1 {
        return Err(invalid("snapshot_every", format!("must be 1 or more, not {}", definition.snapshot_every)));
    }
    if definition.handler.is_some() == definition.rules.is_some() {
        let given = if definition.handler.is_some() { "both are given" } else { "neither is given" };
        return Err(invalid("handler", format!("or rules must be given, exactly one of the two: {given}")));
    }
    // Rules recurse over a state once a level.
    print("initial_state", definition.initial_state)?;
    // What is small to hold can be large to print.
    if let Some(rules) = definition.rules
        && rules.measure(Rules::MOST_BYTES as u64)?.bytes > Rules::MOST_BYTES as u64
    {
        let reason = format!("must have at most {} bytes", Rules::MOST_BYTES);
        return Err(Error::InvalidRules { pointer: String::new(), reason }.into());
    }
    let rules = definition.rules.map(|rules| rules.text()).transpose()?;
    if let Some(rules) = rules {
        Rules::parse(&String::from_utf8_lossy(rules))?;
    }
    server::must_be_writable(c"es_register_fold")?;
    let registrant = server::current_role();
    let (role, search_path) = (server::role_name(registrant)?, handler::search_path_now()?);
    as_owner(Planning::ByIndex, |db, catalog| {
        let handler = definition
            .handler
            .map(|oid| handler::for_registration(db, Purpose::Fold, oid, registrant))
            .transpose()?
            .map(|handler| from_text(&handler.name))
            .transpose()?;
        let tenant = Some(Datum::from(tenant_id));
        let (name, category) = (Some(from_text(definition.name)?), Some(from_text(definition.category)?));
        let others =
            |view| CATEGORY.with(|plan| plan.first(db, view, &[tenant, name], |row| Ok(row.text(0)?.to_owned())));
        if let Some(other) = others(View::Latest)?.filter(|other| other != definition.category) {
            return Err(of_another(definition.name, &other).into());
        }
        let mut replaced = None;
        if definition.is_default {
            replaced = CLEAR_DEFAULT.with(|plan| {
                plan.first(db, View::Write, &[tenant, category, name], |row| Ok(row.text(0)?.to_owned()))
            })?;
        }
        let row: [Nullable; 11] = [
            tenant,
            name,
            category,
            handler,
            definition.rules.map(Jsonb::datum),
            Some(definition.initial_state.datum()),
            Some(Datum::from(definition.snapshot_every)),
            Some(from_text(definition.order.as_str())?),
            Some(Datum::from(definition.is_default)),
            Some(from_text(&role)?),
            Some(from_text(&search_path)?),
        ];
        if REGISTER.with(|plan| plan.write(db, &row))? == 0 {
            // Somebody else has registered the name meanwhile.
            return Err(of_another(definition.name, &others(View::Latest)?.unwrap_or_default()).into());
        }
        announce_fold_change(catalog)?;
        Ok(replaced)
    })
}

/// Errors: ES010.
pub fn unregister(tenant_id: i64, name: &str) -> Result<()> {
    server::must_be_writable(c"es_unregister_fold")?;
    as_owner(Planning::ByCost, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
        if UNREGISTER.with(|plan| plan.write(db, &key))? == 0 {
            return Err(Error::FoldNotFound { fold: Some(name.into()), category: None }.into());
        }
        DELETE_SNAPSHOTS.with(|plan| plan.write(db, &key))?;
        DELETE_PROGRESS.with(|plan| plan.write(db, &key))?;
        announce_fold_change(catalog)
    })
}

/// Errors: ES005.
pub fn register_upcaster(tenant_id: i64, definition: &UpcasterDefinition) -> Result<()> {
    EventType::parse_as("event_type", definition.event_type)?;
    let to_event_type = definition.to_event_type.unwrap_or(definition.event_type);
    EventType::parse_as("to_event_type", to_event_type)?;
    check_schema_version(definition.from_schema_version)?;
    server::must_be_writable(c"es_register_upcaster")?;
    let registrant = server::current_role();
    let (role, search_path) = (server::role_name(registrant)?, handler::search_path_now()?);
    as_owner(Planning::ByIndex, |db, catalog| {
        let handler = handler::for_registration(db, Purpose::Upcaster, definition.handler, registrant)?;
        let row = [
            Some(Datum::from(tenant_id)),
            Some(from_text(definition.event_type)?),
            Some(Datum::from(definition.from_schema_version)),
            Some(from_text(to_event_type)?),
            Some(from_text(&handler.name)?),
            Some(from_text(&role)?),
            Some(from_text(&search_path)?),
        ];
        REGISTER_UPCASTER.with(|plan| plan.write(db, &row))?;
        announce_fold_change(catalog)
    })
}

/// Errors: ES005 where there is none.
pub fn unregister_upcaster(tenant_id: i64, event_type: &str, from_schema_version: i32) -> Result<()> {
    check_schema_version(from_schema_version)?;
    server::must_be_writable(c"es_unregister_upcaster")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(event_type)?), Some(Datum::from(from_schema_version))];
        if UNREGISTER_UPCASTER.with(|plan| plan.write(db, &key))? == 0 {
            let reason = format!(
                "must have an upcaster from schema version {from_schema_version}, and {} has none",
                eventstream_core::shown(event_type)
            );
            return Err(invalid("event_type", reason));
        }
        announce_fold_change(catalog)
    })
}

fn check_schema_version(version: i32) -> Result<()> {
    if (1..i32::MAX).contains(&version) {
        return Ok(());
    }
    Err(invalid("from_schema_version", format!("must be 1 to {}, not {version}", i32::MAX - 1)))
}
