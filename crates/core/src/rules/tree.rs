//! Events in their order, and what all of a part of them do together: a search tree that finds what holds after the last one in as many steps as it
//! is high, wherever an event was put in (see [`super::inserted`]).
use super::effect::{Effect, Held, Sure, Unsure};
use super::state::Limits;
use super::steps::{Frame, Step};
use super::unordered::Rank;
use std::rc::Rc;

/// Events by their places.
#[derive(Debug, Default)]
pub(super) struct Tree<'r> {
    nodes: Vec<Node<'r>>,
    root: Option<u32>,
}

#[derive(Debug)]
struct Node<'r> {
    at: Rank,
    /// Not below that of its children: the tree is as high as one that grew in a random order.
    priority: u64,
    left: Option<u32>,
    right: Option<u32>,
    own: Own<'r>,
    whole: Whole,
}

/// What places hold, in the order of their component.
pub(super) type Cells = Rc<Vec<Held>>;
/// By the places within their component, in order.
pub(super) type Effects = Rc<Vec<(usize, Effect)>>;

/// What an event does.
#[derive(Debug)]
pub(super) enum Own<'r> {
    Effects(Effects),
    Steps(Vec<Step<'r>>),
}

/// What all events of a part of the tree do, in order.
#[derive(Debug)]
enum Whole {
    /// Nobody has asked since an event was put in: a document that grows is not put together anew for each one.
    Unknown,
    Effects(Effects),
    /// That depends; for what the places held last, it is known what they held after it.
    Folded(Option<(Cells, Cells)>),
}

pub(super) fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Own<'_> {
    /// Roughly the bytes that it takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Effects(effects) => effects.iter().map(|(_, effect)| 2 * effect.size()).sum(),
            Self::Steps(steps) => steps.iter().map(Step::size).sum(),
        }
    }
}

impl<'r> Tree<'r> {
    /// The root is the event of the highest priority.
    pub fn insert(&mut self, at: Rank, priority: u64, own: Own<'r>) {
        let new = index(self.nodes.len());
        self.nodes.push(Node { at, priority, left: None, right: None, own, whole: Whole::Unknown });
        self.root = Some(self.inserted(self.root, new));
    }

    fn inserted(&mut self, into: Option<u32>, new: u32) -> u32 {
        let (at, priority) = (self.nodes[new as usize].at, self.nodes[new as usize].priority);
        let top = match into {
            Some(root) if self.nodes[root as usize].priority >= priority => {
                if at < self.nodes[root as usize].at {
                    let left = self.inserted(self.nodes[root as usize].left, new);
                    self.nodes[root as usize].left = Some(left);
                } else {
                    let right = self.inserted(self.nodes[root as usize].right, new);
                    self.nodes[root as usize].right = Some(right);
                }
                root
            }
            part => {
                let (left, right) = self.parted(part, at);
                self.nodes[new as usize].left = left;
                self.nodes[new as usize].right = right;
                new
            }
        };
        self.nodes[top as usize].whole = Whole::Unknown;
        top
    }

    /// What lies before a place, and what lies behind it.
    fn parted(&mut self, part: Option<u32>, at: Rank) -> (Option<u32>, Option<u32>) {
        let Some(root) = part else { return (None, None) };
        self.nodes[root as usize].whole = Whole::Unknown;
        if self.nodes[root as usize].at < at {
            let (before, behind) = self.parted(self.nodes[root as usize].right, at);
            self.nodes[root as usize].right = before;
            (Some(root), behind)
        } else {
            let (before, behind) = self.parted(self.nodes[root as usize].left, at);
            self.nodes[root as usize].left = behind;
            (before, Some(root))
        }
    }

    /// Whatever is unknown of a part of the tree lies below what is unknown.
    fn sum_up(&mut self, part: Option<u32>, limits: &Limits) {
        let Some(number) = part else { return };
        let node = &self.nodes[number as usize];
        if !matches!(node.whole, Whole::Unknown) {
            return;
        }
        let (left, right) = (node.left, node.right);
        self.sum_up(left, limits);
        self.sum_up(right, limits);
        let node = &self.nodes[number as usize];
        let side = |side: Option<u32>| match side.map(|side| &self.nodes[side as usize].whole) {
            None => Some(None),
            Some(Whole::Effects(effects)) => Some(Some(effects)),
            Some(_) => None,
        };
        let whole = match (side(node.left), &node.own, side(node.right)) {
            (Some(left), Own::Effects(own), Some(right)) => both(left, own, limits).and_then(|before| {
                right.map_or_else(|| Some(Rc::clone(&before)), |right| both(Some(&before), right, limits))
            }),
            _ => None,
        };
        self.nodes[number as usize].whole = whole.map_or(Whole::Folded(None), Whole::Effects);
    }

    /// What its places hold after all events: `before` before the first one. `depths`: the steps of their pointers.
    pub fn held(&mut self, before: &Cells, depths: &[usize], limits: &Limits) -> Sure<Cells> {
        self.sum_up(self.root, limits);
        self.after(self.root, before, depths, limits)
    }

    fn after(&mut self, part: Option<u32>, before: &Cells, depths: &[usize], limits: &Limits) -> Sure<Cells> {
        let Some(number) = part else { return Ok(Rc::clone(before)) };
        let node = &self.nodes[number as usize];
        match &node.whole {
            Whole::Effects(effects) => return changed(before, effects, limits),
            Whole::Folded(Some((known, after)))
                if known.len() == before.len() && known.iter().zip(before.iter()).all(|(a, b)| a.is_same(b)) =>
            {
                return Ok(Rc::clone(after));
            }
            Whole::Unknown | Whole::Folded(_) => {}
        }
        let (left, right) = (node.left, node.right);
        let held = self.after(left, before, depths, limits)?;
        let held = match &self.nodes[number as usize].own {
            Own::Effects(effects) => changed(&held, effects, limits)?,
            Own::Steps(steps) => {
                let effects = held.iter().map(Effect::holding).enumerate().collect();
                let mut frame = Frame { effects, depths, limits };
                steps.iter().try_for_each(|step| frame.make(step)).map_err(|_| Unsure)?;
                Rc::new(frame.effects.iter().map(|(_, effect)| effect.held().ok_or(Unsure)).collect::<Sure<_>>()?)
            }
        };
        let after = self.after(right, &held, depths, limits)?;
        self.nodes[number as usize].whole = Whole::Folded(Some((Rc::clone(before), Rc::clone(&after))));
        Ok(after)
    }
}

/// The one after the other; None where that is no effect.
fn both(first: Option<&Effects>, next: &Effects, limits: &Limits) -> Option<Effects> {
    let Some(first) = first else { return Some(Rc::clone(next)) };
    let is_hidden = |((cell, effect), (other, next)): (&(usize, Effect), &(usize, Effect))| {
        cell == other && effect.is_hidden_by(next)
    };
    if first.len() == next.len() && first.iter().zip(next.iter()).all(is_hidden) {
        return Some(Rc::clone(next));
    }
    let (mut first, mut next) = (first.iter().peekable(), next.iter().peekable());
    let mut effects = Vec::with_capacity(first.len().max(next.len()));
    loop {
        let order = match (first.peek(), next.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return Some(Rc::new(effects)),
        };
        if order.is_lt() {
            effects.extend(first.next().cloned());
        } else if order.is_gt() {
            effects.extend(next.next().cloned());
        } else if let (Some((cell, effect)), Some((_, then))) = (first.next(), next.next()) {
            effects.push((*cell, effect.then(then, limits)?));
        }
    }
}

fn changed(before: &Cells, effects: &Effects, limits: &Limits) -> Sure<Cells> {
    let mut held = before.as_ref().clone();
    for (cell, effect) in effects.iter() {
        let after = effect.of_held(held.get(*cell).ok_or(Unsure)?, limits)?;
        held[*cell] = after;
    }
    Ok(Rc::new(held))
}
