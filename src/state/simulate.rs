//! The state that a stream would have if events were appended: they are what an append would make of them (versions behind the
//! head, recorded now), but have no position, salt or chain hash, and nothing is locked or written.
use super::answer;
use super::folding::Folding;
use super::moment::{Moment, Selection};
use super::walk::Walk;
use crate::log::event::NewEvent;
use crate::log::retry::{self, Among, Batch};
use crate::log::scan::Opened;
use crate::log::stream::{self, Head};
use crate::log::whole;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Stored;
use crate::pg::process::sequence;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::View;
use crate::present::event::{Common, StoredEvent};
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::time::next_recorded_at;
use eventstream_core::word::Order;
use std::rc::Rc;

/// The stream as it is, and what an append to it would be given.
struct Found {
    /// None: it would be made.
    opened: Option<Opened>,
    /// Appended before: nothing would be written.
    is_retry: bool,
    recorded_at: i64,
}

/// The state with these events. Errors: ES003, ES006, and those of folding.
pub fn state(folding: &mut Folding, name: &StreamName, events: &[NewEvent]) -> Result<Rc<Stored>> {
    let found = as_owner(Planning::ByIndex, |db, catalog| find(db, catalog, folding, name, events))?;
    let version = found.opened.as_ref().map_or(0, |opened| opened.head.version);
    if found.is_retry {
        return now(folding, name, found.opened.as_ref());
    }
    imagined_state(folding, name, events, &found, version).map_err(|failure| match failure {
        Failure::Rule(error) => error.on_unwritten(version + 1).into(),
        other => other,
    })
}

fn imagined_state(
    folding: &mut Folding,
    name: &StreamName,
    events: &[NewEvent],
    found: &Found,
    version: i64,
) -> Result<Rc<Stored>> {
    let common = Common::new(folding.target, name.as_str())?;
    let imagined = (version + 1..).zip(events);
    let imagined = imagined.map(|(at, event)| StoredEvent::imagined(&common, name, event, at, found.recorded_at));
    let mut imagined = imagined.collect::<Result<Vec<_>>>()?;
    match (folding.fold.order, &found.opened) {
        (Order::Version, opened) => {
            let state = now(folding, name, opened.as_ref())?;
            folding.run_events(name.as_str(), &state, imagined).map(Rc::new)
        }
        (Order::OccurredAt, None) => {
            imagined.sort_by_key(StoredEvent::occurred_at);
            let state = Rc::clone(&folding.fold.initial_state);
            folding.run_events(name.as_str(), &state, imagined).map(Rc::new)
        }
        (Order::OccurredAt, Some(opened)) => {
            imagined.sort_by_key(StoredEvent::occurred_at);
            merged(folding, name.as_str(), opened, imagined)
        }
    }
}

fn now(folding: &mut Folding, name: &StreamName, opened: Option<&Opened>) -> Result<Rc<Stored>> {
    match opened {
        None => Ok(Rc::clone(&folding.fold.initial_state)),
        Some(opened) => Ok(answer::of_stream(folding, name.as_str(), opened.stream, Moment::NOW, View::Caller)?.state),
    }
}

/// Judges as an append would.
fn find(db: &Db, catalog: &Catalog, folding: &Folding, name: &StreamName, events: &[NewEvent]) -> Result<Found> {
    retry::refuse_repeated_ids(name.as_str(), events)?;
    let opened = match whole::look_up(db, catalog, View::Caller, folding.target.id, name)? {
        None => None,
        Some(stream) => Some(Opened::open(db, catalog, stream, View::Caller)?),
    };
    let head: Option<&Head> = opened.as_ref().map(|opened| &opened.head);
    let is_retry = match &opened {
        None => false,
        Some(opened) => {
            let (stream, head) = (&opened.stream, &opened.head);
            let newest = stream::newest_partitions(db, catalog, stream, View::Caller, retry::PARTITIONS)?;
            let (name, expected) = (name.as_str(), ExpectedVersion::Any);
            let residuals = &*folding.fold.upcasters.protected;
            let batch = Batch { name, stream, head, view: View::Caller, expected, events, residuals };
            retry::first_time(db, catalog, &batch, Among::Newest(&newest))?.is_some()
        }
    };
    if let Some(head) = head.filter(|head| head.closed && !is_retry) {
        return Err(Error::StreamClosed { stream: name.as_str().into(), version: head.version }.into());
    }
    let floor = if trial::is_on() { i64::MIN } else { sequence::last(catalog.recorded_floor)?.0 };
    let recorded_at = next_recorded_at(trial::clock(), head.map(|head| head.recorded_at), floor, floor);
    Ok(Found { opened, is_retry, recorded_at })
}

/// Folds the events (by occurred_at) between those of the stream, each behind what occurred no later than it did.
fn merged(folding: &mut Folding, name: &str, opened: &Opened, imagined: Vec<StoredEvent>) -> Result<Rc<Stored>> {
    let all = Selection::up_to(opened.head.version);
    let mut imagined = imagined.into_iter().peekable();
    let mut state: Option<(Rc<Stored>, Selection)> = None;
    loop {
        // What is in the stream up to the next one.
        let until = imagined.peek().map(StoredEvent::occurred_at);
        let reached = match until {
            None => all,
            Some(until) => as_owner(Planning::ByIndex, |db, _| {
                let prefix = opened.until(db, all.newest, until)?;
                Ok(Selection { newest: all.newest, prefix, as_of: until })
            })?,
        };
        let before = match state.take() {
            None => answer::of_selection(folding, name, opened, reached, View::Caller)?.state,
            Some((state, from)) => {
                let mut lates = as_owner(Planning::ByIndex, |db, _| reached.lates_after(db, opened, from.prefix))?;
                lates.retain(|late| late.occurred_at > from.as_of);
                let mut walk = Walk::new(Order::OccurredAt, from.prefix, reached.prefix, lates);
                if walk.is_done() { state } else { Rc::new(folding.run(name, opened, &state, &mut walk, None)?.0) }
            }
        };
        let Some(until) = until else { return Ok(before) };
        let mut here = Vec::new();
        while let Some(event) = imagined.next_if(|event| {
            // Behind everything in the stream, nothing can come between them.
            event.occurred_at() == until || reached.is_prefix()
        }) {
            here.push(event);
        }
        folding.imagine();
        state = Some((Rc::new(folding.run_events(name, &before, here)?), reached));
    }
}
