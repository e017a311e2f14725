//! Properties of names: parts and whole agree, the rules accept neither more nor less than "What may be appended"
//! says, and no input makes a message long or puts a control character into it.

use eventstream_core::argument::Argument;
use eventstream_core::{
    Category, EventType, ExpectedVersion, Privilege, StreamName, Subject, TenantName, from_ulid_text,
};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

/// Some of the characters that nobody sees.
const UNSEEN: [char; 8] =
    ['\u{200b}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{2800}', '\u{feff}', '\u{fffe}'];

/// Anything, with a bias to what the rules are about: dashes, blanks, control characters, edges of length.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_filter("unseen ones stand in a list", |text| {
            text.chars().all(|c| {
                UNSEEN.contains(&c)
                    || StreamName::parse(&format!("a-x{c}x")).is_ok()
                    || c.is_control()
                    || c.is_whitespace()
                    || !is_composed(&format!("x{c}x"))
            })
        }),
        "[a-c \u{a0}\u{1}-]{0,6}",
        "[a-c \u{200b}\u{2028}\u{202e}\u{2066}\u{2800}\u{feff}\u{fffe}\u{301}é-]{0,6}",
        "[a-cé]{0,3}-[a-cé -]{1,300}",
        (500_usize..520).prop_map(|bytes| format!("a-{}", "x".repeat(bytes - 2))),
        (250_usize..260).prop_map(|bytes| "x".repeat(bytes)),
    ]
}

/// The rules once more, as plainly as they can be said.
fn has_control(text: &str) -> bool {
    text.chars().any(|c| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'))
}

fn has_unseen(text: &str) -> bool {
    text.chars().any(|c| UNSEEN.contains(&c))
}

fn is_composed(text: &str) -> bool {
    text.nfc().eq(text.chars())
}

fn has_outer_blank(text: &str) -> bool {
    text.trim() != text
}

fn is_stream_name(name: &str) -> bool {
    let parts: Vec<_> = name.splitn(2, '-').collect();
    name.len() <= 512
        && parts.len() == 2
        && parts.iter().all(|part| !part.is_empty())
        && !has_control(name)
        && !has_unseen(name)
        && is_composed(name)
        && parts.iter().all(|part| !has_outer_blank(part))
}

fn is_label(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !has_control(text)
        && !has_unseen(text)
        && is_composed(text)
        && !has_outer_blank(text)
}

proptest! {
    #[test]
    fn a_stream_name_is_accepted_exactly_when_the_rules_say_so(name in any_text()) {
        prop_assert_eq!(StreamName::parse(&name).is_ok(), is_stream_name(&name));
    }

    #[test]
    fn labels_are_accepted_exactly_when_the_rules_say_so(text in any_text()) {
        prop_assert_eq!(EventType::parse(&text).is_ok(), is_label(&text));
        prop_assert_eq!(TenantName::parse(&text).is_ok(), is_label(&text) && text != "*");
        prop_assert_eq!(Subject::parse(&text).is_ok(), is_label(&text));
    }

    #[test]
    fn a_stream_name_is_its_parts_joined(name in any_text()) {
        if let Ok(parsed) = StreamName::parse(&name) {
            prop_assert_eq!(StreamName::join(parsed.category(), parsed.id()).unwrap(), name.as_str());
            prop_assert_eq!(parsed.as_str(), name.as_str());
        }
    }

    #[test]
    fn parts_joined_come_apart_again(category in any_text(), id in any_text()) {
        let joined = StreamName::join(&category, &id);
        prop_assert_eq!(joined.is_ok(), !category.contains('-') && is_stream_name(&format!("{category}-{id}")));
        if let Ok(name) = joined {
            let parsed = StreamName::parse(&name).unwrap();
            prop_assert_eq!((parsed.category(), parsed.id()), (category.as_str(), id.as_str()));
        }
    }

    #[test]
    fn a_category_is_accepted_exactly_when_a_stream_can_have_it(category in any_text()) {
        let is_one = !category.contains('-') && StreamName::parse_own(&format!("{category}-x")).is_ok();
        prop_assert_eq!(Category::parse("category", &category).is_ok(), is_one);
    }

    #[test]
    fn a_refusal_is_short_and_on_one_line(text in prop_oneof![any_text(), "\\PC{0,40}\n{1000,3000}"]) {
        let refusals = [
            StreamName::parse(&text).err(),
            StreamName::join(&text, &text).err(),
            Category::parse("category", &text).err(),
            EventType::parse(&text).err(),
            Subject::parse(&text).err(),
            Privilege::parse("privilege", &text).err(),
            from_ulid_text(&text).err(),
        ];
        for error in refusals.into_iter().flatten() {
            let message = error.to_string();
            prop_assert!(!has_control(&message), "{:?}", message);
            prop_assert!(message.len() < 1200, "{} bytes", message.len());
            prop_assert!(error.detail().is_some_and(|detail| detail.is_object()));
        }
    }

    #[test]
    fn an_expected_version_accepts_what_it_was_given(version in any::<i64>(), actual in 0_i64..) {
        match ExpectedVersion::parse(Some(version)) {
            Ok(expected) => {
                prop_assert_eq!(expected.as_option(), Some(version));
                prop_assert_eq!(expected.accepts(actual), version == actual);
            }
            Err(_) => prop_assert!(version < 0),
        }
    }
}
