//! Applying rules to a state. The state is changed in place; after a failure it is to be thrown away.
use super::definition::EventSource;
use super::definition::{Action, Operation, Rule, Rules, Source, one};
use super::pointer::Path;
use super::pointer::Pointer;
use super::read::{compare, resolved};
use super::state::{Fault, Limits, Outcome, State, fault, shown};
use crate::decimal;
use crate::decimal::Decimal;
use crate::error::Error;
use crate::json::Value;
use std::cmp::Ordering;

/// Why a rule could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFailure {
    /// Where the rule stands, as a JSON Pointer into the rules.
    pub rule: String,
    /// The event's type.
    pub event_type: String,
    /// What it met.
    pub reason: String,
}

impl RuleFailure {
    /// ES013.
    #[must_use]
    pub fn into_error(self, fold: &str, stream: &str, version: i64) -> Error {
        let reason = if self.rule.is_empty() {
            self.reason
        } else {
            format!("rule {} on {}: {}", self.rule, self.event_type, self.reason)
        };
        Error::FoldFailed { fold: fold.into(), stream: stream.into(), version, reason }
    }
}

/// What went wrong.
#[derive(Debug)]
pub enum Failed<F> {
    /// A rule met a value that it cannot use.
    Rule(RuleFailure),
    /// The state would exceed a limit, by the name of its field in [`Limits`].
    Limit {
        /// Which.
        limit: &'static str,
        /// What it would be, roughly.
        actual: usize,
    },
    /// The event could not be read.
    Source(F),
}

impl Rules {
    /// Applies the rules for the event's type, one after the other.
    ///
    /// # Errors
    /// See [`Failed`]. The state is to be thrown away then.
    pub fn apply<S: EventSource>(
        &self,
        state: &mut State,
        event: &S,
        limits: &Limits,
    ) -> Result<(), Failed<S::Failure>> {
        self.apply_each(event, |rule| rule.apply(state, event, limits))
    }

    /// Gives the rules for the event's type to `apply`, one after the other.
    pub(super) fn apply_each<S: EventSource>(
        &self,
        event: &S,
        mut apply: impl FnMut(&Rule) -> Outcome<(), S::Failure>,
    ) -> Result<(), Failed<S::Failure>> {
        let Some(rules) = self.on.get(event.event_type()) else {
            if self.refuses_others {
                return Err(Failed::Rule(RuleFailure {
                    rule: String::new(),
                    event_type: event.event_type().into(),
                    reason: format!(
                        "the rules say nothing on events of type {}, and \"otherwise\" is \"error\"",
                        event.event_type()
                    ),
                }));
            }
            return Ok(());
        };
        for rule in rules {
            event.checkpoint().map_err(Failed::Source)?;
            apply(rule).map_err(|fault| match fault {
                Fault::Reason(reason) => Failed::Rule(RuleFailure {
                    rule: rule.place.clone(),
                    event_type: event.event_type().into(),
                    reason,
                }),
                Fault::Limit { limit, actual } => Failed::Limit { limit, actual },
                Fault::Source(failure) => Failed::Source(failure),
            })?;
        }
        Ok(())
    }
}

impl Rule {
    pub(super) fn apply<S: EventSource>(
        &self,
        state: &mut State,
        event: &S,
        limits: &Limits,
    ) -> Outcome<(), S::Failure> {
        for guard in &self.when {
            if !guard.holds(state, event)? {
                return Ok(());
            }
        }
        match &self.action {
            Action::Each(operation, assignments) => {
                // The members of an object have no order: no source may see what another target has become.
                if assignments.len() > 1 && assignments.iter().any(|(_, source)| source.reads_state()) {
                    return apply_at_once(*operation, assignments, state, event, limits);
                }
                for (target, source) in assignments {
                    let value = source.value(state, event)?;
                    operation.apply(state, resolved(target, event)?.as_ref(), value, source, limits)?;
                }
            }
            Action::Divide(divisions) => {
                // As above: no divisor may be what another target has become.
                let divisors: Vec<_> = divisions
                    .iter()
                    .map(|(_, by, _)| number(by.value(state, event)?, by))
                    .collect::<Outcome<_, _>>()?;
                for ((target, by, rounding), divisor) in divisions.iter().zip(divisors) {
                    if decimal::is_zero(&divisor) {
                        return fault(format!("{by} is 0, and nothing can be divided by that"));
                    }
                    let divide = |number: &Decimal| decimal::divided(number, &divisor, *rounding);
                    state.change(resolved(target, event)?.as_ref(), limits, divide)?;
                }
            }
            Action::Round(targets) => {
                for (target, rounding) in targets {
                    let round = |number: &Decimal| decimal::rounded(number, *rounding);
                    state.change(resolved(target, event)?.as_ref(), limits, round)?;
                }
            }
            Action::Increment(targets) => {
                for target in targets {
                    state.add(resolved(target, event)?.as_ref(), &one(), false, limits)?;
                }
            }
            Action::Remove(targets) => {
                for target in targets {
                    state.remove(resolved(target, event)?.as_ref())?;
                }
            }
        }
        Ok(())
    }
}

/// Reads all sources before the first target changes.
fn apply_at_once<S: EventSource>(
    operation: Operation,
    assignments: &[(Path, Source)],
    state: &mut State,
    event: &S,
    limits: &Limits,
) -> Outcome<(), S::Failure> {
    let mut values = Vec::with_capacity(assignments.len());
    let mut bytes = 0;
    for (_, source) in assignments {
        let value = source.value(state, event)?;
        // Copies of a large state, many at a time, would take memory without a limit.
        bytes += value.size();
        limits.check_bytes(bytes)?;
        values.push(value);
    }
    for ((target, source), value) in assignments.iter().zip(values) {
        operation.apply(state, resolved(target, event)?.as_ref(), value, source, limits)?;
    }
    Ok(())
}

/// The number that an operation needs.
fn number<F>(value: Value, source: &Source) -> Outcome<Decimal, F> {
    match value {
        Value::Number(number) => Ok(number),
        other => fault(format!("{source} must be a number, and is {}", other.described())),
    }
}

impl Operation {
    fn apply<F>(
        self,
        state: &mut State,
        target: &Pointer,
        value: Value,
        source: &Source,
        limits: &Limits,
    ) -> Outcome<(), F> {
        match self {
            Operation::Add | Operation::Subtract => {
                state.add(target, &number(value, source)?, self == Operation::Subtract, limits)
            }
            Operation::Multiply => {
                let factor = number(value, source)?;
                state.change(target, limits, |number| decimal::product(number, &factor))
            }
            Operation::Set => state.put(target, value, limits),
            Operation::Append => state.append(target, value, limits),
            Operation::Merge => match value {
                Value::Object(members) => state.merge(target, members, limits),
                other => fault(format!("{source} must be an object, and is {}", other.described())),
            },
            Operation::Min | Operation::Max => {
                if self.replaces(target.find(state.value()), &value, target, source)? {
                    state.put(target, value, limits)?;
                }
                Ok(())
            }
        }
    }

    /// Whether min or max takes a value instead of the one before.
    fn replaces<F>(self, before: Option<&Value>, value: &Value, target: &Pointer, source: &Source) -> Outcome<bool, F> {
        let Some(before) = before else {
            if matches!(value, Value::Number(_) | Value::Text(_)) {
                return Ok(true);
            }
            return fault(format!("{source} must be a number or a string, and is {}", value.described()));
        };
        match compare(value, before) {
            Some(order) => Ok(order == if self == Operation::Min { Ordering::Less } else { Ordering::Greater }),
            None => fault(format!(
                "{source} is {}, which cannot be compared with {} at state {}",
                value.described(),
                before.described(),
                shown(target)
            )),
        }
    }
}
