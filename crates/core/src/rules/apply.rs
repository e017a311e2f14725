//! Applying rules to a state. The state is changed in place; after a failure it is to be thrown away.
use super::pointer::{Pointer, Token};
use super::{Action, EventField, Guard, Operation, Rule, Rules, Source, Test, one};
use crate::error::Error;
use crate::json::{Decimal, Object, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

/// The event as rules read it.
pub trait EventSource {
    /// Why a value could not be read, where that is no fault of the rules.
    type Failure;
    /// Its type.
    fn event_type(&self) -> &str;
    /// A copy of a value of the payload; None where there is none.
    ///
    /// # Errors
    /// A value that cannot be read.
    fn payload(&self, pointer: &Pointer) -> Result<Option<Value>, Self::Failure>;
    /// A field of the event; None where it is NULL.
    ///
    /// # Errors
    /// A value that cannot be read.
    fn field(&self, field: &EventField) -> Result<Option<Value>, Self::Failure>;
}

/// What a state may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Levels of nesting.
    pub depth: usize,
    /// Decimal digits of a number.
    pub number_digits: usize,
    /// Bytes, roughly.
    pub state_bytes: usize,
}

/// A state while it is folded; it knows roughly how many bytes it takes.
#[derive(Debug)]
pub struct State {
    value: Value,
    bytes: usize,
}

impl State {
    /// The state to start from.
    #[must_use]
    pub fn new(value: Value) -> Self {
        let bytes = value.size();
        Self { value, bytes }
    }

    /// As it is now.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }
}

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

/// A failure that does not say yet of which rule.
enum Fault<F> {
    Reason(String),
    Limit { limit: &'static str, actual: usize },
    Source(F),
}

type Outcome<T, F> = Result<T, Fault<F>>;

fn fault<T, F>(reason: impl Into<String>) -> Outcome<T, F> {
    Err(Fault::Reason(reason.into()))
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
            rule.apply(state, event, limits).map_err(|fault| match fault {
                Fault::Reason(reason) => Failed::Rule(RuleFailure {
                    rule: rule.place.clone(),
                    event_type: event.event_type().into(),
                    reason,
                }),
                Fault::Limit { limit, actual } => Failed::Limit { limit, actual },
                Fault::Source(failure) => Failed::Source(failure),
            })?;
        }
        if state.bytes > limits.state_bytes {
            // The count drifts where values shrink: look closely before refusing.
            state.bytes = state.value.size();
            if state.bytes > limits.state_bytes {
                return Err(Failed::Limit { limit: "state_bytes", actual: state.bytes });
            }
        }
        Ok(())
    }
}

impl Rule {
    fn apply<S: EventSource>(&self, state: &mut State, event: &S, limits: &Limits) -> Outcome<(), S::Failure> {
        for guard in &self.when {
            if !guard.holds(state, event)? {
                return Ok(());
            }
        }
        match &self.action {
            Action::Each(operation, assignments) => {
                for (target, source) in assignments {
                    let value = match source.read(state, event)? {
                        Some(value) => value.into_owned(),
                        None => return fault(format!("{source} is missing")),
                    };
                    operation.apply(state, target, value, source, limits)?;
                }
            }
            Action::Increment(targets) => {
                for target in targets {
                    let place = number_at(state, target)?;
                    *place += one();
                    check_digits(place, limits)?;
                }
            }
            Action::Remove(targets) => {
                for target in targets {
                    remove(&mut state.value, target)?;
                }
            }
        }
        Ok(())
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
                let Value::Number(amount) = value else {
                    return fault(format!("{source} must be a number, and is {}", value.described()));
                };
                let place = number_at(state, target)?;
                // Digits that two numbers far apart have together can be many more than each has.
                check_span(place, &amount, limits)?;
                if self == Operation::Add {
                    *place += amount;
                } else {
                    *place -= amount;
                }
                check_digits(place, limits)
            }
            Operation::Set => put(state, target, value, limits),
            Operation::Min | Operation::Max => {
                let replaces = match target.find(&state.value) {
                    None => true,
                    Some(before) => match compare(&value, before) {
                        Some(order) => order == if self == Operation::Min { Ordering::Less } else { Ordering::Greater },
                        None => {
                            return fault(format!(
                                "{source} is {}, which cannot be compared with {} at {}",
                                value.described(),
                                before.described(),
                                shown_target(target)
                            ));
                        }
                    },
                };
                if replaces { put(state, target, value, limits) } else { Ok(()) }
            }
            Operation::Merge => {
                let Value::Object(members) = value else {
                    return fault(format!("{source} must be an object, and is {}", value.described()));
                };
                check_depth(target.len() + 1 + members.values().map(Value::depth).max().unwrap_or(0), limits)?;
                let added: usize = members.iter().map(|(key, value)| key.len() + value.size()).sum();
                match place_for(&mut state.value, target, || Value::Object(Object::new()))? {
                    Value::Object(into) => into.extend(members),
                    other => {
                        return fault(format!(
                            "{} must be an object, and is {}",
                            shown_target(target),
                            other.described()
                        ));
                    }
                }
                state.bytes += added;
                Ok(())
            }
            Operation::Append => {
                check_depth(target.len() + 1 + value.depth(), limits)?;
                let added = value.size();
                match place_for(&mut state.value, target, || Value::Array(Vec::new()))? {
                    Value::Array(elements) => elements.push(value),
                    other => {
                        return fault(format!(
                            "{} must be an array, and is {}",
                            shown_target(target),
                            other.described()
                        ));
                    }
                }
                state.bytes += added;
                Ok(())
            }
        }
    }
}

impl Source {
    fn read<'a, S: EventSource>(&'a self, state: &'a State, event: &S) -> Outcome<Option<Cow<'a, Value>>, S::Failure> {
        Ok(match self {
            Source::Payload(pointer) => event.payload(pointer).map_err(Fault::Source)?.map(Cow::Owned),
            Source::Event(field) => event.field(field).map_err(Fault::Source)?.map(Cow::Owned),
            Source::State(pointer) => pointer.find(&state.value).map(Cow::Borrowed),
            Source::Constant(value) => Some(Cow::Borrowed(value)),
            Source::Default(source, default) => Some(source.read(state, event)?.unwrap_or(Cow::Borrowed(default))),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Payload(pointer) => write!(f, "payload {}", shown_target(pointer)),
            Source::Event(field) => write!(f, "event field {field:?}"),
            Source::State(pointer) => write!(f, "state {}", shown_target(pointer)),
            Source::Constant(value) => f.write_str(&value.described()),
            Source::Default(source, _) => source.fmt(f),
        }
    }
}

impl Guard {
    fn holds<S: EventSource>(&self, state: &State, event: &S) -> Outcome<bool, S::Failure> {
        let value = self.source.read(state, event)?;
        match self.exists {
            Some(exists) if value.is_some() != exists => return Ok(false),
            Some(false) => return Ok(true),
            _ => {}
        }
        for (test, operand) in &self.tests {
            let Some(operand_value) = operand.read(state, event)? else {
                return fault(format!("{operand} is missing"));
            };
            let holds = match (&value, test) {
                (None, Test::Equals) => false,
                (None, Test::Differs) => true,
                (None, _) => return fault(format!("{} is missing", self.source)),
                (Some(value), Test::Equals) => is_equal(value, &operand_value),
                (Some(value), Test::Differs) => !is_equal(value, &operand_value),
                (Some(value), test) => match compare(value, &operand_value) {
                    Some(order) => match test {
                        Test::LessThan => order == Ordering::Less,
                        Test::AtMost => order != Ordering::Greater,
                        Test::MoreThan => order == Ordering::Greater,
                        _ => order != Ordering::Less,
                    },
                    None => {
                        return fault(format!(
                            "{} is {}, which cannot be compared with {}",
                            self.source,
                            value.described(),
                            operand_value.described()
                        ));
                    }
                },
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Numbers by value: 1.0 equals 1.00.
fn is_equal(a: &Value, b: &Value) -> bool {
    a == b
}

/// Numbers with numbers, strings with strings (byte by byte).
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn shown_target(pointer: &Pointer) -> String {
    if pointer.len() == 0 { "\"\"".into() } else { pointer.to_string() }
}

/// The place that a pointer names in the state, made where it is missing; parents that are missing become objects.
fn place_for<'a, F>(state: &'a mut Value, target: &Pointer, make: impl Fn() -> Value) -> Outcome<&'a mut Value, F> {
    let mut place = state;
    let last = target.len();
    for (step, token) in target.tokens().enumerate() {
        let fresh = || if step + 1 == last { make() } else { Value::Object(Object::new()) };
        place = match place {
            Value::Object(members) => {
                if !members.contains_key(token.as_str()) {
                    members.insert(token.as_str().to_owned(), fresh());
                }
                match members.get_mut(token.as_str()) {
                    Some(member) => member,
                    None => return fault("a member cannot be made"),
                }
            }
            Value::Array(elements) => element_for(elements, token, target, fresh)?,
            other => {
                return fault(format!(
                    "{} cannot be reached: there is {} in its way",
                    shown_target(target),
                    other.described()
                ));
            }
        };
    }
    Ok(place)
}

fn element_for<'a, F>(
    elements: &'a mut Vec<Value>,
    token: &Token,
    target: &Pointer,
    fresh: impl Fn() -> Value,
) -> Outcome<&'a mut Value, F> {
    let count = elements.len();
    if token.is_end() {
        elements.push(fresh());
    }
    let index = if token.is_end() { Some(count) } else { token.index() };
    match index.and_then(|index| elements.get_mut(index)) {
        Some(element) => Ok(element),
        None => fault(format!("{} cannot be reached: the array has {count} elements", shown_target(target))),
    }
}

fn put<F>(state: &mut State, target: &Pointer, value: Value, limits: &Limits) -> Outcome<(), F> {
    check_depth(target.len() + value.depth(), limits)?;
    let added = value.size();
    let place = place_for(&mut state.value, target, || Value::Null)?;
    let removed = place.size();
    *place = value;
    let key = target.tokens().last().map_or(0, |token| token.as_str().len());
    state.bytes = (state.bytes + added + key).saturating_sub(removed);
    Ok(())
}

/// The number at a place of the state; 0 where there is none yet.
fn number_at<'a, F>(state: &'a mut State, target: &Pointer) -> Outcome<&'a mut Decimal, F> {
    match place_for(&mut state.value, target, || Value::Number(Decimal::from(0)))? {
        Value::Number(number) => Ok(number),
        other => fault(format!("state {} must be a number, and is {}", shown_target(target), other.described())),
    }
}

fn remove<F>(state: &mut Value, target: &Pointer) -> Outcome<(), F> {
    let Some((parents, last)) = target.split() else {
        return fault("the whole state cannot be removed");
    };
    let mut place = state;
    for token in parents {
        let next = match place {
            Value::Object(members) => members.get_mut(token.as_str()),
            Value::Array(elements) => token.index().and_then(|index| elements.get_mut(index)),
            _ => None,
        };
        match next {
            Some(next) => place = next,
            None => return Ok(()),
        }
    }
    match place {
        Value::Object(members) => drop(members.remove(last.as_str())),
        Value::Array(elements) => {
            if let Some(index) = last.index().filter(|&index| index < elements.len()) {
                elements.remove(index);
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_depth<F>(depth: usize, limits: &Limits) -> Outcome<(), F> {
    if depth <= limits.depth { Ok(()) } else { Err(Fault::Limit { limit: "depth", actual: depth }) }
}

/// Decimal digits of so many bits, rounded down.
fn digits_of_bits(bits: u64) -> usize {
    usize::try_from(bits.saturating_mul(30_103) / 100_000).unwrap_or(usize::MAX)
}

/// Digits before the point (at least), and after it.
fn digits(number: &Decimal) -> (usize, usize) {
    let (coefficient, scale) = number.as_bigint_and_scale();
    let all = i64::try_from(digits_of_bits(coefficient.bits())).unwrap_or(i64::MAX);
    let before = all.saturating_sub(scale).max(0);
    (usize::try_from(before).unwrap_or(0), usize::try_from(scale.max(0)).unwrap_or(usize::MAX))
}

fn check_digits<F>(number: &Decimal, limits: &Limits) -> Outcome<(), F> {
    let (before, after) = digits(number);
    let actual = before.saturating_add(after);
    if actual <= limits.number_digits { Ok(()) } else { Err(Fault::Limit { limit: "number_digits", actual }) }
}

/// Before an addition: the digits that the result can have.
fn check_span<F>(a: &Decimal, b: &Decimal, limits: &Limits) -> Outcome<(), F> {
    let ((a_before, a_after), (b_before, b_after)) = (digits(a), digits(b));
    let actual = a_before.max(b_before).saturating_add(a_after.max(b_after));
    if actual <= limits.number_digits { Ok(()) } else { Err(Fault::Limit { limit: "number_digits", actual }) }
}
