//! Which typed columns over states may be asked for, and what is said of others.
use eventstream_core::column::{Over, steps};
use eventstream_core::options::ColumnElement;
use std::collections::HashSet;

/// What the last of these columns, each a name and a path, is found to be.
fn last(over: Over, columns: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
    let mut names = HashSet::new();
    let read = |&(name, path)| steps(&ColumnElement { name, type_name: "text", path }, over, &mut names);
    columns.iter().map(read).last().unwrap().map_err(|error| error.to_string())
}

#[test]
fn a_path_is_taken_apart_into_its_steps() {
    assert_eq!(last(Over::View, &[("a", "")]).unwrap(), Vec::<String>::new());
    assert_eq!(last(Over::View, &[("a", "/b~1c/~0/0/")]).unwrap(), ["b/c", "~", "0", ""]);
}

#[test]
fn a_path_that_is_no_json_pointer_is_refused_as_it_was_given() {
    let refused = |path| last(Over::Table, &[("a", path)]).unwrap_err();
    assert_eq!(refused("a"), "path must be a JSON Pointer, which begins with /, not \"a\"");
    assert_eq!(refused("/a~2b"), "path must be a JSON Pointer, in which ~ is followed by 0 or 1, not \"/a~2b\"");
    assert!(last(Over::Table, &[("a", "/a~")]).is_err());
}

#[test]
fn a_name_is_one_that_postgresql_keeps_and_that_nobody_else_has() {
    let refused = |over, names: &[&'static str]| {
        last(over, &names.iter().map(|&name| (name, "")).collect::<Vec<_>>()).unwrap_err()
    };
    assert_eq!(refused(Over::Table, &[""]), "name must have 1 to 63 bytes, not 0");
    let long: &'static str = "é".repeat(32).leak();
    assert_eq!(refused(Over::Table, &[long]), "name must have 1 to 63 bytes, not 64");
    assert!(refused(Over::Table, &["version"]).starts_with("name must not be stream or version"));
    assert_eq!(refused(Over::View, &["a", "b", "a"]), "name must be another than those before: \"a\" comes again");
    assert_eq!(refused(Over::View, &["problem"]), "name must not be problem: the view's last column is");
    assert!(last(Over::Table, &[("problem", "")]).is_ok());
}
