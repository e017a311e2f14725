//! Registering deciders. Registering again replaces; every session notices at the commit (src/shared/catalog.rs). Sole owner of the table deciders: what it holds, the functions'
//! sources as they were registered too, is what an act of administration says.
use super::deciders::{each_command, must_satisfy, undecided};
use super::schemas;
use crate::log::document::print;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::announce_decider_change;
use crate::shared::session::as_owner;
use crate::state::folds;
use crate::usercode::handler::{self, Handler, Purpose};
use eventstream_core::error::Error;
use eventstream_core::name::{Category, EventType, check_label};
use eventstream_core::schema::Schema;
use eventstream_core::undecided::{EXAMPLE, Undecided};
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, JSONBOID, Oid, TEXTOID};

/// The largest list of commands, in bytes as text, and the longest description.
const MOST_COMMANDS_BYTES: u64 = 1 << 20;
const MOST_DESCRIPTION_BYTES: usize = 4 << 10;

/// What es_register_decider is given.
pub struct Definition<'a> {
    pub name: &'a str,
    pub category: &'a str,
    pub handler: Oid,
    pub commands: Option<Jsonb<'a>>,
    pub fold: Option<&'a str>,
    pub boundary: Option<Oid>,
    pub is_default: bool,
}

thread_local! {
    static CLEAR_DEFAULT: Plan = const { Plan::new(
        "update _eventstream.deciders set is_default = false \
         where tenant_id = $1 and category = $2 and name <> $3 and is_default returning name",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static CATEGORY: Plan = const { Plan::new(
        "select category from _eventstream.deciders where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
    static REGISTER: Plan = const { Plan::new(
        "insert into _eventstream.deciders (tenant_id, name, category, handler, boundary, fold, commands, is_default, source, \
                                            registrant, registrant_oid, search_path) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_regrole(quote_ident($10))::oid, $11) on conflict (tenant_id, name) do update \
         set handler = excluded.handler, boundary = excluded.boundary, fold = excluded.fold, commands = excluded.commands, \
             is_default = excluded.is_default, source = excluded.source, registrant = excluded.registrant, \
             registrant_oid = excluded.registrant_oid, search_path = excluded.search_path, registered_at = clock_timestamp() \
         where deciders.category = excluded.category",
        &[INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BOOLOID, JSONBOID, TEXTOID, TEXTOID],
    ) };
    static UNREGISTER: Plan = const { Plan::new(
        "delete from _eventstream.deciders where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
}

/// Returns the decider that was the category's default one until now, if another was. Errors: ES005, ES010 for the fold, ES016 for an example.
pub fn register(tenant_id: i64, definition: &Definition) -> Result<Option<String>> {
    check_label("name", definition.name)?;
    Category::parse("category", definition.category)?;
    if let Some(commands) = definition.commands {
        check_commands(definition.name, commands).map_err(|failure| failure.within(|| "commands".into()))?;
    }
    if let Some(fold) = definition.fold
        && !folds::is_of_queries(tenant_id, fold)?
    {
        folds::of(tenant_id, definition.category, Some(fold))?;
    }
    server::must_be_writable(c"es_register_decider")?;
    let registrant = server::current_role();
    let (role, search_path) = (server::role_name(registrant)?, handler::search_path_now()?);
    as_owner(Planning::ByIndex, |db, catalog| {
        let handler = handler::for_registration(db, Purpose::Decider, definition.handler, registrant)?;
        let boundary = definition
            .boundary
            .map(|oid| handler::for_registration(db, Purpose::Boundary, oid, registrant))
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
            let key = [tenant, category, name];
            replaced =
                CLEAR_DEFAULT.with(|plan| plan.first(db, View::Write, &key, |row| Ok(row.text(0)?.to_owned())))?;
        }
        let row: [Nullable; 11] = [
            tenant,
            name,
            category,
            Some(from_text(&handler.name)?),
            boundary.as_ref().map(|boundary| from_text(&boundary.name)).transpose()?,
            definition.fold.map(from_text).transpose()?,
            definition.commands.map(Jsonb::datum),
            Some(Datum::from(definition.is_default)),
            Some(source(&handler, boundary.as_ref())?.datum()),
            Some(from_text(&role)?),
            Some(from_text(&search_path)?),
        ];
        if REGISTER.with(|plan| plan.write(db, &row))? == 0 {
            // Somebody else has registered the name meanwhile.
            return Err(of_another(definition.name, &others(View::Latest)?.unwrap_or_default()).into());
        }
        announce_decider_change(catalog)?;
        Ok(replaced)
    })
}

/// Whether no command for its category can be decided yet, because nothing makes states of its streams.
pub fn is_without_fold(tenant_id: i64, definition: &Definition) -> Result<bool> {
    let own = definition.fold.map_or(Ok(None), |fold| folds::named(tenant_id, fold))?;
    if own.is_some_and(|fold| fold.category == definition.category) {
        return Ok(false);
    }
    match folds::of(tenant_id, definition.category, None) {
        Err(Failure::Rule(Error::FoldNotFound { .. })) => Ok(true),
        found => found.map(|_| false),
    }
}

/// The functions as the server holds them now: an auditor sees what decided, whatever becomes of them.
fn source<'a>(handler: &Handler, boundary: Option<&Handler>) -> Result<Jsonb<'a>> {
    let boundary = boundary.map_or("null", |boundary| &boundary.definition);
    Jsonb::parse(&format!("{{\"handler\": {}, \"boundary\": {boundary}}}", handler.definition))
}

/// A name that is another category's: whoever names the decider would be left without one.
fn of_another(name: &str, category: &str) -> Error {
    Error::InvalidArgument {
        argument: "name".into(),
        reason: format!(
            "must be new in the tenant, or of the same category: {} is the decider of category {}",
            shown(name),
            shown(category)
        ),
        hint: Some(format!(
            "Choose another name. To move the name, unregister that decider first: select es_unregister_decider({});",
            quote_literal(name)
        )),
    }
}

/// Names, schemas and examples, which must agree.
fn check_commands(decider: &str, commands: Jsonb) -> Result<()> {
    if !commands.is_object() {
        return Err(invalid("", "must be a JSON object"));
    }
    if commands.len() == 0 {
        return Err(invalid("", "must have at least one command; NULL = any"));
    }
    if commands.measure(MOST_COMMANDS_BYTES)?.bytes > MOST_COMMANDS_BYTES {
        return Err(invalid("", format!("must have at most {MOST_COMMANDS_BYTES} bytes")));
    }
    each_command(commands, &mut |name, command| {
        EventType::parse_as("", name)?;
        if let Some(long) = command.description.map(str::len).filter(|&bytes| bytes > MOST_DESCRIPTION_BYTES) {
            return Err(invalid(
                "description",
                format!("must have at most {MOST_DESCRIPTION_BYTES} bytes, not {long}"),
            ));
        }
        let example = command.example.map(|example| print("example", example)).transpose()?;
        let Some(schema) = command.schema else { return Ok(()) };
        if schema.measure(Schema::MOST_BYTES as u64)?.bytes > Schema::MOST_BYTES as u64 {
            return Err(invalid("schema", format!("must have at most {} bytes", Schema::MOST_BYTES)));
        }
        let schema = schemas::made(&String::from_utf8_lossy(schema.text()?))?.map_err(of_a_command)?;
        match example {
            Some(example) => must_satisfy(&schema, EXAMPLE, (decider, name), example.text),
            None => Ok(()),
        }
    })
}

/// What the argument of a schema is called here.
fn of_a_command(error: Error) -> Error {
    match error {
        Error::InvalidArgument { reason, hint, .. } => {
            Error::InvalidArgument { argument: "schema".into(), reason, hint }
        }
        other => other,
    }
}

/// Errors: ES036.
pub fn unregister(tenant_id: i64, name: &str) -> Result<()> {
    server::must_be_writable(c"es_unregister_decider")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
        if UNREGISTER.with(|plan| plan.write(db, &key))? == 0 {
            return Err(undecided(Undecided::NotFound { decider: Some(name.into()), category: None }));
        }
        announce_decider_change(catalog)
    })
}
