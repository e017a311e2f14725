//! The keywords that compare values, with numbers as decimals: 99999999999999999.00 is not above 99999999999999999, as it would be between floats.
//! They stand in the place of the library's own. What they cost grows with the digits only, and what stands in the schema is read once.
use super::decimal::Decimal;
use super::fuel::spend;
use super::metered::{Metered, Seen};
use super::normal::Among;
use jsonschema::{Keyword, ValidationError};
use serde_json::Value;

/// The most digits that a multipleOf may have: its remainders are computed in 128 bits.
const MOST_UNIT_DIGITS: usize = 37;
/// What is multiplied by ten so often has all the twos and fives in it that a unit can have.
const ALL_FACTORS: i64 = 128;

/// What a number is to be a multiple of.
struct Unit {
    digits: u128,
    /// The exponent of ten of the last digit.
    last: i64,
}

impl Unit {
    fn of(number: &Decimal) -> Option<Self> {
        if number.digits.len() > MOST_UNIT_DIGITS {
            return None;
        }
        let digits = number.digits.iter().fold(0, |sum: u128, digit| sum * 10 + u128::from(digit - b'0'));
        Some(Self { digits, last: number.last() }).filter(|unit| unit.digits > 0)
    }

    fn measures(&self, number: &Decimal) -> bool {
        let tens = number.last() - self.last;
        if number.digits.is_empty() {
            return true;
        }
        if tens < 0 {
            return false; // its last digit, which is not zero, is smaller than the unit's
        }
        spend(number.digits.len() as u64 / 2);
        let mut rest =
            number.digits.iter().fold(0, |rest: u128, digit| (rest * 10 + u128::from(digit - b'0')) % self.digits);
        for _ in 0..tens.min(ALL_FACTORS) {
            rest = rest * 10 % self.digits;
        }
        rest == 0
    }
}

/// What a keyword asks of a value.
enum Asked {
    AtLeast(Decimal),
    AtMost(Decimal),
    Above(Decimal),
    Below(Decimal),
    MultipleOf(Unit),
    OneOf(Among),
}

/// The keywords.
pub const KEYWORDS: [&str; 7] =
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const", "enum"];

/// Makes one of [`KEYWORDS`]; the library has looked at the form of its value before.
pub fn keyword<'a>(name: &str, value: &'a Value) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>> {
    let number = || decimal_of(value).ok_or_else(|| ValidationError::custom("must be a number"));
    let too_long = || ValidationError::custom(format!("must have at most {MOST_UNIT_DIGITS} digits"));
    let asked = match name {
        "minimum" => Asked::AtLeast(number()?),
        "maximum" => Asked::AtMost(number()?),
        "exclusiveMinimum" => Asked::Above(number()?),
        "exclusiveMaximum" => Asked::Below(number()?),
        "multipleOf" => Asked::MultipleOf(Unit::of(&number()?).ok_or_else(too_long)?),
        "enum" => Asked::OneOf(Among::of(value.as_array().map_or(&[], Vec::as_slice))),
        _ => Asked::OneOf(Among::of(std::slice::from_ref(value))),
    };
    Ok(Box::new(asked))
}

impl Asked {
    fn holds(&self, value: &Value) -> bool {
        spend(1);
        if let Self::OneOf(values) = self {
            return values.has(value);
        }
        let Some(number) = decimal_of(value) else { return true };
        match self {
            Self::AtLeast(limit) => number >= *limit,
            Self::AtMost(limit) => number <= *limit,
            Self::Above(limit) => number > *limit,
            Self::Below(limit) => number < *limit,
            Self::MultipleOf(unit) => unit.measures(&number),
            Self::OneOf(_) => true,
        }
    }
}

impl<'i> Keyword<'i, Metered> for Asked {
    fn validate(&self, value: Seen<'i>) -> Result<(), ValidationError<'i>> {
        if self.holds(value.0) { Ok(()) } else { Err(ValidationError::custom("")) }
    }

    fn is_valid(&self, value: Seen<'i>) -> bool {
        self.holds(value.0)
    }
}

/// None: no number.
fn decimal_of(value: &Value) -> Option<Decimal> {
    let Value::Number(number) = value else { return None };
    spend(number.as_str().len() as u64 / 8);
    Some(Decimal::of(number))
}
