//! How long a PostgreSQL numeric prints. Owns the reading of numeric's stored form, so that a limit can be checked
//! before anything is printed: an 81 kB document of `1e131071` would print as 1 GB.
//! Follows src/backend/utils/adt/numeric.c (NumericData, get_str_from_var), the same from PostgreSQL 9.1 to 18.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};

const SIGN_MASK: u16 = 0xC000;
const SPECIAL: u16 = 0xC000;
const SHORT_FLAG: u16 = 0x8000;
const SHORT_DSCALE_MASK: u16 = 0x1F80;
const SHORT_DSCALE_SHIFT: u16 = 7;
const SHORT_WEIGHT_SIGN_MASK: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;
const LONG_DSCALE_MASK: u16 = 0x3FFF;
/// Decimal digits in one base-10000 digit (`DEC_DIGITS`).
const DEC_DIGITS: u64 = 4;

/// The number of decimal digits that `numeric_out` prints for a number: those before the point (at least one)
/// and the scale. Sign and point are not counted.
///
/// `numeric_body` is a `NumericData` after its varlena header: native-endian 16-bit words, in the short or the long
/// form; it need not be aligned. `None` for NaN and the infinities, and for bytes that are no numeric.
#[must_use]
pub fn printed_digits(numeric_body: &[u8]) -> Option<u64> {
    let header = word(numeric_body, 0)?;
    let (weight, dscale, digits_start) = if header & SIGN_MASK == SPECIAL {
        return None;
    } else if header & SHORT_FLAG != 0 {
        let dscale = (header & SHORT_DSCALE_MASK) >> SHORT_DSCALE_SHIFT;
        (short_weight(header), dscale, 1)
    } else {
        (word(numeric_body, 1)?.cast_signed(), header & LONG_DSCALE_MASK, 2)
    };
    // A number without stored digits is 0; with them, the first one is not zero-padded when printed.
    let first_digit = word(numeric_body, digits_start).unwrap_or(0);
    let integer_digits = match u64::try_from(weight) {
        Ok(weight) => weight * DEC_DIGITS + decimal_length(first_digit),
        Err(_) => 1,
    };
    Some(integer_digits + u64::from(dscale))
}

/// The weight in a short header: 6 bits and a sign bit, extended as `NUMERIC_WEIGHT` does.
fn short_weight(header: u16) -> i16 {
    let magnitude = header & SHORT_WEIGHT_MASK;
    let extended = if header & SHORT_WEIGHT_SIGN_MASK != 0 { magnitude | !SHORT_WEIGHT_MASK } else { magnitude };
    extended.cast_signed()
}

/// How many decimal digits `digit` prints as, at least one.
fn decimal_length(digit: u16) -> u64 {
    u64::from(digit.checked_ilog10().unwrap_or(0)) + 1
}

/// The `index`-th 16-bit word, if the bytes reach that far.
fn word(bytes: &[u8], index: usize) -> Option<u16> {
    let at = bytes.get(index * 2..index * 2 + 2)?;
    Some(u16::from_ne_bytes([at[0], at[1]]))
}

/// The number that a numeric holds, with its scale; `None` as for [`printed_digits`].
#[must_use]
pub fn decimal(numeric_body: &[u8]) -> Option<BigDecimal> {
    let header = word(numeric_body, 0)?;
    let (is_negative, weight, dscale, digits_start) = if header & SIGN_MASK == SPECIAL {
        return None;
    } else if header & SHORT_FLAG != 0 {
        let dscale = (header & SHORT_DSCALE_MASK) >> SHORT_DSCALE_SHIFT;
        (header & SHORT_SIGN != 0, short_weight(header), dscale, 1)
    } else {
        let is_negative = header & SIGN_MASK == LONG_NEGATIVE;
        (is_negative, word(numeric_body, 1)?.cast_signed(), header & LONG_DSCALE_MASK, 2)
    };
    let digits = numeric_body.len() / 2 - digits_start;
    // The value is coefficient * 10000^(weight - digits + 1); stored digits carry no trailing zeros beyond the scale.
    let exponent = (i64::from(weight) + 1 - i64::try_from(digits).ok()?) * 4;
    let scale = i64::from(dscale);
    if digits <= SMALL_DIGITS {
        let small = (0..digits)
            .try_fold(0_i128, |sum, at| Some(sum * 10_000 + i128::from(word(numeric_body, digits_start + at)?)))?;
        let scaled = match u32::try_from((scale + exponent).unsigned_abs()) {
            Ok(by) if scale + exponent >= 0 => 10_i128.checked_pow(by).and_then(|by| small.checked_mul(by)),
            Ok(by) => 10_i128.checked_pow(by).map(|by| small / by),
            Err(_) => None,
        };
        if let Some(scaled) = scaled {
            return Some(BigDecimal::new(BigInt::from(if is_negative { -scaled } else { scaled }), scale));
        }
    }
    let mut decimal_digits = Vec::with_capacity(digits * 4);
    for at in 0..digits {
        let digit = word(numeric_body, digits_start + at)?;
        decimal_digits.extend([digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| digit as u8));
    }
    let sign = if is_negative { Sign::Minus } else { Sign::Plus };
    let coefficient = BigInt::from_radix_be(sign, &decimal_digits, 10)?;
    Some(BigDecimal::new(coefficient, -exponent).with_scale(scale))
}

/// Sign bit of the short form, and the sign field of the long one.
const SHORT_SIGN: u16 = 0x2000;
const LONG_NEGATIVE: u16 = 0x4000;
/// As many base-10000 digits fit into an i128.
const SMALL_DIGITS: usize = 9;
