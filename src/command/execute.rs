//! es_command: a command becomes events once.
//!
//! ```text
//! key answered? ─▶ the tenant's gate ─▶ the key's lock; answered meanwhile? ─▶ decider, command as it takes it ─▶ boundary ─▶ its streams locked, in the order of their names
//!   ─▶ states and decider, under a newer snapshot ─▶ streams begun outside, without waiting ─▶ the door in (write.rs) ─▶ the answer kept
//!            ▲─────────── undone, and those locked in order, too ◀── somebody has one of them
//! ```
//! Promises: what the decider sees stays so until the commit, and what it decides is appended whole, or not at all; a repetition with the same key is answered as the first time; no two
//! decisions wait for each other in a circle.
use super::answers::Key;
use super::bounds::{Bounds, Streams};
use super::commanded::Command;
use super::decide::{Decided, Decision, decide};
use super::deciders::{self, Reach};
use super::deciding::Deciding;
use super::ruling;
use super::write::write;
use crate::access::authorize;
use crate::log::fresh_id::new_event_id;
use crate::log::gate;
use crate::log::held::{self, Begin};
use crate::log::last_append::LastAppend;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt_but;
use crate::pg::query::plan::View;
use crate::pg::query::snapshot;
use crate::shared::session::as_owner;
use eventstream_core::command::boundary::{Dependency, Found, Role};
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use eventstream_core::word::CategoryRule;
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// How often a decision is made anew because somebody else was about to begin the same stream.
const MOST_ROUNDS: usize = 5;
/// Streams that a decision may begin outside of its boundary: their names are kept beside all others.
const MOST_OUTSIDE: usize = 64;

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

/// The decision, behind its locks.
fn settle<'a>(deciding: &Deciding<'a>) -> Result<(Streams, Decision<'a>)> {
    let bounds = Bounds::of(deciding)?;
    // Streams that were to be begun, and that somebody else had in hand.
    let mut outside = BTreeSet::new();
    for _ in 0..MOST_ROUNDS {
        let busy = RefCell::new(BTreeSet::new());
        let once = |waits| once(deciding, &bounds, &outside, waits, &busy);
        // What stays inside costs no subtransaction. The first time that it does not, it waits, and PostgreSQL finds a circle if that makes one.
        let decided = match deciding.decider.reach.get() {
            Reach::Inside => Ok(once(true)?),
            Reach::Unknown | Reach::Outside => attempt_but(|_| busy.borrow().is_empty(), || once(false))?,
        };
        if let Ok(decided) = decided {
            return Ok(decided);
        }
        outside.append(&mut busy.borrow_mut());
    }
    let reason = format!(
        "it begins other streams outside of it each time that it decides, {MOST_ROUNDS} times, and others have them in hand"
    );
    Err(deciding.beyond(reason))
}

/// One decision behind the locks of its boundary and of `outside`. Where streams that it begins elsewhere are in somebody's hand it fails, and `busy` has them, unless it
/// `waits`.
fn once<'a>(
    deciding: &Deciding<'a>,
    bounds: &Bounds,
    outside: &BTreeSet<String>,
    waits: bool,
    busy: &RefCell<BTreeSet<String>>,
) -> Result<(Streams, Decision<'a>)> {
    let Deciding { target, command, decider } = *deciding;
    let mut streams: Streams = as_owner(Planning::ByIndex, |db, catalog| {
        let names: BTreeSet<&str> = bounds.all.iter().chain(outside).map(String::as_str).collect();
        let held = held::hold(db, catalog, target.id, names.into_iter())?;
        Ok(held.into_iter().map(|(name, held)| (name.to_owned(), held)).collect())
    })
    .map_err(|failure| deciding.answered(failure))?;
    let version = streams.get(command.stream.as_str()).map_or(0, |held| held.version);
    let dependency = Dependency { stream: command.stream.as_str(), expected: command.expected, role: Role::Checked };
    dependency.judge(Found { version, is_closed: false })?;
    let decision = snapshot::of_now(|| {
        let states = bounds.states(deciding, &streams, View::Latest)?;
        decide(deciding, bounds, &streams, &states)
    })?;
    let written: BTreeSet<&str> = decision.events.iter().map(|decided| decided.stream.as_str()).collect();
    let mut begun = 0;
    for name in written {
        let stream = StreamName::parse_own(name)?;
        authorize(Privilege::Command, stream.category())?;
        if bounds.all.contains(name) {
            continue;
        }
        begun += 1;
        if begun > MOST_OUTSIDE {
            return Err(deciding.beyond(format!("it begins more than {MOST_OUTSIDE} streams outside of it")));
        }
        let begin = match streams.get(name) {
            Some(held) if held.version == 0 => Begin::Free,
            Some(_) => Begin::There,
            None => as_owner(Planning::ByIndex, |db, catalog| held::begin(db, catalog, target.id, &stream, waits))?,
        };
        match begin {
            Begin::Free => {
                streams.entry(name.to_owned()).or_insert(held::Held { stream: None, version: 0 });
            }
            Begin::Busy => {
                busy.borrow_mut().insert(name.to_owned());
            }
            Begin::There => {
                return Err(deciding.beyond(format!("it appends to stream {}, which has events already", shown(name))));
            }
        }
    }
    decider.reach.set(if begun > 0 || decider.reach.get() == Reach::Outside { Reach::Outside } else { Reach::Inside });
    if busy.borrow().is_empty() {
        // Streams that were locked for an earlier decision, and are not of this one.
        streams.retain(|name, held| bounds.all.contains(name) || held.stream.is_none() && decision.is_of(name));
        return Ok((streams, decision));
    }
    Err(deciding.beyond("others are about to begin streams that it begins outside of it".into()))
}

impl Decision<'_> {
    /// Whether it has events for the stream.
    fn is_of(&self, stream: &str) -> bool {
        self.events.iter().any(|decided| decided.stream == stream)
    }
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
        boundary: impl Iterator<Item = (&'s String, &'s held::Held)>,
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
