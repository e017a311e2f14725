//! es_create_projection, es_create_state_table's part, and what steers projections: alter, pause, resume, drop, rebuild, run, skip, wait.
use super::{asks, asks_outside_of_tests, reason, target, veiled};
use crate::access::{Access, authorize, authorize_all, authorize_tenant, notice_of_new_categories, shown_categories};
use crate::log::acting;
use crate::log::activation;
use crate::log::horizon;
use crate::log::read::Filter;
use crate::pg::error::failure::invalid;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::error::report;
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Value;
use crate::pg::process::server;
use crate::pg::value::datum::from_text;
use crate::pg::value::input::read_regprocedure;
use crate::projection::advance;
use crate::projection::definition::{self, TableDefinition};
use crate::projection::definition::{Settings, What};
use crate::projection::outcome::Outcome;
use crate::projection::progress::{HIDDEN, Lock};
use crate::projection::steer::{self, Changes};
use crate::projection::wait::{self, Goal};
use crate::projection::{projections, run};
use crate::shared::transaction;
use eventstream_core::audit::REFERENCE;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::options::ProjectionSettings;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use eventstream_core::word::OnError;
use pgrx::pg_sys::{Datum, Oid};
use std::rc::Rc;
use std::time::Duration;

asks_outside_of_tests!(
    "es_create_projection",
    Manage,
    "eventstream_create_projection",
    "text, regprocedure, text, text[], text[], bigint, text, bigint, regprocedure, bigint, boolean",
    create_projection
);
asks_outside_of_tests!(
    "es_create_state_table",
    Manage,
    "eventstream_create_table_projection",
    "text, text, jsonb, text, text, text",
    create_table_projection
);
asks!(Manage, "eventstream_state_table_is_there", "text, text, text, jsonb, text, text, boolean", state_table_is_there);
asks!(Manage, "eventstream_alter_projection", "text, jsonb", alter_projection);
asks!(Manage, "eventstream_pause_projection", "text", pause_projection);
asks_outside_of_tests!("es_resume_projection", Manage, "eventstream_resume_projection", "text", resume_projection);
asks_outside_of_tests!("es_rebuild_projection", Manage, "eventstream_rebuild_projection", "text", rebuild_projection);
asks_outside_of_tests!("es_run_projection", Manage, "eventstream_run_projection", "text, bigint", run_projection);
asks_outside_of_tests!("es_skip_event", Manage, "eventstream_skip_event", "text, bigint, text", skip_event);
asks_outside_of_tests!("es_wait_for", Read, "eventstream_wait_for", "text, text, bigint, bigint, interval", wait_for);

/// Room for names of functions, and more than that: what is given is copied.
const MOST_SETTINGS_BYTES: usize = 64 << 10;

/// Where the role may manage all that the projection of that name is about. Errors: ES020, 42501.
fn manage(name: &str) -> Result<Rc<Access>> {
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    let categories = categories_of(access.tenant_id, name)?;
    authorize_all(Privilege::Manage, categories.as_deref())
}

/// None: every category.
fn categories_of(tenant_id: i64, name: &str) -> Result<Option<Vec<String>>> {
    let projection = projections::by_id(projections::id(tenant_id, name)?)?;
    let found = projection.ok_or_else(|| Error::ProjectionNotFound { projection: name.into() })?;
    Ok(found.categories.clone())
}

/// Whoever makes a projection sees what it is shown, so it must be allowed to read that.
fn manage_and_read(categories: Option<&[String]>) -> Result<Rc<Access>> {
    let access = authorize_all(Privilege::Manage, categories)?;
    let (_, scope) = authorize_tenant(None, Privilege::Read)?;
    match scope.first_missing(categories) {
        None => Ok(access),
        missing => Err(access.refusal(Privilege::Read, missing)?.into()),
    }
}

fn create_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let settings = Settings {
        name,
        mode: args.text(2, "mode")?,
        filter: Filter::of(args.text_array_opt(3, "categories")?, args.text_array_opt(4, "event_types")?),
        batch_size: args.int8(5, "batch_size")?,
        on_error: args.text(6, "on_error")?,
        max_retries: args.int8(7, "max_retries")?,
        reset: args.oid_opt(8),
        after_position: args.int8(9, "after_position")?,
        if_not_exists: args.boolean(10, "if_not_exists")?,
    };
    let handler = args.oid(1, "handler")?;
    let access = manage_and_read(settings.filter.categories.as_deref())?;
    steer::create(target(&access), &settings, &What::Handler(handler))?;
    notice_of_new_categories(
        access.tenant_id,
        settings.filter.categories.as_deref(),
        "the projection begins with its first one",
    )?;
    from_text(name).map(Some)
}

fn create_table_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let category = args.text(1, "category")?;
    let categories = vec![category.to_owned()];
    let access = manage_and_read(Some(&categories))?;
    let settings = Settings {
        name,
        mode: args.text(4, "mode")?,
        filter: Filter::of(Some(categories), None),
        batch_size: 500,
        on_error: OnError::Stop.as_str(),
        max_retries: 5,
        reset: None,
        after_position: 0,
        if_not_exists: false,
    };
    let what =
        What::Table { columns: args.jsonb(2, "columns")?, fold: args.text_opt(3)?, table: args.text(5, "table_name")? };
    steer::create(target(&access), &settings, &what)?;
    from_text(name).map(Some)
}

/// Part of es_create_state_table: whether there is nothing left to do.
fn state_table_is_there(args: &Args) -> Returned {
    let asked = TableDefinition {
        name: args.text(0, "name")?,
        table: args.text(1, "table_name")?,
        category: args.text(2, "category")?,
        columns: args.jsonb(3, "columns")?,
        fold: args.text_opt(4)?,
        mode: args.text(5, "mode")?,
    };
    let access = authorize(Privilege::Manage, asked.category)?;
    let is_there = definition::table_is_there(access.tenant_id, &asked, args.boolean(6, "if_not_exists")?)?;
    Ok(Some(Datum::from(is_there)))
}

/// A function as it was given, with the types of its arguments.
fn function_of(argument: &str, given: Option<&str>, types: &str) -> Result<Option<Oid>> {
    if let Some(text) = given.filter(|text| !text.contains('(')) {
        let reason = format!(
            "must be a function with the types of its arguments, such as my_function({types}), not {}",
            shown(text)
        );
        return Err(invalid(argument, reason));
    }
    given.map(read_regprocedure).transpose()
}

fn alter_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let given = args.jsonb(1, "settings")?;
    if !given.is_object() {
        return Err(invalid("settings", "must be a JSON object"));
    }
    if given.size() > MOST_SETTINGS_BYTES {
        return Err(invalid(
            "settings",
            format!("must take at most {MOST_SETTINGS_BYTES} bytes, not {}", given.size()),
        ));
    }
    let settings: ProjectionSettings =
        Value::Object(given).read().map_err(|failure| failure.within(|| "settings".into()))?;
    let changes = Changes {
        batch_size: settings.batch_size,
        on_error: settings.on_error,
        max_retries: settings.max_retries,
        handler: function_of("settings.handler", settings.handler, "eventstream.event")?,
        reset: function_of("settings.reset", settings.reset, "")?,
    };
    // Whoever gives a function is shown the events from now on.
    let gives_code = changes.handler.is_some() || changes.reset.is_some();
    let access = manage(name)?;
    if gives_code {
        manage_and_read(categories_of(access.tenant_id, name)?.as_deref())?;
    }
    veiled(shows(&access, name)?, || steer::alter(target(&access), name, &changes))?;
    from_text(name).map(Some)
}

fn pause_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    steer::pause(target(&*manage(name)?), name)?;
    from_text(name).map(Some)
}

fn resume_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let access = manage(name)?;
    veiled(shows(&access, name)?, || steer::resume(target(&access), name))?;
    from_text(name).map(Some)
}

/// Part of es_drop_projection: the table to drop, qualified and quoted.
pub(super) fn forget(name: &str, drop_table: bool) -> Result<Option<String>> {
    steer::drop(target(&*manage(name)?), name, drop_table)
}

fn rebuild_projection(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let access = manage(name)?;
    veiled(shows(&access, name)?, || steer::rebuild(target(&access), name))?;
    from_text(name).map(Some)
}

fn skip_event(args: &Args) -> Returned {
    let name = args.text(0, "projection")?;
    let (position, reason) = (args.int8(1, "global_position")?, reason(args, 2, REFERENCE)?);
    let access = manage(name)?;
    veiled(shows(&access, name)?, || steer::skip(target(&access), name, position, reason))?;
    from_text(name).map(Some)
}

fn run_projection(args: &Args) -> Returned {
    let (name, most) = (args.text_opt(0)?, args.int8_opt(1));
    let access = match name {
        Some(name) => manage(name)?,
        None => authorize_all(Privilege::Manage, None)?,
    };
    if let Some(most) = most.filter(|&most| most < 1) {
        return Err(invalid("max_batches", format!("must be 1 or more, not {most}")));
    }
    acting::refuse("es_run_projection")?;
    server::must_be_writable(c"es_run_projection")?;
    horizon::must_be_known(c"es_run_projection")?;
    activation::must_be_active("es_run_projection")?;
    let mut left = most.unwrap_or(i64::MAX);
    let mut events = 0;
    for (id, one) in run::to_run(target(&access), name)? {
        // What stops in this call has to be committed.
        if name.is_some()
            && let Some(stopped) = run::why_stopped(id, &one)?
        {
            return Err(without_payloads(stopped.into(), id)?);
        }
        let before = run::applied(id)?;
        let is_shown = shows_errors(id)?;
        while left > 0 {
            server::check_for_interrupts()?;
            left -= 1;
            match veiled(is_shown, || advance::advance(id, Lock::Wait, true))? {
                Outcome::Advanced { is_behind: true, .. } => {}
                Outcome::Waiting { .. } | Outcome::Stopped => {
                    report::warning(&run::why_not(id, &one, is_shown)?)?;
                    break;
                }
                Outcome::Advanced { .. } | Outcome::Busy | Outcome::Idle { .. } | Outcome::Gone => break,
            }
        }
        events += run::applied(id)? - before;
    }
    Ok(Some(Datum::from(events)))
}

fn shows(access: &Access, name: &str) -> Result<bool> {
    Ok(shown_categories()?.covers(categories_of(access.tenant_id, name)?.as_deref()))
}

/// Whether the role may read all that the projection is shown.
fn shows_errors(id: i64) -> Result<bool> {
    let categories = projections::by_id(id)?.and_then(|projection| projection.categories.clone());
    Ok(shown_categories()?.covers(categories.as_deref()))
}

/// What an event holds may stand in the message of an error: it is told to those who may read what the projection is shown.
fn without_payloads(failure: Failure, id: i64) -> Result<Failure> {
    if shows_errors(id)? {
        return Ok(failure);
    }
    Ok(match failure {
        Failure::Rule(Error::ProjectionStopped { projection, position, sqlstate, .. }) => {
            Error::ProjectionStopped { projection, position, sqlstate, message: HIDDEN.into() }.into()
        }
        Failure::Rule(Error::WaitTimeout { projection, up_to, position, waited, holder, .. }) => {
            Error::WaitTimeout { projection, up_to, position, waited, reason: HIDDEN.into(), holder }.into()
        }
        other => other,
    })
}

fn wait_for(args: &Args) -> Returned {
    let name = args.text(0, "projection")?;
    let stream = args.text_opt(1)?.map(StreamName::parse).transpose()?;
    let access = match stream {
        Some(stream) => authorize(Privilege::Read, stream.category())?,
        None => authorize_tenant(None, Privilege::Read)?.0,
    };
    let goal = match (stream, args.int8_opt(2), args.int8_opt(3)) {
        (None, None, None) => Goal::Committed,
        (None, None, Some(up_to)) if up_to < 0 => {
            return Err(invalid("up_to", format!("must be 0 or more, not {up_to}")));
        }
        (None, None, Some(up_to)) => Goal::Position(up_to),
        (Some(stream), version, None) => Goal::Event(stream, version),
        (Some(_), _, Some(_)) => return Err(invalid("up_to", "must be NULL where stream is given")),
        (None, Some(_), _) => return Err(invalid("stream", "must be given with version")),
    };
    let most = args.interval_opt(4).ok_or_else(|| invalid("timeout", "must not be NULL"))?;
    acting::refuse("es_wait_for")?;
    server::must_be_primary(c"es_wait_for")?;
    horizon::must_be_known(c"es_wait_for")?;
    activation::must_be_active("es_wait_for")?;
    if transaction::has_appended() {
        return Err(Error::FeatureNotSupported {
            what: "es_wait_for cannot be called in a transaction that has appended".into(),
            hint: Some("Commit first: a projection sees nothing before.".into()),
        }
        .into());
    }
    if server::keeps_its_snapshot() {
        return Err(Error::FeatureNotSupported {
            what: "es_wait_for cannot be called in a REPEATABLE READ or SERIALIZABLE transaction".into(),
            hint: Some("It would not see what it waited for: call it before the transaction begins.".into()),
        }
        .into());
    }
    let now = server::clock();
    let begin = server::before(now, most)
        .map_err(|_| invalid("timeout", "must be an interval that does not lead out of the calendar"))?;
    let most = Duration::from_micros(
        now.saturating_sub(begin).try_into().map_err(|_| invalid("timeout", "must not be negative"))?,
    );
    let id = projections::id(access.tenant_id, name)?;
    let up_to = wait::position(access.tenant_id, &goal)?;
    match wait::until(id, name, up_to, most) {
        Ok(position) => Ok(Some(Datum::from(position))),
        Err(failure) => Err(without_payloads(failure, id)?),
    }
}
