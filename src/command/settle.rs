//! A decision behind its locks: the boundary's buckets of tags and streams, in the one order; the decision; and what it locks beyond them, out of that order and so without
//! waiting.
//!
//! ```text
//! buckets ─▶ streams, by name ─▶ expected version? ─▶ newer snapshot: states, decider ─▶ rights ─▶ streams begun outside, buckets of the events' tags: tried ─▶ settled
//!    ▲──────────── undone, and those locked in order, too ◀─────────────────────────────────────── somebody has one of them
//! ```
use super::bounds::{Bounds, Streams};
use super::decide::{Decision, decide};
use super::deciders::Reach;
use super::deciding::Deciding;
use crate::access::authorize;
use crate::log::buckets;
use crate::log::held::{self, Begin, Held};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt_but;
use crate::pg::query::plan::View;
use crate::pg::query::snapshot;
use crate::shared::session::as_owner;
use eventstream_core::command::boundary::{Dependency, Found, Role};
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// How often a decision is made anew because somebody else had in hand what it locks beyond its boundary.
const MOST_ROUNDS: usize = 5;
/// Streams that a decision may begin outside of its boundary: their names are kept beside all others.
const MOST_OUTSIDE: usize = 64;

/// What is locked beyond a boundary.
#[derive(Default)]
struct Beyond {
    /// Names of streams that are begun.
    names: BTreeSet<String>,
    /// Buckets of the tags of events.
    buckets: BTreeSet<u16>,
}

impl Beyond {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.buckets.is_empty()
    }
}

/// The decision, with the streams that it was made behind the locks of. Errors: ES001, ES034, 42501; those of the boundary, and of the decider.
pub fn settle<'a>(deciding: &Deciding<'a>) -> Result<(Streams, Decision<'a>)> {
    let bounds = Bounds::of(deciding)?;
    let mut beyond = Beyond::default();
    for _ in 0..MOST_ROUNDS {
        let busy = RefCell::new(Beyond::default());
        let once = |waits| once(deciding, &bounds, &beyond, waits, &busy);
        // What stays inside costs no subtransaction. The first time that it does not, it waits, and PostgreSQL finds a circle if that makes one.
        let decided = match deciding.decider.reach.get() {
            Reach::Inside => Ok(once(true)?),
            Reach::Unknown | Reach::Outside => attempt_but(|_| busy.borrow().is_empty(), || once(false))?,
        };
        if let Ok(decided) = decided {
            return Ok(decided);
        }
        let mut busy = busy.borrow_mut();
        beyond.names.append(&mut busy.names);
        beyond.buckets.append(&mut busy.buckets);
    }
    let reason = format!(
        "it begins other streams outside of it, or its events have other tags, each time that it decides, {MOST_ROUNDS} times, and others have them in hand"
    );
    Err(deciding.beyond(reason))
}

/// One decision. Where others have in hand what it locks beyond its boundary it fails, and `busy` has that, unless it `waits`.
fn once<'a>(
    deciding: &Deciding<'a>,
    bounds: &Bounds,
    beyond: &Beyond,
    waits: bool,
    busy: &RefCell<Beyond>,
) -> Result<(Streams, Decision<'a>)> {
    let Deciding { target, command, decider } = *deciding;
    let mut streams: Streams = as_owner(Planning::ByIndex, |db, catalog| {
        let query = bounds.query.as_ref().map(|query| &query.kept);
        buckets::hold(catalog, target.id, &beyond.buckets, query)?;
        let names: BTreeSet<&str> = bounds.all.iter().chain(&beyond.names).map(String::as_str).collect();
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
    let goes_outside = lock_beyond(deciding, (bounds, beyond), &decision, &mut streams, waits, busy)?;
    let is_outside = goes_outside || decider.reach.get() == Reach::Outside;
    decider.reach.set(if is_outside { Reach::Outside } else { Reach::Inside });
    if busy.borrow().is_empty() {
        // Streams that were locked for an earlier decision, and are not of this one.
        streams.retain(|name, held| bounds.all.contains(name) || held.stream.is_none() && decision.is_of(name));
        return Ok((streams, decision));
    }
    Err(deciding.beyond("others have in hand what it locks beyond it".into()))
}

/// Locks what the decision appends to outside of its boundary, and the buckets of its events' tags; whether there is any of it.
fn lock_beyond(
    deciding: &Deciding,
    (bounds, beyond): (&Bounds, &Beyond),
    decision: &Decision,
    streams: &mut Streams,
    waits: bool,
    busy: &RefCell<Beyond>,
) -> Result<bool> {
    let written: BTreeSet<&str> = decision.events.iter().map(|decided| decided.stream.as_str()).collect();
    let (tenant_id, mut begun) = (deciding.target.id, 0);
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
            None => as_owner(Planning::ByIndex, |db, catalog| held::begin(db, catalog, tenant_id, &stream, waits))?,
        };
        match begin {
            Begin::Free => {
                streams.entry(name.to_owned()).or_insert(Held { stream: None, version: 0 });
            }
            Begin::Busy => {
                busy.borrow_mut().names.insert(name.to_owned());
            }
            Begin::There => {
                return Err(deciding.beyond(format!("it appends to stream {}, which has events already", shown(name))));
            }
        }
    }
    let tags = decision.events.iter().flat_map(|decided| decided.event.tags.iter().copied());
    let wanted = buckets::of(tenant_id, tags);
    let (held, query) = (&beyond.buckets, bounds.query.as_ref().map(|query| &query.kept));
    if !as_owner(Planning::ByIndex, |_, catalog| buckets::share(catalog, tenant_id, &wanted, (held, query), waits))? {
        busy.borrow_mut().buckets.extend(&wanted);
    }
    Ok(begun > 0 || !wanted.is_empty())
}

impl Decision<'_> {
    /// Whether it has events for the stream.
    fn is_of(&self, stream: &str) -> bool {
        self.events.iter().any(|decided| decided.stream == stream)
    }
}
