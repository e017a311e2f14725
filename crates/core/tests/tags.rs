//! Tags: what a set of them is, and which are refused with which words.

use eventstream_core::Error;
use eventstream_core::command::tags::{MOST_TAGS, tag_set};
use eventstream_core::hash::are_in_order;
use proptest::prelude::*;

fn refusal(tags: &[&str]) -> String {
    let error = tag_set("tags", tags.iter().copied()).expect_err("must be refused");
    assert_eq!(error.sqlstate(), "ES005", "{error}");
    assert!(matches!(error, Error::InvalidArgument { .. }));
    error.to_string()
}

#[test]
fn tags_are_a_set_in_the_order_of_their_bytes() {
    let tags = tag_set("tags", ["order:42", "customer:7", "order:42", "a", "Z", "ž"]).unwrap();
    assert_eq!(tags, ["Z", "a", "customer:7", "order:42", "ž"]);
    assert!(tag_set("tags", []).unwrap().is_empty());
}

#[test]
fn a_tag_follows_the_rules_of_event_types() {
    assert_eq!(refusal(&["a", ""]), "tags[1] must not be empty");
    assert!(tag_set("tags", [&*"x".repeat(255)]).is_ok());
    assert_eq!(refusal(&[&"x".repeat(256)]), "tags[0] must have at most 255 bytes, not 256");
    for wrong in
        [" a", "a\u{a0}", "a\nb", "a\u{200b}b", "a\u{202e}b", "a\u{2800}b", "a\u{fffe}b", "\u{fdd0}", "e\u{301}"]
    {
        assert!(refusal(&[wrong]).starts_with("tags[0] must "), "{wrong:?}");
    }
}

#[test]
fn an_event_has_at_most_32_tags_counted_once_each() {
    let many: Vec<String> = (0..=MOST_TAGS).map(|number| format!("order:{number}")).collect();
    let twice = many[1..].iter().chain(&many[1..]).map(String::as_str);
    assert_eq!(tag_set("tags", twice).unwrap().len(), MOST_TAGS);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(refusal(&many), "tags must have at most 32 tags, not 33");
}

proptest! {
    #[test]
    fn a_set_is_what_the_hash_takes_whatever_the_order(mut tags in prop::collection::vec("[a-cA-C:é]{1,3}", 0..12)) {
        let set = tag_set("tags", tags.iter().map(String::as_str)).unwrap().join(" ");
        let found = tag_set("tags", tags.iter().map(String::as_str)).unwrap();
        prop_assert!(are_in_order(&found));
        prop_assert!(tags.iter().all(|tag| found.contains(&tag.as_str())));
        tags.reverse();
        prop_assert_eq!(tag_set("tags", tags.iter().map(String::as_str)).unwrap().join(" "), set);
    }
}
