//! Events that could not be applied, and that a projection went past: put among the dead letters (src/log/dead_letters.rs), forgotten where a row has them
//! after all, tried again.
use super::applier::{self, Applier};
use super::events::{self, Wanted};
use super::passed::{Fault, Passed};
use super::progress::{self, Lock};
use super::projections::{self, Kind, Projection};
use crate::log::acting::{self, Rebuilding};
use crate::log::activation;
use crate::log::dead_letters::{self, Cause, Dying, Source};
use crate::log::read::Filter;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::shortened;
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::{Db, Planning};
use crate::present::event::StoredEvent;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use std::collections::HashSet;

/// The event is not applied, and not tried again by itself.
pub fn put(db: &Db, projection: &Projection, event: &StoredEvent, cause: &Cause) -> Result<()> {
    let dying = Dying {
        tenant_id: projection.tenant_id,
        source: Source::Projection(projection.id),
        position: event.global_position(),
        stream: event.stream()?,
        version: event.version(),
        event_type: event.event_type()?,
    };
    dead_letters::put(db, &dying, cause)
}

/// The table goes on with the other streams.
pub fn pass_over(projection: &Projection, passed: &[Passed]) -> Result<()> {
    as_owner(Planning::ByIndex, |db, _| {
        for Passed { event, caught, fault } in passed {
            let outline = match fault {
                Fault::Fold => "its stream cannot be folded".to_owned(),
                Fault::Row(what) => format!("its row cannot be written: {what}"),
            };
            let reason = format!("{outline}: {}", shortened(&caught.message));
            let (sqlstate, detail) = (Some(caught.sqlstate.as_str()), caught.detail.as_deref());
            put(
                db,
                projection,
                event,
                &Cause { attempts: 1, reason: &reason, sqlstate, detail, outline: Some(&outline) },
            )?;
        }
        Ok(())
    })
}

/// The rows of these events' streams are written, but of those that are passed over: what was dead of them up to the position is in the rows now.
pub fn forget_written(projection: &Projection, events: &[StoredEvent], passed: &[Passed], position: i64) -> Result<()> {
    if !dead_letters::has_any(projection.id)? {
        return Ok(());
    }
    let passed = passed.iter().map(|passed| passed.event.stream()).collect::<Result<HashSet<_>>>()?;
    let streams = events.iter().map(StoredEvent::stream).collect::<Result<HashSet<_>>>()?;
    let written: Vec<String> = streams.difference(&passed).map(|&stream| stream.to_owned()).collect();
    dead_letters::forget_streams(projection.id, &written, position)
}

/// The event at a position, in `memory`. It is there: positions of dead letters and failures come from the log.
pub fn event_at(projection: &Projection, position: i64, memory: &Scratch) -> Result<StoredEvent> {
    let everything = Filter::default();
    let target = projection.target();
    let wanted = Wanted { target, after: position - 1, to: position, most: 1, filter: &everything };
    let found = events::read_all(&wanted, memory)?.pop();
    found.ok_or_else(|| Error::Internal { what: format!("there is no event at position {position}") }.into())
}

/// What the registrant may not read any more is not shown to it because it was tried before.
fn refuse_unreadable(projection: &Projection, filter: &Filter, event: &StoredEvent) -> Result<()> {
    let category = StreamName::parse(event.stream()?)?.category();
    if filter.categories.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == category)) {
        return Ok(());
    }
    Err(applier::unreadable(projection, category).into())
}

/// Applies a dead event now, in the caller's transaction; its error is the caller's. The dead letter is gone where it succeeds. Errors: 42501; ES005
/// where another retry, or a rebuild, has taken the dead letter since it was found.
pub fn retry(tenant_id: i64, id: i64, projection_id: i64, position: i64) -> Result<()> {
    acting::refuse("es_retry_dead_letter")?;
    activation::must_be_active("es_retry_dead_letter")?;
    // Nobody else applies events of this projection meanwhile.
    let progress = progress::lock(projection_id, Lock::Wait)?;
    let _rebuilding = Rebuilding::begin(progress.and_then(|progress| progress.rebuild_to));
    invalidation::take_in()?;
    // Undone with the transaction where the event fails again.
    dead_letters::take(tenant_id, id)?;
    let broken = |what: String| Error::FeatureNotSupported { what, hint: None };
    let projection = projections::by_id(projection_id)?
        .ok_or_else(|| broken("the projection of this dead letter does not exist any more".into()))?;
    let unusable = |reason| broken(format!("projection \"{}\" cannot be used: {reason}", projection.name));
    let memory = Scratch::new()?;
    let event = event_at(&projection, position, &memory)?;
    let filter = applier::filter(&projection)?.map_err(unusable)?;
    refuse_unreadable(&projection, &filter, &event)?;
    let mut applier = Applier::new(&projection)?.map_err(unusable)?;
    applier.apply(std::slice::from_ref(&event))?;
    if let Kind::Table(_) = projection.kind {
        // The row is at this event: an older one, tried again after it, would take it back.
        dead_letters::forget_streams(projection.id, &[event.stream()?.to_owned()], position)?;
    }
    Ok(())
}
