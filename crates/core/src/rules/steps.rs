//! What one event does to places that have to do with each other: its rules with what they need of it, made on what the places are known
//! to hold. Where that is nothing yet, what they do is an effect of its own, or it depends on what is there.
use super::definition::{Action, Operation, Rule, one};
use super::effect::{Effect, Held, Sure, Unsure};
use super::state::{Fault, Limits};
use crate::decimal;
use crate::decimal::Decimal;
use crate::json::Value;
use std::borrow::Cow;
use std::rc::Rc;

/// A rule with what it needs of its event, as far as it concerns one component.
#[derive(Debug)]
pub(super) struct Step<'r> {
    pub rule: &'r Rule,
    /// Which of the rule's, and their places within the component.
    pub targets: Vec<(usize, usize)>,
    pub operands: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Known(Option<Rc<Value>>),
    /// A place within the component.
    Cell(usize, Option<Rc<Value>>),
    /// It could not be read.
    Broken,
}

/// Why a step was not made.
pub(super) enum Stop {
    /// It depends on what a place holds.
    Depends,
    Unsure,
}

impl From<Unsure> for Stop {
    fn from(_: Unsure) -> Self {
        Self::Unsure
    }
}

impl Step<'_> {
    /// Roughly the bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let size = |operand: &Operand| match operand {
            Operand::Known(Some(value)) => 16 + value.size(),
            _ => 16,
        };
        128 + self.operands.iter().map(size).sum::<usize>()
    }
}

/// What the steps of an event have done so far.
pub(super) struct Frame<'a> {
    pub effects: Vec<(usize, Effect)>,
    /// Steps of the places' pointers.
    pub depths: &'a [usize],
    pub limits: &'a Limits,
}

impl Frame<'_> {
    /// Makes a step. Whatever it stops at, what was done so far is of no use.
    pub(super) fn make(&mut self, step: &Step) -> Result<(), Stop> {
        let mut operands = step.operands.iter();
        for guard in &step.rule.when {
            let mut mine = operands.by_ref().take(1 + guard.tests.len());
            let mut stop = None;
            let holds = guard.holds_of(|_| {
                let read = mine.next().ok_or(Stop::Unsure).and_then(|operand| self.read(operand));
                read.map(|value| value.map(|value| Cow::Owned(value.as_ref().clone()))).map_err(|why| {
                    stop = Some(why);
                    Fault::<()>::Reason(String::new())
                })
            });
            mine.by_ref().for_each(drop);
            match (holds, stop) {
                (_, Some(stop)) => return Err(stop),
                (Ok(true), None) => {}
                (Ok(false), None) => return Ok(()),
                (Err(_), None) => return Err(Stop::Unsure),
            }
        }
        // All is read before the first target changes.
        let values = operands.map(|operand| self.read(operand)?.ok_or(Stop::Unsure)).collect::<Result<Vec<_>, _>>();
        for &(place, cell) in &step.targets {
            let value = || match &values {
                Ok(values) => values.get(place).cloned().ok_or(Stop::Unsure),
                Err(Stop::Depends) => Err(Stop::Depends),
                Err(Stop::Unsure) => Err(Stop::Unsure),
            };
            let effect = match &step.rule.action {
                Action::Each(operation, _) => {
                    let value = value()?;
                    self.check(*operation, cell, &value)?;
                    Effect::of(*operation, value)?
                }
                Action::Increment(_) => Effect::of(Operation::Add, Rc::new(Value::Number(one())))?,
                Action::Remove(_) if self.depths[cell] == 0 => return Err(Stop::Unsure),
                Action::Remove(_) => Effect::put(None, false),
                Action::Divide(divisions) => {
                    let Value::Number(divisor) = value()?.as_ref().clone() else { return Err(Stop::Unsure) };
                    if decimal::is_zero(&divisor) {
                        return Err(Stop::Unsure);
                    }
                    let rounding = divisions.get(place).ok_or(Stop::Unsure)?.2;
                    self.counted(cell, |number| decimal::divided(number, &divisor, rounding))?
                }
                Action::Round(targets) => {
                    let rounding = targets.get(place).ok_or(Stop::Unsure)?.1;
                    self.counted(cell, |number| decimal::rounded(number, rounding))?
                }
            };
            self.then(cell, &effect)?;
        }
        Ok(())
    }

    fn effect(&self, cell: usize) -> &Effect {
        self.effects.iter().find(|(at, _)| *at == cell).map_or(&Effect::NOTHING, |(_, effect)| effect)
    }

    /// What a place is known to hold by now.
    fn held(&self, cell: usize) -> Result<Held, Stop> {
        self.effect(cell).held().ok_or(Stop::Depends)
    }

    fn read(&self, operand: &Operand) -> Result<Option<Rc<Value>>, Stop> {
        match operand {
            Operand::Known(value) => Ok(value.clone()),
            Operand::Cell(cell, default) => Ok(self.held(*cell)?.value.or_else(|| default.clone())),
            Operand::Broken => Err(Stop::Unsure),
        }
    }

    /// Another number for the one that is there.
    fn counted(&self, cell: usize, count: impl FnOnce(&Decimal) -> Decimal) -> Result<Effect, Stop> {
        match self.held(cell)?.value.as_deref() {
            Some(Value::Number(number)) => Ok(Effect::put(Some(Rc::new(Value::Number(count(number)))), true)),
            _ => Err(Stop::Unsure),
        }
    }

    /// What the operation would refuse, whatever is there.
    fn check(&self, operation: Operation, cell: usize, value: &Value) -> Sure<()> {
        let below = usize::from(operation == Operation::Append);
        let is_short = |value: &Value| match value {
            Value::Number(number) => !decimal::is_longer(number, self.limits.number_digits as u64),
            _ => true,
        };
        let is_shallow = self.depths[cell] + below + value.depth() <= self.limits.depth;
        if is_shallow && is_short(value) { Ok(()) } else { Err(Unsure) }
    }

    fn then(&mut self, cell: usize, next: &Effect) -> Result<(), Stop> {
        let effect = self.effect(cell).then(next, self.limits).ok_or(Stop::Depends)?;
        let is_long = |value: &Value| matches!(value, Value::Number(number) if decimal::is_longer(number, self.limits.number_digits as u64));
        let is_refused = effect.held().and_then(|held| held.value).is_some_and(|value| is_long(&value));
        if effect.fails() || is_refused {
            return Err(Stop::Unsure);
        }
        match self.effects.iter_mut().find(|(at, _)| *at == cell) {
            Some((_, before)) => *before = effect,
            None => self.effects.push((cell, effect)),
        }
        Ok(())
    }
}
