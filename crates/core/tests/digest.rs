//! The digest over a set: whatever the order, never the same for another set, and the same bytes for ever.

use eventstream_core::digest::Digest;
use proptest::prelude::*;

fn of(members: &[(i64, [u8; 32])]) -> Digest {
    let mut digest = Digest::default();
    members.iter().for_each(|(position, hash)| digest.add_event(*position, hash));
    digest
}

#[test]
fn nothing_sums_to_zero() {
    assert_eq!((Digest::default().count(), Digest::default().sum()), (0, "0".repeat(64)));
}

#[test]
fn an_events_bytes_are_fixed() {
    // python3 -c "import hashlib; print(hashlib.sha256(b'eventstream/condition/1\0' + (7).to_bytes(8, 'big') + bytes([1]) * 32).hexdigest())"
    let one = of(&[(7, [1; 32])]);
    assert_eq!(one.sum(), "a0ae516a10b10466fbf665a1f5414527abead492930748ea13e28900a435369d");
    // … and the sum with that of (8, 32 times 0xff), modulo 2**256.
    assert_eq!(
        of(&[(7, [1; 32]), (8, [255; 32])]).sum(),
        "c82cb3ca0f70b9598b1cdeed5987ba1eb5feb0fa6100eeadce26ea6913cd6c7c"
    );
}

#[test]
fn a_sum_is_read_as_it_is_written_and_nothing_else_is() {
    let two = of(&[(1, [3; 32]), (2, [200; 32])]);
    assert_eq!(Digest::of(2, &two.sum()), Some(two));
    assert_ne!(Digest::of(1, &two.sum()), Some(two));
    for wrong in
        ["", "0", &"0".repeat(63), &"0".repeat(65), &"G".repeat(64), &two.sum().to_uppercase(), &"é".repeat(32)]
    {
        assert_eq!(Digest::of(2, wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_tag_is_no_event_and_no_other_tag() {
    let tag = |tenant, position, tag: &str| {
        let mut digest = Digest::default();
        digest.add_tag(tenant, position, tag);
        digest
    };
    let all = [tag(1, 2, "a"), tag(2, 1, "a"), tag(1, 2, "b"), tag(1, 2, ""), of(&[(1, [0; 32])])];
    for (place, one) in all.iter().enumerate() {
        assert!(all[place + 1..].iter().all(|other| other != one));
    }
}

proptest! {
    #[test]
    fn the_order_does_not_matter_and_every_member_does(
        mut members in prop::collection::vec((any::<i64>(), any::<[u8; 32]>()), 1..20), left in any::<prop::sample::Index>()
    ) {
        let digest = of(&members);
        members.reverse();
        prop_assert_eq!(of(&members), digest);
        let place = left.index(members.len());
        let mut other = members.clone();
        other.remove(place);
        prop_assert_ne!(of(&other), digest);
        other.push((members[place].0.wrapping_add(1), members[place].1));
        prop_assert_ne!(of(&other), digest);
    }
}
