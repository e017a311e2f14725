//! Words that a table checks are those of the enum, in its order; those of an argument are told.
use eventstream_core::Privilege;
use eventstream_core::argument::Argument;
use eventstream_core::command::operation::Stage;
use eventstream_core::word::{Mode, OnError, Order, ProjectionKind, Status, Word};

/// What the CHECK of that name lets in.
fn checked(sql: &str, constraint: &str) -> Vec<String> {
    let (_, rest) = sql.split_once(&format!("constraint {constraint} check (")).expect(constraint);
    let (_, list) = rest.split_once(" in (").expect(constraint);
    let (list, _) = list.split_once(')').expect(constraint);
    list.split(", ").map(|word| word.trim_matches('\'').to_owned()).collect()
}

#[test]
fn tables_check_for_the_words_that_there_are() {
    let access = include_str!("../../../sql/access/tables.sql");
    let state = include_str!("../../../sql/state/tables.sql");
    let projection = include_str!("../../../sql/projection/tables.sql");
    let words = |all: &[&str]| all.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let of = |all: Vec<&'static str>| words(&all);
    assert_eq!(checked(access, "grants_privilege_check"), of(Privilege::ALL.iter().map(|one| one.as_str()).collect()));
    assert_eq!(checked(state, "folds_order_check"), of(Order::ALL.iter().map(|one| one.as_str()).collect()));
    let command = include_str!("../../../sql/command/tables.sql");
    assert_eq!(checked(command, "operations_stage_check"), of(Stage::ALL.iter().map(|one| one.as_str()).collect()));
    assert_eq!(
        checked(projection, "projections_kind_check"),
        of(ProjectionKind::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(checked(projection, "projections_mode_check"), of(Mode::ALL.iter().map(|one| one.as_str()).collect()));
    assert_eq!(
        checked(projection, "projections_on_error_check"),
        of(OnError::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(
        checked(projection, "projection_progress_status_check"),
        of(Status::ALL.iter().map(|one| one.as_str()).collect())
    );
}

#[test]
fn a_word_comes_back_and_another_one_is_refused_with_those_that_may_be() {
    for &status in Status::ALL {
        assert_eq!(Status::named(status.as_str()), Some(status));
    }
    let refused = |error: eventstream_core::Error| error.to_string();
    assert!(refused(Mode::parse("mode", "Inline").unwrap_err()).contains("must be async or inline, not \"Inline\""));
    let kinds = refused(ProjectionKind::parse("kind", "").unwrap_err());
    assert!(kinds.contains("must be event, batch or table, not"), "{kinds}");
}
