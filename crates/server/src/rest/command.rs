//! Commands: the payload is the body, the key is Idempotency-Key, the version that was decided upon is If-Match.
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
use std::collections::BTreeMap;
use std::sync::Arc;

const KNOWN: [&str; 3] = ["occurred_at", "decider", "subject"];

pub async fn send(
    State(app): State<Arc<App>>,
    Named((stream, command_type)): Named<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &KNOWN)?;
    sent(&app, &headers, (&stream, &command_type), &query, &body).await
}

pub async fn send_of(
    State(app): State<Arc<App>>,
    Named(command_type): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let known: Vec<_> = KNOWN.into_iter().chain(["stream"]).collect();
    let query = Query::of(raw.as_deref(), &known)?;
    sent(&app, &headers, (query.required("stream")?, &command_type), &query, &body).await
}

async fn sent(
    app: &Arc<App>,
    headers: &HeaderMap,
    (stream, command_type): (&str, &str),
    query: &Query,
    body: &[u8],
) -> Answer {
    let version = match precondition::expected(headers)? {
        Expected::Any => None,
        Expected::NoStream => Some(0),
        Expected::Version(version) => Some(version),
        Expected::Exists => return Err(Problem::bad_request("If-Match of a command must be a version in quotes")),
    };
    let sql = "select answer, (answer ->> 'version')::bigint from (select es_command($1, $2, $3, $4, $5, $6, $7::timestamptz, $8, $9) as answer offset 0) c";
    let arguments = vec![
        Argument::text(stream),
        Argument::text(command_type),
        Argument::Document(Some(document(body)?)),
        Argument::Integer(version),
        Argument::Document(Some(traced(headers)?)),
        Argument::Text(precondition::key(headers)?),
        Argument::Text(query.moment("occurred_at")?),
        Argument::Text(query.text("decider")?.map(str::to_owned)),
        Argument::Text(query.text("subject")?.map(str::to_owned)),
    ];
    let answered = ask(app, headers, Statement::writing(sql, arguments).under(version.is_some())).await?;
    respond(StatusCode::OK, answered, query)
}

/// The metadata that a request brings along: its place in a trace (W3C), what it belongs to and what caused it.
fn traced(headers: &HeaderMap) -> Result<Json, Problem> {
    let mut metadata = BTreeMap::new();
    for (header, member) in
        [("traceparent", "traceparent"), ("correlation-id", "correlation_id"), ("causation-id", "causation_id")]
    {
        if let Some(value) = headers.get(header) {
            let text = value.to_str().map_err(|_| Problem::bad_request(format!("{header} must be ASCII")))?;
            metadata.insert(member, text.to_owned());
        }
    }
    Json::of(&metadata).map_err(|cause| Problem::bad_request(cause.to_string()))
}
