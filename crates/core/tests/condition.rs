//! Queries: what they may say, and what is said of those that say something else. Where a whole document lies is tests/cluster's.

use eventstream_core::Error;
use eventstream_core::command::condition::{Item, Query};
use eventstream_core::options::{ConditionElement, QueryElement};

fn read(query: &str) -> Result<Query, Error> {
    let given: QueryElement = serde_json::from_str(query).expect("a query by its keys");
    Query::read(&given)
}

fn refusal(query: &str) -> String {
    let error = read(query).expect_err("must be refused");
    assert_eq!(error.sqlstate(), "ES005", "{error}");
    error.within("query").to_string()
}

#[test]
fn a_query_is_read_item_by_item() {
    let query = read(r#"{"items": [{"tags": ["b", "a", "b"]}, {"event_types": ["T", "S"], "tags": ["c"]}]}"#).unwrap();
    assert_eq!(
        query.items,
        [
            Item { event_types: None, tags: vec!["a".into(), "b".into()], first_tag: Some("b".into()) },
            Item {
                event_types: Some(vec!["T".into(), "S".into()]),
                tags: vec!["c".into()],
                first_tag: Some("c".into())
            },
        ]
    );
    assert!(!query.is_of_any_tags());
}

#[test]
fn an_item_without_tags_is_of_any_and_so_is_everything() {
    for query in [
        r#"{"all": true}"#,
        r#"{"all": true, "items": null}"#,
        r#"{"items": [{"tags": ["a"]}, {"event_types": ["T"]}]}"#,
    ] {
        assert!(read(query).unwrap().is_of_any_tags(), "{query}");
    }
    assert_eq!(read(r#"{"all": true}"#).unwrap().items, [Item::default()]);
}

#[test]
fn what_is_no_query_is_named_by_its_place() {
    for (query, words) in [
        ("{}", r#"query must have items, or be {"all": true}"#),
        (r#"{"all": false}"#, "query.all must be true, or not be there"),
        (r#"{"all": true, "items": []}"#, "query.all must not stand beside items"),
        (r#"{"items": []}"#, "query.items must have at least one element"),
        (r#"{"items": [{"tags": ["a"]}, {}]}"#, "query.items[1] must have event_types, or tags"),
        (r#"{"items": [{"tags": []}]}"#, "query.items[0].tags must have at least one element, or not be there"),
        (
            r#"{"items": [{"event_types": [], "tags": ["a"]}]}"#,
            "query.items[0].event_types must have at least one element, or not be there",
        ),
        (r#"{"items": [{"tags": ["a", ""]}]}"#, "query.items[0].tags[1] must not be empty"),
        (r#"{"items": [{"event_types": ["A", ""]}]}"#, "query.items[0].event_types[1] must not be empty"),
    ] {
        assert_eq!(refusal(query), words, "{query}");
    }
    let tags = (0..33).map(|number| format!("\"n:{number}\"")).collect::<Vec<_>>().join(",");
    assert_eq!(
        refusal(&format!(r#"{{"items": [{{"tags": [{tags}]}}]}}"#)),
        "query.items[0].tags must have at most 32 tags, not 33"
    );
}

#[test]
fn keys_that_cannot_stand_there_are_refused() {
    assert!(serde_json::from_str::<QueryElement>(r#"{"item": []}"#).is_err());
    assert!(serde_json::from_str::<QueryElement>(r#"{"items": [{"types": ["A"]}]}"#).is_err());
    let many = format!(r#"{{"items": [{}]}}"#, [r#"{"tags": ["a"]}"#; 3].join(","));
    assert_eq!(serde_json::from_str::<QueryElement>(&many).unwrap().items.unwrap().0.len(), 3);
    let condition = |more: &str| format!(r#"{{"query": {{"all": true}}, "after": 1{more}}}"#);
    assert!(serde_json::from_str::<ConditionElement>(&condition("")).is_ok());
    for more in
        [r#", "x": 1"#, r#", "seen": {}"#, r#", "seen": {"count": 1, "digest": "", "x": 1}"#, r#", "log": {"id": ""}"#]
    {
        assert!(serde_json::from_str::<ConditionElement>(&condition(more)).is_err(), "{more}");
    }
    assert!(serde_json::from_str::<ConditionElement>(r#"{"query": {"all": true}}"#).is_err());
}
