//! The keywords that compare numbers, in decimals: 99999999999999999.00 is not above 99999999999999999, as it would be between floats. They stand in
//! the place of the library's own.
use bigdecimal::{BigDecimal, Zero};
use jsonschema::{Keyword, ValidationError};
use serde_json::{Number, Value};
use std::cmp::Ordering;
use std::str::FromStr;

/// What a keyword asks of a value.
enum Asked {
    AtLeast(BigDecimal),
    AtMost(BigDecimal),
    Above(BigDecimal),
    Below(BigDecimal),
    MultipleOf(BigDecimal),
    OneOf(Vec<Value>),
}

/// The keywords.
pub const KEYWORDS: [&str; 7] =
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const", "enum"];

/// Makes one of [`KEYWORDS`]; the library has looked at the form of its value before.
pub fn keyword<'a>(name: &str, value: &'a Value) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    let number = || decimal_of(value).ok_or_else(|| ValidationError::custom("must be a number"));
    let asked = match name {
        "minimum" => Asked::AtLeast(number()?),
        "maximum" => Asked::AtMost(number()?),
        "exclusiveMinimum" => Asked::Above(number()?),
        "exclusiveMaximum" => Asked::Below(number()?),
        "multipleOf" => Asked::MultipleOf(number()?),
        "enum" => Asked::OneOf(value.as_array().cloned().unwrap_or_default()),
        _ => Asked::OneOf(vec![value.clone()]),
    };
    Ok(Box::new(asked))
}

impl Asked {
    fn holds(&self, value: &Value) -> bool {
        if let Self::OneOf(values) = self {
            return values.iter().any(|one| are_equal(one, value));
        }
        let Some(number) = decimal_of(value) else { return true };
        match self {
            Self::AtLeast(limit) => number >= *limit,
            Self::AtMost(limit) => number <= *limit,
            Self::Above(limit) => number > *limit,
            Self::Below(limit) => number < *limit,
            Self::MultipleOf(unit) => (number % unit).is_zero(),
            Self::OneOf(_) => true,
        }
    }
}

impl<'i> Keyword<'i> for Asked {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.holds(value) { Ok(()) } else { Err(ValidationError::custom("")) }
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        self.holds(value)
    }
}

/// None: no number.
fn decimal_of(value: &Value) -> Option<BigDecimal> {
    let Value::Number(number) = value else { return None };
    number.as_i64().map(BigDecimal::from).or_else(|| BigDecimal::from_str(number.as_str()).ok())
}

/// Numbers are equal whatever zeros they end with.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => are_same(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| are_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| are_equal(a, b)))
        }
        _ => one == other,
    }
}

fn are_same(a: &Number, b: &Number) -> bool {
    if a.as_str() == b.as_str() {
        return true;
    }
    match (BigDecimal::from_str(a.as_str()), BigDecimal::from_str(b.as_str())) {
        (Ok(a), Ok(b)) => a.cmp(&b) == Ordering::Equal,
        _ => false,
    }
}
