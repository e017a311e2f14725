//! What es_run_projection advances, and what it says of those that it could not.
use super::progress::{self, HIDDEN, Progress};
use super::{projections, wait};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::word::Status;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static ASYNCHRONOUS: Plan = const { Plan::new(
        "select id, name from _eventstream.projections where tenant_id = $1 and mode = 'async' order by id",
        &[INT8OID],
    ) };
}

/// The ids and names of what es_run_projection advances. Errors: ES020.
pub fn to_run(target: Target, name: Option<&str>) -> Result<Vec<(i64, String)>> {
    match name {
        Some(name) => Ok(vec![(projections::id(target.id, name)?, name.to_owned())]),
        None => as_owner(Planning::ByIndex, |db, _| {
            ASYNCHRONOUS.with(|plan| {
                plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| {
                    Ok((row.int8(0)?, row.text(1)?.to_owned()))
                })
            })
        }),
    }
}

/// ES021 where it is stopped.
pub fn why_stopped(id: i64, name: &str) -> Result<Option<Error>> {
    let progress = progress::look(id)?.filter(|progress| progress.status == Status::Stopped);
    Ok(progress.map(|progress| wait::stopped(name, &progress)))
}

/// Why a projection that was to be advanced was not; the message of its error only where it `is_shown`.
pub fn why_not(id: i64, name: &str, is_shown: bool) -> Result<String> {
    let hidden = |(sqlstate, message)| (sqlstate, if is_shown { message } else { HIDDEN.into() });
    let look = |id| -> Result<_> {
        let progress = progress::look(id)?;
        Ok(progress.map(|progress| Progress { error: progress.error.clone().map(hidden), ..progress }))
    };
    Ok(match look(id)? {
        Some(progress) if progress.status == Status::Stopped => wait::stopped(name, &progress).to_string(),
        Some(progress) => {
            let error =
                progress.error.map_or_else(String::new, |(sqlstate, message)| format!("{message} ({sqlstate})"));
            match (progress.status, progress.failed_position) {
                (Status::Paused, _) => format!("projection \"{name}\" is paused"),
                (_, Some(position)) => format!("projection \"{name}\" fails at global position {position}: {error}"),
                _ => format!("projection \"{name}\" fails: {error}"),
            }
        }
        None => Error::ProjectionNotFound { projection: name.into() }.to_string(),
    })
}

/// How many events it has applied in its life; 0 where it is gone.
pub fn applied(id: i64) -> Result<i64> {
    Ok(progress::look(id)?.map_or(0, |progress| progress.applied))
}
