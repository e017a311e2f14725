//! Property of numbers: whatever decimal number is stored, its printed digits are counted exactly.

use eventstream_core::number::decimal;
use eventstream_core::printed_digits;
use proptest::prelude::*;

/// Stores a decimal number as make_result() in numeric.c does: base-10000 digits without leading and trailing zeros,
/// in the short form where scale and weight fit it.
fn stored(integer: &str, fraction: &str, is_negative: bool) -> Vec<u8> {
    let left = format!("{}{integer}", "0".repeat(integer.len().next_multiple_of(4) - integer.len()));
    let right = format!("{fraction}{}", "0".repeat(fraction.len().next_multiple_of(4) - fraction.len()));
    let all = format!("{left}{right}");
    let mut digits: Vec<u16> = (0..all.len()).step_by(4).map(|at| all[at..at + 4].parse().unwrap()).collect();
    let mut weight = i16::try_from(left.len() / 4).unwrap() - 1;
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    weight -= i16::try_from(leading).unwrap();
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    let scale = u16::try_from(fraction.len()).unwrap();
    let header = if scale <= 0x3F && (-64..=63).contains(&weight) {
        let sign = if is_negative { 0x2000 } else { 0 };
        let weight_sign = if weight < 0 { 0x40 } else { 0 };
        vec![0x8000 | sign | (scale << 7) | weight_sign | (weight.cast_unsigned() & 0x3F)]
    } else {
        vec![if is_negative { 0x4000 } else { 0 } | scale, weight.cast_unsigned()]
    };
    header.into_iter().chain(digits).flat_map(u16::to_ne_bytes).collect()
}

proptest! {
    #[test]
    fn printed_digits_are_those_of_the_decimal_text(
        integer in prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,40}", "[1-9]0{0,900}"],
        fraction in prop_oneof![Just(String::new()), "[0-9]{1,70}", "0{1,900}[0-9]{0,9}"],
        is_negative in any::<bool>(),
    ) {
        let expected = (integer.len() + fraction.len()) as u64;
        prop_assert_eq!(printed_digits(&stored(&integer, &fraction, is_negative)), Some(expected));
    }

    #[test]
    fn a_stored_number_is_read_digit_for_digit(
        integer in prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,40}", "[1-9]0{0,900}"],
        fraction in prop_oneof![Just(String::new()), "[0-9]{1,70}", "0{1,900}[0-9]{0,9}"],
        is_negative in any::<bool>(),
    ) {
        let is_zero = integer.bytes().chain(fraction.bytes()).all(|digit| digit == b'0');
        let point = if fraction.is_empty() { "" } else { "." };
        let sign = if is_negative && !is_zero { "-" } else { "" };
        let read = decimal(&stored(&integer, &fraction, is_negative && !is_zero)).unwrap();
        prop_assert_eq!(read.to_plain_string(), format!("{sign}{integer}{point}{fraction}"));
    }

    #[test]
    fn bytes_that_are_no_numeric_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        // At most the largest weight and scale there are, whatever the bytes: no overflow, no panic.
        prop_assert!(printed_digits(&bytes).is_none_or(|digits| digits <= 32_767 * 4 + 5 + 0x3FFF));
        prop_assert!(decimal(&bytes).is_none() || printed_digits(&bytes).is_some());
    }
}
