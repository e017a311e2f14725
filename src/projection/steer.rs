//! Making projections and steering them: what es_create_projection and its neighbours do, after `access` was asked. Every change
//! locks the projection's progress first, so that none is made while a batch runs, and wakes the workers at commit.
use super::applier;
use super::dead_letter;
use super::definition::{self, Functions};
use super::definition::{Settings, What};
use super::inline;
use super::progress::{self, Lock, Progress};
use super::projections::{self, Kind, Projection};
use super::rebuild;
use super::state_table::Relation;
use crate::log::acting::{self, Rebuilding};
use crate::log::dead_letters::{self, Cause, Source};
use crate::log::target::Target;
use crate::log::{acts, audit, horizon};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::shared::board;
use crate::shared::catalog::{self, Catalog};
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Purpose};
use eventstream_core::argument::Argument;
use eventstream_core::audit::{act, checked_reference};
use eventstream_core::error::Error;
use eventstream_core::name::FoldName;
use eventstream_core::word::{Mode, OnError, ProjectionKind, Status};
use pgrx::pg_sys::{Datum, INT8OID, JSONBOID, Oid, TEXTARRAYOID, TEXTOID};
use serde_json::{Value, json};
use std::rc::Rc;

/// What es_alter_projection changes; None: as it was.
pub struct Changes<'a> {
    pub batch_size: Option<i64>,
    pub on_error: Option<&'a str>,
    pub max_retries: Option<i64>,
    pub handler: Option<Oid>,
    pub reset: Option<Oid>,
}

impl Changes<'_> {
    fn check(&self) -> Result<()> {
        self.batch_size.map(checked_size).transpose()?;
        self.max_retries.map(checked_retries).transpose()?;
        self.on_error.map(|on_error| OnError::parse("on_error", on_error)).transpose()?;
        Ok(())
    }
}

const MOST_IN_BATCH: i64 = 10_000;
const MOST_RETRIES: i64 = 1_000;

thread_local! {
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.projections (tenant_id, name, kind, mode, handler, categories, event_types, batch_size, on_error, \
                                               max_retries, reset, start_position, table_name, columns, fold, registrant, \
                                               registrant_oid, search_path, created_at) \
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, to_regrole(quote_ident($16))::oid, $17, \
                greatest(clock_timestamp(), min(created_at)) from _eventstream.log_identities \
         on conflict (tenant_id, name) do nothing returning id",
        &[
            INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8OID, TEXTOID, INT8OID, TEXTOID,
            INT8OID, TEXTOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID,
        ],
    ) };
    static CREATE_PROGRESS: Plan = const { Plan::new(
        "insert into _eventstream.projection_progress (projection_id, status, global_position) values ($1, $2, $3)",
        &[INT8OID, TEXTOID, INT8OID],
    ) };
    static ALTER: Plan = const { Plan::new(
        "update _eventstream.projections \
         set batch_size = coalesce($2, batch_size), on_error = coalesce($3, on_error), max_retries = coalesce($4, max_retries), \
             kind = coalesce($5, kind), handler = coalesce($6, handler), reset = coalesce($7, reset), \
             registrant = coalesce($8, registrant), search_path = coalesce($9, search_path), \
             registrant_oid = case when $8 is null then registrant_oid else to_regrole(quote_ident($8))::oid end where id = $1",
        &[INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.projections where id = $1",
        &[INT8OID],
    ) };
    static DROP_PROGRESS: Plan = const { Plan::new(
        "delete from _eventstream.projection_progress where projection_id = $1",
        &[INT8OID],
    ) };
    static DROP_REBUILT: Plan = const { Plan::new(
        "delete from _eventstream.rebuilt_states where projection_id = $1",
        &[INT8OID],
    ) };
    static START_AGAIN: Plan = const { Plan::new(
        "update _eventstream.projection_progress g \
         set status = 'rebuilding', global_position = p.start_position, rebuild_to = $2, rebuild_stream = null, rebuild_done = null, \
             rebuild_total = null, rebuild_began = clock_timestamp(), attempts = 0, next_batch = null, failed_position = null, \
             retry_at = null \
         from _eventstream.projections p where p.id = g.projection_id and g.projection_id = $1 \
         returning p.start_position",
        &[INT8OID, INT8OID],
    ) };
}

/// Every session and the workers learn of it at commit.
fn announce(catalog: &Catalog) -> Result<()> {
    board::wake_at_commit();
    catalog::announce_projection_change(catalog)
}

fn checked_size(size: i64) -> Result<()> {
    if (1..=MOST_IN_BATCH).contains(&size) {
        return Ok(());
    }
    Err(invalid("batch_size", format!("must be 1 to {MOST_IN_BATCH}, not {size}")))
}

fn checked_retries(retries: i64) -> Result<()> {
    if (0..=MOST_RETRIES).contains(&retries) {
        return Ok(());
    }
    Err(invalid("max_retries", format!("must be 0 to {MOST_RETRIES}, not {retries}")))
}

/// What needs no look at the log. Errors: ES005.
fn check(settings: &Settings) -> Result<Mode> {
    FoldName::parse(settings.name)?;
    let mode = Mode::parse("mode", settings.mode)?;
    OnError::parse("on_error", settings.on_error)?;
    checked_size(settings.batch_size)?;
    checked_retries(settings.max_retries)?;
    settings.filter.check()?;
    for (argument, list) in [("categories", &settings.filter.categories), ("event_types", &settings.filter.event_types)]
    {
        if list.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid(argument, "must be NULL, which means all, or name at least one"));
        }
    }
    if settings.after_position < 0 {
        return Err(invalid("after_position", format!("must be 0 or more, not {}", settings.after_position)));
    }
    Ok(mode)
}

/// Errors: ES005, ES025; ES010 for a state table.
pub fn create(target: Target, settings: &Settings, what: &What) -> Result<()> {
    let mode = check(settings)?;
    server::must_be_writable(c"a projection")?;
    horizon::must_be_known(c"a projection")?;
    let registrant = Giver::current()?;
    // Before any other lock: who protects fields meanwhile takes this one first, too, and the gate last.
    acts::share(target, projections::making(target.id)?)?;
    invalidation::take_in()?;
    let id = as_owner(Planning::ByIndex, |db, catalog| {
        let last_position = horizon::last_position(catalog)?;
        if settings.after_position > last_position {
            return Err(Error::PositionAhead {
                argument: "after_position".into(),
                position: settings.after_position,
                last_position,
            }
            .into());
        }
        let Some(id) = write_down(db, target, settings, what, &registrant)? else { return Ok(None) };
        // An inline one runs when it has caught up: what its handler appends until then is not given to it twice.
        let status = if mode == Mode::Inline { Status::Paused } else { Status::Running };
        let row =
            [Some(Datum::from(id)), Some(from_text(status.as_str())?), Some(Datum::from(settings.after_position))];
        CREATE_PROGRESS.with(|plan| plan.write(db, &row))?;
        announce(catalog)?;
        Ok(Some(id))
    })?;
    let Some(id) = id else { return Ok(()) };
    let projection = found(id, settings.name)?;
    // What may not be read is refused now, and not in the worker's log.
    if let Err(reason) = applier::filter(&projection)? {
        return Err(Error::Internal { what: reason }.into());
    }
    match (&projection.kind, projection.mode) {
        (_, Mode::Inline) => inline::attach(&projection, settings.after_position),
        (Kind::Table(table), Mode::Async) => rebuild::begin(&projection, table, settled(target)?),
        _ => Ok(()),
    }
}

/// Who gives a projection its functions: to be asked before the owner's rights are on.
struct Giver {
    oid: Oid,
    role: String,
    search_path: String,
}

impl Giver {
    fn current() -> Result<Self> {
        let oid = server::current_role();
        Ok(Self { oid, role: server::role_name(oid)?, search_path: handler::search_path_now()? })
    }
}

/// The projection's definition, with its registrant; None where it is there already, as it is asked for.
fn write_down(db: &Db, target: Target, settings: &Settings, what: &What, registrant: &Giver) -> Result<Option<i64>> {
    let reset =
        settings.reset.map(|oid| handler::for_registration(db, Purpose::Reset, oid, registrant.oid)).transpose()?;
    let reset = reset.as_ref().map(|reset| reset.name.as_str());
    let texts = |texts: &Option<Vec<String>>| texts.as_deref().map(text_array_of).transpose();
    let optional = |text: Option<&str>| text.map(from_text).transpose();
    let (kind, handler, [table, columns, fold]) = match what {
        What::Handler(oid) => {
            let (kind, handler) = registered_handler(db, *oid, registrant.oid)?;
            (kind, Some(handler), [None; 3])
        }
        What::Table { table, columns, fold } => {
            let table = from_text(&own_table(db, table, registrant.oid)?)?;
            (ProjectionKind::Table, None, [Some(table), Some(columns.datum()), optional(*fold)?])
        }
    };
    let row: [Nullable; 17] = [
        Some(Datum::from(target.id)),
        Some(from_text(settings.name)?),
        Some(from_text(kind.as_str())?),
        Some(from_text(settings.mode)?),
        optional(handler.as_deref())?,
        texts(&settings.filter.categories)?,
        texts(&settings.filter.event_types)?,
        Some(Datum::from(settings.batch_size)),
        Some(from_text(settings.on_error)?),
        Some(Datum::from(settings.max_retries)),
        optional(reset)?,
        Some(Datum::from(settings.after_position)),
        table,
        columns,
        fold,
        Some(from_text(&registrant.role)?),
        Some(from_text(&registrant.search_path)?),
    ];
    let id = CREATE.with(|plan| plan.first(db, View::Write, &row, |row| row.int8(0)))?;
    if id.is_none() {
        let functions = Functions { kind: kind.as_str(), handler: handler.as_deref().unwrap_or_default(), reset };
        definition::handler_is_there(db, target.id, settings, &functions)?;
    }
    Ok(id)
}

/// The name of a table that the role has the owner's rights on.
fn own_table(db: &Db, name: &str, role: Oid) -> Result<String> {
    match Relation::find(db, name, role)? {
        Some(relation) if relation.is_theirs && relation.is_safe => Ok(relation.name),
        _ => {
            let (role, shown) = (server::role_name(role)?, eventstream_core::shown(name));
            Err(invalid("table_name", format!("must be a table of role {role}, as schema.name, not {shown}")))
        }
    }
}

/// event or batch, and the function's name.
fn registered_handler(db: &Db, oid: Oid, registrant: Oid) -> Result<(ProjectionKind, String)> {
    let (kind, purpose) = if handler::takes_batch(db, oid)? {
        (ProjectionKind::Batch, Purpose::Batch)
    } else {
        (ProjectionKind::Event, Purpose::Event)
    };
    Ok((kind, handler::for_registration(db, purpose, oid, registrant)?.name))
}

fn settled(target: Target) -> Result<i64> {
    as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, target.id))
}

fn found(id: i64, name: &str) -> Result<Rc<Projection>> {
    projections::by_id(id)?.ok_or_else(|| Error::ProjectionNotFound { projection: name.into() }.into())
}

/// The projection of that name, and its progress, locked. Errors: ES020.
fn locked(target: Target, name: &str) -> Result<(Rc<Projection>, Progress)> {
    let id = projections::id(target.id, name)?;
    let missing = || Error::ProjectionNotFound { projection: name.into() };
    let progress = progress::lock(id, Lock::Wait)?.ok_or_else(missing)?;
    invalidation::take_in()?;
    Ok((found(id, name)?, progress))
}

/// Errors: ES005, ES020.
pub fn alter(target: Target, name: &str, changes: &Changes) -> Result<()> {
    server::must_be_writable(c"es_alter_projection")?;
    changes.check().map_err(|failure| failure.within(|| "settings".into()))?;
    let registrant = Giver::current()?;
    let (projection, _) = locked(target, name)?;
    let has_function = changes.handler.is_some() || changes.reset.is_some();
    if has_function && matches!(projection.kind, Kind::Table(_)) {
        let argument = if changes.handler.is_some() { "settings.handler" } else { "settings.reset" };
        let reason = format!(
            "must not be given: {} is a state table, which has no handler and no reset",
            eventstream_core::shown(name)
        );
        return Err(invalid(argument, reason));
    }
    if projection.registrant.oid != Some(registrant.oid) {
        refuse_half_a_takeover(&projection, changes, &registrant.role)?;
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        let handler = changes.handler.map(|oid| registered_handler(db, oid, registrant.oid)).transpose()?;
        let reset =
            changes.reset.map(|oid| handler::for_registration(db, Purpose::Reset, oid, registrant.oid)).transpose()?;
        let text = |text: Option<&str>| text.map(from_text).transpose();
        // Whoever gives a function answers for it.
        let row = [
            Some(Datum::from(projection.id)),
            changes.batch_size.map(Datum::from),
            text(changes.on_error)?,
            changes.max_retries.map(Datum::from),
            text(handler.as_ref().map(|(kind, _)| kind.as_str()))?,
            text(handler.as_ref().map(|(_, name)| name.as_str()))?,
            text(reset.as_ref().map(|reset| reset.name.as_str()))?,
            text(has_function.then_some(registrant.role.as_str()))?,
            text(has_function.then_some(registrant.search_path.as_str()))?,
        ];
        ALTER.with(|plan| plan.write(db, &row))?;
        announce(catalog)
    })
}

/// Both functions run as the role that gave one of them last: a function that another role chose must not come to run with its rights
/// by that. To be asked where another role gives one of them.
fn refuse_half_a_takeover(projection: &Projection, changes: &Changes, role: &str) -> Result<()> {
    let registrant = &projection.registrant.role;
    let keeps_handler = changes.reset.is_some() && changes.handler.is_none();
    let keeps_reset = changes.handler.is_some() && changes.reset.is_none() && projection.reset.is_some();
    if !(keeps_handler || keeps_reset) {
        return Ok(());
    }
    let missing = if keeps_handler { "handler" } else { "reset" };
    Err(invalid(
        "settings",
        format!("must have {missing} too, which role {registrant} chose and which would run as {role}"),
    ))
}

/// An act on a projection, which its definition survives; with how it stood before.
fn note(
    projection: &Projection,
    before: &Progress,
    event_type: &'static str,
    mut particulars: serde_json::Map<String, Value>,
) -> Result<()> {
    particulars.insert("before".into(), json!({"status": before.status.as_str(), "global_position": before.position}));
    let of = (audit::Kind::Projection, projection.name.as_str());
    audit::note_act(projection.tenant_id, event_type, of, &Value::Object(particulars))
}

/// Errors: ES020.
pub fn pause(target: Target, name: &str) -> Result<()> {
    server::must_be_writable(c"es_pause_projection")?;
    let (projection, progress) = locked(target, name)?;
    if progress.status == Status::Paused {
        return Ok(());
    }
    note(&projection, &progress, act::PROJECTION_PAUSED, serde_json::Map::new())?;
    if projection.mode == Mode::Inline && progress.status == Status::Running {
        return inline::detach(&projection);
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::set_status(db, projection.id, Status::Paused, None)?;
        announce(catalog)
    })
}

/// Errors: ES020.
pub fn resume(target: Target, name: &str) -> Result<()> {
    server::must_be_writable(c"es_resume_projection")?;
    let (projection, progress) = locked(target, name)?;
    // One that retries goes on at once, which is no act.
    if !matches!(progress.status, Status::Running | Status::Rebuilding) {
        note(&projection, &progress, act::PROJECTION_RESUMED, serde_json::Map::new())?;
    }
    if projection.mode == Mode::Inline {
        return if progress.status == Status::Running {
            Ok(())
        } else {
            inline::attach(&projection, progress.position)
        };
    }
    let status = if progress.rebuild_to.is_some() { Status::Rebuilding } else { Status::Running };
    as_owner(Planning::ByIndex, |db, catalog| {
        progress::set_status(db, projection.id, status, None)?;
        announce(catalog)
    })
}

/// Forgets it; the state table that the caller is to drop, if there is one. Errors: ES005 where another role has that by now, ES020.
pub fn drop(target: Target, name: &str, drop_table: bool) -> Result<Option<String>> {
    server::must_be_writable(c"es_drop_projection")?;
    let (projection, _) = locked(target, name)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let relation = match &projection.kind {
            Kind::Table(table) if drop_table => {
                Relation::find(db, &table.name, projection.registrant.oid.unwrap_or(Oid::INVALID))?
            }
            _ => None,
        };
        if let Some(relation) = relation.as_ref().filter(|relation| !relation.is_theirs) {
            let reason = format!(
                "must be false: {} belongs to role {} by now, and projection \"{name}\" was created by {}",
                relation.name, relation.owner, projection.registrant.role
            );
            return Err(invalid("drop_table", reason));
        }
        let key = [Some(Datum::from(projection.id))];
        for plan in [&DROP_PROGRESS, &DROP_REBUILT] {
            plan.with(|plan| plan.write(db, &key))?;
        }
        dead_letters::forget_all(db, Source::Projection(projection.id))?;
        DROP.with(|plan| plan.write(db, &key))?;
        announce(catalog)?;
        Ok(relation.map(|relation| relation.name))
    })
}

/// Errors: ES005, ES020, ES022.
pub fn rebuild(target: Target, name: &str) -> Result<()> {
    acting::refuse("es_rebuild_projection")?;
    server::must_be_writable(c"es_rebuild_projection")?;
    horizon::must_be_known(c"es_rebuild_projection")?;
    let (projection, progress) = locked(target, name)?;
    if progress.status == Status::Rebuilding {
        return Err(Error::RebuildInProgress { projection: name.into() }.into());
    }
    note(&projection, &progress, act::PROJECTION_REBUILT, serde_json::Map::new())?;
    let _rebuilding = Rebuilding::begin(Some(i64::MAX));
    if let Kind::Table(table) = &projection.kind {
        if projection.mode == Mode::Inline {
            return inline::attach(&projection, 0);
        }
        board::wake_at_commit();
        return rebuild::begin(&projection, table, settled(target)?);
    }
    let Some(reset) = &projection.reset else {
        return Err(Error::InvalidArgument {
            argument: "projection".into(),
            reason: format!("must have a function that empties its read model, and \"{name}\" has no reset"),
            hint: Some(format!(
                "Give it one: select es_alter_projection('{}', '{{\"reset\": \"schema.function()\"}}'); A handler that gives commands has none: it would give them again.",
                name.replace('\'', "''")
            )),
        }
        .into());
    };
    let unusable = |reason| Error::ProjectionStopped {
        projection: name.into(),
        position: None,
        sqlstate: "55000".into(),
        message: reason,
    };
    if projection.mode == Mode::Inline && progress.status == Status::Running {
        inline::detach(&projection)?;
    }
    applier::reset(&projection, reset)?.map_err(unusable)?;
    let start = as_owner(Planning::ByIndex, |db, catalog| {
        let to = horizon::settled(catalog, target.id)?;
        let key = [Some(Datum::from(projection.id)), Some(Datum::from(to))];
        dead_letters::forget_all(db, Source::Projection(projection.id))?;
        let start = START_AGAIN.with(|plan| plan.first(db, View::Write, &key, |row| row.int8(0)))?;
        announce(catalog)?;
        Ok(start.unwrap_or(0))
    })?;
    if projection.mode == Mode::Inline { inline::attach(&projection, start) } else { Ok(()) }
}

/// The event that it hangs on goes to the dead letters, and it goes on. Errors: ES005, ES020.
pub fn skip(target: Target, name: &str, position: i64, reason: &str) -> Result<()> {
    acting::refuse("es_skip_event")?;
    server::must_be_writable(c"es_skip_event")?;
    checked_reference(reason)?;
    let (projection, progress) = locked(target, name)?;
    if progress.failed_position != Some(position) {
        let hangs = match progress.failed_position {
            Some(failed) => format!("it hangs on {failed}"),
            None => "it hangs on none".into(),
        };
        return Err(invalid(
            "global_position",
            format!("must be the event that projection \"{name}\" fails on: {hangs}"),
        ));
    }
    let particulars = [("global_position".into(), position.into()), ("reason".into(), reason.into())];
    note(&projection, &progress, act::EVENT_SKIPPED, particulars.into_iter().collect())?;
    let memory = Scratch::new()?;
    let event = dead_letter::event_at(&projection, position, &memory)?;
    let status = if progress.rebuild_to.is_some() { Status::Rebuilding } else { Status::Running };
    as_owner(Planning::ByIndex, |db, catalog| {
        let sqlstate = progress.error.as_ref().map(|(sqlstate, _)| sqlstate.as_str());
        let detail = progress.error_detail.as_deref();
        let cause = Cause { attempts: progress.attempts, reason, sqlstate, detail, outline: None };
        dead_letter::put(db, &projection, &event, &cause)?;
        progress::set_status(db, projection.id, status, None)?;
        progress::advance(db, projection.id, position, 1, None)?;
        announce(catalog)
    })
}
