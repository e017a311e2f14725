//! Names that somebody may have meant.

use eventstream_core::near::nearest_first;

fn nearest(name: &str, names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    nearest_first(name, &mut names);
    names
}

#[test]
fn a_slip_of_the_pen_is_near() {
    let names = ["AccountOpened", "CashIn", "CashOut", "Cashed"];
    for slip in ["CashInn", "CashI", "cashin", "CashIM", "XCashIn", "CsahIn"] {
        assert_eq!(nearest(slip, &names)[0], "CashIn", "{slip}");
    }
    assert_eq!(nearest("AccountOpend", &names)[0], "AccountOpened");
}

#[test]
fn the_nearest_comes_first_and_the_others_as_they_were() {
    assert_eq!(nearest("abcd", &["zzz", "abxy", "yyy", "abcx", "abcd"]), ["abcd", "abcx", "abxy", "zzz", "yyy"]);
    assert_eq!(nearest("", &["abcd", "abc", ""]), ["", "abc", "abcd"]);
    assert_eq!(nearest("abcd", &["", "a"]), ["a", ""]);
    assert_eq!(nearest(&"ü".repeat(300), &["x", &"ü".repeat(299)])[0], "ü".repeat(299));
}
