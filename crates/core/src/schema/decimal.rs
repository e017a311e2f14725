//! Numbers of JSON as the decimals that they are, at the price of reading their digits once.
use serde_json::Number;
use std::cmp::Ordering;
use std::fmt::Write;

/// The largest exponent of ten; those beyond it are this one.
const FAR: i64 = 1 << 40;

/// A decimal number: ±0.digits × 10^point, without zeros at either end; zero has no digits.
#[derive(Debug, PartialEq, Eq)]
pub struct Decimal {
    is_negative: bool,
    /// As text has them.
    pub digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    pub fn of(number: &Number) -> Self {
        let text = number.as_str();
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let beyond = if exponent.starts_with('-') { -FAR } else { FAR };
        let exponent = exponent.parse::<i64>().unwrap_or(beyond).clamp(-FAR, FAR);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = Vec::with_capacity(whole.len() + fraction.len());
        digits.extend(whole.bytes().chain(fraction.bytes()).skip_while(|&digit| digit == b'0'));
        let leading = whole.len() + fraction.len() - digits.len();
        digits.truncate(digits.len() - digits.iter().rev().take_while(|&&digit| digit == b'0').count());
        if digits.is_empty() {
            return Self { is_negative: false, digits, point: 0 };
        }
        Self { is_negative, digits, point: whole.len() as i64 - leading as i64 + exponent }
    }

    /// The exponent of ten of the last digit.
    pub fn last(&self) -> i64 {
        self.point - self.digits.len() as i64
    }

    pub fn is_whole(&self) -> bool {
        self.digits.is_empty() || self.last() >= 0
    }

    /// Equal ones write the same.
    pub fn write(&self, text: &mut String) {
        text.push_str(if self.is_negative { "-" } else { "+" });
        text.extend(self.digits.iter().map(|&digit| char::from(digit)));
        // A String takes whatever is written.
        let _ = write!(text, "e{};", self.point);
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = |one: &Self, other: &Self| one.point.cmp(&other.point).then_with(|| one.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| if self.is_negative { size(other, self) } else { size(self, other) })
    }
}
