//! What an append depends on: every combination of what was expected and what was found.

use eventstream_core::Error;
use eventstream_core::command::boundary::{Dependency, Found, Role};
use eventstream_core::expected::ExpectedVersion;

const MOST: i64 = 3;
const ROLES: [Role; 3] = [Role::Appended { must_exist: false }, Role::Appended { must_exist: true }, Role::Checked];

fn sqlstate(expected: Option<i64>, role: Role, found: Found) -> Option<&'static str> {
    let expected = ExpectedVersion::parse(expected).unwrap();
    Dependency { stream: "account-1", expected, role }.judge(found).err().map(|error| error.sqlstate())
}

#[test]
fn every_combination_goes_on_or_says_the_first_thing_that_is_wrong() {
    for expected in [None, Some(0), Some(1), Some(2), Some(3)] {
        for version in 0..=MOST {
            for (role, is_closed) in ROLES.into_iter().flat_map(|role| [(role, false), (role, true)]) {
                let is_closed = is_closed && version > 0;
                let wanted = if role == (Role::Appended { must_exist: true }) && version == 0 {
                    Some("ES002")
                } else if expected.is_some_and(|expected| expected != version) {
                    Some("ES001")
                } else {
                    (is_closed && role != Role::Checked).then_some("ES003")
                };
                let found = Found { version, is_closed };
                assert_eq!(sqlstate(expected, role, found), wanted, "{expected:?} {role:?} {found:?}");
            }
        }
    }
}

#[test]
fn a_conflict_has_both_numbers() {
    for role in [Role::Appended { must_exist: false }, Role::Checked] {
        let dependency = Dependency { stream: "account-1", expected: ExpectedVersion::Exact(4), role };
        let error = dependency.judge(Found { version: 7, is_closed: true }).unwrap_err();
        assert!(
            matches!(&error, Error::VersionConflict { stream, expected: 4, actual: 7, is_closed: true } if stream == "account-1"),
            "{error:?}"
        );
        let error = dependency.judge(Found::NOTHING).unwrap_err();
        assert!(matches!(error, Error::VersionConflict { expected: 4, actual: 0, is_closed: false, .. }), "{error:?}");
    }
}
