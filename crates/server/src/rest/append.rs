//! Appending: events to one stream, to several, and conditions over what was seen.
use super::call::{Argument, Statement, ask, respond};
use super::given::{Body, Named};
use super::query::{Query, document};
use super::read::Answer;
use crate::precondition;
use crate::problem::Problem;
use crate::serve::App;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use eventstream_client::{Expected, Json};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn to_one(
    State(app): State<Arc<App>>,
    Named(stream): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    append(&app, &headers, &stream, &query, &body).await
}

pub async fn to_one_of(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &["stream"])?;
    append(&app, &headers, query.required("stream")?, &query, &body).await
}

/// What was appended, and whether it had been before.
const APPENDED: &str = "select json_build_object('stream', l.stream, 'version', l.version, 'positions', l.positions, 'event_ids', l.event_ids, 'replayed', l.replayed), l.version \
     from (select es_append_events($1, $2, $3, $4) as version offset 0) a, lateral (select (es_last_append()).*, a.version as of_this offset 0) l";

/// The members of an event that is appended. Numbers in them stay text.
type Members = BTreeMap<String, Json>;

async fn append(app: &Arc<App>, headers: &HeaderMap, stream: &str, query: &Query, body: &[u8]) -> Answer {
    let expected = precondition::expected(headers)?;
    let events = events(document(body)?, precondition::key(headers)?.as_deref(), stream)?;
    let version = match expected {
        Expected::Any | Expected::Exists => None,
        Expected::NoStream => Some(0),
        Expected::Version(version) => Some(version),
    };
    let arguments = vec![
        Argument::text(stream),
        Argument::Document(Some(events)),
        Argument::Integer(version),
        Argument::Flag(expected == Expected::Exists),
    ];
    let statement = Statement::writing(APPENDED, arguments).under(version.is_some());
    let answered = ask(app, headers, statement).await?;
    let is_replayed = answered.document.at("/replayed").is_some_and(|replayed| replayed.as_str() == "true");
    respond(if is_replayed { StatusCode::OK } else { StatusCode::CREATED }, answered, query)
}

/// The events of a body, an object or an array of them, as es_append_events takes them; with ids made of the key where there is one.
fn events(body: Json, key: Option<&str>, stream: &str) -> Result<Json, Problem> {
    let is_one = body.as_str().trim_start().starts_with('{');
    let events = if is_one { parsed(format!("[{body}]"))? } else { body };
    let Some(key) = key else { return Ok(events) };
    let wrong =
        |_| Problem::bad_request("the body must be an event, or an array of events: {\"type\", \"payload\", …}");
    let mut events: Vec<Members> = events.read().map_err(wrong)?;
    for (n, event) in events.iter_mut().enumerate() {
        if !event.contains_key("event_id") {
            event.insert("event_id".to_owned(), written(&precondition::event_id(key, stream, n))?);
        }
    }
    written(&events)
}

fn parsed(text: String) -> Result<Json, Problem> {
    Json::parse_text(text).map_err(|cause| Problem::bad_request(cause.to_string()))
}

fn written(value: &impl serde::Serialize) -> Result<Json, Problem> {
    Json::of(value).map_err(|cause| Problem::bad_request(cause.to_string()))
}

/// Several streams, all or nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    appends: Json,
    #[serde(default)]
    condition: Option<Json>,
    #[serde(default)]
    must_exist: bool,
}

pub async fn to_several(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let several: Several = document(&body)?.read().map_err(|cause| {
        Problem::bad_request(format!("the body must be {{\"appends\": […], \"condition\"?, \"must_exist\"?}}: {cause}"))
    })?;
    let mut appends = several.appends;
    if let Some(key) = precondition::key(&headers)? {
        appends = with_ids(&appends, &key)?;
    }
    let condition = several.condition;
    let is_conditional = condition.is_some() || appends.as_str().contains("\"expected_version\"");
    let sql = "select json_build_object('streams', coalesce(json_agg(a), '[]')) from es_append_streams($1, $2, $3) a";
    let arguments =
        vec![Argument::Document(Some(appends)), Argument::Flag(several.must_exist), Argument::Document(condition)];
    let answered = ask(&app, &headers, Statement::writing(sql, arguments).under(is_conditional)).await?;
    respond(StatusCode::CREATED, answered, &query)
}

/// The appends to several streams, their events with ids made of the key.
fn with_ids(appends: &Json, key: &str) -> Result<Json, Problem> {
    let wrong =
        || Problem::bad_request("appends must be an array of {\"stream\", \"expected_version\"?, \"events\": […]}");
    let mut elements: Vec<Members> = appends.read().map_err(|_| wrong())?;
    for element in &mut elements {
        let stream: String = element.get("stream").and_then(|stream| stream.read().ok()).ok_or_else(wrong)?;
        let given = element.get("events").ok_or_else(wrong)?.clone();
        element.insert("events".to_owned(), events(given, Some(key), &stream)?);
    }
    written(&elements)
}

/// What was seen, for an append under it.
pub async fn condition(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let statement = Statement::writing("select es_condition($1)", vec![Argument::Document(Some(document(&body)?))]);
    respond(StatusCode::OK, ask(&app, &headers, statement).await?, &query)
}
