//! Subscriptions over HTTP: fetch, acknowledge, give back.
use super::call::{Argument, Statement, ask, respond};
use super::given::{Body, Named};
use super::query::{Query, document};
use super::read::{Answer, EVENT};
use crate::problem::Problem;
use crate::serve::App;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    consumer: String,
    #[serde(default = "hundred")]
    max_count: i64,
    #[serde(default = "thirty")]
    lease_seconds: f64,
    /// How long to wait where there is nothing, less than a request may take.
    #[serde(default)]
    wait_seconds: f64,
}

fn hundred() -> i64 {
    100
}

fn thirty() -> f64 {
    30.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    lease_id: String,
    up_to: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nack {
    lease_id: String,
    global_position: i64,
    reason: Option<String>,
    retry_after_seconds: Option<f64>,
    #[serde(default)]
    dead_letter: bool,
}

fn read<T: DeserializeOwned>(body: &[u8], form: &str) -> Result<T, Problem> {
    document(body)?.read().map_err(|cause| Problem::bad_request(format!("the body must be {form}: {cause}")))
}

fn lease(text: &str) -> Result<String, Problem> {
    let id: uuid::Uuid =
        text.parse().map_err(|_| Problem::bad_request(format!("lease_id must be a uuid, not \"{text}\"")))?;
    Ok(id.to_string())
}

fn seconds(value: f64, name: &str) -> Result<String, Problem> {
    if value.is_finite() && (0.0..=31_536_000.0).contains(&value) {
        return Ok(format!("{value} seconds"));
    }
    Err(Problem::bad_request(format!("{name} must be from 0 to 31536000, not {value}")))
}

pub async fn fetch(
    State(app): State<Arc<App>>,
    Named(subscription): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let fetch: Fetch = read(&body, "{\"consumer\", \"max_count\"?, \"lease_seconds\"?, \"wait_seconds\"?}")?;
    let sql = format!(
        "select json_build_object('lease_id', (array_agg(d.lease_id))[1], 'lease_until', min(d.lease_until), 'events', \
         coalesce(json_agg(json_build_object('attempt', d.attempt, 'event', {EVENT})), '[]')) \
         from es_fetch($1, $2, $3, $4::interval, $5::interval) d, lateral (select (d.event).*) e"
    );
    let arguments = vec![
        Argument::text(subscription),
        Argument::text(fetch.consumer),
        Argument::Integer(Some(fetch.max_count)),
        Argument::text(seconds(fetch.lease_seconds, "lease_seconds")?),
        Argument::text(seconds(fetch.wait_seconds, "wait_seconds")?),
    ];
    respond(StatusCode::OK, ask(&app, &headers, Statement::writing(sql, arguments)).await?, &query)
}

pub async fn ack(
    State(app): State<Arc<App>>,
    Named(_): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let ack: Ack = read(&body, "{\"lease_id\", \"up_to\"?}")?;
    let sql = "select json_build_object('acknowledged', es_ack($1::text::uuid, $2))";
    let arguments = vec![Argument::text(lease(&ack.lease_id)?), Argument::Integer(ack.up_to)];
    respond(StatusCode::OK, ask(&app, &headers, Statement::writing(sql, arguments)).await?, &query)
}

pub async fn nack(
    State(app): State<Arc<App>>,
    Named(_): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let nack: Nack =
        read(&body, "{\"lease_id\", \"global_position\", \"reason\"?, \"retry_after_seconds\"?, \"dead_letter\"?}")?;
    let sql = "select json_build_object('given_back', es_nack($1::text::uuid, $2, $3, $4::interval, $5))";
    let retry_after = nack.retry_after_seconds.map(|value| seconds(value, "retry_after_seconds")).transpose()?;
    let arguments = vec![
        Argument::text(lease(&nack.lease_id)?),
        Argument::Integer(Some(nack.global_position)),
        Argument::Text(nack.reason),
        Argument::Text(retry_after),
        Argument::Flag(nack.dead_letter),
    ];
    respond(StatusCode::OK, ask(&app, &headers, Statement::writing(sql, arguments)).await?, &query)
}
