//! Payloads by pointer: `{"/amount": {"at_least": 100.00}}`, in the words of the rules of folds. Numbers are compared as they are, whatever their scale, and never become
//! floats; strings byte by byte. What is missing, or of another kind, meets no comparison; it differs from everything.

use crate::error::{Error, Result};
use crate::json::Value;
use crate::quote::shown;
use crate::rules::Pointer;
use std::cmp::Ordering;

/// The most places of a payload that are compared.
pub const MOST_POINTERS: usize = 32;

/// What is asked of the value at one place.
#[derive(Debug, PartialEq)]
pub struct Comparison {
    pointer: Pointer,
    tests: Vec<(Test, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Exists,
    Equals,
    Differs,
    LessThan,
    AtMost,
    MoreThan,
    AtLeast,
}

const TESTS: [(&str, Test); 7] = [
    ("exists", Test::Exists),
    ("equals", Test::Equals),
    ("differs", Test::Differs),
    ("less_than", Test::LessThan),
    ("at_most", Test::AtMost),
    ("more_than", Test::MoreThan),
    ("at_least", Test::AtLeast),
];

/// Reads `{"pointer": constant or {"exists": …, "equals": …, …}, …}`: all must hold.
///
/// # Errors
/// [`Error::InvalidArgument`], named by the place within it.
pub fn read(given: &Value) -> Result<Vec<Comparison>> {
    let Value::Object(members) = given else {
        return Err(wrong("", format!("must be an object, not {}", given.kind())));
    };
    if members.is_empty() {
        return Err(wrong("", "must name a value, as in {\"/currency\": \"EUR\"}"));
    }
    if members.len() > MOST_POINTERS {
        return Err(wrong("", format!("must have at most {MOST_POINTERS} pointers, not {}", members.len())));
    }
    let comparison = |(pointer, condition): (&String, &Value)| {
        Comparison::read(pointer, condition).map_err(|error| error.within(&format!("[{}]", shown(pointer))))
    };
    members.iter().map(comparison).collect()
}

impl Comparison {
    fn read(pointer: &str, condition: &Value) -> Result<Self> {
        let pointer = Pointer::parse(pointer).map_err(|reason| wrong("", reason))?;
        let Value::Object(members) = condition else {
            if matches!(condition, Value::Array(_)) {
                return Err(wrong("", "must be a string, a number, a boolean, null, or an object of comparisons"));
            }
            return Ok(Self { pointer, tests: vec![(Test::Equals, condition.clone())] });
        };
        if members.is_empty() {
            return Err(wrong("", "must have a comparison, as in {\"at_least\": 100.00}"));
        }
        let tests = members.iter().map(|(name, operand)| Ok((Test::read(name, operand)?, operand.clone())));
        Ok(Self { pointer, tests: tests.collect::<Result<_>>()? })
    }

    /// Where it looks.
    #[must_use]
    pub fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    /// Whether it holds of what is there.
    #[must_use]
    pub fn holds(&self, found: Option<&Value>) -> bool {
        self.tests.iter().all(|(test, operand)| test.holds(found, operand))
    }
}

impl Test {
    fn read(name: &str, operand: &Value) -> Result<Self> {
        let Some(&(_, test)) = TESTS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = TESTS.iter().map(|(name, _)| *name).collect();
            return Err(Error::InvalidArgument {
                argument: shown(name),
                reason: "is no comparison".into(),
                hint: Some(format!("Comparisons: {}.", known.join(", "))),
            });
        };
        let fits = match test {
            Self::Exists => matches!(operand, Value::Bool(_)),
            Self::Equals | Self::Differs => true,
            _ => matches!(operand, Value::Number(_) | Value::Text(_)),
        };
        if !fits {
            let wanted = if test == Self::Exists { "true or false" } else { "a number or a string" };
            return Err(wrong(name, format!("must be {wanted}, not {}", operand.kind())));
        }
        Ok(test)
    }

    fn holds(self, found: Option<&Value>, operand: &Value) -> bool {
        match self {
            Self::Exists => *operand == Value::Bool(found.is_some()),
            Self::Equals => found == Some(operand),
            Self::Differs => found != Some(operand),
            Self::LessThan => compared(found, operand).is_some_and(Ordering::is_lt),
            Self::AtMost => compared(found, operand).is_some_and(Ordering::is_le),
            Self::MoreThan => compared(found, operand).is_some_and(Ordering::is_gt),
            Self::AtLeast => compared(found, operand).is_some_and(Ordering::is_ge),
        }
    }
}

/// Numbers with numbers, strings with strings.
fn compared(found: Option<&Value>, operand: &Value) -> Option<Ordering> {
    match (found?, operand) {
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn wrong(argument: &str, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { argument: argument.into(), reason: reason.into(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, found: Option<&str>) -> bool {
        let given = Value::parse(&format!("{{\"/a\": {condition}}}")).unwrap_or(Value::Null);
        let found = found.map(|text| Value::parse(text).unwrap_or(Value::Null));
        read(&given).is_ok_and(|all| all.iter().all(|one| one.holds(found.as_ref())))
    }

    #[test]
    fn numbers_are_exact_and_compared_by_value() {
        assert!(holds("1.0", Some("1.00")) && !holds("0.1", Some("0.10000000000000000001")));
        assert!(holds(r#"{"more_than": 9007199254740992}"#, Some("9007199254740993")));
        assert!(!holds(r#"{"less_than": 0.30000000000000000001}"#, Some("0.30000000000000000001")));
        assert!(holds(r#"{"at_most": 100.00, "at_least": 100}"#, Some("1e2")));
    }

    #[test]
    fn what_is_missing_or_of_another_kind_meets_nothing() {
        for condition in [r#"{"less_than": 1}"#, r#"{"at_most": "z"}"#, "1", r#"{"exists": true}"#] {
            assert!(!holds(condition, None), "{condition}");
        }
        assert!(holds(r#"{"differs": 1}"#, None) && holds(r#"{"exists": false}"#, None));
        assert!(!holds(r#"{"less_than": 5}"#, Some("\"3\"")) && !holds(r#"{"at_least": ""}"#, Some("3")));
        assert!(holds("null", Some("null")) && !holds("null", None));
    }

    #[test]
    fn what_is_no_comparison_is_refused_by_name() {
        for wrong in [
            "[]",
            "{}",
            "1",
            r#"{"a": 1}"#,
            r#"{"/a": {}}"#,
            r#"{"/a": [1]}"#,
            r#"{"/a": {"like": "x"}}"#,
            r#"{"/a": {"exists": 1}}"#,
            r#"{"/a": {"at_least": true}}"#,
            r#"{"/~2": 1}"#,
        ] {
            let refused = read(&Value::parse(wrong).unwrap_or(Value::Null));
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{wrong}: {refused:?}");
        }
    }
}
