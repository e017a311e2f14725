//! What rules read of an event's documents, without folding one.
use super::definition::{Action, EventField, Guard, Rule, Rules, Source};
use super::pointer::{Path, Pointer, Step, Token};
use std::collections::BTreeMap;

/// A value that a rule reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'a> {
    /// Of the payload.
    Payload(&'a Pointer),
    /// The same, where the payload itself names some of the keys.
    Keyed(Keyed<'a>),
    /// Of the metadata.
    Metadata(&'a Pointer),
}

/// A pointer of which the payload names some of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed<'a>(&'a Path, &'a [Step]);

impl<'a> Keyed<'a> {
    /// None is such a key.
    pub fn steps(self) -> impl Iterator<Item = Option<&'a Token>> {
        self.1.iter().map(|step| match step {
            Step::Named(token) => Some(token),
            Step::Key(_) => None,
        })
    }
}

impl std::fmt::Display for Keyed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Rules {
    /// The types of events that they say something of: whatever another says does not matter to them.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.on.keys().map(String::as_str)
    }

    /// The first value of all that they read of which that is true: where the rule stands (a JSON Pointer into the rules), the type of its events, and the value.
    pub fn first_read(&self, mut is: impl FnMut(&str, Read) -> bool) -> Option<(&str, &str, Read<'_>)> {
        let rules: BTreeMap<_, _> = self.on.iter().collect();
        rules.into_iter().find_map(|(event_type, rules)| {
            rules.iter().find_map(|rule| {
                let read = reads(rule).into_iter().find(|read| is(event_type, *read))?;
                Some((rule.place.as_str(), event_type.as_str(), read))
            })
        })
    }
}

fn reads(rule: &Rule) -> Vec<Read<'_>> {
    let mut found = Vec::new();
    for Guard { source, tests, .. } in &rule.when {
        of_source(source, &mut found);
        tests.iter().for_each(|(_, operand)| of_source(operand, &mut found));
    }
    let mut assigned = |target, source| {
        of_keys(target, &mut found);
        of_source(source, &mut found);
    };
    match &rule.action {
        Action::Each(_, assignments) => assignments.iter().for_each(|(target, source)| assigned(target, source)),
        Action::Divide(assignments) => assignments.iter().for_each(|(target, source, _)| assigned(target, source)),
        Action::Round(targets) => targets.iter().for_each(|(target, _)| of_keys(target, &mut found)),
        Action::Increment(targets) | Action::Remove(targets) => {
            targets.iter().for_each(|target| of_keys(target, &mut found));
        }
    }
    found
}

fn of_source<'a>(source: &'a Source, found: &mut Vec<Read<'a>>) {
    match source {
        Source::Payload(path) => {
            found.push(match path {
                Path::Fixed(pointer) => Read::Payload(pointer),
                Path::Keyed(steps) => Read::Keyed(Keyed(path, steps)),
            });
            of_keys(path, found);
        }
        Source::State(path) => of_keys(path, found),
        Source::Event(EventField::Metadata(pointer)) => found.push(Read::Metadata(pointer)),
        Source::Default(source, _) => of_source(source, found),
        Source::Event(_) | Source::Constant(_) => {}
    }
}

/// Keys of a path come from the payload.
fn of_keys<'a>(path: &'a Path, found: &mut Vec<Read<'a>>) {
    found.extend(path.keys().map(Read::Payload));
}
