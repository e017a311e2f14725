//! Creating a thing twice: what counts as the same, and what the refusal says.
use eventstream_core::definition::{Part, same};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_order_of_a_list_and_a_name_given_twice_mean_nothing() {
    let (there, asked) = (names(&["b", "a"]), names(&["a", "b", "a"]));
    let parts = [Part::set("categories", Some(&there), Some(&asked)), Part::new("batch_size", 500, 500_i64)];
    assert_eq!(same("name", "projection", "p", &parts, None), Ok(()));
}

#[test]
fn a_refusal_names_each_part_that_differs_and_no_other() {
    let parts = [
        Part::new("mode", "async", "inline"),
        Part::new("batch_size", 500, 500),
        Part::set("categories", None, Some(&names(&["a"]))),
        Part::optional("reset", Some("public.clear"), None),
    ];
    let refused = same("name", "projection", "p", &parts, None).unwrap_err();
    assert_eq!(refused.sqlstate(), "ES005");
    assert_eq!(
        refused.to_string(),
        "name must be new, or of the same definition: there is a projection \"p\" with mode async, not inline; categories NULL, not \
         {\"a\"}; reset public.clear, not NULL"
    );
}

#[test]
fn no_list_is_not_the_empty_list_and_long_parts_are_cut() {
    assert!(same("name", "x", "p", &[Part::set("categories", None, Some(&[]))], None).is_err());
    let refused = same("name", "x", "p", &[Part::new("columns", "c".repeat(10_000), "d")], None).unwrap_err();
    assert!(refused.to_string().len() < 400);
}

#[test]
fn of_two_long_lists_what_is_in_one_of_them_only_is_shown() {
    let columns = |last: &[&str]| {
        let same = (0..50).map(|n| format!("column_{n} numeric /path/{n}"));
        same.chain(last.iter().map(|&one| one.to_owned())).collect::<Vec<_>>()
    };
    let refusal = |there: &[&str], asked: &[&str]| {
        let part = Part::list("columns", &columns(there), &columns(asked));
        same("name", "state table", "t", &[part], None).map_err(|refused| refused.to_string())
    };
    assert_eq!(refusal(&["a text /a"], &["a text /a"]), Ok(()));
    let says = |refused: Result<(), String>, what: &str| assert!(refused.unwrap_err().ends_with(what), "{what}");
    says(refusal(&["a text /a"], &["a int /a", "b int /b"]), "with columns a text /a, not a int /a, b int /b");
    says(refusal(&["a text /a"], &[]), "with columns a text /a, not no other");
    says(refusal(&[], &["b int /b"]), "with columns no other, not b int /b");
    let (one, other) = (names(&["a", "b"]), names(&["b", "a"]));
    let refused = same("name", "state table", "t", &[Part::list("columns", &one, &other)], None);
    says(refused.map_err(|refused| refused.to_string()), "with columns a, b, not the order b, a");
}
