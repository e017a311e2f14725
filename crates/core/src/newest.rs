//! Whether what is stored in a schema version of an event type is declared, and read in the newest declared version.
use crate::quote::shown;
use std::fmt;

/// What is known of event types: which versions are declared, and which steps upcasters make.
pub trait EventTypes {
    /// The event type that a step from that schema version makes, in the next version; None: there is no step.
    fn step(&self, event_type: &str, schema_version: i32) -> Option<&str>;
    /// The newest declared version of an event type; None: none is declared.
    fn newest(&self, event_type: &str) -> Option<i32>;
    /// Whether that version is declared.
    fn is_declared(&self, event_type: &str, schema_version: i32) -> bool;
}

/// What does not fit of a schema version of an event type that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// Nobody has declared the event type, or (with the newest declared one) that version.
    NotDeclared {
        /// Of the event type.
        newest: Option<i32>,
    },
    /// Upcasters end before the newest declared version.
    NoUpcaster {
        /// What they make of it.
        event_type: String,
        /// The version in which it is read.
        schema_version: i32,
        /// The one that it should be read in.
        newest: i32,
    },
    /// Upcasters make something of it that is not declared.
    BecomesUndeclared {
        /// What they make of it.
        event_type: String,
        /// In which version.
        schema_version: i32,
    },
}

impl Misfit {
    /// Whether such events are not read in the newest declared version.
    #[must_use]
    pub fn is_of_reading(&self) -> bool {
        !matches!(self, Self::NotDeclared { .. })
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotDeclared { newest: None } => f.write_str("the event type is not declared"),
            Self::NotDeclared { newest: Some(newest) } => {
                write!(f, "this schema version is not declared; the newest that is declared is {newest}")
            }
            Self::NoUpcaster { event_type, schema_version, newest } => write!(
                f,
                "no upcaster turns schema version {schema_version} of {} into {}: it is read in version {schema_version}, and the newest that is \
                 declared is {newest}",
                shown(event_type),
                i64::from(*schema_version) + 1
            ),
            Self::BecomesUndeclared { event_type, schema_version } => {
                write!(
                    f,
                    "upcasters turn it into schema version {schema_version} of {}, which is not declared",
                    shown(event_type)
                )
            }
        }
    }
}

/// All that does not fit of a stored schema version of an event type.
#[must_use]
pub fn misfits(types: &impl EventTypes, event_type: &str, schema_version: i32) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if !types.is_declared(event_type, schema_version) {
        misfits.push(Misfit::NotDeclared { newest: types.newest(event_type) });
    }
    // Each step is to a higher version, and there are only so many: this ends.
    let mut at = (event_type, schema_version);
    while let (Some(next), Some(version)) = (types.step(at.0, at.1), at.1.checked_add(1)) {
        at = (next, version);
    }
    let is_as_stored = at == (event_type, schema_version);
    match types.newest(at.0) {
        Some(newest) if at.1 < newest => {
            misfits.push(Misfit::NoUpcaster { event_type: at.0.to_owned(), schema_version: at.1, newest })
        }
        Some(newest) if at.1 == newest => {}
        // Said above.
        _ if is_as_stored => {}
        _ => misfits.push(Misfit::BecomesUndeclared { event_type: at.0.to_owned(), schema_version: at.1 }),
    }
    misfits
}

/// Where upcasters lead a version of an event type on the way to a higher version: there, if they lead so far.
#[must_use]
pub fn way_end<'a>(types: &'a impl EventTypes, event_type: &'a str, from: i32, to: i32) -> (&'a str, i32) {
    let mut at = (event_type, from);
    while at.1 < to
        && let Some(next) = types.step(at.0, at.1)
    {
        at = (next, at.1 + 1);
    }
    at
}

/// A version of an event type.
pub type Of<'a> = (&'a str, i32);

/// Which of the `declared` versions a step leads to the next declared one, and to which: that one rests on it.
pub fn resting<'a>(
    types: &'a impl EventTypes,
    step: Of,
    declared: impl Iterator<Item = Of<'a>>,
) -> Option<(Of<'a>, Of<'a>)> {
    for from in declared {
        let (mut at, mut has_passed) = (from, false);
        while let (Some(next), Some(version)) = (types.step(at.0, at.1), at.1.checked_add(1)) {
            has_passed |= at == step;
            at = (next, version);
            if types.is_declared(at.0, at.1) {
                if has_passed {
                    return Some((from, at));
                }
                break;
            }
        }
    }
    None
}
