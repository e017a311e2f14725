//! What an invariant requires of a state: conditions of the rules language that all must hold, of which every pointer is one into the state. Promises: a value that is missing, or
//! cannot be compared, does not meet what is asked of it; what is not met is said with the value that was found, or without it.
use super::definition::{Guard, Source, Test};
use super::parse::{guards, long_number, mistake};
use super::pointer::{Path, Pointer};
use super::read::compare;
use super::state::shown;
use crate::error::Result;
use crate::json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Conditions on a state.
#[derive(Debug)]
pub struct Requirement {
    guards: Vec<Guard>,
}

/// The most conditions, and the most bytes of all of them as text.
const MOST_CONDITIONS: usize = 100;
/// Where mistakes are said to stand.
const ROOT: &str = "/require";

/// A condition that a state does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// "state /available must be at least the number 0".
    pub asked: String,
    /// "and is the number -5": what a reader of the state may know.
    pub found: String,
}

impl Requirement {
    /// The most bytes that it may have as text.
    pub const MOST_BYTES: usize = 64 << 10;

    /// Reads conditions: `{"/pointer": constant or {"exists": …, "equals": …, …}, …}`.
    ///
    /// # Errors
    /// [`crate::Error::InvalidRules`] with the place of the first mistake, and what must stand there.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > Self::MOST_BYTES {
            return Err(mistake(ROOT, format!("must have at most {} bytes, not {}", Self::MOST_BYTES, text.len())));
        }
        let document =
            Value::parse(text).map_err(|reason| mistake(ROOT, format!("must be a JSON object: {reason}")))?;
        if let Some((place, digits)) = long_number(&document) {
            return Err(mistake(
                &format!("{ROOT}{place}"),
                format!("must be a shorter number, not one of {digits} digits"),
            ));
        }
        let guards = guards(&document, ROOT)?;
        if guards.len() > MOST_CONDITIONS {
            return Err(mistake(ROOT, format!("must have at most {MOST_CONDITIONS} places, not {}", guards.len())));
        }
        for guard in &guards {
            for source in std::iter::once(&guard.source).chain(guard.tests.iter().map(|(_, operand)| operand)) {
                must_be_of_state(source)?;
            }
        }
        Ok(Self { guards })
    }

    /// The first condition that a state does not meet; `read` finds values in the state.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn unmet<F>(&self, mut read: impl FnMut(&Pointer) -> Result<Option<Value>, F>) -> Result<Option<Unmet>, F> {
        for guard in &self.guards {
            if let Some(unmet) = guard.unmet(&mut read)? {
                return Ok(Some(unmet));
            }
        }
        Ok(None)
    }
}

/// There is no event that it could be of.
fn must_be_of_state(source: &Source) -> Result<()> {
    match source {
        Source::Constant(_) | Source::Payload(Path::Fixed(_)) | Source::State(Path::Fixed(_)) => Ok(()),
        Source::Default(source, _) => must_be_of_state(source),
        Source::Payload(path @ Path::Keyed(_)) | Source::State(path @ Path::Keyed(_)) => {
            Err(mistake(ROOT, format!("must have pointers into the state without keys of a payload, not {path}")))
        }
        Source::Event(field) => Err(mistake(ROOT, format!("must have pointers into the state, not {field}"))),
    }
}

/// The value that a source finds in a state, and how the place is called.
fn value_of<'a, F>(
    source: &'a Source,
    read: &mut impl FnMut(&Pointer) -> Result<Option<Value>, F>,
) -> Result<Option<Cow<'a, Value>>, F> {
    Ok(match source {
        Source::Payload(Path::Fixed(pointer)) | Source::State(Path::Fixed(pointer)) => read(pointer)?.map(Cow::Owned),
        Source::Constant(value) => Some(Cow::Borrowed(value)),
        Source::Default(source, default) => Some(value_of(source, read)?.unwrap_or(Cow::Borrowed(default))),
        Source::Payload(_) | Source::State(_) | Source::Event(_) => None,
    })
}

fn named(source: &Source) -> String {
    match source {
        Source::Payload(Path::Fixed(pointer)) | Source::State(Path::Fixed(pointer)) => {
            format!("state {}", shown(pointer))
        }
        Source::Constant(value) => value.described(),
        Source::Default(source, _) => named(source),
        other => other.to_string(),
    }
}

impl Test {
    const fn words(self) -> &'static str {
        match self {
            Self::Equals => "equal",
            Self::Differs => "differ from",
            Self::LessThan => "be less than",
            Self::AtMost => "be at most",
            Self::MoreThan => "be more than",
            Self::AtLeast => "be at least",
        }
    }

    fn holds(self, value: &Value, operand: &Value) -> bool {
        let order = || compare(value, operand);
        match self {
            Self::Equals => value == operand,
            Self::Differs => value != operand,
            Self::LessThan => order() == Some(Ordering::Less),
            Self::AtMost => order().is_some_and(|order| order != Ordering::Greater),
            Self::MoreThan => order() == Some(Ordering::Greater),
            Self::AtLeast => order().is_some_and(|order| order != Ordering::Less),
        }
    }
}

impl Guard {
    fn unmet<F>(&self, read: &mut impl FnMut(&Pointer) -> Result<Option<Value>, F>) -> Result<Option<Unmet>, F> {
        let value = value_of(&self.source, read)?;
        let found = || {
            value.as_ref().map_or_else(|| "and is missing".to_owned(), |value| format!("and is {}", value.described()))
        };
        let place = named(&self.source);
        match self.exists {
            Some(exists) if value.is_some() != exists => {
                let asked = format!("{place} must {}exist", if exists { "" } else { "not " });
                return Ok(Some(Unmet { asked, found: found() }));
            }
            Some(false) => return Ok(None),
            _ => {}
        }
        for (test, operand) in &self.tests {
            let other = value_of(operand, read)?;
            let holds = match (&value, &other) {
                (Some(value), Some(other)) => test.holds(value, other),
                (None, Some(_)) => *test == Test::Differs,
                (_, None) => false,
            };
            if holds {
                continue;
            }
            let mut found = found();
            if !matches!(operand, Source::Constant(_)) {
                let other = other.as_ref().map_or_else(|| "missing".to_owned(), |other| other.described());
                found = format!("{found}; {} is {other}", named(operand));
            }
            return Ok(Some(Unmet { asked: format!("{place} must {} {}", test.words(), named(operand)), found }));
        }
        Ok(None)
    }
}

impl Unmet {
    /// In words, with what was found or without.
    #[must_use]
    pub fn said(&self, with_values: bool) -> String {
        if with_values { format!("{}, {}", self.asked, self.found) } else { self.asked.clone() }
    }
}
