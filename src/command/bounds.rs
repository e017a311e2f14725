//! What a decision depends on: the command's stream, and whatever its decider's boundary names. Locked in one order before anything is read, and read as it is then.
use super::deciding::Deciding;
use super::foldable::may_read;
use super::queried::{Asked, Seen};
use crate::log::behind_lock::Known;
use crate::log::held::Held;
use crate::log::scan::Opened;
use crate::log::target::Target;
use crate::log::whole;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::error::report;
use crate::pg::jsonb::{Jsonb, Stored, Value};
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::pg::query::snapshot;
use crate::shared::session::as_owner;
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::folds;
use crate::state::moment::Moment;
use eventstream_core::command::decided::Bounded;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The streams of a boundary.
#[derive(PartialEq)]
pub struct Bounds {
    /// All of them, in the order of the locks.
    pub all: BTreeSet<String>,
    /// Those whose states the decider is given.
    pub read: BTreeSet<String>,
    /// And of which events beside.
    pub query: Option<Asked>,
}

/// The streams of a boundary as they are.
pub type Streams = BTreeMap<String, Held>;

/// Their states, and what the boundary's query matches.
pub struct States {
    pub streams: Vec<(String, Rc<Stored>)>,
    pub query: Option<Seen>,
}

impl Bounds {
    /// Asks the decider's boundary. Errors: ES037; whatever it raises.
    pub fn of(deciding: &Deciding) -> Result<Self> {
        let own = deciding.command.stream.as_str().to_owned();
        let mut bounds = Self { all: BTreeSet::from([own.clone()]), read: BTreeSet::from([own]), query: None };
        let Some(mut function) = deciding.decider.boundary()? else { return Ok(bounds) };
        let command = deciding.command.value(deciding.target, None)?;
        let answer = snapshot::of_now(|| deciding.call(&mut function, ("boundary", 0), || Ok(()), &[Some(command)]))?;
        deciding.after(|| {
            let added = bounds.add(deciding.target.id, answer);
            added.map_err(|failure| deciding.answered(failure.within(|| "boundary".into())))
        })?;
        Ok(bounds)
    }

    fn add(&mut self, tenant_id: i64, answer: Jsonb) -> Result<()> {
        if !answer.is_object() {
            return Err(invalid("", "must be a JSON object"));
        }
        let mut given: Bounded = Value::Object(answer).read()?;
        self.query = Asked::read(tenant_id, &mut given)?;
        for (key, names) in [("streams", given.streams), ("writes", given.writes)] {
            for (place, name) in names.unwrap_or_default().0.into_iter().enumerate() {
                StreamName::parse_own(name).map_err(|error| match error {
                    Error::InvalidStreamName { name, reason } => {
                        invalid(format!("{key}[{place}]"), format!("is no stream name: {name:?} {reason}"))
                    }
                    other => Failure::from(other),
                })?;
                self.all.insert(name.to_owned());
                if key == "streams" {
                    self.read.insert(name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The streams as the caller sees them, without a lock.
    pub fn look(&self, target: Target) -> Result<Streams> {
        as_owner(Planning::ByIndex, |db, catalog| {
            let look = |name: &String| {
                let stream = whole::look_up(db, catalog, View::Caller, target.id, &StreamName::parse_own(name)?)?;
                let opened = stream.map(|stream| Opened::open(db, catalog, stream, View::Caller)).transpose()?;
                let known = opened.map(|opened| Known { stream: opened.stream, head: opened.head });
                Ok((name.clone(), Held { known }))
            };
            self.all.iter().map(look).collect()
        })
    }

    /// The states that the decider is given. Errors: ES010, and those of folding.
    pub fn states(&self, deciding: &Deciding, streams: &Streams, view: View) -> Result<States> {
        let own_fold = deciding.decider.fold.as_deref();
        let is_of_queries = own_fold.map_or(Ok(false), |fold| folds::is_of_queries(deciding.target.id, fold))?;
        let own_fold = own_fold.filter(|_| !is_of_queries);
        let state = |name: &String| {
            let category = StreamName::parse_own(name)?.category();
            let fold = own_fold.filter(|_| category == deciding.decider.category);
            let fold = folds::of(deciding.target.id, category, fold)?;
            let state = match streams.get(name).and_then(|held| held.known.as_ref()) {
                None => Rc::clone(&fold.initial_state),
                Some(known) => {
                    let mut folding = Folding::new(deciding.target, &fold)?;
                    let answer = || match view {
                        View::Latest => answer::of_locked(&mut folding, name, known),
                        _ => answer::of_stream(&mut folding, name, known.stream, Moment::NOW, view),
                    };
                    veiled(category, answer)?.state
                }
            };
            Ok((name.clone(), state))
        };
        let streams = self.read.iter().map(state).collect::<Result<_>>()?;
        Ok(States { streams, query: self.query.as_ref().map(|query| query.state(deciding)).transpose()? })
    }

    /// The categories whose states the decider is given; None: of all, because a query does not ask for them.
    pub fn categories(&self) -> Result<Option<Vec<String>>> {
        if self.query.is_some() {
            return Ok(None);
        }
        let of = |name: &String| Ok(StreamName::parse_own(name)?.category().to_owned());
        let categories: BTreeSet<String> = self.read.iter().map(of).collect::<Result<_>>()?;
        Ok(Some(categories.into_iter().collect()))
    }
}

/// The key of the query's state: no name of a stream, which has a hyphen.
pub const QUERY: &str = "query";

/// What a fold says of an event that it cannot take holds what stands in it: who may not read the category is told where that was, and not what.
fn veiled<T>(category: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if may_read(category)? {
        return work();
    }
    let reason = || "what it says is shown to roles that may read the event".to_owned();
    report::silently(work).map_err(|failure| match failure {
        Failure::Rule(Error::FoldFailed { fold, stream, version, .. }) => {
            Error::FoldFailed { fold, stream, version, reason: reason() }.into()
        }
        Failure::Rule(Error::UpcastFailed {
            stream, version, event_type, from_schema_version, is_unusable, ..
        }) => {
            let reason = reason();
            Error::UpcastFailed { stream, version, event_type, from_schema_version, reason, is_unusable }.into()
        }
        other => {
            other.in_other_words(&format!("a state cannot be made: {}", reason())).unwrap_or_else(|failure| failure)
        }
    })
}

/// An object of states, by the names of their streams.
pub fn object_of<'a>(states: &States) -> Result<Jsonb<'a>> {
    let query = states.query.iter().map(|seen| (QUERY, &seen.state));
    let all = states.streams.iter().map(|(name, state)| (name.as_str(), state)).chain(query);
    let mut members = Vec::new();
    for (name, state) in all {
        let state = String::from_utf8_lossy(state.view().text()?);
        members.push(format!("{}: {state}", serde_json::Value::from(name)));
    }
    Jsonb::parse(&format!("{{{}}}", members.join(", ")))
}
