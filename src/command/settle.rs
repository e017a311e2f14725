//! A decision behind its locks, and what is done with it: the boundary's buckets of tags and streams, in the one order; the decision; what it locks beyond them, out of that order
//! and so without waiting; and its events and answer. All in a subtransaction: what was decided with other locks, by another decider or in another boundary than there are by then is
//! undone, its locks with it, and decided again.
//!
//! ```text
//! decider, boundary ─▶ buckets ─▶ streams, by name ─▶ the same decider, the same boundary? ─▶ expected version? ─▶ newer snapshot: states, decider ─▶ rights
//!    ▲                    ▲                                           │ no                                                                            │
//!    └────────────────────┼──────────── undone ◀──────────────────────┘                                                                            ▼
//!                         └──────────── undone, and those locked in order, too ◀── somebody has one ◀── streams begun outside, buckets of the events' tags: tried
//!                                                                                                                      └─ had ─▶ appended and answered
//! ```
use super::bounds::{Bounds, Streams};
use super::commanded::Command;
use super::decide::{Decision, decide};
use super::deciders::{self, Decider};
use super::deciding::Deciding;
use super::scheduled::kept::InTheWay;
use crate::access::authorize;
use crate::log::buckets;
use crate::log::held::{self, Begin, Held};
use crate::log::locks::MOST_NAMES;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::invalidation;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt_but;
use crate::pg::process::test_point::test_point;
use crate::pg::query::plan::View;
use crate::pg::query::snapshot;
use crate::shared::session::as_owner;
use eventstream_core::command::boundary::{Dependency, Found, Role};
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// How often a decision is made anew because of what others have in hand, or have changed.
const MOST_ROUNDS: usize = 5;

/// What is locked beyond a boundary.
#[derive(Default)]
struct Beyond {
    /// Names of streams that are begun.
    names: BTreeSet<String>,
    /// Buckets of the tags of events.
    buckets: BTreeSet<u16>,
    /// Who makes more streams than it can keep the names of.
    unnamed: bool,
}

/// Why a round has to be followed by another; None: it does not.
#[derive(Clone, Copy)]
enum Again {
    /// Others have in hand what the decision locks beyond its boundary.
    Busy,
    /// Behind its locks the boundary is another one than before: what it looks at has changed, or the decider.
    Moved,
    /// Somebody has in hand what is scheduled with its key.
    Taken(InTheWay),
}

impl Again {
    fn reason(self) -> String {
        let (what, times) = match self {
            Self::Busy => (
                "it begins other streams outside of it, or its events have other tags, each time that it decides",
                "and others have them in hand",
            ),
            Self::Moved => ("behind its locks the boundary is another one, each time", "than before"),
            Self::Taken(_) => ("what is scheduled with its key", "is in somebody's hands"),
        };
        format!("{what}, {MOST_ROUNDS} times, {times}")
    }
}

/// What came of what is done with a decision.
pub enum Then<T> {
    Done(T),
    /// All of it is undone, and done again when that one is out of the way.
    Again(InTheWay),
}

/// One round after the other.
struct Rounds<'a> {
    target: Target<'a>,
    command: &'a Command<'a>,
    beyond: RefCell<Beyond>,
    again: Cell<Option<Again>>,
    /// Whether those are kept out who make more streams than they can keep the names of.
    keeps_unnamed_out: Cell<bool>,
}

/// Does `then` with the decision, and with the streams that it was made behind the locks of. Errors: ES001, ES016, ES034 to ES036, 42501; those of the boundary, of the decider, and of
/// `then`.
pub fn settle<'a, T>(
    target: Target<'a>,
    command: &'a Command<'a>,
    then: impl Fn(&Deciding, &Streams, Decision) -> Result<Then<T>>,
) -> Result<T> {
    let rounds = Rounds {
        target,
        command,
        beyond: RefCell::default(),
        again: Cell::new(None),
        keeps_unnamed_out: Cell::new(false),
    };
    let mut left = MOST_ROUNDS;
    while left > 0 {
        rounds.again.set(None);
        if let Ok(done) = attempt_but(|_| rounds.again.get().is_none(), || rounds.once(&then))? {
            return Ok(done);
        }
        match rounds.again.get() {
            // With nothing in hand but the key.
            Some(Again::Taken(in_the_way)) => in_the_way.wait()?,
            _ => left -= 1,
        }
    }
    let decider = deciders::of(target.id, command.stream.category(), command.decider)?;
    let reason = rounds.again.get().map(Again::reason).unwrap_or_default();
    Err(Deciding { target, command, decider: &decider }.beyond(reason))
}

impl Rounds<'_> {
    fn once<T>(&self, then: impl Fn(&Deciding, &Streams, Decision) -> Result<Then<T>>) -> Result<T> {
        let Self { target, command, .. } = *self;
        let decider = deciders::of(target.id, command.stream.category(), command.decider)?;
        decider.must_take(command.command_type, command.payload.text)?;
        let deciding = Deciding { target, command, decider: &decider };
        let bounds = Bounds::of(&deciding)?;
        deciding.after_boundary(|| self.behind_locks(&decider, &bounds, then))
    }

    fn behind_locks<T>(
        &self,
        before: &Rc<Decider>,
        bounds: &Bounds,
        then: impl Fn(&Deciding, &Streams, Decision) -> Result<Then<T>>,
    ) -> Result<T> {
        let Self { target, command, .. } = *self;
        let deciding = Deciding { target, command, decider: before };
        let Some(streams) = self.lock(&deciding, bounds)? else {
            self.beyond.borrow_mut().unnamed = true;
            return Err(self.again(&deciding, Again::Busy));
        };
        test_point("command locked");
        // Behind the locks: whatever was waited for, what follows is of now.
        invalidation::take_in()?;
        let decider = deciders::of(target.id, command.stream.category(), command.decider)?;
        let is_another = !Rc::ptr_eq(before, &decider);
        let deciding = Deciding { target, command, decider: &decider };
        if is_another {
            decider.must_take(command.command_type, command.payload.text)?;
        }
        if (is_another || decider.looks_for_its_boundary()) && *bounds != Bounds::of(&deciding)? {
            return Err(self.again(&deciding, Again::Moved));
        }
        let version = streams.get(command.stream.as_str()).map_or(0, Held::version);
        let dependency =
            Dependency { stream: command.stream.as_str(), expected: command.expected, role: Role::Checked };
        dependency.judge(Found { version, is_closed: false })?;
        let decision = snapshot::of_now(|| {
            let states = bounds.states(&deciding, &streams, View::Latest)?;
            deciding.after(|| decide(&deciding, bounds, &streams, &states))
        })?;
        test_point("command decided");
        deciding.after(|| self.done(&deciding, bounds, streams, decision, then))
    }

    fn done<T>(
        &self,
        deciding: &Deciding,
        bounds: &Bounds,
        mut streams: Streams,
        decision: Decision,
        then: impl Fn(&Deciding, &Streams, Decision) -> Result<Then<T>>,
    ) -> Result<T> {
        self.lock_beyond(deciding, bounds, &decision, &mut streams)?;
        let absent = streams.iter().filter(|(_, held)| held.known.is_none()).map(|(name, _)| name);
        let absent: Vec<(String, bool)> =
            absent.map(|name| (name.clone(), bounds.all.contains(name) && !decision.is_of(name))).collect();
        // Streams that were locked for an earlier decision, and are not of this one.
        streams.retain(|name, held| bounds.all.contains(name) || held.known.is_none() && decision.is_of(name));
        let done = match then(deciding, &streams, decision)? {
            Then::Done(done) => done,
            Then::Again(in_the_way) => return Err(self.again(deciding, Again::Taken(in_the_way))),
        };
        as_owner(Planning::ByIndex, |_, catalog| {
            let absent = absent.iter().map(|(name, is_needed)| (name.as_str(), *is_needed));
            held::let_names_go(catalog, self.target.id, absent, self.keeps_unnamed_out.get())
        })?;
        Ok(done)
    }

    fn again(&self, deciding: &Deciding, why: Again) -> Failure {
        self.again.set(Some(why));
        deciding.beyond(why.reason())
    }

    /// The boundary's buckets and streams, with those that an earlier round was refused; None where somebody is in the way of what is not in the order of the locks.
    fn lock(&self, deciding: &Deciding, bounds: &Bounds) -> Result<Option<Streams>> {
        let (tenant_id, beyond) = (self.target.id, self.beyond.borrow());
        as_owner(Planning::ByIndex, |db, catalog| {
            let query = bounds.query.as_ref().map(|query| &query.kept);
            buckets::hold(catalog, tenant_id, &beyond.buckets, query)?;
            let names: BTreeSet<&str> = bounds.all.iter().chain(&beyond.names).map(String::as_str).collect();
            let names = names.into_iter().map(|name| (name, bounds.all.contains(name)));
            let holding = held::hold(db, catalog, tenant_id, names, beyond.unnamed)?;
            Ok(holding.map(|holding| {
                self.keeps_unnamed_out.set(holding.keeps_unnamed_out);
                holding.streams.into_iter().map(|(name, held)| (name.to_owned(), held)).collect()
            }))
        })
        .map_err(|failure| deciding.answered(failure))
    }

    /// Locks what the decision appends to outside of its boundary, and the buckets of its events' tags. Where others have one of them in hand it fails, and the next round locks
    /// them in order.
    fn lock_beyond(
        &self,
        deciding: &Deciding,
        bounds: &Bounds,
        decision: &Decision,
        streams: &mut Streams,
    ) -> Result<()> {
        let written: BTreeSet<&str> = decision.events.iter().map(|decided| decided.stream.as_str()).collect();
        let (tenant_id, mut busy) = (self.target.id, Beyond::default());
        let is_absent = |name: &String| streams.get(name).is_some_and(|held| held.known.is_none());
        let mut names = bounds.all.iter().filter(|name| is_absent(name)).count();
        for name in written {
            let stream = StreamName::parse_own(name)?;
            authorize(Privilege::Command, stream.category())?;
            if bounds.all.contains(name) {
                continue;
            }
            names += 1;
            if names > MOST_NAMES {
                return Err(deciding.beyond(format!(
                    "with those that it begins outside of it there are more than {MOST_NAMES} streams that have no events yet"
                )));
            }
            let begin = match streams.get(name) {
                Some(held) if held.version() == 0 => Begin::Free,
                Some(_) => Begin::There,
                None => as_owner(Planning::ByIndex, |db, catalog| held::begin(db, catalog, tenant_id, &stream))?,
            };
            match begin {
                Begin::Free => {
                    if !self.keeps_unnamed_out.get() {
                        let is_had =
                            as_owner(Planning::ByIndex, |_, catalog| held::keep_unnamed_out(catalog, tenant_id))?;
                        self.keeps_unnamed_out.set(is_had);
                        busy.unnamed |= !is_had;
                    }
                    streams.entry(name.to_owned()).or_default();
                }
                Begin::Busy => {
                    busy.names.insert(name.to_owned());
                }
                Begin::There => {
                    return Err(
                        deciding.beyond(format!("it appends to stream {}, which has events already", shown(name)))
                    );
                }
            }
        }
        let tags = decision.events.iter().flat_map(|decided| decided.event.tags.iter().copied());
        let wanted = buckets::of(tenant_id, tags);
        let query = bounds.query.as_ref().map(|query| &query.kept);
        let mut beyond = self.beyond.borrow_mut();
        let held = (&beyond.buckets, query);
        if !as_owner(Planning::ByIndex, |_, catalog| buckets::share(catalog, tenant_id, &wanted, held))? {
            busy.buckets.extend(&wanted);
        }
        if busy.names.is_empty() && busy.buckets.is_empty() && !busy.unnamed {
            return Ok(());
        }
        beyond.unnamed |= busy.unnamed;
        beyond.names.append(&mut busy.names);
        beyond.buckets.append(&mut busy.buckets);
        Err(self.again(deciding, Again::Busy))
    }
}

impl Decision<'_> {
    /// Whether it has events for the stream.
    fn is_of(&self, stream: &str) -> bool {
        self.events.iter().any(|decided| decided.stream == stream)
    }
}
