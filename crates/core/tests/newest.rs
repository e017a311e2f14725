//! Whether stored schema versions are read in the newest declared one: every way in which they are not, said with what it is about.
use eventstream_core::newest::{EventTypes, Misfit, misfits, resting, way_end};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Known {
    declared: BTreeMap<&'static str, BTreeSet<i32>>,
    steps: BTreeMap<(&'static str, i32), &'static str>,
}

impl Known {
    fn of(declared: &[(&'static str, i32)], steps: &[(&'static str, i32, &'static str)]) -> Self {
        let mut known = Self::default();
        for &(event_type, version) in declared {
            known.declared.entry(event_type).or_default().insert(version);
        }
        known.steps = steps.iter().map(|&(event_type, from, to)| ((event_type, from), to)).collect();
        known
    }

    fn words(&self, event_type: &str, version: i32) -> Vec<String> {
        misfits(self, event_type, version).iter().map(ToString::to_string).collect()
    }
}

impl EventTypes for Known {
    fn step(&self, event_type: &str, schema_version: i32) -> Option<&str> {
        self.steps.iter().find(|((of, from), _)| (*of, *from) == (event_type, schema_version)).map(|(_, to)| *to)
    }

    fn newest(&self, event_type: &str) -> Option<i32> {
        self.declared.get(event_type).and_then(|versions| versions.last().copied())
    }

    fn is_declared(&self, event_type: &str, schema_version: i32) -> bool {
        self.declared.get(event_type).is_some_and(|versions| versions.contains(&schema_version))
    }
}

#[test]
fn what_is_declared_and_led_to_the_newest_fits() {
    let known = Known::of(&[("A", 1), ("A", 2), ("B", 3)], &[("A", 1, "A")]);
    assert!(misfits(&known, "A", 1).is_empty() && misfits(&known, "A", 2).is_empty());
    let renamed = Known::of(&[("A", 1), ("A", 2), ("B", 3)], &[("A", 1, "A"), ("A", 2, "B")]);
    assert!(
        misfits(&renamed, "A", 1).is_empty()
            && misfits(&renamed, "A", 2).is_empty()
            && misfits(&renamed, "B", 3).is_empty()
    );
}

#[test]
fn what_nobody_declared_does_not() {
    let known = Known::of(&[("A", 2)], &[("A", 1, "A")]);
    assert_eq!(misfits(&known, "B", 1), [Misfit::NotDeclared { newest: None }]);
    assert_eq!(known.words("B", 1), ["the event type is not declared"]);
    assert_eq!(known.words("A", 1), ["this schema version is not declared; the newest that is declared is 2"]);
    // Newer than whatever is declared.
    assert_eq!(known.words("A", 7), ["this schema version is not declared; the newest that is declared is 2"]);
    assert!(misfits(&known, "A", 7).iter().all(|misfit| !misfit.is_of_reading()));
}

#[test]
fn a_chain_that_ends_too_early_does_not() {
    let known = Known::of(&[("A", 1), ("A", 4)], &[("A", 1, "A")]);
    let words = "no upcaster turns schema version 2 of \"A\" into 3: it is read in version 2, and the newest that is declared is 4";
    assert_eq!(known.words("A", 1), [words]);
    assert_eq!(known.words("A", 2), ["this schema version is not declared; the newest that is declared is 4", words]);
    assert!(misfits(&known, "A", 1).iter().all(Misfit::is_of_reading));
}

#[test]
fn a_chain_to_what_is_not_declared_does_not() {
    let known = Known::of(&[("A", 1), ("B", 1)], &[("A", 1, "B"), ("B", 1, "C")]);
    assert_eq!(known.words("A", 1), ["upcasters turn it into schema version 2 of \"B\", which is not declared"]);
    assert_eq!(known.words("B", 1), ["upcasters turn it into schema version 2 of \"C\", which is not declared"]);
}

#[test]
fn the_highest_version_ends_a_chain() {
    let known = Known::of(&[("A", i32::MAX)], &[("A", i32::MAX, "A")]);
    assert!(misfits(&known, "A", i32::MAX).is_empty());
}

#[test]
fn a_way_ends_where_a_step_is_missing_or_where_it_was_to_lead() {
    let known = Known::of(&[], &[("A", 1, "A"), ("A", 2, "B"), ("B", 3, "A"), ("A", 5, "A")]);
    assert_eq!(way_end(&known, "A", 1, 4), ("A", 4));
    assert_eq!(way_end(&known, "A", 1, 3), ("B", 3));
    assert_eq!(way_end(&known, "A", 1, 6), ("A", 4));
    assert_eq!(way_end(&known, "A", 2, 2), ("A", 2));
    let last = Known::of(&[], &[("A", i32::MAX - 1, "A")]);
    assert_eq!(way_end(&last, "A", i32::MAX - 1, i32::MAX), ("A", i32::MAX));
}

#[test]
fn the_next_declared_version_rests_on_the_steps_to_it() {
    let all = [("A", 1), ("B", 3), ("A", 5)];
    let known =
        Known::of(&all, &[("A", 1, "A"), ("A", 2, "B"), ("B", 3, "A"), ("A", 4, "A"), ("A", 5, "A"), ("C", 1, "A")]);
    let rests = |step| resting(&known, step, all.into_iter());
    assert_eq!(rests(("A", 1)), Some((("A", 1), ("B", 3))));
    assert_eq!(rests(("A", 2)), Some((("A", 1), ("B", 3))));
    assert_eq!(rests(("B", 3)), Some((("B", 3), ("A", 5))));
    assert_eq!(rests(("A", 4)), Some((("B", 3), ("A", 5))));
    // To nothing declared, from nothing declared, and no step at all.
    assert_eq!((rests(("A", 5)), rests(("C", 1)), rests(("X", 1))), (None, None, None));
}
