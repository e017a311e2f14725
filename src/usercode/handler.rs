//! The functions that users register: what they must be, whose they must be, how they are found again, and what of them enters a
//! fingerprint.
use super::in_use;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::function::call::{self, Function, Registrant};
use crate::pg::process::session::Db;
use crate::pg::process::{lock, server};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use eventstream_core::error::Error;
use eventstream_core::quote_identifier;
use pgrx::pg_sys::{Datum, OIDOID, Oid, ProcedureRelationId, TEXTOID};
use std::ffi::CString;

/// What a function is registered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    Fold,
    Upcaster,
    /// A projection's handler, for one event at a time.
    Event,
    /// The same, for a batch.
    Batch,
    /// What empties a projection's read model before a rebuild.
    Reset,
    /// What decides on a command.
    Decider,
    /// What such a decision depends on.
    Boundary,
    /// What must hold of the events that a transaction appended.
    Invariant,
}

impl Purpose {
    fn arguments(self) -> &'static str {
        match self {
            Purpose::Fold => "jsonb, eventstream.event",
            Purpose::Upcaster => "jsonb, jsonb",
            Purpose::Event => "eventstream.event",
            Purpose::Batch => "eventstream.event[]",
            Purpose::Reset => "",
            Purpose::Decider => "jsonb, eventstream.command",
            Purpose::Boundary => "eventstream.command",
            Purpose::Invariant => "eventstream.event[]",
        }
    }

    /// What it must return, where that matters.
    fn returns(self) -> Option<&'static str> {
        match self {
            Purpose::Fold | Purpose::Upcaster | Purpose::Decider | Purpose::Boundary => Some("jsonb"),
            Purpose::Invariant => Some("text"),
            Purpose::Event | Purpose::Batch | Purpose::Reset => None,
        }
    }

    fn signature(self) -> &'static str {
        match self {
            Purpose::Fold => "(state jsonb, event eventstream.event) returns jsonb immutable",
            Purpose::Upcaster => "(payload jsonb, metadata jsonb) returns jsonb immutable",
            Purpose::Event => "(event eventstream.event) returns void",
            Purpose::Batch => "(events eventstream.event[]) returns void",
            Purpose::Reset => "() returns void",
            Purpose::Decider => "(state jsonb, command eventstream.command) returns jsonb stable",
            Purpose::Boundary => "(command eventstream.command) returns jsonb stable",
            Purpose::Invariant => "(events eventstream.event[]) returns text stable",
        }
    }

    /// Why the function has to be IMMUTABLE, if it has to.
    fn why_immutable(self) -> Option<&'static str> {
        match self {
            Purpose::Fold => {
                Some("a state is a function of the stream's events alone, so that it can be proved and kept")
            }
            Purpose::Upcaster => Some("an event must read the same whenever it is read"),
            Purpose::Event
            | Purpose::Batch
            | Purpose::Reset
            | Purpose::Decider
            | Purpose::Boundary
            | Purpose::Invariant => None,
        }
    }

    /// Whether it answers, from what it may only read.
    fn is_answer(self) -> bool {
        matches!(self, Purpose::Decider | Purpose::Boundary | Purpose::Invariant)
    }

    /// What es_* functions call the argument.
    fn argument(self) -> &'static str {
        match self {
            Purpose::Reset => "reset",
            Purpose::Boundary => "boundary",
            _ => "handler",
        }
    }
}

/// A function that may be called for `purpose`.
#[derive(Debug, Clone)]
pub struct Handler {
    pub oid: Oid,
    /// Schema-qualified and quoted, without its arguments.
    pub name: String,
    pub owner: Oid,
    /// That it is in.
    pub schema: Oid,
    /// Its definition as the server holds it: language, body and so on.
    pub definition: String,
    pub is_immutable: bool,
}

/// A row of pg_proc as far as it matters.
struct Described {
    handler: Handler,
    is_plain: bool,
    volatility: String,
    is_temporary: bool,
    arguments: String,
    returns: String,
}

columns! {
    mod of, selected;
    OID = "p.oid",
    NAME = "format('%I.%I', n.nspname, p.proname)",
    OWNER = "p.proowner",
    SCHEMA = "p.pronamespace",
    DEFINITION = "jsonb_build_array(l.lanname, p.prosrc, p.probin, pg_get_function_sqlbody(p.oid), p.proconfig, p.proisstrict, \
                                    p.prosecdef)::text",
    IS_PLAIN = "p.prokind = 'f' and not p.proretset",
    VOLATILITY = "p.provolatile::text",
    IS_TEMPORARY = "n.nspname ~ '^pg_temp'",
    ARGUMENTS = "oidvectortypes(p.proargtypes)",
    RETURNS = "format_type(p.prorettype, null)",
}

macro_rules! described {
    () => {
        concat!(
            "select ",
            selected!(),
            " from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang "
        )
    };
}

thread_local! {
    static BY_OID: Plan = const { Plan::new(concat!(described!(), "where p.oid = $1"), &[OIDOID]) };
    static BY_NAME: Plan = const { Plan::new(
        concat!(described!(), "where p.oid = to_regprocedure($1)"),
        &[TEXTOID],
    ) };
}

fn describe(row: &Row) -> Result<Described> {
    let flag = |column| row.get(column).is_some_and(|value| value.value() & 1 == 1);
    Ok(Described {
        handler: Handler {
            oid: row.oid(of::OID)?,
            name: row.text(of::NAME)?.to_owned(),
            owner: row.oid(of::OWNER)?,
            schema: row.oid(of::SCHEMA)?,
            definition: row.text(of::DEFINITION)?.to_owned(),
            is_immutable: row.text(of::VOLATILITY)? == "i",
        },
        is_plain: flag(of::IS_PLAIN),
        volatility: row.text(of::VOLATILITY)?.to_owned(),
        is_temporary: flag(of::IS_TEMPORARY),
        arguments: row.text(of::ARGUMENTS)?.to_owned(),
        returns: row.text(of::RETURNS)?.to_owned(),
    })
}

/// Whose code it is, from three columns of its row: the role's name, the search path of registration, and the role's oid.
pub fn registrant(row: &Row, [role, search_path, oid]: [usize; 3]) -> Result<Registrant> {
    let search_path = CString::new(row.text(search_path)?)
        .map_err(|_| Error::Internal { what: "a search path holds a zero byte".into() })?;
    Ok(Registrant { role: row.text(role)?.to_owned(), oid: row.oid_opt(oid), search_path })
}

/// The function of that oid, if there is one, which nobody drops, renames or moves from now on, its schema neither, before this transaction ends.
fn kept(db: &Db, oid: Oid) -> Result<Option<Described>> {
    let key = [Some(Datum::from(oid))];
    let look = || BY_OID.with(|plan| plan.first(db, View::Latest, &key, describe));
    lock::object(ProcedureRelationId, oid)?;
    let Some(found) = look()? else { return Ok(None) };
    in_use::tag_of_schema(found.handler.schema)?.share()?;
    // What its schema is called by now.
    look()
}

/// The function that is to be registered, which whoever would drop it waits for from now on, if it is what it must be and `registrant` may call it. Errors: ES005, 42501.
pub fn for_registration(db: &Db, purpose: Purpose, oid: Oid, registrant: Oid) -> Result<Handler> {
    let found = kept(db, oid)?.ok_or_else(|| {
        invalid(purpose.argument(), format!("must be a function: there is none with oid {}", oid.to_u32()))
    })?;
    if let Some(reason) = objection(purpose, &found) {
        return Err(Error::InvalidArgument {
            argument: purpose.argument().into(),
            reason,
            hint: Some(format!("Declare it as {}{}.", found.handler.name, purpose.signature())),
        }
        .into());
    }
    refuse_without_execute(purpose, &found.handler, registrant)?;
    refuse_strangers(purpose, &found.handler, registrant)?;
    Ok(found.handler)
}

/// Whether the function takes a batch of events rather than one.
pub fn takes_batch(db: &Db, oid: Oid) -> Result<bool> {
    let arguments = BY_OID.with(|plan| plan.first(db, View::Latest, &[Some(Datum::from(oid))], describe))?;
    Ok(arguments.is_some_and(|found| found.arguments == Purpose::Batch.arguments()))
}

/// What keeps the function from being used, if anything does.
fn objection(purpose: Purpose, found: &Described) -> Option<String> {
    let name = &found.handler.name;
    if !found.is_plain {
        return Some(format!("must be a plain function that returns one value, and {name} is not"));
    }
    if found.arguments != purpose.arguments() || purpose.returns().is_some_and(|returns| returns != found.returns) {
        return Some(format!(
            "must have the signature {}, and {name} has another",
            purpose.signature().trim_end_matches(" immutable").trim_end_matches(" stable")
        ));
    }
    if found.is_temporary {
        return Some(format!("must be a function that other sessions find too, and {name} is temporary"));
    }
    if let Some(why) = purpose.why_immutable().filter(|_| found.volatility != "i") {
        let is = if found.volatility == "s" { "STABLE" } else { "VOLATILE" };
        return Some(format!("must be IMMUTABLE, and {name} is {is}: {why}"));
    }
    if purpose.is_answer() && found.volatility == "v" {
        return Some(format!(
            "must be STABLE or IMMUTABLE, and {name} is VOLATILE: it is to see what is there when it is called, and to write nothing"
        ));
    }
    None
}

fn refuse_without_execute(purpose: Purpose, handler: &Handler, registrant: Oid) -> Result<()> {
    if call::may_execute(handler.oid, registrant)? {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: purpose.argument().into(),
        reason: format!(
            "must be a function that role {} may execute, and {} is not",
            server::role_name(registrant)?,
            handler.name
        ),
        hint: Some("grant execute on function … to …;".into()),
    }
    .into())
}

/// Whoever owns a function may replace what it does, which runs with the registrant's rights.
fn refuse_strangers(purpose: Purpose, handler: &Handler, registrant: Oid) -> Result<()> {
    if server::may_run_code_of(registrant, handler.owner)? {
        return Ok(());
    }
    let (role, owner) = (server::role_name(registrant)?, server::role_name(handler.owner)?);
    Err(Error::InvalidArgument {
        argument: purpose.argument().into(),
        reason: format!(
            "must be a function of role {role}, of a superuser, or (where {role} is none) of a role that has the rights of {role}, and {} is \
             of role {owner}: what it, or a member of it, puts into the function would run with the rights of {role}",
            handler.name
        ),
        hint: Some(format!(
            "alter routine {}({}) owner to {}; or let role {owner} make this call.",
            handler.name,
            purpose.arguments(),
            quote_identifier(&role)
        )),
    }
    .into())
}

/// The function that was registered under `name`. The reason where there is none any more, or it is another one by now.
pub fn registered(db: &Db, purpose: Purpose, name: &str) -> Result<std::result::Result<Handler, String>> {
    let signature = format!("{name}({})", purpose.arguments());
    let found = BY_NAME.with(|plan| plan.first(db, View::Latest, &[Some(from_text(&signature)?)], describe))?;
    Ok(match found {
        None => Err(format!("its function {signature} does not exist any more")),
        Some(found) => match objection(purpose, &found) {
            None => Ok(found.handler),
            Some(objection) => Err(format!("its function {objection}")),
        },
    })
}

/// The function, ready to be called as its registrant; the reason where it cannot be.
pub fn callable(handler: &Handler, registrant: &Registrant) -> Result<std::result::Result<Function, String>> {
    let Some(role) = registrant.existing()? else {
        return Ok(Err(format!("the role {} that registered it does not exist any more", registrant.role)));
    };
    if !call::exists(handler.oid)? {
        return Ok(Err(format!("its function {} does not exist any more", handler.name)));
    }
    if !call::may_execute(handler.oid, role)? {
        return Ok(Err(format!(
            "the role {} that registered it may not execute {} any more",
            registrant.role, handler.name
        )));
    }
    if !server::may_run_code_of(role, handler.owner)? {
        let owner = server::role_name(handler.owner)?;
        return Ok(Err(format!(
            "{} is of role {owner} by now, whose code would run with the rights of {}: alter routine {} owner to {};",
            handler.name,
            registrant.role,
            handler.name,
            quote_identifier(&registrant.role)
        )));
    }
    Function::look_up(handler.oid, role, &registrant.search_path).map(Ok)
}

/// The search path that a registrant's code runs with: as it is now, and temporary objects last.
pub fn search_path_now() -> Result<String> {
    let path = server::setting(c"search_path")?;
    Ok(if path.split(',').any(|part| part.trim() == "pg_temp") { path } else { format!("{path}, pg_temp") })
}
