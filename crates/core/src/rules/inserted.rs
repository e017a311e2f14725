//! Events that are folded in one order and come in another: each is put into its place among those that came before it, and the
//! state is that of folding all of them in order. What an event does to a place of the state is an effect, and effects in a row are one (see
//! [`super::effect`]): a search tree keeps the events in order, each node with what all events below it do, so that an event
//! that comes costs as much as the tree is high, for each place that it changes.
//!
//! ```text
//! places that have to do with each other:   one tree        node = what its left side does, then its event, then its right side
//!   an effect for each place where that is known without the state (set, add, multiply, append …)
//!   else (a guard on the state, a quotient, a rounded sum) the event itself, which is folded anew where the state before it has changed
//! ```
//!
//! Promise: the state that [`Rules::apply`] makes of the same events in order, to the last digit, or none where only that can tell. But
//! for the limits: they are held against what an event puts there and against the state, not against every state in between.
use super::definition::{EventSource, Rules, Source};
use super::effect::{Held, Sure, Unsure};
use super::layout::{Layout, Placed};
use super::pointer::Pointer;
use super::read::resolved;
use super::state::{Fault, Limits, Outcome, State};
use super::steps::{Frame, Operand, Step};
use super::tree::{Cells, Own, Tree, index};
use super::unordered::Rank;
use crate::json::Value;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

/// Events in the order of the fold, whatever order they come in, and their state.
#[derive(Debug)]
pub struct Inserted<'r> {
    rules: &'r Rules,
    layout: Layout<'r>,
    limits: Limits,
    initial: State,
    cells: Vec<Cell>,
    cell_at: HashMap<String, u32>,
    components: Vec<Component<'r>>,
    /// The component of each group that is not split.
    component_of: HashMap<usize, u32>,
    /// Those with events that the state does not hold yet.
    stale: Vec<u32>,
    state: State,
    /// The state has to be made anew of what the places hold.
    is_broken: bool,
    /// Only a fold of all events can tell from now on.
    is_unsure: bool,
    hasher: RandomState,
    bytes: usize,
    events: usize,
    /// Of what all events do to documents that grow.
    spread: usize,
}

/// A place that rules change.
#[derive(Debug)]
struct Cell {
    pointer: Pointer,
    initial: Held,
    /// As the state holds it.
    now: Held,
    component: u32,
    /// Among those of its component.
    at: usize,
}

/// Places, and the events that change them.
#[derive(Debug, Default)]
struct Component<'r> {
    cells: Vec<u32>,
    tree: Tree<'r>,
    is_stale: bool,
}

/// Bytes of a node and of a place, roughly, beside their values.
const NODE_BYTES: usize = 320;

impl<'r> Inserted<'r> {
    /// None where places that the rules change or read may lie within each other: events must be folded one after the other then.
    #[must_use]
    pub fn new(rules: &'r Rules, initial: &Value, limits: Limits) -> Option<Self> {
        Some(Self {
            rules,
            layout: Layout::of(rules)?,
            limits,
            initial: State::new(initial.clone()),
            cells: Vec::new(),
            cell_at: HashMap::new(),
            components: Vec::new(),
            component_of: HashMap::new(),
            stale: Vec::new(),
            state: State::new(initial.clone()),
            is_broken: false,
            is_unsure: false,
            hasher: RandomState::new(),
            bytes: initial.size(),
            events: 0,
            spread: 0,
        })
    }

    /// Roughly the bytes that it takes as soon as the state is asked for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.room()
    }

    /// Roughly the bytes that may be taken when the state is asked for: what grows is held once for each level of its tree.
    #[must_use]
    pub fn room(&self) -> usize {
        self.spread * 2 * (self.events + 1).ilog2() as usize
    }

    /// Puts an event into its place, which no other has.
    ///
    /// # Errors
    /// An event that cannot be read.
    pub fn insert<S: EventSource>(&mut self, at: Rank, event: &S) -> Result<(), S::Failure> {
        event.checkpoint()?;
        self.events += 1;
        let mut steps: Vec<(u32, Step<'r>)> = Vec::new();
        let on = std::mem::take(&mut self.layout.on);
        let compiled = match on.get(event.event_type()) {
            Some(rules) => rules.iter().try_for_each(|rule| self.compile(rule, event, &mut steps)),
            None => {
                self.is_unsure |= self.rules.refuses_others;
                Ok(())
            }
        };
        self.layout.on = on;
        compiled?;
        while let Some(&(component, _)) = steps.first() {
            let (here, rest): (Vec<_>, Vec<_>) = steps.into_iter().partition(|(of, _)| *of == component);
            steps = rest;
            self.put(component, at, here.into_iter().map(|(_, step)| step).collect());
        }
        Ok(())
    }

    /// The state of the events so far. None: it takes a fold of them to know, most likely because that fails.
    pub fn state(&mut self) -> Option<&State> {
        if self.is_unsure {
            return None;
        }
        while let Some(&number) = self.stale.last() {
            let held = self.components[number as usize].held(&self.cells, &self.limits).ok()?;
            self.stale.pop();
            self.components[number as usize].is_stale = false;
            for (cell, held) in self.components[number as usize].cells.iter().zip(held.iter()) {
                let cell = &mut self.cells[*cell as usize];
                let before = std::mem::replace(&mut cell.now, held.clone());
                let is_unmade = before.is_made && !held.is_made;
                self.is_broken |=
                    is_unmade || (!self.is_broken && cell.put(&before, &mut self.state, &self.limits).is_err());
            }
        }
        if self.is_broken {
            self.state = State::new(self.initial.value().clone());
            for cell in &self.cells {
                cell.put(&cell.initial, &mut self.state, &self.limits).ok()?;
            }
            self.is_broken = false;
        }
        Some(&self.state)
    }

    /// What a rule needs of its event, for each component that it concerns.
    fn compile<S: EventSource>(
        &mut self,
        placed: &Placed<'r>,
        event: &S,
        steps: &mut Vec<(u32, Step<'r>)>,
    ) -> Result<(), S::Failure> {
        let guards = placed.rule.when.iter().map(|guard| 1 + guard.tests.len()).sum();
        if placed.sources.iter().take(guards).all(|(_, group)| group.is_none()) {
            for guard in &placed.rule.when {
                match guard.holds(&self.initial, event) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(Fault::Source(failure)) => return Err(failure),
                    Err(_) => self.is_unsure = true,
                }
            }
        }
        let first = steps.len();
        for (place, &(path, group)) in placed.targets.iter().enumerate() {
            let cell = match resolved(path, event) {
                Ok(pointer) => self.cell(&pointer, group),
                Err(Fault::Source(failure)) => return Err(failure),
                Err(_) => {
                    // There is no such place, and most likely no state.
                    self.is_unsure = true;
                    return Ok(());
                }
            };
            let (component, at) = (self.cells[cell as usize].component, self.cells[cell as usize].at);
            match steps[first..].iter_mut().find(|(of, _)| *of == component) {
                Some((_, step)) => step.targets.push((place, at)),
                None => {
                    let step = Step { rule: placed.rule, targets: vec![(place, at)], operands: Vec::new() };
                    steps.push((component, step));
                }
            }
        }
        let mut operands = Vec::with_capacity(placed.sources.len());
        for &(source, group) in &placed.sources {
            operands.push(self.operand(source, group, event)?);
        }
        for (_, step) in &mut steps[first..] {
            step.operands.clone_from(&operands);
        }
        Ok(())
    }

    fn operand<S: EventSource>(
        &mut self,
        source: &Source,
        group: Option<usize>,
        event: &S,
    ) -> Result<Operand, S::Failure> {
        Ok(match (source, group) {
            (Source::Default(source, default), Some(_)) => match self.operand(source, group, event)? {
                Operand::Cell(cell, _) => Operand::Cell(cell, Some(Rc::new(default.clone()))),
                other => other,
            },
            (Source::State(path), Some(group)) => match resolved(path, event) {
                Ok(pointer) => {
                    let cell = self.cell(&pointer, group);
                    Operand::Cell(self.cells[cell as usize].at, None)
                }
                Err(Fault::Source(failure)) => return Err(failure),
                Err(_) => Operand::Broken,
            },
            // Nothing changes what it reads of the state, if it does.
            (source, _) => match source.read(&self.initial, event) {
                Ok(value) => Operand::Known(value.map(|value| Rc::new(value.into_owned()))),
                Err(Fault::Source(failure)) => return Err(failure),
                Err(_) => Operand::Broken,
            },
        })
    }

    fn cell(&mut self, pointer: &Pointer, group: usize) -> u32 {
        let name = pointer.to_string();
        if let Some(&cell) = self.cell_at.get(&name) {
            return cell;
        }
        let component = if self.layout.groups[group].is_split { None } else { self.component_of.get(&group).copied() };
        let component = component.unwrap_or_else(|| {
            let number = index(self.components.len());
            self.components.push(Component::default());
            if !self.layout.groups[group].is_split {
                self.component_of.insert(group, number);
            }
            number
        });
        if !is_reachable(self.initial.value(), pointer) {
            self.is_unsure = true;
        }
        let initial = Held { value: pointer.find(self.initial.value()).cloned().map(Rc::new), is_made: false };
        let cells = &mut self.components[component as usize].cells;
        let (number, at) = (index(self.cells.len()), cells.len());
        cells.push(number);
        self.bytes += NODE_BYTES + 2 * name.len();
        self.cells.push(Cell { pointer: pointer.clone(), now: initial.clone(), initial, component, at });
        self.cell_at.insert(name, number);
        number
    }

    fn put(&mut self, component: u32, at: Rank, steps: Vec<Step<'r>>) {
        let cells = &self.components[component as usize].cells;
        let depths: Vec<usize> = cells.iter().map(|cell| self.cells[*cell as usize].pointer.len()).collect();
        let mut frame = Frame { effects: Vec::new(), depths: &depths, limits: &self.limits };
        let own = match steps.iter().try_for_each(|step| frame.make(step)) {
            Ok(()) => {
                frame.effects.sort_by_key(|(cell, _)| *cell);
                Own::Effects(Rc::new(frame.effects))
            }
            // What fails may not come to be made.
            Err(_) => Own::Steps(steps),
        };
        if matches!(&own, Own::Effects(effects) if effects.is_empty()) {
            return;
        }
        self.bytes += NODE_BYTES + own.size();
        if let Own::Effects(effects) = &own {
            self.spread += effects.iter().map(|(_, effect)| effect.spread()).sum::<usize>();
        }
        let priority = self.hasher.hash_one(at);
        let component_of = &mut self.components[component as usize];
        component_of.tree.insert(at, priority, own);
        if !std::mem::replace(&mut component_of.is_stale, true) {
            self.stale.push(component);
        }
    }
}

/// Whether all on the way to a place are objects, or missing and will be.
fn is_reachable(state: &Value, pointer: &Pointer) -> bool {
    let mut parent = Some(state);
    for token in pointer.tokens() {
        parent = match parent {
            Some(Value::Object(members)) => members.get(token.as_str()),
            Some(_) => return false,
            None => None,
        };
    }
    true
}

impl Cell {
    /// Brings what it holds into the state, which has it as it was before.
    fn put(&self, before: &Held, state: &mut State, limits: &Limits) -> Sure<()> {
        let is_same = match (&self.now.value, &before.value) {
            (Some(now), Some(before)) => Rc::ptr_eq(now, before),
            (None, None) => self.now.is_made == before.is_made,
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        let value = self.now.value.as_deref();
        if value.is_some() || self.now.is_made && !before.is_made {
            sure(state.put(&self.pointer, value.cloned().unwrap_or(Value::Null), limits))?;
        }
        if value.is_none() { sure(state.remove(&self.pointer)) } else { Ok(()) }
    }
}

fn sure<T>(outcome: Outcome<T, ()>) -> Sure<T> {
    outcome.map_err(|_| Unsure)
}

impl Component<'_> {
    /// What its places hold after all events.
    fn held(&mut self, cells: &[Cell], limits: &Limits) -> Sure<Cells> {
        let before = Rc::new(self.cells.iter().map(|cell| cells[*cell as usize].initial.clone()).collect());
        let depths: Vec<usize> = self.cells.iter().map(|cell| cells[*cell as usize].pointer.len()).collect();
        self.tree.held(&before, &depths, limits)
    }
}
