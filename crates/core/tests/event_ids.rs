//! Event ids: strictly increasing under any clock, and their text form.

use eventstream_core::{EventIds, from_ulid_text, to_ulid_text, to_uuid_text};
use proptest::prelude::*;

#[test]
fn an_id_holds_the_clock_and_the_randomness() {
    let id = EventIds::new().next(0x0123_4567_89AB, [0x77; 16]);
    assert_eq!(id[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB]);
    assert_eq!(id[6..], [0x77; 10]);
}

#[test]
fn a_standing_clock_adds_one_and_a_full_random_part_carries_into_the_time() {
    let mut ids = EventIds::new();
    let first = ids.next(1000, [0xFF; 16]);
    let second = ids.next(1000, [0; 16]);
    assert_eq!(first[..6], [0, 0, 0, 0, 0x03, 0xE8]);
    assert_eq!(second, [0, 0, 0, 0, 0x03, 0xE9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ids.next(5, [0xAA; 16])[15], 1, "a clock that went back adds one, too");
}

#[test]
fn the_end_of_time_is_no_panic_and_no_repetition() {
    let mut ids = EventIds::new();
    let mut last = ids.next(u64::MAX, [0xFF; 16]);
    for _ in 0..100 {
        let next = ids.next(u64::MAX, [0xFF; 16]);
        assert!(next > last);
        last = next;
    }
}

#[test]
fn the_text_form_is_the_spec_s() {
    // The example of the ULID specification; its first ten characters are the time.
    let id = from_ulid_text("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
    assert_eq!(u64::from_be_bytes([0, 0, id[0], id[1], id[2], id[3], id[4], id[5]]), 1_469_922_850_259);
    assert_eq!(to_ulid_text(id), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
    assert_eq!(from_ulid_text("01arz3ndektsv4rrffq69g5fav").unwrap(), id);
    assert_eq!(from_ulid_text("7ZZZZZZZZZZZZZZZZZZZZZZZZZ").unwrap(), [0xFF; 16]);
}

#[test]
fn the_uuid_form_is_postgresql_s() {
    let id: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    assert_eq!(to_uuid_text(&id), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!(to_uuid_text(&[0xFF; 16]), "ffffffff-ffff-ffff-ffff-ffffffffffff");
}

#[test]
fn text_that_is_no_ulid_is_refused_by_name() {
    for wrong in [
        "",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",
        "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01ARZ3NDEKTSV4RRFFQ69G5FAI",
        "01ARZ3NDEKTSV4RRFFQ69G5FA ",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "\u{e9}1ARZ3NDEKTSV4RRFFQ69G5FA",
    ] {
        let error = from_ulid_text(wrong).expect_err(wrong);
        assert_eq!(error.sqlstate(), "ES005");
        assert!(error.to_string().starts_with("ulid must be "), "{error}");
    }
}

proptest! {
    #[test]
    fn ids_strictly_increase_under_any_clock(
        steps in prop::collection::vec((prop_oneof![any::<u64>(), 0_u64..5, Just(u64::MAX)], any::<[u8; 16]>()), 1..200)
    ) {
        let mut ids = EventIds::new();
        let made: Vec<_> = steps.into_iter().map(|(clock, random)| ids.next(clock, random)).collect();
        prop_assert!(made.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_id_survives_its_text_form(id in any::<[u8; 16]>()) {
        prop_assert_eq!(from_ulid_text(&to_ulid_text(id)).unwrap(), id);
    }

    #[test]
    fn text_order_is_id_order(a in any::<[u8; 16]>(), b in any::<[u8; 16]>()) {
        prop_assert_eq!(a.cmp(&b), to_ulid_text(a).cmp(&to_ulid_text(b)));
    }
}
