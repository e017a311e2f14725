//! The decision itself: the decider is given the states and the command, and its answer is read: which events follow, and what the caller is told.
//!
//! Promises: the decider sees what its registrant may read, and what is committed when it is called; an answer is taken whole or not at all, and what is wrong with it is told by
//! its place.
use super::bounds::{Bounds, QUERY, States, Streams, object_of};
use super::commanded::{Versions, refuse_reserved};
use super::deciding::Deciding;
use super::later::Later;
use crate::access::authorize_all_in;
use crate::log::event::{NewEvent, Parts};
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::{Jsonb, Shape, Value};
use crate::shared::settings;
use eventstream_core::command::decided::{Answer, DecidedEvent};
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use serde_json::json;
use std::collections::BTreeSet;

/// An event of the answer.
pub struct Decided<'a> {
    pub stream: String,
    /// As it was answered.
    pub document: Jsonb<'a>,
    pub event: NewEvent<'a>,
}

/// The answer.
pub struct Decision<'a> {
    pub events: Vec<Decided<'a>>,
    pub result: Option<Jsonb<'a>>,
    pub later: Later<'a>,
}

/// An event of the answer, read.
struct Read<'a> {
    place: String,
    stream: String,
    document: Jsonb<'a>,
    parts: Parts<'a>,
}

/// Asks the decider. Errors: ES037, ES007; 42501 where its registrant may not read what it is given; whatever the decider raises, ES033 among it.
pub fn decide<'a>(
    deciding: &Deciding<'a>,
    bounds: &Bounds,
    streams: &Streams,
    states: &States,
) -> Result<Decision<'a>> {
    let mut function = deciding.decider.function()?;
    let state = match states.streams.first() {
        Some((_, only)) if !deciding.decider.has_boundary() => only.view(),
        _ => object_of(states)?,
    };
    let versions: Versions = streams.iter().map(|(name, held)| (name.as_str(), held.version())).collect();
    let version = versions.get(deciding.command.stream.as_str()).copied().unwrap_or(0);
    let command = deciding.command.value(deciding.target, Some(&versions))?;
    let categories = bounds.categories()?;
    let arguments = [Some(state.datum()), Some(command)];
    let answer =
        deciding.call(&mut function, ("answer", version), || must_read(deciding, categories.as_deref()), &arguments)?;
    let (events, result, later) = read(deciding, answer).map_err(|failure| deciding.answered(failure))?;
    let seen = seen(bounds, &versions, states, &events);
    let mut shared = None;
    let mut complete = |event: &Read<'a>| -> Result<Jsonb<'a>> {
        let own = event.parts.metadata;
        match (own, shared) {
            (None, Some(shared)) => Ok(shared),
            _ => {
                own.map_or(Ok(()), refuse_reserved)?;
                let made = deciding.command.metadata_of_event(own, &deciding.decider.name, &seen)?;
                shared = own.map_or(Some(made), |_| shared);
                Ok(made)
            }
        }
    };
    let mut decided = Vec::with_capacity(events.len());
    for mut event in events {
        let place = event.place.clone();
        let checked = complete(&event).and_then(|metadata| {
            event.parts.metadata = Some(metadata);
            NewEvent::decided(event.parts)
        });
        let event_of = checked.map_err(|failure| deciding.answered(failure.within(|| place)))?;
        decided.push(Decided { stream: event.stream, document: event.document, event: event_of });
    }
    Ok(Decision { events: decided, result, later })
}

/// What the decision was made on beside what it writes: versions of streams, and how much its query matched.
fn seen(bounds: &Bounds, versions: &Versions, states: &States, events: &[Read]) -> serde_json::Value {
    let written: BTreeSet<&str> = events.iter().map(|event| event.stream.as_str()).collect();
    let read = bounds.read.iter().filter(|name| !written.contains(name.as_str()));
    let mut seen: serde_json::Map<String, serde_json::Value> =
        read.map(|name| (name.clone(), json!(versions.get(name.as_str()).copied().unwrap_or(0)))).collect();
    if let Some(query) = &states.query {
        seen.insert(QUERY.into(), json!({"events": query.events, "last_position": query.last_position}));
    }
    seen.into()
}

/// What the decider is given its registrant must be allowed to read. Runs with the registrant's rights.
fn must_read(deciding: &Deciding, categories: Option<&[String]>) -> Result<()> {
    authorize_all_in(Some(deciding.target.name), Privilege::Read, categories).map(drop)
}

/// The events of an answer, its result, and what it wants later. Errors: ES005, named by the place within the answer, ES007.
fn read<'a>(deciding: &Deciding<'a>, answer: Jsonb<'a>) -> Result<(Vec<Read<'a>>, Option<Jsonb<'a>>, Later<'a>)> {
    let (root, events, result, later) = match answer.shape() {
        Shape::Array => ("answer", Some(answer), None, Later::default()),
        Shape::Object => {
            let given: Answer<Jsonb> =
                Value::Object(answer).read().map_err(|failure: Failure| failure.within(|| "answer".into()))?;
            let later = Later::read(deciding, given.schedule, given.unschedule)?;
            ("answer.events", given.events, given.result, later)
        }
        Shape::Scalar => {
            return Err(invalid("answer", "must be an array of events, or an object with events and a result"));
        }
    };
    let Some(events) = events else { return Ok((Vec::new(), result, later)) };
    if events.shape() != Shape::Array {
        return Err(invalid(root, "must be an array of events"));
    }
    let (limit, count) = (settings::max_batch_events(), events.len() as i64);
    if count > limit {
        let what = format!("the answer of decider \"{}\" has {count} events", deciding.decider.name);
        return Err(
            Error::LimitExceeded { setting: "eventstream.max_batch_events", limit, actual: Some(count), what }.into()
        );
    }
    let mut read = Vec::with_capacity(events.len());
    events.each(|_, element| {
        let place = format!("{root}[{}]", read.len());
        let event = read_event(deciding, element).map_err(|failure| failure.within(|| place.clone()))?;
        read.push(Read { place, ..event });
        Ok(())
    })?;
    Ok((read, result, later))
}

fn read_event<'a>(deciding: &Deciding<'a>, element: Value<'a>) -> Result<Read<'a>> {
    let given: DecidedEvent<Jsonb> = element.read()?;
    let (stream, event) = given.split();
    let stream = stream.unwrap_or(deciding.command.stream.as_str());
    if let Err(Error::InvalidStreamName { name, reason }) = StreamName::parse_own(stream) {
        return Err(invalid("stream", format!("is no stream name: {name:?} {reason}")));
    }
    let mut parts = Parts::of(event)?;
    parts.occurred_at = parts.occurred_at.or(deciding.command.occurred_at);
    parts.subject = parts.subject.or(deciding.command.subject);
    Ok(Read { place: String::new(), stream: stream.to_owned(), document: element.document()?, parts })
}
