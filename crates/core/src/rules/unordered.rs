//! Rules whose state does not depend on the order in which events are folded, once it is known which event set a place last: sums, counts,
//! and values that are set, each at places of its own, made of the event alone. A late event is then one step, however many came before it.
use super::apply::Failed;
use super::definition::EventSource;
use super::definition::{Action, Guard, Operation, Rule, Rules};
use super::pointer::{Path, Pointer};
use super::read::resolved;
use super::state::{Limits, Outcome, State};
use std::collections::HashMap;

/// Where an event stands in the order of the fold: by what that orders, then by its version.
pub type Rank = (i64, i64);

/// Which event set each place of the state last, in the order of the fold.
#[derive(Debug, Default)]
pub struct Latest {
    set_by: HashMap<Pointer, Rank>,
}

/// What may be done at a place of the state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Value,
}

impl Rules {
    /// Whether [`Rules::apply_unordered`] folds events in any order into the state that [`Rules::apply`] makes of them in order.
    #[must_use]
    pub fn are_unordered(&self) -> bool {
        let mut places: Vec<(&Path, Kind)> = Vec::new();
        for rule in self.on.values().flatten() {
            if !rule.when.iter().all(Guard::is_of_event) {
                return false;
            }
            match &rule.action {
                Action::Each(Operation::Add | Operation::Subtract, assignments) => {
                    places.extend(assignments.iter().map(|(target, _)| (target, Kind::Sum)));
                }
                Action::Each(Operation::Set, assignments) => {
                    places.extend(assignments.iter().map(|(target, _)| (target, Kind::Value)));
                }
                Action::Increment(targets) => places.extend(targets.iter().map(|target| (target, Kind::Sum))),
                _ => return false,
            }
            if let Action::Each(_, assignments) = &rule.action
                && assignments.iter().any(|(_, source)| source.reads_state())
            {
                return false;
            }
        }
        places.sort_by_cached_key(|(target, _)| target.to_string());
        places.dedup();
        let are_apart = |(at, (a, _)): (usize, &(&Path, Kind))| places[at + 1..].iter().all(|(b, _)| !a.may_meet(b));
        places.iter().all(|(target, _)| !target.has_end()) && places.iter().enumerate().all(are_apart)
    }

    /// As [`Rules::apply`], for an event at a place of the fold's order; those at other places come before or after it.
    ///
    /// # Errors
    /// See [`Failed`]. The state is to be thrown away then.
    pub fn apply_unordered<S: EventSource>(
        &self,
        state: &mut State,
        latest: &mut Latest,
        at: Rank,
        event: &S,
        limits: &Limits,
    ) -> Result<(), Failed<S::Failure>> {
        self.apply_each(event, |rule| match &rule.action {
            Action::Each(Operation::Set, _) => rule.set_unless_later(state, latest, at, event, limits),
            _ => rule.apply(state, event, limits),
        })
    }
}

impl Rule {
    fn set_unless_later<S: EventSource>(
        &self,
        state: &mut State,
        latest: &mut Latest,
        at: Rank,
        event: &S,
        limits: &Limits,
    ) -> Outcome<(), S::Failure> {
        let Action::Each(_, assignments) = &self.action else { return Ok(()) };
        for guard in &self.when {
            if !guard.holds(state, event)? {
                return Ok(());
            }
        }
        for (target, source) in assignments {
            let value = source.value(state, event)?;
            let target = resolved(target, event)?;
            if latest.set_by.get(target.as_ref()).is_none_or(|&set_at| set_at <= at) {
                state.put(target.as_ref(), value, limits)?;
                latest.set_by.insert(target.into_owned(), at);
            } else {
                limits.check_value(target.as_ref(), &value)?;
            }
        }
        Ok(())
    }
}

impl Guard {
    fn is_of_event(&self) -> bool {
        !self.source.reads_state() && self.tests.iter().all(|(_, source)| !source.reads_state())
    }
}
