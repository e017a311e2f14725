//! The places that rules change, and which of them have to do with each other: those that one rule reads to change another.
use super::definition::{Action, Rule, Rules, Source};
use super::pointer::Path;
use std::collections::HashMap;

/// The rules of each event type, with where their targets belong.
#[derive(Debug)]
pub(super) struct Layout<'r> {
    pub on: HashMap<&'r str, Vec<Placed<'r>>>,
    pub groups: Vec<Group>,
}

/// Paths that rules read and change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// No place of it is read to change another one.
    pub is_split: bool,
}

/// A rule, its targets, and what it reads, in the order in which it does.
#[derive(Debug)]
pub(super) struct Placed<'r> {
    pub rule: &'r Rule,
    /// With their groups.
    pub targets: Vec<(&'r Path, usize)>,
    /// With the group of a place of the state that rules change.
    pub sources: Vec<(&'r Source, Option<usize>)>,
}

impl<'r> Layout<'r> {
    /// None where places may lie within each other, or behind the last element of an array: what an operation changes is
    /// then not known before it is made.
    pub(super) fn of(rules: &'r Rules) -> Option<Self> {
        let mut paths: Vec<&Path> = Vec::new();
        for path in rules.on.values().flatten().flat_map(Rule::targets) {
            if path.has_end() {
                return None;
            }
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let mut group_of: Vec<usize> = (0..paths.len()).collect();
        for (at, path) in paths.iter().enumerate() {
            for (other_at, other) in paths.iter().enumerate().take(at) {
                if path.may_meet(other) {
                    if path.len() != other.len() {
                        return None;
                    }
                    unite(&mut group_of, at, other_at);
                }
            }
        }
        // What is read together with what is changed.
        let mut is_joined = vec![false; paths.len()];
        for rule in rules.on.values().flatten() {
            let targets: Vec<&Path> = rule.targets().collect();
            for read in rule.sources().into_iter().filter_map(Source::state_path) {
                if read.has_end() {
                    return None;
                }
                for (at, path) in paths.iter().enumerate().filter(|(_, path)| path.may_meet(read)) {
                    if path.len() != read.len() {
                        return None;
                    }
                    if targets.iter().any(|target| *target != read) {
                        is_joined[at] = true;
                    }
                    for target in paths.iter().enumerate().filter(|(_, path)| targets.contains(path)).map(|(at, _)| at)
                    {
                        unite(&mut group_of, at, target);
                    }
                }
            }
        }
        let mut groups = vec![Group { is_split: true }; paths.len()];
        for (at, is_joined) in is_joined.into_iter().enumerate() {
            if is_joined {
                groups[root(&group_of, at)].is_split = false;
            }
        }
        let group = |wanted: &Path| paths.iter().position(|path| path.may_meet(wanted)).map(|at| root(&group_of, at));
        let place = |rule: &'r Rule| Placed {
            rule,
            targets: rule.targets().filter_map(|path| Some((path, group(path)?))).collect(),
            sources: rule.sources().into_iter().map(|source| (source, source.state_path().and_then(group))).collect(),
        };
        let on = rules.on.iter().map(|(name, on)| (name.as_str(), on.iter().map(place).collect())).collect();
        Some(Self { on, groups })
    }
}

fn root(group_of: &[usize], mut at: usize) -> usize {
    while group_of[at] != at {
        at = group_of[at];
    }
    at
}

fn unite(group_of: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(group_of, a), root(group_of, b));
    group_of[a] = b;
}

impl Rule {
    fn targets(&self) -> impl Iterator<Item = &Path> {
        let (each, divided, rounded, plain): (&[_], &[_], &[_], &[_]) = match &self.action {
            Action::Each(_, assignments) => (assignments, &[], &[], &[]),
            Action::Divide(divisions) => (&[], divisions, &[], &[]),
            Action::Round(targets) => (&[], &[], targets, &[]),
            Action::Increment(targets) | Action::Remove(targets) => (&[], &[], &[], targets),
        };
        let each = each.iter().map(|(target, _)| target);
        let divided = divided.iter().map(|(target, _, _)| target);
        let rounded = rounded.iter().map(|(target, _)| target);
        each.chain(divided).chain(rounded).chain(plain)
    }

    /// What it may read: for each guard its source and the operands of its tests, then a source for each target that takes one.
    fn sources(&self) -> Vec<&Source> {
        let mut sources: Vec<&Source> = Vec::new();
        for guard in &self.when {
            sources.push(&guard.source);
            sources.extend(guard.tests.iter().map(|(_, operand)| operand));
        }
        match &self.action {
            Action::Each(_, assignments) => sources.extend(assignments.iter().map(|(_, source)| source)),
            Action::Divide(divisions) => sources.extend(divisions.iter().map(|(_, by, _)| by)),
            Action::Round(_) | Action::Increment(_) | Action::Remove(_) => {}
        }
        sources
    }
}

impl Source {
    fn state_path(&self) -> Option<&Path> {
        match self {
            Source::State(path) => Some(path),
            Source::Default(source, _) => source.state_path(),
            Source::Payload(_) | Source::Event(_) | Source::Constant(_) => None,
        }
    }
}
