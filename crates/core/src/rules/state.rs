//! A state in memory, and the changes that operations make to it. Owns the limits: each change keeps the count of the state's
//! bytes exact and is refused where it would leave the state too deep or too large, or a number too long.
use super::pointer::{Pointer, Token};
use crate::decimal;
use crate::decimal::Decimal;
use crate::json::{Object, Value};

/// What a state may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Levels of nesting.
    pub depth: usize,
    /// Decimal digits of a number.
    pub number_digits: usize,
    /// Bytes, roughly: [`Value::size`].
    pub state_bytes: usize,
}

/// A state while it is folded; it knows roughly how many bytes it takes.
#[derive(Debug)]
pub struct State {
    value: Value,
    bytes: usize,
}

/// A failure that does not say yet of which rule.
pub(super) enum Fault<F> {
    Reason(String),
    Limit { limit: &'static str, actual: usize },
    Source(F),
}

pub(super) type Outcome<T, F> = Result<T, Fault<F>>;

pub(super) fn fault<T, F>(reason: impl Into<String>) -> Outcome<T, F> {
    Err(Fault::Reason(reason.into()))
}

impl Limits {
    fn check_depth<F>(&self, depth: usize) -> Outcome<(), F> {
        if depth <= self.depth { Ok(()) } else { Err(Fault::Limit { limit: "depth", actual: depth }) }
    }

    pub(super) fn check_bytes<F>(&self, bytes: usize) -> Outcome<(), F> {
        if bytes <= self.state_bytes { Ok(()) } else { Err(Fault::Limit { limit: "state_bytes", actual: bytes }) }
    }

    fn check_number<F>(&self, number: &Decimal) -> Outcome<(), F> {
        if decimal::is_longer(number, self.number_digits as u64) {
            return Err(self.too_long(decimal::printed_digits(number)));
        }
        Ok(())
    }

    /// What putting the value there would refuse, whatever the rest of the state.
    pub(super) fn check_value<F>(&self, target: &Pointer, value: &Value) -> Outcome<(), F> {
        self.check_depth(target.len() + value.depth())?;
        if let Value::Number(number) = value { self.check_number(number) } else { Ok(()) }
    }

    fn too_long<F>(&self, digits: u64) -> Fault<F> {
        Fault::Limit { limit: "number_digits", actual: usize::try_from(digits).unwrap_or(usize::MAX) }
    }
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

    /// How many bytes it takes, roughly: its value's [`Value::size`], kept from change to change.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn put<F>(&mut self, target: &Pointer, value: Value, limits: &Limits) -> Outcome<(), F> {
        limits.check_value(target, &value)?;
        let added = value.size();
        let place = place_for(&mut self.value, &mut self.bytes, target, || Value::Null)?;
        self.bytes = self.bytes - place.size() + added;
        *place = value;
        limits.check_bytes(self.bytes)
    }

    /// Adds to a number, or subtracts from it; it is 0 where there is none yet.
    pub(super) fn add<F>(
        &mut self,
        target: &Pointer,
        amount: &Decimal,
        is_subtracted: bool,
        limits: &Limits,
    ) -> Outcome<(), F> {
        limits.check_depth(target.len())?;
        let zero = || Value::Number(Decimal::from(0));
        match place_for(&mut self.value, &mut self.bytes, target, zero)? {
            Value::Number(number) => {
                let digits = decimal::digits_of_sum(number, amount);
                if digits > limits.number_digits as u64 {
                    return Err(limits.too_long(digits));
                }
                let before = decimal::size(number);
                decimal::add(number, amount, is_subtracted);
                limits.check_number(number)?;
                self.bytes = self.bytes - before + decimal::size(number);
                limits.check_bytes(self.bytes)
            }
            other => must_be("a number", target, other),
        }
    }

    /// Makes another number of the one that is there: an amount that is not there is not 0.
    pub(super) fn change<F>(
        &mut self,
        target: &Pointer,
        limits: &Limits,
        change: impl FnOnce(&Decimal) -> Decimal,
    ) -> Outcome<(), F> {
        match target.find_mut(&mut self.value) {
            Some(Value::Number(number)) => {
                let changed = change(number);
                limits.check_number(&changed)?;
                self.bytes = self.bytes - decimal::size(number) + decimal::size(&changed);
                *number = changed;
                limits.check_bytes(self.bytes)
            }
            Some(other) => must_be("a number", target, other),
            None => fault(format!("state {} is missing", shown(target))),
        }
    }

    /// Puts members into an object; it is made where there is none yet.
    pub(super) fn merge<F>(&mut self, target: &Pointer, members: Object, limits: &Limits) -> Outcome<(), F> {
        limits.check_depth(target.len() + 1 + members.values().map(Value::depth).max().unwrap_or(0))?;
        match place_for(&mut self.value, &mut self.bytes, target, || Value::Object(Object::new()))? {
            Value::Object(into) => {
                for (key, value) in members {
                    let key_bytes = key.len();
                    self.bytes += key_bytes + value.size();
                    if let Some(before) = into.insert(key, value) {
                        self.bytes -= key_bytes + before.size();
                    }
                }
                limits.check_bytes(self.bytes)
            }
            other => must_be("an object", target, other),
        }
    }

    /// Puts a value behind the last element of an array; it is made where there is none yet.
    pub(super) fn append<F>(&mut self, target: &Pointer, value: Value, limits: &Limits) -> Outcome<(), F> {
        limits.check_depth(target.len() + 1 + value.depth())?;
        match place_for(&mut self.value, &mut self.bytes, target, || Value::Array(Vec::new()))? {
            Value::Array(elements) => {
                self.bytes += value.size();
                elements.push(value);
                limits.check_bytes(self.bytes)
            }
            other => must_be("an array", target, other),
        }
    }

    /// Takes a member or an element out, if it is there.
    pub(super) fn remove<F>(&mut self, target: &Pointer) -> Outcome<(), F> {
        let Some((parents, last)) = target.split() else {
            return fault("the whole state cannot be removed");
        };
        let mut place = &mut self.value;
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
            Value::Object(members) => {
                if let Some(removed) = members.remove(last.as_str()) {
                    self.bytes -= last.as_str().len() + removed.size();
                }
            }
            Value::Array(elements) => {
                if last.is_end() {
                    return fault(format!("{target} is behind the last element: there is nothing to remove"));
                }
                if let Some(index) = last.index().filter(|&index| index < elements.len()) {
                    self.bytes -= elements.remove(index).size();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A pointer in a message.
pub(super) fn shown(pointer: &Pointer) -> String {
    if pointer.len() == 0 { "\"\"".into() } else { pointer.to_string() }
}

fn must_be<T, F>(what: &str, target: &Pointer, found: &Value) -> Outcome<T, F> {
    fault(format!("state {} must be {what}, and is {}", shown(target), found.described()))
}

/// The place that a pointer names in the state, made where it is missing. A parent that is missing becomes an object, or an array
/// where the next step is `-`.
fn place_for<'a, F>(
    state: &'a mut Value,
    bytes: &mut usize,
    target: &Pointer,
    make: impl Fn() -> Value,
) -> Outcome<&'a mut Value, F> {
    let mut place = state;
    let mut tokens = target.tokens().peekable();
    while let Some(token) = tokens.next() {
        let next = tokens.peek();
        let fresh = || match next {
            None => make(),
            Some(next) if next.is_end() => Value::Array(Vec::new()),
            Some(_) => Value::Object(Object::new()),
        };
        place = match place {
            Value::Object(members) => {
                if !members.contains_key(token.as_str()) {
                    let value = fresh();
                    *bytes += token.as_str().len() + value.size();
                    members.insert(token.as_str().to_owned(), value);
                }
                match members.get_mut(token.as_str()) {
                    Some(member) => member,
                    None => return fault("a member cannot be made"),
                }
            }
            Value::Array(elements) => element_for(elements, bytes, token, target, fresh)?,
            other => {
                return fault(format!(
                    "state {} cannot be reached: there is {} in its way",
                    shown(target),
                    other.described()
                ));
            }
        };
    }
    Ok(place)
}

fn element_for<'a, F>(
    elements: &'a mut Vec<Value>,
    bytes: &mut usize,
    token: &Token,
    target: &Pointer,
    fresh: impl Fn() -> Value,
) -> Outcome<&'a mut Value, F> {
    let count = elements.len();
    if token.is_end() {
        let value = fresh();
        *bytes += value.size();
        elements.push(value);
    }
    let index = if token.is_end() { Some(count) } else { token.index() };
    match index.and_then(|index| elements.get_mut(index)) {
        Some(element) => Ok(element),
        None => fault(format!("state {} cannot be reached: the array has {count} elements", shown(target))),
    }
}
