//! What an append depends on: every combination of what was expected and what was found.

use eventstream_core::Error;
use eventstream_core::command::boundary::{Dependency, Found};
use eventstream_core::expected::ExpectedVersion;

const MOST: i64 = 3;

fn sqlstate(expected: Option<i64>, must_exist: bool, found: Found) -> Option<&'static str> {
    let expected = ExpectedVersion::parse(expected).unwrap();
    Dependency { stream: "account-1", expected, must_exist }.judge(found).err().map(|error| error.sqlstate())
}

#[test]
fn every_combination_goes_on_or_says_the_first_thing_that_is_wrong() {
    for expected in [None, Some(0), Some(1), Some(2), Some(3)] {
        for version in 0..=MOST {
            for (must_exist, is_closed) in [(false, false), (false, true), (true, false), (true, true)] {
                let is_closed = is_closed && version > 0;
                let wanted = if must_exist && version == 0 {
                    Some("ES002")
                } else if expected.is_some_and(|expected| expected != version) {
                    Some("ES001")
                } else {
                    is_closed.then_some("ES003")
                };
                assert_eq!(
                    sqlstate(expected, must_exist, Found { version, is_closed }),
                    wanted,
                    "{expected:?} {version} {must_exist} {is_closed}"
                );
            }
        }
    }
}

#[test]
fn a_conflict_has_both_numbers() {
    let dependency = Dependency { stream: "account-1", expected: ExpectedVersion::Exact(4), must_exist: false };
    let error = dependency.judge(Found { version: 7, is_closed: true }).unwrap_err();
    assert!(
        matches!(&error, Error::VersionConflict { stream, expected: 4, actual: 7 } if stream == "account-1"),
        "{error:?}"
    );
    let error = dependency.judge(Found::NOTHING).unwrap_err();
    assert!(matches!(error, Error::VersionConflict { expected: 4, actual: 0, .. }), "{error:?}");
}
