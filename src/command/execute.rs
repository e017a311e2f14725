//! es_command: a command becomes events once.
//!
//! ```text
//! key answered? ─▶ the tenant's gate ─▶ the key's lock; answered meanwhile? ─▶ decider, command as it takes it ─▶ decided behind its locks (settle.rs)
//!   ─▶ what it wants later (later.rs) ─▶ the door in (write.rs) ─▶ the answer kept; what was scheduled with the key is done; the key's lock let go
//! ```
//! Promises: what the decider sees stays so until the commit, and what it decides is appended whole, or not at all; a repetition with the same key is answered as the first time; no two
//! decisions wait for each other in a circle.
use super::answers::{Key, Turn};
use super::bounds::Streams;
use super::commanded::{Command, Versions, object_of_versions};
use super::covered;
use super::decide::{Decided, Decision};
use super::deciding::Deciding;
use super::scheduled::kept::{self, InTheWay, Kept};
use super::settle::{Then, settle};
use super::write::write;
use super::{ended, ruling};
use crate::log::document::print;
use crate::log::fresh_id::new_event_id;
use crate::log::gate;
use crate::log::held::Held;
use crate::log::last_append::LastAppend;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::process::server;
use crate::pg::process::test_point::test_point;
use crate::shared::counters::{self, Counter};
use eventstream_core::command::key::Repeated;
use eventstream_core::command::scheduled::REFUSED;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::word::CategoryRule;
use std::collections::BTreeSet;
use std::iter;

/// The answer: a JSON object. Errors: ES001, ES006, ES016, ES030, ES033 to ES037, and those of appending.
pub fn execute<'a>(target: Target, command: &Command) -> Result<Jsonb<'a>> {
    server::must_not_only_read(c"es_command")?;
    let (category, repeated) = (command.stream.category(), command.repeated(target)?);
    let key = command.key.map(|key| Key { target, category, key });
    let glance = match key.map(|key| key.glance(&repeated)).transpose()? {
        Some(Ok((answer, executed_at))) => {
            return covered::answered(target.id, command.command_type, answer, executed_at);
        }
        Some(Err(glance)) => Some(glance),
        None => None,
    };
    server::must_be_writable(c"es_command")?;
    let passing = gate::pass(target.id)?;
    test_point("command at the gate");
    let Some(key) = key else { return decided(target, command, None) };
    match key.take_turn(&repeated, glance)? {
        Turn::Answered((answer, executed_at)) => {
            passing.leave()?;
            covered::answered(target.id, command.command_type, answer, executed_at)
        }
        Turn::Own(reserved) => {
            test_point("command's turn");
            let kept = reserved.kept.as_ref();
            kept.map_or(Ok(()), |kept| kept.may_be_executed(key.category, key.key))?;
            let is_runners = kept.is_some_and(Kept::is_at_work);
            // It does not take itself back.
            let _at_work = kept.map(Kept::at_work);
            let answer = decided(target, command, Some(Once { key, repeated: &repeated, kept, is_runners }))?;
            reserved.let_go()?;
            test_point("command answered");
            Ok(answer)
        }
    }
}

/// How a command is executed once.
struct Once<'a> {
    key: Key<'a>,
    repeated: &'a Repeated<'a>,
    /// What is scheduled with the key.
    kept: Option<&'a Kept>,
    /// Its runner executes it.
    is_runners: bool,
}

impl Once<'_> {
    /// Its answer is kept, and what was scheduled with its key is over.
    fn keep(&self, target: Target, answer: Jsonb, decider: &str) -> Result<Option<InTheWay>> {
        let Self { key, repeated, kept, is_runners } = self;
        key.keep(repeated, answer, decider)?;
        if *is_runners { Ok(None) } else { kept::executed(target, key.category, key.key, repeated, *kept) }
    }
}

/// Decided, appended, and kept under its key.
fn decided<'a>(target: Target, command: &Command, once: Option<Once>) -> Result<Jsonb<'a>> {
    ended::must_be_open(target.id)?;
    let outcome = settle(target, command, |deciding, streams, decision| {
        let result = covered::result(target.id, command.command_type, decision.result)?;
        result.map(|result| print("the answer's result", result)).transpose()?;
        judge_names(deciding, streams, &decision)?;
        decision.later.arrange(target, &deciding.decider.name)?;
        let done = append(target, streams, decision.events, once.is_some())?;
        test_point("command appended");
        // Without a key the ids of its events may make it a retry.
        let replayed = done.streams.iter().any(|last| last.replayed);
        let answer = done.answer(deciding, streams.iter(), result, replayed)?;
        if let Some(once) = &once
            && let Some(in_the_way) = once.keep(target, answer, &deciding.decider.name)?
        {
            return Ok(Then::Again(in_the_way));
        }
        test_point("command kept");
        Ok(Then::Done(answer))
    });
    outcome.inspect_err(|failure| {
        if failure.is(REFUSED) {
            counters::add(Counter::CommandsRefused, 1);
        }
    })
}

/// The command's key, and the streams that it looks at, are told of where its events are. Errors: ES017.
fn judge_names(deciding: &Deciding, streams: &Streams, decision: &Decision) -> Result<()> {
    let (ruling, command) = (ruling::of(deciding.target.id)?, deciding.command);
    let written = decision.events.iter().map(|decided| decided.stream.as_str());
    for stream in iter::once(command.stream.as_str()).chain(written).collect::<BTreeSet<_>>() {
        let stream = StreamName::parse_own(stream)?;
        if let Some(rules) = ruling.categories.of(stream.category()) {
            rules.judge_command(stream, command.key, streams.keys().map(String::as_str))?;
        }
    }
    Ok(())
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
        let held = streams.get(name);
        let expected = ExpectedVersion::parse(Some(held.map_or(0, Held::version)))?;
        let held = held.and_then(|held| held.known.clone());
        requests.push(Request { stream, expected, events, must_exist: false, held });
    }
    let streams = if requests.is_empty() { Vec::new() } else { write(target, &mut requests)? };
    if is_once {
        refuse_old_events(&streams)?;
    }
    let id =
        |(at, place): &(usize, usize)| streams.get(*at).and_then(|last| last.event_ids.get(*place)).map(to_uuid_text);
    let event_ids = places.iter().filter_map(id).collect();
    Ok(Done { streams, event_ids })
}

/// A new key is a new command: ids of events that are there already, of another one, would make it done with nothing recorded. Errors: ES006.
fn refuse_old_events(streams: &[LastAppend]) -> Result<()> {
    let Some(old) = streams.iter().find(|last| last.replayed) else { return Ok(()) };
    Err(Error::EventIdReused {
        stream: old.stream.clone(),
        event_id: old.event_ids.first().map(to_uuid_text).unwrap_or_default(),
        version: Some(old.version - old.event_ids.len() as i64 + 1),
        reason: "and the decider gives it to an event of another command".into(),
    }
    .into())
}

impl Done {
    fn answer<'a, 's>(
        &self,
        deciding: &Deciding,
        boundary: impl Iterator<Item = (&'s String, &'s Held)>,
        result: Option<Jsonb>,
        replayed: bool,
    ) -> Result<Jsonb<'a>> {
        let mut versions: Versions = boundary.map(|(name, held)| (name.as_str(), held.version())).collect();
        versions.extend(self.streams.iter().map(|last| (last.stream.as_str(), last.version)));
        let stream = deciding.command.stream.as_str();
        let (version, event_ids) = (versions.get(stream).copied().unwrap_or(0), &self.event_ids);
        let global_position = self.streams.iter().flat_map(|last| &last.positions).max();
        let versions = object_of_versions(&versions)?;
        let mut object = ObjectBuilder::begin()?;
        object.put("stream", Part::text(stream))?;
        object.put("version", Part::integer(version)?)?;
        object.put("versions", Part::all_of(versions)?)?;
        object
            .put("global_position", global_position.map_or(Ok(Part::null()), |&position| Part::integer(position))?)?;
        object.put_texts("event_ids", event_ids.iter().map(String::as_str))?;
        object.put("replayed", Part::boolean(replayed))?;
        // A number of the decider's keeps its value and scale.
        object.put("result", result.map_or(Ok(Part::null()), Part::all_of)?)?;
        object.finish()
    }
}
