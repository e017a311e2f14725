//! The calls against a server: EVENTSTREAM_TEST_DATABASE says which; tests/companion/test_client.py sets it. Without it there is nothing to try.
use eventstream_client::again::{Again, Reason};
use eventstream_client::link::Link;
use eventstream_client::scope::Scope;
use eventstream_client::{Append, Command, Error, Expected, Filter, Json, Kind, Log, NewEvent};
use tokio_postgres::NoTls;

async fn link() -> Option<Link<NoTls>> {
    let connection = std::env::var("EVENTSTREAM_TEST_DATABASE").ok()?;
    Some(Link::new(connection.parse().expect("a connection string"), NoTls))
}

fn json(text: &str) -> Json {
    Json::parse_text(text).expect("JSON")
}

fn event(payload: &str) -> NewEvent {
    NewEvent::new("Credited", json(payload))
}

#[tokio::test]
async fn what_was_appended_is_read_digit_for_digit() {
    let Some(mut link) = link().await else { return };
    let log = Log::new(link.client().await.unwrap());
    let payload = r#"{"amount": 1400.50, "long": 0.12345678901234567890123456789}"#;
    let appended = event(payload).tags(["seat:1"]).occurred_at("2024-10-15T12:00:00Z".parse().unwrap());
    assert_eq!(log.append("digits-1", &[appended], Expected::NoStream).await.unwrap(), 1);
    let read = log.read("digits-1", 1, 10).await.unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].payload.at("/amount").unwrap().as_str(), "1400.50");
    assert_eq!(read[0].payload.at("/long").unwrap().as_str(), "0.12345678901234567890123456789");
    assert_eq!(read[0].tags, ["seat:1"]);
    assert_eq!(read[0].occurred_at.to_string(), "2024-10-15T12:00:00Z");
    let all =
        log.read_all(0, 10, &Filter { categories: Some(vec!["digits".into()]), event_types: None }).await.unwrap();
    assert_eq!(all, read);
}

#[tokio::test]
async fn a_conflict_says_both_versions() {
    let Some(mut link) = link().await else { return };
    let log = Log::new(link.client().await.unwrap());
    log.append("conflict-1", &[event("{}"), event("{}")], Expected::Any).await.unwrap();
    let failure = log.append("conflict-1", &[event("{}")], Expected::Version(1)).await.unwrap_err();
    assert_eq!((failure.kind(), failure.refusal().unwrap().versions()), (Some(Kind::VersionConflict), Some((1, 2))));
    assert_eq!(Reason::of(&failure), Some(Reason::Conflict));
    let failure = log.append("nowhere-1", &[event("{}")], Expected::Exists).await.unwrap_err();
    assert_eq!(failure.kind(), Some(Kind::StreamNotFound));
}

#[tokio::test]
async fn several_streams_are_appended_to_under_a_condition_or_not_at_all() {
    let Some(mut link) = link().await else { return };
    let log = Log::new(link.client().await.unwrap());
    let seen = log.condition(&json(r#"{"items": [{"tags": ["course:7"]}]}"#)).await.unwrap();
    let append = |stream: &str| Append {
        stream: stream.into(),
        expected_version: None,
        events: vec![event("{}").tags(["course:7"])],
    };
    let done = log.append_streams(&[append("student-1"), append("student-2")], Some(&seen)).await.unwrap();
    assert_eq!(
        done.iter().map(|each| (each.stream.as_str(), each.version)).collect::<Vec<_>>(),
        [("student-1", 1), ("student-2", 1)]
    );
    let failure = log.append_streams(&[append("student-3")], Some(&seen)).await.unwrap_err();
    assert_eq!(failure.kind(), Some(Kind::ConditionFailed));
    assert!(log.read("student-3", 1, 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_command_is_executed_once_and_its_answer_is_the_same() {
    let Some(mut link) = link().await else { return };
    let command = Command::new("till-1", "Deposit", json(r#"{"amount": 12.50}"#)).key("k-1");
    let again = Again::default();
    let first = link.command(&Scope::default(), &command, again).await.unwrap();
    let second = link.command(&Scope::default(), &command, again).await.unwrap();
    assert!(!first.replayed && second.replayed);
    assert_eq!((first.version, &first.event_ids), (second.version, &second.event_ids));
    assert_eq!(first.result.unwrap().at("/balance").unwrap().as_str(), "12.50");
    let refused = Command::new("till-1", "Deposit", json(r#"{"amount": -1}"#)).key("k-2");
    let failure = link.command(&Scope::default(), &refused, again).await.unwrap_err();
    assert_eq!(failure.refusal().unwrap().code().as_deref(), Some("not_positive"));
    let other = Command::new("till-1", "Deposit", json(r#"{"amount": 13}"#)).key("k-1");
    assert_eq!(link.command(&Scope::default(), &other, again).await.unwrap_err().kind(), Some(Kind::CommandKeyReused));
    let keyless = Command::new("till-1", "Deposit", json("{}"));
    assert!(matches!(link.command(&Scope::default(), &keyless, again).await, Err(Error::Argument(_))));
}

#[tokio::test]
async fn a_scope_has_the_rights_of_its_role_and_leaves_nothing() {
    let Some(mut link) = link().await else { return };
    let client = link.client().await.unwrap();
    let log = Log::new(client);
    let weak = Scope { role: Some("client_without_rights".into()), ..Scope::default() };
    let failure = weak.one(client, log.append("scoped-1", &[event("{}")], Expected::Any)).await.unwrap_err();
    assert_eq!(failure.kind(), Some(Kind::Forbidden), "{failure}");
    let nobody = Scope { role: Some("nobody of that name".into()), ..Scope::default() };
    assert!(nobody.one(client, log.append("scoped-1", &[event("{}")], Expected::Any)).await.is_err());
    assert!(log.read("scoped-1", 1, 1).await.unwrap().is_empty());
    let reading = Scope { is_read_only: true, ..Scope::default() };
    assert!(reading.one(client, log.append("scoped-1", &[event("{}")], Expected::Any)).await.is_err());
    let plain = Scope::default();
    let done = plain.around(client, async {
        let version = log.append("scoped-1", &[event("{}")], Expected::NoStream).await?;
        log.append("scoped-1", &[event("{}")], Expected::Version(version)).await
    });
    assert_eq!(done.await.unwrap(), 2);
    let undone = plain.around(client, async {
        log.append("scoped-1", &[event("{}")], Expected::Version(2)).await?;
        log.append("scoped-1", &[event("{}")], Expected::Version(2)).await
    });
    assert_eq!(undone.await.unwrap_err().kind(), Some(Kind::VersionConflict));
    assert_eq!(log.read("scoped-1", 1, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn pages_of_a_query_neither_skip_nor_repeat() {
    let Some(mut link) = link().await else { return };
    let log = Log::new(link.client().await.unwrap());
    log.append("paged-1", &vec![event("{}"); 25], Expected::Any).await.unwrap();
    let (criteria, mut versions, mut page) = (json(r#"{"streams": ["paged-1"]}"#), Vec::new(), None);
    loop {
        let found = log.query(&criteria, 10, page.as_deref()).await.unwrap();
        versions.extend(found.events.iter().map(|event| event.version));
        page = found.next;
        if page.is_none() || found.events.len() < 10 {
            break;
        }
    }
    assert_eq!(versions, (1..=25).collect::<Vec<i64>>());
}
