//! Which events a closed period refuses.

use eventstream_core::command::period::{Closed, Closing, Periods};

fn periods(closed: &[(&str, Option<&str>, i64)]) -> Periods {
    let mut periods = Periods::default();
    for &(category, tag, until) in closed {
        periods.close(category, tag, until);
    }
    periods
}

#[test]
fn nothing_is_closed_where_nothing_was() {
    assert!(Periods::default().is_empty());
    assert_eq!(Periods::default().closed("account", &[], i64::MIN), None);
    assert!(!periods(&[("account", None, 0)]).is_empty());
}

#[test]
fn a_period_ends_with_its_last_microsecond() {
    let periods = periods(&[("account", None, 100)]);
    for (occurred_at, is_closed) in [(i64::MIN, true), (99, true), (100, true), (101, false), (i64::MAX, false)] {
        assert_eq!(periods.closed("account", &[], occurred_at).is_some(), is_closed, "{occurred_at}");
    }
    assert_eq!(periods.closed("accounts", &[], 0), None);
}

#[test]
fn what_is_closed_twice_is_closed_to_the_later_moment() {
    for closed in [[100, 200], [200, 100]] {
        let periods = periods(&[("account", None, closed[0]), ("account", None, closed[1])]);
        assert_eq!(periods.closed("account", &[], 150), Some(Closed { tag: None, until: 200 }));
    }
}

#[test]
fn a_tag_closes_for_those_that_bear_it() {
    let periods = periods(&[("account", Some("company:1"), 200), ("account", Some("company:2"), 300)]);
    assert_eq!(periods.closed("account", &[], 100), None);
    assert_eq!(periods.closed("account", &["company:3"], 100), None);
    assert_eq!(
        periods.closed("account", &["a", "company:1"], 100),
        Some(Closed { tag: Some("company:1"), until: 200 })
    );
    assert_eq!(periods.closed("account", &["company:1"], 201), None);
    assert_eq!(
        periods.closed("account", &["company:1", "company:2"], 100),
        Some(Closed { tag: Some("company:2"), until: 300 })
    );
}

#[test]
fn the_furthest_is_said_and_of_equals_that_for_all() {
    let periods =
        periods(&[("account", Some("company:1"), 200), ("account", None, 200), ("account", Some("company:2"), 300)]);
    assert_eq!(periods.closed("account", &["company:1"], 100), Some(Closed { tag: None, until: 200 }));
    assert_eq!(
        periods.closed("account", &["company:1", "company:2"], 100),
        Some(Closed { tag: Some("company:2"), until: 300 })
    );
    assert_eq!(periods.closed("account", &["company:2"], 250), Some(Closed { tag: Some("company:2"), until: 300 }));
    assert_eq!(periods.closed("account", &["company:1"], 250), None);
}

#[test]
fn a_closing_is_broken_by_what_was_recorded_while_it_stood() {
    let closing = Closing { tag: None, until: 100, after_position: 10, to_position: Some(20) };
    for (position, occurred_at, is_broken) in
        [(10, 100, false), (11, 100, true), (20, 0, true), (21, 100, false), (11, 101, false)]
    {
        assert_eq!(closing.is_broken_by::<&str>(position, occurred_at, &[]), is_broken, "{position}, {occurred_at}");
    }
    let closing = Closing { tag: Some("company:1".to_owned()), to_position: None, ..closing };
    assert!(closing.is_broken_by(i64::MAX, 100, &["a", "company:1"]));
    assert!(!closing.is_broken_by(11, 100, &["company:2"]));
}
