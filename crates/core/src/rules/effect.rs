//! What events do to one place of the state, whatever it holds: effects, of which two in a row are often one.
//!
//! Exact like the operations: a sum of sums has the scale that adding one after the other gives, since a decimal's scale is that of what
//! it was made of.
use super::Operation;
use super::read::compare;
use super::state::Limits;
use crate::decimal;
use crate::json::{Decimal, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Only folding the events one after the other tells what comes of them: most likely an error.
#[derive(Debug)]
pub(super) struct Unsure;

pub(super) type Sure<T> = Result<T, Unsure>;

/// What a place holds; None: nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub value: Option<Rc<Value>>,
    /// Something was put there once, so that its parents are there.
    pub is_made: bool,
}

impl Held {
    /// Whether nobody can tell them apart: 1.0 is not 1.00.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_made == other.is_made
            && match (&self.value, &other.value) {
                (Some(a), Some(b)) => Rc::ptr_eq(a, b) || is_same(a, b),
                (None, None) => true,
                _ => false,
            }
    }
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_bigint_and_scale() == b.as_bigint_and_scale(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other, b))| key == other && is_same(a, b))
        }
        (a, b) => a == b,
    }
}

/// Kinds of values, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    const MISSING: u8 = 1;
    const NUMBER: u8 = 2;
    const TEXT: u8 = 4;
    const ARRAY: u8 = 8;
    const OBJECT: u8 = 16;
    const OTHER: u8 = 32;
    const ANY: Self = Self(63);
    const NONE: Self = Self(0);

    fn of(value: Option<&Value>) -> Self {
        Self(match value {
            None => Self::MISSING,
            Some(Value::Number(_)) => Self::NUMBER,
            Some(Value::Text(_)) => Self::TEXT,
            Some(Value::Array(_)) => Self::ARRAY,
            Some(Value::Object(_)) => Self::OBJECT,
            Some(Value::Null | Value::Bool(_)) => Self::OTHER,
        })
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What one or several events in a row do to a place.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    /// What it can be done to; else the fold fails.
    accepts: Kinds,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Nothing,
    /// Whatever was there, this is there now. `makes`: something was put there.
    Put {
        value: Option<Rc<Value>>,
        makes: bool,
    },
    /// Times a factor, plus an amount; what is missing counts as 0.
    Number {
        factor: Option<Rc<Decimal>>,
        amount: Option<Rc<Decimal>>,
    },
    Append(Rc<Vec<Rc<Value>>>),
    Merge(Rc<BTreeMap<String, Rc<Value>>>),
    Least(Rc<Value>),
    Greatest(Rc<Value>),
}

impl Effect {
    pub(super) const NOTHING: Self = Self { accepts: Kinds::ANY, change: Change::Nothing };

    /// Of a place that is known to hold something.
    pub(super) fn holding(held: &Held) -> Self {
        Self::put(held.value.clone(), held.is_made)
    }

    /// What the place holds then, if that does not depend on what it held.
    pub(super) fn held(&self) -> Option<Held> {
        match &self.change {
            Change::Put { value, makes } => Some(Held { value: value.clone(), is_made: *makes }),
            _ => None,
        }
    }

    pub(super) fn put(value: Option<Rc<Value>>, makes: bool) -> Self {
        Self { accepts: Kinds::ANY, change: Change::Put { value, makes } }
    }

    /// Whether it fails, whatever is there.
    pub(super) fn fails(&self) -> bool {
        self.accepts == Kinds::NONE
    }

    /// Whether `next` after this one is just `next`.
    pub(super) fn is_hidden_by(&self, next: &Self) -> bool {
        let accepts_all = self.accepts == Kinds::ANY && next.accepts == Kinds::ANY;
        accepts_all && matches!(next.change, Change::Put { makes: true, .. })
    }

    /// Of an operation with its value.
    pub(super) fn of(operation: Operation, value: Rc<Value>) -> Sure<Self> {
        let or_missing = |kind| Kinds(kind | Kinds::MISSING);
        let number = |is_subtracted: bool| match value.as_ref() {
            Value::Number(number) if is_subtracted => {
                let mut negated = Decimal::from(0);
                decimal::add(&mut negated, number, true);
                Ok(Rc::new(negated))
            }
            Value::Number(number) => Ok(Rc::new(number.clone())),
            _ => Err(Unsure),
        };
        let (accepts, change) = match operation {
            Operation::Set => return Ok(Self::put(Some(value), true)),
            Operation::Add | Operation::Subtract => (
                or_missing(Kinds::NUMBER),
                Change::Number { factor: None, amount: Some(number(operation == Operation::Subtract)?) },
            ),
            Operation::Multiply => {
                (Kinds(Kinds::NUMBER), Change::Number { factor: Some(number(false)?), amount: None })
            }
            Operation::Append => (or_missing(Kinds::ARRAY), Change::Append(Rc::new(vec![value]))),
            Operation::Merge => match value.as_ref() {
                Value::Object(members) => {
                    let members = members.iter().map(|(key, value)| (key.clone(), Rc::new(value.clone()))).collect();
                    (or_missing(Kinds::OBJECT), Change::Merge(Rc::new(members)))
                }
                _ => return Err(Unsure),
            },
            Operation::Min | Operation::Max => {
                let kind = Kinds::of(Some(&value));
                if !Kinds(Kinds::NUMBER | Kinds::TEXT).has(kind) {
                    return Err(Unsure);
                }
                let change = if operation == Operation::Min { Change::Least(value) } else { Change::Greatest(value) };
                (or_missing(kind.0), change)
            }
        };
        Ok(Self { accepts, change })
    }

    /// The kind that it leaves; None: that of what was there.
    fn leaves(&self) -> Option<Kinds> {
        Some(match &self.change {
            Change::Nothing => return None,
            Change::Put { value, .. } => Kinds::of(value.as_deref()),
            Change::Number { .. } => Kinds(Kinds::NUMBER),
            Change::Append(_) => Kinds(Kinds::ARRAY),
            Change::Merge(_) => Kinds(Kinds::OBJECT),
            Change::Least(value) | Change::Greatest(value) => Kinds::of(Some(value)),
        })
    }

    /// What the place holds after it.
    pub(super) fn of_held(&self, before: &Held, limits: &Limits) -> Sure<Held> {
        if !self.accepts.has(Kinds::of(before.value.as_deref())) {
            return Err(Unsure);
        }
        let value = match (&self.change, &before.value) {
            (Change::Nothing, _) => return Ok(before.clone()),
            (Change::Put { value, makes }, _) => {
                return Ok(Held { value: value.clone(), is_made: before.is_made || *makes });
            }
            (Change::Number { factor, amount }, value) => {
                let zero = Decimal::from(0);
                let number = match value.as_deref() {
                    Some(Value::Number(number)) => number,
                    Some(_) => return Err(Unsure),
                    None => &zero,
                };
                Rc::new(Value::Number(counted(number, factor.as_deref(), amount.as_deref(), limits).ok_or(Unsure)?))
            }
            (Change::Append(values), before) => {
                let mut elements = match before.as_deref() {
                    Some(Value::Array(elements)) => elements.clone(),
                    Some(_) => return Err(Unsure),
                    None => Vec::with_capacity(values.len()),
                };
                elements.extend(values.iter().map(|value| value.as_ref().clone()));
                Rc::new(Value::Array(elements))
            }
            (Change::Merge(values), before) => {
                let mut members = match before.as_deref() {
                    Some(Value::Object(members)) => members.clone(),
                    Some(_) => return Err(Unsure),
                    None => BTreeMap::new(),
                };
                members.extend(values.iter().map(|(key, value)| (key.clone(), value.as_ref().clone())));
                Rc::new(Value::Object(members))
            }
            (Change::Least(value) | Change::Greatest(value), None) => Rc::clone(value),
            (Change::Least(value), Some(before)) => earlier_unless(before, value, Ordering::Less)?,
            (Change::Greatest(value), Some(before)) => earlier_unless(before, value, Ordering::Greater)?,
        };
        Ok(Held { value: Some(value), is_made: true })
    }

    /// Both, the one after the other; None where that is no one effect.
    pub(super) fn then(&self, next: &Self, limits: &Limits) -> Option<Self> {
        let Some(kind) = self.leaves() else { return Some(next.clone()) };
        if matches!(next.change, Change::Nothing) {
            return Some(self.clone());
        }
        // What fails whatever was there stays an effect: of everything that is made of it, too.
        let accepts = if next.accepts.has(kind) { self.accepts } else { Kinds::NONE };
        if accepts == Kinds::NONE {
            return Some(Self { accepts, change: next.change.clone() });
        }
        let change = match (&self.change, &next.change) {
            (change, Change::Put { value, makes }) => {
                Change::Put { value: value.clone(), makes: *makes || change.makes() }
            }
            (Change::Put { value, makes }, _) => {
                let before = Held { value: value.clone(), is_made: *makes };
                let after = next.of_held(&before, limits).ok()?;
                Change::Put { value: after.value, makes: after.is_made }
            }
            (Change::Number { factor, amount }, Change::Number { factor: next_factor, amount: next_amount }) => {
                let product = match (factor, next_factor) {
                    (Some(a), Some(b)) => Some(Rc::new(short(decimal::product(a, b), limits)?)),
                    (one, other) => one.as_ref().or(other.as_ref()).cloned(),
                };
                let sum = match amount {
                    None => next_amount.clone(),
                    Some(amount) if next_factor.is_none() && next_amount.is_none() => Some(Rc::clone(amount)),
                    Some(amount) => {
                        Some(Rc::new(counted(amount, next_factor.as_deref(), next_amount.as_deref(), limits)?))
                    }
                };
                Change::Number { factor: product, amount: sum }
            }
            (Change::Append(values), Change::Append(more)) => {
                Change::Append(Rc::new(values.iter().chain(more.iter()).cloned().collect()))
            }
            (Change::Merge(members), Change::Merge(more)) => {
                let mut members = members.as_ref().clone();
                members.extend(more.iter().map(|(key, value)| (key.clone(), Rc::clone(value))));
                Change::Merge(Rc::new(members))
            }
            (Change::Least(a), Change::Least(b)) => Change::Least(earlier_unless(a, b, Ordering::Less).ok()?),
            (Change::Greatest(a), Change::Greatest(b)) => {
                Change::Greatest(earlier_unless(a, b, Ordering::Greater).ok()?)
            }
            _ => return None,
        };
        Some(Self { accepts, change })
    }

    /// Roughly the bytes that its part of a document takes in each effect that is made of it.
    pub(super) fn spread(&self) -> usize {
        match &self.change {
            Change::Append(values) => 16 * values.len(),
            Change::Merge(members) => members.keys().map(|key| 64 + key.len()).sum(),
            _ => 0,
        }
    }

    /// Roughly the bytes that it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + match &self.change {
                Change::Nothing => 0,
                Change::Put { value, .. } => value.as_ref().map_or(0, |value| value.size()),
                Change::Number { factor, amount } => {
                    [factor, amount].into_iter().flatten().map(|number| 64 + decimal::size(number)).sum()
                }
                Change::Append(values) => values.iter().map(|value| 64 + value.size()).sum(),
                Change::Merge(members) => members.iter().map(|(key, value)| 64 + key.len() + value.size()).sum(),
                Change::Least(value) | Change::Greatest(value) => 16 + value.size(),
            }
    }
}

impl Change {
    fn makes(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Put { makes, .. } => *makes,
            _ => true,
        }
    }
}

/// The number, if it may be so long.
fn short(number: Decimal, limits: &Limits) -> Option<Decimal> {
    (!decimal::is_longer(&number, limits.number_digits as u64)).then_some(number)
}

/// `number * factor + amount`; None where that is too long, or too much work because of numbers far apart.
fn counted(number: &Decimal, factor: Option<&Decimal>, amount: Option<&Decimal>, limits: &Limits) -> Option<Decimal> {
    let mut number = match factor {
        Some(factor) => short(decimal::product(number, factor), limits)?,
        None => number.clone(),
    };
    if let Some(amount) = amount {
        if decimal::digits_of_sum(&number, amount) > limits.number_digits as u64 {
            return None;
        }
        decimal::add(&mut number, amount, false);
    }
    short(number, limits)
}

/// Of two equal values the earlier one stays, as min and max say.
fn earlier_unless(earlier: &Rc<Value>, later: &Rc<Value>, order: Ordering) -> Sure<Rc<Value>> {
    match compare(later, earlier) {
        Some(found) => Ok(Rc::clone(if found == order { later } else { earlier })),
        None => Err(Unsure),
    }
}
