//! What rules read: the value that a source names, and whether a guard holds.
use super::definition::EventSource;
use super::definition::{EventField, Guard, Source, Test};
use super::pointer::Path;
use super::pointer::Pointer;
use super::state::{Fault, Outcome, State, fault, shown};
use crate::json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// The place that a path names for this event. A key must be there, and be a string.
pub(super) fn resolved<'a, S: EventSource>(path: &'a Path, event: &S) -> Outcome<Cow<'a, Pointer>, S::Failure> {
    path.pointer(|pointer| match event.payload(pointer).map_err(Fault::Source)? {
        Some(Value::Text(key)) => Ok(key),
        Some(other) => fault(format!(
            "payload {} must be a string to be a key in {path}, and is {}",
            shown(pointer),
            other.described()
        )),
        None => {
            let twice = twice(event)?;
            fault(format!("payload {}, a key in {path}, is missing{twice}", shown(pointer)))
        }
    })
}

/// What a payload is that is a string of JSON: a caller that encodes before its driver does.
fn twice<S: EventSource>(event: &S) -> Outcome<&'static str, S::Failure> {
    let Some(Value::Text(text)) = event.payload(&Pointer::default()).map_err(Fault::Source)? else { return Ok("") };
    let text = text.trim();
    let is_json = text.starts_with('{') && text.ends_with('}') || text.starts_with('[') && text.ends_with(']');
    Ok(if is_json { ": the payload is a string that looks like JSON; was it encoded twice?" } else { "" })
}

impl Source {
    pub(super) fn read<'a, S: EventSource>(
        &'a self,
        state: &'a State,
        event: &S,
    ) -> Outcome<Option<Cow<'a, Value>>, S::Failure> {
        Ok(match self {
            Source::Payload(path) => {
                event.payload(resolved(path, event)?.as_ref()).map_err(Fault::Source)?.map(Cow::Owned)
            }
            Source::Event(field) => event.field(field).map_err(Fault::Source)?.map(Cow::Owned),
            Source::State(path) => resolved(path, event)?.find(state.value()).map(Cow::Borrowed),
            Source::Constant(value) => Some(Cow::Borrowed(value)),
            Source::Default(source, default) => Some(source.read(state, event)?.unwrap_or(Cow::Borrowed(default))),
        })
    }

    /// A copy of the value, which must be there.
    pub(super) fn value<S: EventSource>(&self, state: &State, event: &S) -> Outcome<Value, S::Failure> {
        match self.read(state, event)? {
            Some(value) => Ok(value.into_owned()),
            None => {
                let twice = if self.is_of_payload() { twice(event)? } else { "" };
                fault(format!("{self} is missing{twice}"))
            }
        }
    }

    fn is_of_payload(&self) -> bool {
        match self {
            Source::Payload(_) => true,
            Source::Default(source, _) => source.is_of_payload(),
            Source::State(_) | Source::Event(_) | Source::Constant(_) => false,
        }
    }

    pub(super) fn reads_state(&self) -> bool {
        match self {
            Source::State(_) => true,
            Source::Default(source, _) => source.reads_state(),
            Source::Payload(_) | Source::Event(_) | Source::Constant(_) => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Payload(path) => write!(f, "payload {path}"),
            Source::Event(field) => field.fmt(f),
            Source::State(path) => write!(f, "state {path}"),
            Source::Constant(_) => f.write_str("the constant"),
            Source::Default(source, _) => source.fmt(f),
        }
    }
}

impl fmt::Display for EventField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(pointer) => write!(f, "event:/metadata{pointer}"),
            field => match Self::NAMES.iter().find(|(_, named)| named == field) {
                Some((name, _)) => write!(f, "event:/{name}"),
                None => f.write_str("event:/"),
            },
        }
    }
}

impl Guard {
    pub(super) fn holds<S: EventSource>(&self, state: &State, event: &S) -> Outcome<bool, S::Failure> {
        self.holds_of(|source| source.read(state, event))
    }

    /// Whether it holds of what `read` finds, which is asked for each source in turn, as far as it matters.
    pub(super) fn holds_of<'a, F>(
        &'a self,
        mut read: impl FnMut(&'a Source) -> Outcome<Option<Cow<'a, Value>>, F>,
    ) -> Outcome<bool, F> {
        let value = read(&self.source)?;
        match self.exists {
            Some(exists) if value.is_some() != exists => return Ok(false),
            Some(false) => return Ok(true),
            _ => {}
        }
        for (test, operand) in &self.tests {
            let Some(operand_value) = read(operand)? else {
                return fault(format!("its \"when\" needs {operand}, which is missing"));
            };
            let holds = match (&value, test) {
                (None, Test::Equals) => false,
                (None, Test::Differs) => true,
                (None, _) => return fault(format!("its \"when\" needs {}, which is missing", self.source)),
                // Numbers by value: 1.0 equals 1.00.
                (Some(value), Test::Equals) => value.as_ref() == operand_value.as_ref(),
                (Some(value), Test::Differs) => value.as_ref() != operand_value.as_ref(),
                (Some(value), test) => match compare(value, &operand_value) {
                    Some(order) => match test {
                        Test::LessThan => order == Ordering::Less,
                        Test::AtMost => order != Ordering::Greater,
                        Test::MoreThan => order == Ordering::Greater,
                        _ => order != Ordering::Less,
                    },
                    None => {
                        return fault(format!(
                            "{} in its \"when\" is {}, which cannot be compared with {}",
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

/// Numbers with numbers, strings with strings (byte by byte).
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
