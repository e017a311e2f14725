//! Names: what may be appended, and what is refused with which words. Examples; the properties are in names_prop.rs.

use eventstream_core::{Category, Error, EventType, StreamName, Subject, TenantName};

fn refusal(name: &str) -> String {
    let error = StreamName::parse(name).expect_err(name);
    assert_eq!(error.sqlstate(), "ES004", "{error}");
    error.to_string()
}

fn argument_refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("must be refused");
    assert_eq!(error.sqlstate(), "ES005", "{error}");
    error.to_string()
}

#[test]
fn a_stream_name_splits_at_its_first_dash() {
    let name = StreamName::parse("account-2024-07").unwrap();
    assert_eq!((name.as_str(), name.category(), name.id()), ("account-2024-07", "account", "2024-07"));
    assert_eq!(StreamName::parse("a--").unwrap().id(), "-");
    assert_eq!(StreamName::parse("Konto-Zürich 8").unwrap().id(), "Zürich 8");
}

#[test]
fn a_stream_name_has_1_to_512_bytes() {
    assert!(StreamName::parse(&format!("a-{}", "x".repeat(510))).is_ok());
    let long = refusal(&format!("a-{}", "x".repeat(511)));
    assert!(long.ends_with("must have at most 512 bytes, not 513"), "{long}");
    assert!(long.contains("…\"") && long.len() < 200, "a long name is shortened: {long}");
    // Bytes, not characters: 256 characters of two bytes.
    assert!(refusal(&format!("a-{}", "é".repeat(256))).ends_with("not 514"));
    assert_eq!(refusal(""), "invalid stream name \"\": must not be empty");
}

#[test]
fn a_stream_name_needs_both_parts() {
    assert_eq!(refusal("account"), "invalid stream name \"account\": must be category-id, with a '-'");
    assert_eq!(refusal("-1"), "invalid stream name \"-1\": must have a category before the first '-'");
    assert_eq!(refusal("account-"), "invalid stream name \"account-\": must have an id after the first '-'");
    assert!(refusal("-").contains("category before"));
}

#[test]
fn a_stream_name_has_no_control_characters_and_no_outer_blanks() {
    for control in ["a-\u{0}", "a-1\n2", "a-\u{7f}", "a-\u{85}x", "\u{1b}a-1"] {
        assert!(refusal(control).contains("must not contain control characters"), "{control:?}");
    }
    assert!(refusal("a-1\n2").contains("U+000A"));
    for blank in [" a-1", "a-1 ", "\u{a0}a-1", "a-1\u{3000}"] {
        assert!(refusal(blank).ends_with("must not start or end with a blank"), "{blank:?}");
    }
    assert!(StreamName::parse("a b-c d").is_ok(), "blanks inside are fine");
    for beside in ["a -1", "a- 1", "a\u{3000}-1"] {
        assert!(refusal(beside).ends_with("must not have a blank beside the first '-'"), "{beside:?}");
    }
    assert!(argument_refusal(Category::parse("category", "a ")).contains("must not start or end with a blank"));
    for edge in [" A", "A ", "A\u{a0}"] {
        assert!(argument_refusal(EventType::parse(edge)).contains("must not start or end with a blank"), "{edge:?}");
    }
}

#[test]
fn what_begins_with_a_dollar_is_no_users() {
    let reserved = StreamName::parse_own("$audit-1").expect_err("reserved");
    assert_eq!(reserved.sqlstate(), "ES004", "{reserved}");
    assert!(reserved.to_string().contains("must not begin with $"), "{reserved}");
    // It can be read.
    assert_eq!(StreamName::parse("$audit-1").unwrap().category(), "$audit");
    // Behind the first character it is as any other.
    assert_eq!(StreamName::parse_own("us$-$1").unwrap().category(), "us$");
    assert!(argument_refusal(Category::parse("category", "$audit")).contains("must not begin with $"));
}

#[test]
fn what_may_be_seen_one_day_is_let_through() {
    // Private use; not assigned yet; beside those that are refused.
    for allowed in ['\u{e000}', '\u{f8ff}', '\u{10fffd}', '\u{378}', '\u{fdcf}', '\u{fdf0}', '\u{fffd}', '\u{2801}'] {
        assert!(EventType::parse(&format!("a{allowed}b")).is_ok(), "{allowed:?}");
    }
}

#[test]
fn names_that_look_the_same_are_the_same() {
    for unseen in [
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{180e}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{2028}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{2800}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{ffa0}',
        '\u{fffb}',
        '\u{e0041}',
        '\u{fdd0}',
        '\u{fdef}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{1fffe}',
        '\u{10ffff}',
    ] {
        let name = format!("acc-1{unseen}2");
        let reason = format!("must not contain characters that are not seen (it has U+{:04X})", u32::from(unseen));
        assert!(refusal(&name).ends_with(&reason), "{name:?}");
        assert!(argument_refusal(EventType::parse(&name)).contains(&reason));
        assert!(argument_refusal(Subject::parse(&name)).contains(&reason));
        assert!(argument_refusal(TenantName::parse(&name)).contains(&reason));
        assert!(
            StreamName::join("acc", &name)
                .unwrap_err()
                .to_string()
                .contains("id must not contain characters that are not seen")
        );
    }
    // e and a combining acute; the Angstrom sign, which is Å; Hangul in parts.
    for decomposed in ["cafe\u{301}-1", "acc-\u{212b}", "acc-\u{1100}\u{1161}"] {
        assert!(refusal(decomposed).contains("Unicode's form NFC"), "{decomposed:?}");
    }
    for seen in ["café-1", "acc-Å", "konto-ü ß", "счёт-1", "账户-１", "acc-가", "हिसाब-1", "acc-👍"]
    {
        assert!(StreamName::parse(seen).is_ok(), "{seen:?}");
    }
}

#[test]
fn join_makes_a_name_or_says_which_argument_is_wrong() {
    assert_eq!(StreamName::join("account", "10-00").unwrap(), "account-10-00");
    for (category, id, words) in [
        ("acc-ount", "1", "category must not contain '-'"),
        ("", "1", "category must not be empty"),
        ("account", "", "id must not be empty"),
        ("\t", "1", "category must not contain control characters"),
        (" account", "1", "category must not start or end with a blank"),
        ("account", "1\u{2003}", "id must not start or end with a blank"),
        ("account", "1\u{0}", "id must not contain control characters"),
    ] {
        let error = StreamName::join(category, id).expect_err(words);
        assert_eq!(error.sqlstate(), "ES004");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(
        StreamName::join("account", &"x".repeat(600)).unwrap_err().to_string().ends_with("at most 512 bytes, not 608")
    );
}

#[test]
fn a_category_is_refused_under_the_name_of_its_argument() {
    assert_eq!(Category::parse("category", "account").unwrap().as_str(), "account");
    assert_eq!(
        argument_refusal(Category::parse("categories[2]", "a-b")),
        "categories[2] must not contain '-', which ends the category in a stream name: \"a-b\""
    );
    assert_eq!(argument_refusal(Category::parse("category", "")), "category must not be empty");
    assert!(argument_refusal(Category::parse("category", " a")).contains("must not start or end with a blank"));
    assert!(argument_refusal(Category::parse("category", "a\u{9}b")).contains("control characters"));
    assert!(Category::parse("category", &"c".repeat(510)).is_ok());
    assert!(argument_refusal(Category::parse("category", &"c".repeat(511))).ends_with("at most 510 bytes, not 511"));
}

#[test]
fn an_event_type_has_1_to_255_bytes_without_control_characters() {
    assert_eq!(EventType::parse("AccountCredited").unwrap().to_string(), "AccountCredited");
    assert_eq!(EventType::parse(EventType::STREAM_CLOSED).unwrap().as_str(), "StreamClosed");
    assert!(EventType::parse(&"é".repeat(127)).is_ok());
    assert_eq!(argument_refusal(EventType::parse(&"é".repeat(128))), "event_type must have at most 255 bytes, not 256");
    assert_eq!(argument_refusal(EventType::parse("")), "event_type must not be empty");
    assert!(argument_refusal(EventType::parse("A\rB")).starts_with("event_type must not contain control characters"));
}

#[test]
fn tenants_and_subjects_are_trimmed_labels() {
    assert_eq!(TenantName::parse("default").unwrap().as_str(), "default");
    assert!(argument_refusal(TenantName::parse("*")).ends_with("must be the name of one tenant, not \"*\""));
    assert!(TenantName::parse("**").is_ok() && TenantName::parse("*a").is_ok());
    assert_eq!(Subject::parse("person 7").unwrap().as_str(), "person 7");
    assert_eq!(argument_refusal(TenantName::parse("acme ")), "tenant must not start or end with a blank: \"acme \"");
    assert_eq!(argument_refusal(Subject::parse("")), "subject must not be empty");
    assert!(argument_refusal(Subject::parse("\u{80}p")).contains("control characters (it has U+0080)"));
    assert!(argument_refusal(TenantName::parse(&"t".repeat(256))).ends_with("at most 255 bytes, not 256"));
}
