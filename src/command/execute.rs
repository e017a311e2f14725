//! es_command: a command becomes events once.
//!
//! ```text
//! key answered? ─▶ the tenant's gate ─▶ the key's lock; answered meanwhile? ─▶ decider, command as it takes it ─▶ decided behind its locks (settle.rs)
//!   ─▶ the door in (write.rs) ─▶ the answer kept
//! ```
//! Promises: what the decider sees stays so until the commit, and what it decides is appended whole, or not at all; a repetition with the same key is answered as the first time; no two
//! decisions wait for each other in a circle.
use super::answers::Key;
use super::bounds::Streams;
use super::commanded::Command;
use super::decide::Decided;
use super::deciders;
use super::deciding::Deciding;
use super::ruling;
use super::settle::settle;
use super::write::write;
use crate::log::fresh_id::new_event_id;
use crate::log::gate;
use crate::log::held::Held;
use crate::log::last_append::LastAppend;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::word::CategoryRule;
use serde_json::json;
use std::collections::BTreeMap;

/// The answer: a JSON object. Errors: ES001, ES016, ES030, ES033 to ES037, and those of appending.
pub fn execute<'a>(target: Target, command: &Command) -> Result<Jsonb<'a>> {
    server::must_not_only_read(c"es_command")?;
    let (category, repeated) = (command.stream.category(), command.repeated());
    let key = command.key.map(|key| Key { target, category, key });
    if let Some(answer) = key.map_or(Ok(None), |key| key.answer(&repeated))? {
        return Ok(answer);
    }
    server::must_be_writable(c"es_command")?;
    gate::enter(target.id)?;
    if let Some(key) = key {
        let reserved = key.reserve()?;
        if let Some(answer) = key.answer(&repeated)? {
            reserved.let_go()?;
            return Ok(answer);
        }
    }
    let decider = deciders::of(target.id, category, command.decider)?;
    decider.must_take(command.command_type, command.payload.text)?;
    let deciding = Deciding { target, command, decider: &decider };
    let (streams, decision) = settle(&deciding)?;
    let result = decision.result;
    let done = append(target, &streams, decision.events, command.key.is_some())?;
    if let Some(key) = key {
        key.keep(&repeated, done.answer(&deciding, streams.iter(), result, true)?, &decider.name)?;
    }
    done.answer(&deciding, streams.iter(), result, false)
}

/// What was appended.
struct Done {
    /// A stream after the other.
    streams: Vec<LastAppend>,
    /// Of the answer's events, in order.
    event_ids: Vec<String>,
}

/// Appends the events, those of a stream in their order. `is_once`: by the command's key.
fn append(target: Target, streams: &Streams, events: Vec<Decided>, is_once: bool) -> Result<Done> {
    let (mut places, mut names, mut by_stream) = (Vec::with_capacity(events.len()), Vec::new(), Vec::<Vec<_>>::new());
    for Decided { stream, event, .. } in events {
        let at = names.iter().position(|name| *name == stream).unwrap_or(names.len());
        if at == names.len() {
            names.push(stream);
            by_stream.push(Vec::new());
        }
        if let Some(events) = by_stream.get_mut(at) {
            places.push((at, events.len()));
            events.push(event);
        }
    }
    let mut requests = Vec::with_capacity(names.len());
    let ruling = ruling::of(target.id)?;
    for (name, mut events) in names.iter().zip(by_stream) {
        let stream = StreamName::parse_own(name)?;
        if is_once && ruling.categories.asks(stream.category(), CategoryRule::EventId) {
            // Nobody has to name an id where the key keeps the events from being recorded twice.
            for event in events.iter_mut().filter(|event| event.event_id.is_none()) {
                event.event_id = Some(new_event_id()?);
            }
        }
        let version = streams.get(name).map_or(0, |held| held.version);
        let expected = ExpectedVersion::parse(Some(version))?;
        requests.push(Request { stream, expected, events, must_exist: false });
    }
    let streams = if requests.is_empty() { Vec::new() } else { write(target, &mut requests)? };
    let id =
        |(at, place): &(usize, usize)| streams.get(*at).and_then(|last| last.event_ids.get(*place)).map(to_uuid_text);
    let event_ids = places.iter().filter_map(id).collect();
    Ok(Done { streams, event_ids })
}

impl Done {
    fn answer<'a, 's>(
        &self,
        deciding: &Deciding,
        boundary: impl Iterator<Item = (&'s String, &'s Held)>,
        result: Option<Jsonb>,
        replayed: bool,
    ) -> Result<Jsonb<'a>> {
        let mut versions: BTreeMap<&str, i64> = boundary.map(|(name, held)| (name.as_str(), held.version)).collect();
        versions.extend(self.streams.iter().map(|last| (last.stream.as_str(), last.version)));
        let stream = deciding.command.stream.as_str();
        let (version, event_ids) = (versions.get(stream).copied().unwrap_or(0), &self.event_ids);
        let global_position = self.streams.iter().flat_map(|last| &last.positions).max();
        let facts = json!({
            "stream": stream, "version": version, "versions": versions, "global_position": global_position, "event_ids": event_ids,
            "replayed": replayed
        });
        // A number of the decider's keeps its value and scale.
        let result =
            result.map_or(Ok("null".into()), |result| Ok::<_, Failure>(String::from_utf8_lossy(result.text()?)))?;
        let facts = facts.to_string();
        Jsonb::parse(&format!("{}, \"result\": {result}}}", facts.strip_suffix('}').unwrap_or_default()))
    }
}
