//! Waiting until a projection has passed a position: woken by whoever advances it (src/shared/board/mod.rs), so that a session reads its own
//! writes.
use super::progress::{self, Progress};
use super::projections::{self, Projection};
use crate::log::scan::Opened;
use crate::log::whole;
use crate::log::{horizon, pending};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::invalidation;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::shared::board::waiter::{Awaited, Waiter};
use crate::shared::open_appends::{self, Whose};
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::word::{Mode, Status};
use std::time::{Duration, Instant};

/// What is waited for.
pub enum Goal<'a> {
    /// Everything that is committed now in the tenant.
    Committed,
    Position(i64),
    /// An event of a stream, by its version; None: the stream's newest.
    Event(StreamName<'a>, Option<i64>),
}

/// The position of what is waited for. Errors: ES002, ES005, ES025.
pub fn position(tenant_id: i64, goal: &Goal) -> Result<i64> {
    as_owner(Planning::ByIndex, |db, catalog| match goal {
        Goal::Committed => {
            // Not the horizon: nobody waits for positions of others, or of acts of administration.
            let newest = pending::newest(db, catalog, tenant_id, (0, horizon::last_position(catalog)?))?;
            Ok(newest.unwrap_or(0))
        }
        Goal::Position(position) => {
            let last_position = horizon::last_position(catalog)?;
            if *position > last_position {
                let argument = "up_to".into();
                return Err(Error::PositionAhead { argument, position: *position, last_position }.into());
            }
            Ok(*position)
        }
        Goal::Event(name, version) => {
            let missing = || Error::StreamNotFound { stream: name.as_str().into() };
            let stream = whole::look_up(db, catalog, View::Latest, tenant_id, name)?.ok_or_else(missing)?;
            let opened = Opened::open(db, catalog, stream, View::Latest)?;
            let newest = opened.head.version;
            let version = version.unwrap_or(newest);
            match opened.head_at(db, version)? {
                Some(head) if newest > 0 => Ok(head.global_position),
                _ if newest == 0 => Err(missing().into()),
                _ => Err(invalid(
                    "version",
                    format!("must be 1 to {newest}, the version of stream \"{}\", not {version}", name.as_str()),
                )),
            }
        }
    })
}

/// The longest sleep between two looks.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Returns the position that the projection has reached. Errors: ES020, ES021, ES023 after `most`.
pub fn until(id: i64, name: &str, up_to: i64, most: Duration) -> Result<i64> {
    let begun = Instant::now();
    let projection = projections::by_id(id)?.ok_or_else(|| Error::ProjectionNotFound { projection: name.into() })?;
    let mut waiter = None;
    loop {
        invalidation::take_in()?;
        let Some(progress) = progress::look(id)? else {
            return Err(Error::ProjectionNotFound { projection: name.into() }.into());
        };
        let reached = reached(&projection, &progress)?;
        if reached >= up_to {
            return Ok(reached);
        }
        if progress.status == Status::Stopped {
            return Err(stopped(name, &progress).into());
        }
        let elapsed = begun.elapsed();
        if elapsed >= most {
            return Err(timeout(&projection, &progress, up_to, reached, most)?.into());
        }
        match &waiter {
            // Before it sleeps for the first time it looks once more: the projection may have passed meanwhile.
            None => {
                let awaited = if projection.mode == Mode::Inline {
                    Awaited::Horizon(projection.tenant_id)
                } else {
                    Awaited::Projection(id)
                };
                waiter = Some(Waiter::register(awaited, up_to));
            }
            Some(waiter) => waiter.wait(LONGEST_SLEEP.min(most - elapsed))?,
        }
    }
}

/// An inline projection has passed whatever is committed.
fn reached(projection: &Projection, progress: &Progress) -> Result<i64> {
    if projection.mode == Mode::Async || progress.status != Status::Running {
        return Ok(progress.position);
    }
    as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, projection.tenant_id))
}

/// ES021 with the last error.
pub fn stopped(name: &str, progress: &Progress) -> Error {
    let (sqlstate, message) = progress.error.clone().unwrap_or_else(|| ("55000".into(), "it was stopped".into()));
    Error::ProjectionStopped { projection: name.into(), position: progress.failed_position, sqlstate, message }
}

fn timeout(projection: &Projection, progress: &Progress, up_to: i64, reached: i64, most: Duration) -> Result<Error> {
    let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, projection.tenant_id))?;
    let oldest = open_appends::scan(Whose::Tenant(projection.tenant_id))
        .filter_map(|held| held.position.map(|position| (position, held)))
        .min_by_key(|held| held.0);
    let (reason, holder) = match (progress.status, oldest) {
        (Status::Paused, _) => ("it is paused".to_owned(), None),
        (Status::Rebuilding, _) if progress.retry_at.is_some() => {
            let error = progress.error.as_ref().map_or("", |(_, message)| message.as_str());
            (format!("its rebuild fails and is tried again: {error}"), None)
        }
        (Status::Rebuilding, _) => ("it is being rebuilt".to_owned(), None),
        (_, Some((position, held))) if settled < up_to => {
            let since = server::print_time(held.since)?;
            (
                format!(
                    "process {} has appended at position {position} or later in a transaction that is open since {since}",
                    held.pid
                ),
                Some(held.pid),
            )
        }
        _ if progress.retry_at.is_some() => {
            let error = progress.error.as_ref().map_or("", |(_, message)| message.as_str());
            (format!("it fails and is tried again: {error}"), None)
        }
        _ => ("it is behind".to_owned(), None),
    };
    Ok(Error::WaitTimeout {
        projection: projection.name.clone(),
        up_to,
        position: reached,
        waited: format!("{} ms", most.as_millis()),
        reason,
        holder,
    })
}
