//! Exact decimals. Owns their addition and their reading from text, both as PostgreSQL's numeric does it: a sum has the larger of
//! both scales, also where one of them is zero (`1 + 0.00` is `1.00`), and nothing is ever rounded. Their multiplication, exact as well; and
//! division and rounding, to a scale and in a mode that the caller names.
use crate::quote::shown;
use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use std::cmp::Ordering;
use std::str::FromStr;

/// An exact decimal number with its scale: `1.00` is not written as `1`.
pub type Decimal = BigDecimal;

/// The most digits before the point, and after it, that PostgreSQL's numeric has.
const MOST_DIGITS: u64 = 131_072;
const MOST_SCALE: i64 = 16_383;
/// The most zeros that the exponents of one document may stand for: `1e131071` is 8 bytes, and 54 kB in memory.
const MOST_ZEROS: u64 = 1_000_000;

/// Reads the numbers of a document.
#[derive(Default)]
pub(crate) struct Reader {
    zeros: u64,
}

impl Reader {
    /// A number from JSON; one with an exponent is written out, as numeric does. The error says what is wrong with it.
    pub(crate) fn read(&mut self, text: &str) -> Result<Decimal, String> {
        let too_large = || format!("the number {} has more digits than a numeric can have", shown(text));
        if text.len() as u64 > MOST_DIGITS + MOST_SCALE.unsigned_abs() + 20 {
            return Err(too_large());
        }
        let number = Decimal::from_str(text).map_err(|error| format!("the number {}: {error}", shown(text)))?;
        let scale = number.fractional_digit_count();
        if scale > MOST_SCALE {
            return Err(too_large());
        }
        if number.sign() == Sign::NoSign {
            return Ok(Decimal::new(BigInt::ZERO, scale.max(0)));
        }
        if integer_digits(&number) > MOST_DIGITS {
            return Err(too_large());
        }
        if scale < 0 {
            self.zeros = self.zeros.saturating_add(scale.unsigned_abs());
            if self.zeros > MOST_ZEROS {
                return Err(format!("the numbers have more than {MOST_ZEROS} zeros in all"));
            }
            return Ok(number.with_scale(0));
        }
        Ok(number)
    }
}

/// Digits before the point, at least one.
fn integer_digits(number: &Decimal) -> u64 {
    let scale = number.fractional_digit_count();
    let shift = scale.unsigned_abs();
    if scale < 0 { number.digits().saturating_add(shift) } else { number.digits().saturating_sub(shift).max(1) }
}

/// As many digits as it prints, before and after the point: what `number::printed_digits` counts of a stored one.
pub(crate) fn printed_digits(number: &Decimal) -> u64 {
    integer_digits(number).saturating_add(after(number))
}

/// At least so many digits before the point (one less at most); faster than to count them.
fn least_before(number: &Decimal) -> u64 {
    least_digits(number).saturating_sub(after(number))
}

/// At least so many digits has the coefficient (one less at most).
fn least_digits(number: &Decimal) -> u64 {
    number.as_bigint_and_scale().0.bits().saturating_mul(30_103) / 100_000
}

/// Digits after the point.
fn after(number: &Decimal) -> u64 {
    number.fractional_digit_count().max(0).unsigned_abs()
}

/// Whether it prints more digits than `most`.
pub(crate) fn is_longer(number: &Decimal, most: u64) -> bool {
    let roughly = least_before(number).saturating_add(after(number)).saturating_add(2);
    roughly > most && printed_digits(number) > most
}

/// Digits that the sum of two numbers will have, at least: two numbers far apart have many more together than each of them.
pub(crate) fn digits_of_sum(a: &Decimal, b: &Decimal) -> u64 {
    // One less, because the digit before all others may go: 1000 - 0.5.
    let before = least_before(a).max(least_before(b)).saturating_sub(1);
    before.saturating_add(after(a).max(after(b)))
}

/// Roughly the bytes that it takes, in memory or printed, whichever is more.
pub(crate) fn size(number: &Decimal) -> usize {
    let bytes = (number.as_bigint_and_scale().0.bits() / 3).max(after(number));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Adds `amount` to `to`, or subtracts it.
pub(crate) fn add(to: &mut Decimal, amount: &Decimal, is_subtracted: bool) {
    // bigdecimal's own addition forgets the scale of a zero, and of what is added to one.
    let (mut sum, mut scale) = std::mem::take(to).into_bigint_and_scale();
    let (amount, amount_scale) = amount.as_bigint_and_scale();
    let amount = if scale < amount_scale {
        sum *= power_of_ten(amount_scale - scale);
        scale = amount_scale;
        amount
    } else if scale > amount_scale {
        std::borrow::Cow::Owned(amount.as_ref() * power_of_ten(scale - amount_scale))
    } else {
        amount
    };
    if is_subtracted {
        sum -= amount.as_ref();
    } else {
        sum += amount.as_ref();
    }
    *to = Decimal::new(sum, scale);
}

/// Which of its two neighbours a number becomes that has too many digits after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The nearer one; of two equally near the one farther from zero, the one nearer to zero, the even one.
    HalfUp,
    HalfDown,
    HalfEven,
    /// The one farther from zero; nearer to zero.
    Up,
    Down,
    /// The larger one; the smaller one.
    Ceiling,
    Floor,
}

impl Mode {
    pub(crate) const NAMES: [(&'static str, Self); 7] = [
        ("half_up", Self::HalfUp),
        ("half_down", Self::HalfDown),
        ("half_even", Self::HalfEven),
        ("up", Self::Up),
        ("down", Self::Down),
        ("ceiling", Self::Ceiling),
        ("floor", Self::Floor),
    ];
}

/// To how many digits after the point, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounding {
    pub scale: u16,
    pub mode: Mode,
}

pub(crate) fn is_zero(number: &Decimal) -> bool {
    number.sign() == Sign::NoSign
}

/// The exact product, with the digits after the point of both together.
pub(crate) fn product(a: &Decimal, b: &Decimal) -> Decimal {
    let ((a, a_scale), (b, b_scale)) = (a.as_bigint_and_scale(), b.as_bigint_and_scale());
    Decimal::new(a.as_ref() * b.as_ref(), a_scale + b_scale)
}

/// The quotient, rounded once. The divisor is not zero.
pub(crate) fn divided(number: &Decimal, by: &Decimal, rounding: Rounding) -> Decimal {
    let ((number, scale), (by, by_scale)) = (number.as_bigint_and_scale(), by.as_bigint_and_scale());
    // number / by = quotient / 10^scale, in whole numbers.
    let shift = i64::from(rounding.scale) + by_scale - scale;
    if shift >= 0 {
        nearest(number.as_ref() * power_of_ten(shift), by.into_owned(), rounding)
    } else {
        nearest(number.into_owned(), by.as_ref() * power_of_ten(-shift), rounding)
    }
}

/// The number with so many digits after the point: rounded, or filled up with zeros.
pub(crate) fn rounded(number: &Decimal, rounding: Rounding) -> Decimal {
    divided(number, &Decimal::from(1), rounding)
}

/// The whole number beside `dividend / divisor` that the mode names, as a coefficient.
fn nearest(dividend: BigInt, divisor: BigInt, rounding: Rounding) -> Decimal {
    let is_negative = (dividend.sign() == Sign::Minus) != (divisor.sign() == Sign::Minus);
    let (dividend, divisor) = (dividend.magnitude(), divisor.magnitude());
    let (mut quotient, rest) = (dividend / divisor, dividend % divisor);
    let half = (&rest * 2_u32).cmp(divisor);
    let is_exact = rest.bits() == 0;
    let goes_out = !is_exact
        && match rounding.mode {
            Mode::Up => true,
            Mode::Down => false,
            Mode::Ceiling => !is_negative,
            Mode::Floor => is_negative,
            Mode::HalfUp => half != Ordering::Less,
            Mode::HalfDown => half == Ordering::Greater,
            Mode::HalfEven => half == Ordering::Greater || half == Ordering::Equal && quotient.bit(0),
        };
    if goes_out {
        quotient += 1_u32;
    }
    Decimal::new(
        BigInt::from_biguint(if is_negative { Sign::Minus } else { Sign::Plus }, quotient),
        rounding.scale.into(),
    )
}

fn power_of_ten(exponent: i64) -> BigInt {
    let exponent = u32::try_from(exponent).unwrap_or(u32::MAX);
    match 10_u64.checked_pow(exponent) {
        Some(power) => power.into(),
        None => BigInt::from(10).pow(exponent),
    }
}
