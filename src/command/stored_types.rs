//! What is stored, compared with what is declared: schema versions that nobody declared, or that no upcaster leads to the newest declared one, and events that
//! break their schema.
//!
//! Promises: the quick look goes by the counts and does not read the log; the thorough one reads each event once, in bounded memory. What is told of an event is
//! where it is, and where and by which rule it breaks its schema, and never what it says.
use super::agreement::Known;
use super::counted::{self, ByVersion, Count, add};
use super::schemas;
use crate::log::chosen::{self, Chosen};
use crate::log::retry::Residuals;
use crate::log::statements::column;
use crate::log::stored::StoredContent;
use crate::log::{partition, stream, whole};
use crate::pg::error::failure::Result;
use crate::pg::process::memory::Scratch;
use crate::pg::process::sequence;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::View;
use crate::pg::query::probe::Direction;
use crate::pg::query::row::Row;
use crate::present::protected;
use crate::shared::session::as_owner;
use crate::shared::tasks::{Kind, Task};
use eventstream_core::EventType;
use eventstream_core::newest::{Misfit, misfits};
use eventstream_core::schema::Breach;

/// Where an event stands that breaks its schema, and what of it.
pub struct Place {
    pub stream: Option<String>,
    pub version: i64,
    pub global_position: i64,
    /// None: it cannot be judged.
    pub breach: Option<Breach>,
}

/// What does not fit.
pub struct Found<'a> {
    /// None: it is of no one event type.
    pub of: Option<(&'a str, i32)>,
    pub problem: String,
    /// Of the schema version.
    pub count: Option<Count>,
    /// Of one event.
    pub place: Option<Place>,
}

/// Takes what does not fit.
pub type Report<'a> = &'a mut dyn FnMut(Found) -> Result<()>;

/// Of the categories (None: of all), as of the caller's snapshot.
pub fn check(tenant_id: i64, categories: Option<&[String]>, is_thorough: bool, report: Report) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| whole::must_be_shown(db, catalog, Some(tenant_id)))?;
    let known = Known::of(tenant_id)?;
    if is_thorough {
        let counts = judge_all(tenant_id, categories, report)?;
        return compare(&known, &counts, report);
    }
    let counts = counted::counts(tenant_id, categories)?;
    compare(&known, &counts.of, report)?;
    if let Some(position) = counts.counted_to {
        let why =
            if known.declared.is_empty() { ", and upkeep counts only where event types are declared" } else { "" };
        let problem = format!(
            "events after global position {position} were not looked at: upkeep (es_maintain, or the workers) has not counted them yet{why}; \
             thorough => true looks at all"
        );
        report(Found { of: None, problem, count: None, place: None })?;
    }
    Ok(())
}

fn compare(known: &Known, counts: &ByVersion, report: Report) -> Result<()> {
    for (event_type, versions) in counts.iter().filter(|(event_type, _)| *event_type != EventType::STREAM_CLOSED) {
        for (&version, &count) in versions {
            for misfit in misfits(known, event_type, version) {
                let problem = misfit.to_string();
                report(Found { of: Some((event_type, version)), problem, count: Some(count), place: None })?;
            }
        }
    }
    Ok(())
}

/// Reads every event, and reports those that break the schema of their version; how many there are of each.
fn judge_all(tenant_id: i64, categories: Option<&[String]>, report: Report) -> Result<ByVersion> {
    let mut counts = ByVersion::new();
    as_owner(Planning::ByIndex, |db, catalog| {
        let task = Task::begin(Kind::Check, sequence::last(catalog.positions)?.0);
        let scratch = Scratch::new()?;
        for partition in partition::all(db, catalog)?.iter() {
            let chosen = Chosen {
                tenant_id,
                categories,
                subjects: None,
                tags: &[],
                from: 0,
                to: i64::MAX,
                direction: Direction::Forward,
            };
            chosen::each(db, partition, View::Caller, chosen, |row| {
                let (event_type, version) = (row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?);
                add(
                    &mut counts,
                    event_type,
                    version,
                    Count { events: 1, last_recorded_at: row.int8(column::RECORDED_AT)? },
                );
                task.note(row.int8(column::GLOBAL_POSITION)?);
                scratch.step(|| judge(db, tenant_id, row, (event_type, version), report)).map(|()| true)
            })?;
        }
        Ok(())
    })?;
    Ok(counts)
}

fn judge(db: &Db, tenant_id: i64, row: &Row, of: (&str, i32), report: Report) -> Result<()> {
    if of.0 == EventType::STREAM_CLOSED {
        return Ok(());
    }
    let Some(schema) = schemas::schema(tenant_id, of.0, of.1)? else { return Ok(()) };
    let Some(payload) = StoredContent::of_row(row).payload_document()? else { return Ok(()) };
    // What nobody is shown is not judged: a schema that somebody declares would be a question about it.
    let protected = protected::of(tenant_id)?;
    let Some(payload) = protected.unprotected(of.0, of.1, payload)? else { return Ok(()) };
    let found: Vec<_> = match schemas::breaches(&schema, payload.text()?, |breach| !protected.may_make(of, breach))? {
        Ok(breaches) => {
            let told = breaches.into_iter();
            told.map(|breach| (format!("the payload breaks its schema: {breach}"), Some(breach))).collect()
        }
        Err(reason) => vec![(format!("the payload cannot be judged by its schema: {reason}"), None)],
    };
    if found.is_empty() {
        return Ok(());
    }
    let id = row.int8(column::STREAM_ID)?;
    let stream = stream::page(db, View::Caller, id - 1, None, 1)?.pop().filter(|(stream, ..)| stream.id == id);
    let stream = stream.map(|(_, name, _)| name);
    for (problem, breach) in found {
        let (version, global_position) = (row.int8(column::VERSION)?, row.int8(column::GLOBAL_POSITION)?);
        let place = Place { stream: stream.clone(), version, global_position, breach };
        report(Found { of: Some(of), problem, count: None, place: Some(place) })?;
    }
    Ok(())
}

/// A stored schema version of an event type that is not read in the newest declared one.
pub struct Unreadable {
    pub event_type: String,
    pub schema_version: i32,
    pub misfit: Misfit,
    pub events: i64,
}

/// Of what upkeep has counted so far.
pub fn unreadable(tenant_id: i64) -> Result<Vec<Unreadable>> {
    let known = Known::of(tenant_id)?;
    let mut unreadable = Vec::new();
    for (event_type, versions) in counted::kept_of_known(tenant_id)? {
        for (schema_version, Count { events, .. }) in versions {
            let found = misfits(&known, &event_type, schema_version).into_iter().filter(Misfit::is_of_reading);
            unreadable.extend(found.map(|misfit| Unreadable {
                event_type: event_type.clone(),
                schema_version,
                misfit,
                events,
            }));
        }
    }
    Ok(unreadable)
}
