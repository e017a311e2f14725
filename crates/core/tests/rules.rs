//! The small rules: expected versions, privileges, times, partitions, and how long a numeric prints.

use eventstream_core::argument::Argument;
use eventstream_core::{
    Error, ExpectedVersion, FIRST_LOWER, FIRST_UPPER, PG_EPOCH_UNIX_US, Privilege, next_recorded_at, pg_to_unix_us,
    printed_digits, range_for, table_name,
};
use proptest::prelude::*;

#[test]
fn an_expected_version_is_null_zero_or_positive() {
    assert_eq!(ExpectedVersion::parse(None).unwrap(), ExpectedVersion::Any);
    assert_eq!(ExpectedVersion::parse(Some(0)).unwrap(), ExpectedVersion::NoStream);
    assert_eq!(ExpectedVersion::parse(Some(i64::MAX)).unwrap(), ExpectedVersion::Exact(i64::MAX));
    for negative in [-1, -2, i64::MIN] {
        let error = ExpectedVersion::parse(Some(negative)).unwrap_err();
        assert_eq!(error.sqlstate(), "ES005");
        assert_eq!(
            error.to_string(),
            format!("expected_version must be NULL, 0 or a positive version, not {negative}")
        );
        assert!(error.hint().unwrap().contains("0 means that the stream has no events yet, NULL means any version"));
    }
}

#[test]
fn an_expected_version_accepts_only_what_it_says() {
    for (expected, accepted, refused) in [(Some(0), 0, 1), (Some(3), 3, 4), (Some(3), 3, 2), (Some(3), 3, 0)] {
        let expected = ExpectedVersion::parse(expected).unwrap();
        assert!(expected.accepts(accepted) && !expected.accepts(refused), "{expected:?}");
    }
    assert!([0, 1, i64::MAX].into_iter().all(|actual| ExpectedVersion::Any.accepts(actual)));
    for number in [None, Some(0), Some(5)] {
        assert_eq!(ExpectedVersion::parse(number).unwrap().as_option(), number);
    }
}

#[test]
fn privileges_are_known_by_name_and_only_those_about_single_streams_narrow() {
    for &privilege in Privilege::ALL {
        assert_eq!(Privilege::parse("privilege", privilege.as_str()).unwrap(), privilege);
    }
    let narrowed: Vec<_> =
        Privilege::ALL.iter().copied().filter(|p| p.may_be_narrowed()).map(Privilege::as_str).collect();
    assert_eq!(narrowed, ["read", "append", "command", "consume", "manage", "reveal"]);
    for wrong in ["", "Read", "write"] {
        let error = Privilege::parse("privilege", wrong).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "privilege must be read, append, command, consume, manage, upkeep, reveal, audit or admin, not {wrong:?}"
            )
        );
        assert!(matches!(error, Error::InvalidArgument { .. }));
    }
}

#[test]
fn times_move_from_postgresql_s_epoch_to_unix_s_exactly() {
    assert_eq!(pg_to_unix_us(0), 946_684_800_000_000);
    assert_eq!(pg_to_unix_us(-PG_EPOCH_UNIX_US), 0);
    assert_eq!(pg_to_unix_us(-PG_EPOCH_UNIX_US - 1), -1);
    assert_eq!(pg_to_unix_us(i64::MAX), i64::MAX);
}

#[test]
fn recorded_at_is_the_clock_but_never_goes_back() {
    assert_eq!(next_recorded_at(10, Some(9), 8, 7), 10);
    assert_eq!(next_recorded_at(10, Some(11), 8, 7), 11);
    assert_eq!(next_recorded_at(10, Some(9), 12, 7), 12);
    assert_eq!(next_recorded_at(10, None, 8, 13), 13);
    assert_eq!(next_recorded_at(-5, None, -7, -6), -5);
}

#[test]
fn partitions_touch_and_never_overlap() {
    assert_eq!((FIRST_LOWER, FIRST_UPPER), (1, 16_777_216));
    assert_eq!(range_for(FIRST_UPPER, FIRST_UPPER, None, 1 << 24), (1 << 24, 1 << 25));
    assert_eq!(range_for(FIRST_UPPER + 999, FIRST_UPPER, None, 1000), (16_777_216, 16_778_216));
    assert_eq!(
        range_for(FIRST_UPPER + 1000, FIRST_UPPER, None, 1000),
        (16_777_216, 16_779_216),
        "after a jump it is wider: there are no holes"
    );
    assert_eq!(range_for(150, 100, Some(180), 100), (100, 180), "the partition after it exists already");
    assert_eq!(range_for(5, 5, None, 0), (5, 6));
    assert_eq!(range_for(0, 0, None, 10), (1, 11), "positions start at 1");
    assert_eq!(range_for(i64::MAX - 1, i64::MAX - 1, None, 1 << 24), (i64::MAX - 1, i64::MAX));
    assert_eq!(range_for(i64::MAX, i64::MAX, None, 1 << 24), (i64::MAX, i64::MAX));
    assert_eq!(table_name(FIRST_LOWER), "events_1");
    assert_eq!(table_name(FIRST_UPPER), "events_16777216");
}

proptest! {
    #[test]
    fn the_range_for_a_position_holds_it_and_stays_between_its_neighbours(
        previous_upper in 1_i64..1 << 60,
        jump in 0_i64..1 << 60,
        size in 1_i64..1 << 30,
        gap in prop::option::of(1_i64..1 << 40),
    ) {
        let position = previous_upper + jump;
        let next_lower = gap.map(|gap| position + gap);
        let (lower, upper) = range_for(position, previous_upper, next_lower, size);
        prop_assert!(lower <= position && position < upper);
        prop_assert!(lower >= previous_upper && next_lower.is_none_or(|next| upper <= next));
        prop_assert_eq!(lower, previous_upper, "a hole is a partition that somebody took away");
        prop_assert!(upper - position <= size);
        prop_assert!((upper - lower) % size == 0 || next_lower == Some(upper));
    }
}

/// A short-form numeric: header, then base-10000 digits.
fn short(weight: i16, dscale: u16, digits: &[u16]) -> Vec<u8> {
    let header = 0x8000 | (dscale << 7) | if weight < 0 { 0x40 } else { 0 } | (weight.cast_unsigned() & 0x3F);
    words(&[&[header], digits].concat())
}

/// A long-form numeric: sign and scale, weight, then digits.
fn long(sign: u16, weight: i16, dscale: u16, digits: &[u16]) -> Vec<u8> {
    words(&[&[sign | dscale, weight.cast_unsigned()], digits].concat())
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn a_short_numeric_prints_as_many_digits_as_postgresql_prints() {
    for (body, printed, text) in [
        (short(0, 0, &[]), 1, "0"),
        (short(0, 2, &[]), 3, "0.00"),
        (short(0, 2, &[1]), 3, "1.00"),
        (short(0, 0, &[9999]), 4, "9999"),
        (short(1, 0, &[1]), 5, "10000"),
        (short(1, 0, &[12, 3456]), 6, "123456"),
        (short(3, 2, &[1234, 5678, 9012, 3456, 7800]), 18, "1234567890123456.78"),
        (short(-1, 1, &[5000]), 2, "0.5"),
        (short(-2, 8, &[1]), 9, "0.00000001"),
        (short(63, 0, &[10]), 254, "1e253"),
        (short(-64, 63, &[1]), 64, "a scale of 63"),
    ] {
        assert_eq!(printed_digits(&body), Some(printed), "{text}");
    }
    // A negative sign (0x2000) prints no digit.
    assert_eq!(printed_digits(&words(&[0x8000 | 0x2000 | (2 << 7), 1])), Some(3));
}

#[test]
fn a_long_numeric_prints_as_many_digits_as_postgresql_prints() {
    assert_eq!(printed_digits(&long(0, 100, 0, &[1])), Some(401), "1e400");
    assert_eq!(printed_digits(&long(0x4000, 32_767, 16_383, &[9999])), Some(131_072 + 16_383));
    assert_eq!(printed_digits(&long(0, -100, 400, &[1])), Some(401), "1e-400");
    assert_eq!(printed_digits(&long(0, 0, 100, &[])), Some(101), "a zero with scale");
}

#[test]
fn nan_infinity_and_garbage_print_no_digits() {
    for special in [0xC000, 0xD000, 0xF000] {
        assert_eq!(printed_digits(&words(&[special])), None, "{special:#x}");
    }
    assert_eq!(printed_digits(&[]), None);
    assert_eq!(printed_digits(&[0]), None);
    assert_eq!(printed_digits(&0x0000_u16.to_ne_bytes()), None, "a long header without its weight");
}
