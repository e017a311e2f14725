//! Waiting until a projection has passed a position: woken by whoever advances it (src/pg/board.rs), so that a session reads its own
//! writes.
use super::progress::{self, Progress, Status};
use super::registry::{self, Mode, Projection};
use crate::log::horizon;
use crate::pg::board::{Awaited, Waiter};
use crate::pg::catalog;
use crate::pg::failure::Result;
use crate::pg::server;
use crate::pg::session::{Planning, as_owner};
use crate::pg::slots::{self, Whose};
use eventstream_core::error::Error;
use std::time::{Duration, Instant};

/// The longest sleep between two looks.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Returns the position that the projection has reached. Errors: ES020, ES021, ES023 after `most`.
pub fn until(id: i64, name: &str, up_to: i64, most: Duration) -> Result<i64> {
    let begun = Instant::now();
    let projection = registry::by_id(id)?.ok_or_else(|| Error::ProjectionNotFound { projection: name.into() })?;
    let mut waiter = None;
    loop {
        catalog::refresh()?;
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
    as_owner(Planning::ByIndex, |_, catalog| {
        Ok(horizon::horizon(catalog, Whose::Tenant(projection.tenant_id))?.position)
    })
}

/// ES021 with the last error.
pub fn stopped(name: &str, progress: &Progress) -> Error {
    let (sqlstate, message) = progress.error.clone().unwrap_or_else(|| ("55000".into(), "it was stopped".into()));
    Error::ProjectionStopped { projection: name.into(), position: progress.failed_position, sqlstate, message }
}

fn timeout(projection: &Projection, progress: &Progress, up_to: i64, reached: i64, most: Duration) -> Result<Error> {
    let settled = as_owner(Planning::ByIndex, |_, catalog| {
        Ok(horizon::horizon(catalog, Whose::Tenant(projection.tenant_id))?.position)
    })?;
    let oldest = slots::scan(Whose::Tenant(projection.tenant_id))
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
