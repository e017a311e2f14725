//! What a category's rules refuse, and how they are set.

use eventstream_core::command::category::{CategoryRules, OneEvent, ToStream};
use eventstream_core::error::{Error, Result};
use eventstream_core::name::StreamName;
use eventstream_core::options::CategorySettings;
use eventstream_core::word::CategoryRule;
use serde_json::json;

const EVENT: OneEvent = OneEvent {
    event_type: "Posted",
    tags: &[],
    is_declared: false,
    without_actor: Some("name no actor"),
    has_id: false,
    ahead: 0,
};

fn rules(settings: &CategorySettings) -> CategoryRules {
    settings.changes().unwrap();
    CategoryRules::new(settings, settings.max_future.flatten().map(|_| 60_000_000))
}

fn to(stream: &str, is_new: bool) -> ToStream<'_> {
    ToStream { stream: StreamName::parse(stream).unwrap(), is_new, is_kept: true }
}

fn rule_of(judged: Result<()>) -> Option<CategoryRule> {
    match judged {
        Ok(()) => None,
        Err(Error::RuleBroken(broken)) => Some(broken.rule),
        Err(other) => panic!("{other}"),
    }
}

fn by_event(rules: &CategoryRules, event: OneEvent) -> Option<CategoryRule> {
    rule_of(rules.judge_event(StreamName::parse("a-1").unwrap(), 0, &event))
}

fn is_id(pattern: &str, id: &str) -> bool {
    let rules = rules(&CategorySettings { id_pattern: Some(Some(pattern)), ..Default::default() });
    rule_of(rules.judge_stream(to(&format!("a-{id}"), true))).is_none()
}

#[test]
fn without_rules_nothing_is_asked() {
    let rules = rules(&CategorySettings::default());
    assert!(rules.is_empty());
    assert_eq!(by_event(&rules, EVENT), None);
    assert_eq!(rule_of(rules.judge_stream(ToStream { is_kept: false, ..to("a-ada@example.org", true) })), None);
}

#[test]
fn each_rule_refuses_what_breaks_it_and_nothing_else() {
    let required = Some(Some("required"));
    let declared = rules(&CategorySettings { event_types: Some(Some("declared")), ..Default::default() });
    assert_eq!(by_event(&declared, EVENT), Some(CategoryRule::EventTypes));
    assert_eq!(by_event(&declared, OneEvent { is_declared: true, ..EVENT }), None);
    assert_eq!(by_event(&declared, OneEvent { event_type: "StreamClosed", ..EVENT }), None);
    let actor = rules(&CategorySettings { actor: required, ..Default::default() });
    assert_eq!(by_event(&actor, EVENT), Some(CategoryRule::Actor));
    assert_eq!(by_event(&actor, OneEvent { without_actor: None, ..EVENT }), None);
    assert_eq!(by_event(&actor, OneEvent { event_type: "StreamClosed", ..EVENT }), Some(CategoryRule::Actor));
    let id = rules(&CategorySettings { event_id: required, ..Default::default() });
    assert_eq!(by_event(&id, EVENT), Some(CategoryRule::EventId));
    assert_eq!(by_event(&id, OneEvent { has_id: true, ..EVENT }), None);
    assert_eq!(by_event(&id, OneEvent { event_type: "StreamClosed", ..EVENT }), None);
    let future = rules(&CategorySettings { max_future: Some(Some("1 minute")), ..Default::default() });
    assert_eq!(by_event(&future, OneEvent { ahead: 60_000_000, ..EVENT }), None);
    assert_eq!(by_event(&future, OneEvent { ahead: 60_000_001, ..EVENT }), Some(CategoryRule::MaxFuture));
    assert_eq!(by_event(&future, OneEvent { ahead: i64::MAX, ..EVENT }), Some(CategoryRule::MaxFuture));
    let version = rules(&CategorySettings { expected_version: required, ..Default::default() });
    assert_eq!(rule_of(version.judge_stream(to("a-1", true))), None);
    let unkept = ToStream { is_kept: false, ..to("a-1", false) };
    assert_eq!(rule_of(version.judge_stream(unkept)), Some(CategoryRule::ExpectedVersion));
    let foldable = rules(&CategorySettings { foldable: required, ..Default::default() });
    assert!(foldable.asks(CategoryRule::Foldable) && !foldable.asks(CategoryRule::Actor));
}

#[test]
fn a_pattern_is_matched_by_the_whole_id() {
    for (pattern, ids, others) in [
        ("[0-9]+", vec!["1", "1000"], vec!["a1", "1a", "1-1", "1 1"]),
        ("a|ab", vec!["a", "ab"], vec!["b", "abb"]),
        ("[0-9]{4}-.*", vec!["2024-x-y", "2024-"], vec!["24-x"]),
        ("(?i)cash", vec!["CASH"], vec!["cashs"]),
        ("(?x) a b # two letters\n", vec!["ab"], vec!["a b"]),
        ("\\p{L}+", vec!["kässa"], vec!["1"]),
        (
            "uuid",
            vec!["01890a5d-ac96-774b-bcce-b302099a8057"],
            vec![
                "01890A5D-ac96-774b-bcce-b302099a8057",
                "01890a5dac96774bbcceb302099a8057",
                "01890a5d-ac96-774b-bcce-b302099a805g",
                "uuid",
                "01890a5d-ac96-774b-bcce-b302099a80577",
            ],
        ),
        (
            "ulid",
            vec!["01ARZ3NDEKTSV4RRFFQ69G5FAV"],
            vec![
                "01arz3ndektsv4rrffq69g5fav",
                "81ARZ3NDEKTSV4RRFFQ69G5FAV",
                "01ARZ3NDEKTSV4RRFFQ69G5FAU",
                "01ARZ3NDEKTSV4RRFFQ69G5FA",
            ],
        ),
    ] {
        for id in ids {
            assert!(is_id(pattern, id), "{pattern} {id}");
        }
        for id in others {
            assert!(!is_id(pattern, id), "{pattern} {id}");
        }
    }
    // Of a stream that is there, the name is not asked.
    let rules = rules(&CategorySettings { id_pattern: Some(Some("[0-9]+")), ..Default::default() });
    assert_eq!(rule_of(rules.judge_stream(to("a-x", false))), None);
}

#[test]
fn patterns_that_are_none_or_too_large_are_refused() {
    let large = "x".repeat(1001);
    for pattern in ["", "(", "a)|(b", "(a)\\1", "(?=a)", "a{1000}{1000}", "(?x)a # comment", large.as_str()] {
        let settings = CategorySettings { id_pattern: Some(Some(pattern)), ..Default::default() };
        let Err(Error::InvalidArgument { argument, .. }) = settings.changes() else { panic!("{pattern}") };
        assert_eq!(argument, "id_pattern", "{pattern}");
    }
}

#[test]
fn settings_are_kept_where_they_are_no_defaults() {
    let settings = CategorySettings {
        event_types: Some(Some("any")),
        expected_version: Some(Some("required")),
        actor: Some(None),
        id_pattern: Some(Some("uuid")),
        personal_data: Some(Some("refused")),
        ..Default::default()
    };
    let changes = json!({
        "event_types": null, "expected_version": "required", "actor": null, "id_pattern": "uuid", "personal_data": "refused"
    });
    assert_eq!(settings.changes().unwrap(), changes);
    for (settings, said) in [
        (
            CategorySettings { event_types: Some(Some("Any")), ..Default::default() },
            "event_types must be any or declared, not \"Any\"",
        ),
        (
            CategorySettings { actor: Some(Some("")), ..Default::default() },
            "actor must be optional or required, not \"\"",
        ),
        (
            CategorySettings { personal_data: Some(Some("required")), ..Default::default() },
            "personal_data must be any or refused",
        ),
    ] {
        assert!(settings.changes().unwrap_err().to_string().starts_with(said), "{said}");
    }
}

#[test]
fn what_looks_like_personal_data_is_refused_and_never_repeated() {
    let rules = rules(&CategorySettings { personal_data: Some(Some("refused")), ..Default::default() });
    let is_silent = |error: &Error, secret: &str| {
        ![error.to_string(), error.detail().unwrap().to_string(), error.hint().unwrap()]
            .iter()
            .any(|text| text.contains(secret))
    };
    let error = rules.judge_stream(to("a-ada@example.org", true)).unwrap_err();
    assert!(is_silent(&error, "ada") && error.to_string().contains("an e-mail address"), "{error}");
    // It is there, and who goes on is not kept from it; its name is not told where something else is refused.
    assert_eq!(rule_of(rules.judge_stream(to("a-ada@example.org", false))), None);
    let stream = StreamName::parse("a-ada@example.org").unwrap();
    for event in [
        OneEvent { tags: &["company:1", "tel:06641234567"], ..EVENT },
        OneEvent { event_type: "+43 664 1234567", ..EVENT },
    ] {
        let error = rules.judge_event(stream, 1, &event).unwrap_err();
        assert!(is_silent(&error, "ada") && is_silent(&error, "1234567"), "{error}");
        assert!(
            error.to_string().contains("event 2 breaks") && error.to_string().contains("a telephone number"),
            "{error}"
        );
        let error = rules.judge_event(StreamName::parse("a-1").unwrap(), 1, &event).unwrap_err();
        assert!(error.to_string().contains("event 2 for stream \"a-1\""), "{error}");
    }
    assert_eq!(by_event(&rules, OneEvent { tags: &["company:1"], ..EVENT }), None);
}
