//! Dead letters of projections: events that could not be applied, and that the projection went past.
use super::applier::{self, Applier};
use super::events::{self, Wanted};
use super::passed::{Fault, Passed};
use super::progress::{self, Lock};
use super::projections::{self, Kind, Projection};
use crate::log::acting;
use crate::log::activation;
use crate::log::read::Filter;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::shortened;
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::present::event::StoredEvent;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID};
use std::collections::HashSet;

thread_local! {
    static PUT: Plan = const { Plan::new(
        "insert into _eventstream.dead_letters (tenant_id, projection_id, global_position, stream, version, event_type, \
                                                attempts, reason, error_sqlstate, error_detail, outline) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (projection_id, global_position) where projection_id is not null \
         do update set attempts = excluded.attempts, reason = excluded.reason, error_sqlstate = excluded.error_sqlstate, \
                       error_detail = excluded.error_detail, outline = excluded.outline, \
                       died_at = excluded.died_at",
        &[INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static DELETE: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where id = $1 and projection_id = $2 \
         and tenant_id = (select p.tenant_id from _eventstream.projections p where p.id = $2)",
        &[INT8OID, INT8OID],
    ) };
    static HAS: Plan = const { Plan::new(
        "select exists (select from _eventstream.dead_letters where projection_id = $1)",
        &[INT8OID],
    ) };
    static FORGET_WRITTEN: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where projection_id = $1 and stream = any ($2) and global_position <= $3",
        &[INT8OID, TEXTARRAYOID, INT8OID],
    ) };
}

/// Why an event is dead.
pub struct Cause<'a> {
    pub attempts: i32,
    pub reason: &'a str,
    pub sqlstate: Option<&'a str>,
    pub detail: Option<&'a str>,
    /// What of it holds nothing of a payload, for those who may not read the event.
    pub outline: Option<&'a str>,
}

/// The event is not applied, and not tried again by itself.
pub fn put(db: &Db, projection: &Projection, event: &StoredEvent, cause: &Cause) -> Result<()> {
    let row: [Nullable; 11] = [
        Some(Datum::from(projection.tenant_id)),
        Some(Datum::from(projection.id)),
        Some(Datum::from(event.global_position())),
        Some(from_text(event.stream()?)?),
        Some(Datum::from(event.version())),
        Some(from_text(event.event_type()?)?),
        Some(Datum::from(cause.attempts)),
        Some(from_text(cause.reason)?),
        cause.sqlstate.map(from_text).transpose()?,
        cause.detail.map(shortened).map(from_text).transpose()?,
        cause.outline.map(from_text).transpose()?,
    ];
    counters::add(Counter::DeadLetters, 1);
    PUT.with(|plan| plan.write(db, &row)).map(drop)
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
    let id = Some(Datum::from(projection.id));
    let has = as_owner(Planning::ByIndex, |db, _| {
        HAS.with(|plan| plan.first(db, View::Latest, &[id], |row| row.boolean(0)))
    })?;
    if has != Some(true) {
        return Ok(());
    }
    let passed = passed.iter().map(|passed| passed.event.stream()).collect::<Result<HashSet<_>>>()?;
    let streams = events.iter().map(StoredEvent::stream).collect::<Result<HashSet<_>>>()?;
    let written: Vec<String> = streams.difference(&passed).map(|&stream| stream.to_owned()).collect();
    forget_streams(projection, &written, position)
}

/// What is dead of these streams up to the position is in their rows now.
pub fn forget_streams(projection: &Projection, streams: &[String], position: i64) -> Result<()> {
    let args = [Some(Datum::from(projection.id)), Some(text_array_of(streams)?), Some(Datum::from(position))];
    as_owner(Planning::ByIndex, |db, _| FORGET_WRITTEN.with(|plan| plan.write(db, &args))).map(drop)
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

/// Applies a dead event now, in the caller's transaction; its error is the caller's. The dead letter is gone where it succeeds. Errors:
/// 42501; ES005 where another
/// retry, or a rebuild, has taken the dead letter since it was found.
pub fn retry_for_projection(id: i64, projection_id: i64, position: i64) -> Result<()> {
    acting::refuse("es_retry_dead_letter")?;
    activation::must_be_active("es_retry_dead_letter")?;
    // Nobody else applies events of this projection meanwhile.
    progress::lock(projection_id, Lock::Wait)?;
    invalidation::take_in()?;
    // Undone with the transaction where the event fails again.
    let taken = as_owner(Planning::ByIndex, |db, _| {
        DELETE.with(|plan| plan.write(db, &[Some(Datum::from(id)), Some(Datum::from(projection_id))]))
    })?;
    if taken == 0 {
        return Err(Error::InvalidArgument {
            argument: "id".into(),
            reason: format!("must be of a dead letter, not {id}, which was processed or dropped meanwhile"),
            hint: Some("The view eventstream.dead_letters shows what there is.".into()),
        }
        .into());
    }
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
        forget_streams(&projection, &[event.stream()?.to_owned()], position)?;
    }
    Ok(())
}
