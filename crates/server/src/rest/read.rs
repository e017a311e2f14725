//! Reading: the events, states and histories of streams, the states of categories, searches.
use super::call::{Argument, Statement, ask, respond};
use super::given::{Body, Named};
use super::query::{Query, document};
use crate::problem::Problem;
use crate::serve::App;
use axum::body::Body as Sent;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode};
use std::sync::Arc;

/// An event as a document, of a row of eventstream.event named `e`.
pub const EVENT: &str = "json_build_object('global_position', e.global_position, 'stream', e.stream, 'version', e.version, 'event_id', e.event_id, 'event_type', e.event_type, \
     'schema_version', e.schema_version, 'payload', e.payload, 'metadata', e.metadata, 'subject', e.subject, 'occurred_at', e.occurred_at, 'recorded_at', e.recorded_at, \
     'category', e.category, 'tenant', e.tenant, 'recorded_by', e.recorded_by, 'tags', e.tags)";

/// How many events a page has where nobody says how many.
const EVENTS_A_PAGE: i64 = 100;
/// The most of one page: it is made in memory, here and in the database.
pub const MOST_A_PAGE: i64 = 10_000;

pub type Answer = Result<Response<Sent>, Problem>;

/// How many are wanted.
pub fn count(query: &Query) -> Result<i64, Problem> {
    let count = query.integer("max_count")?.unwrap_or(EVENTS_A_PAGE);
    if (1..=MOST_A_PAGE).contains(&count) {
        return Ok(count);
    }
    Err(Problem::bad_request(format!("max_count must be from 1 to {MOST_A_PAGE}, not {count}")))
}

const OF_EVENTS: [&str; 4] = ["from_version", "max_count", "backward", "until"];

pub async fn events(
    State(app): State<Arc<App>>,
    Named(stream): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::of(raw.as_deref(), &OF_EVENTS)?;
    events_in(&app, &headers, &stream, &query).await
}

pub async fn events_of(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &with_stream(&OF_EVENTS))?;
    events_in(&app, &headers, query.required("stream")?, &query).await
}

/// The names, and `stream`.
fn with_stream<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().chain(["stream"]).collect()
}

async fn events_in(app: &Arc<App>, headers: &HeaderMap, stream: &str, query: &Query) -> Answer {
    let sql = format!(
        "with page as materialized (select {EVENT} as event from es_read($1, $2, $3, $4, until => $5::timestamptz) e), stream as (select es_stream_version($1) as version) \
         select json_build_object('stream', $1, 'version', version, 'events', coalesce((select json_agg(event) from page), '[]')), version from stream"
    );
    let arguments = vec![
        Argument::text(stream),
        Argument::Integer(query.integer("from_version")?),
        Argument::Integer(Some(count(query)?)),
        Argument::Flag(query.flag("backward")?),
        Argument::Text(query.moment("until")?),
    ];
    respond(StatusCode::OK, ask(app, headers, Statement::reading(sql, arguments)).await?, query)
}

const OF_STATE: [&str; 4] = ["as_of", "known_at", "version", "fold"];

pub async fn state(
    State(app): State<Arc<App>>,
    Named(stream): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::of(raw.as_deref(), &OF_STATE)?;
    state_in(&app, &headers, &stream, &query).await
}

pub async fn state_of(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &with_stream(&OF_STATE))?;
    state_in(&app, &headers, query.required("stream")?, &query).await
}

async fn state_in(app: &Arc<App>, headers: &HeaderMap, stream: &str, query: &Query) -> Answer {
    let (as_of, known_at) = (query.moment("as_of")?, query.moment("known_at")?);
    let (version, fold) = (query.integer("version")?, Argument::Text(query.text("fold")?.map(str::to_owned)));
    let statement = match (version, &as_of, &known_at) {
        (Some(version), None, None) => Statement::reading(
            "select json_build_object('stream', $1, 'version', $2, 'state', es_state_at_version($1, $2, $3)), $2",
            vec![Argument::text(stream), Argument::Integer(Some(version)), fold],
        ),
        (Some(_), ..) => return Err(Problem::bad_request("give a version, or moments, not both")),
        (None, None, None) => Statement::reading(
            "select json_build_object('stream', $1, 'version', version, 'state', state), version from (select es_stream_version($1) as version, es_state($1, $2) as state) s",
            vec![Argument::text(stream), fold],
        ),
        (None, ..) => Statement::reading(
            "select json_build_object('stream', $1, 'as_of', $2::timestamptz, 'known_at', $3::timestamptz, \
             'state', es_state_at($1, coalesce($2::timestamptz, 'infinity'), $3::timestamptz, $4))",
            vec![Argument::text(stream), Argument::Text(as_of), Argument::Text(known_at), fold],
        ),
    };
    respond(StatusCode::OK, ask(app, headers, statement).await?, query)
}

const OF_HISTORY: [&str; 3] = ["from_version", "max_count", "fold"];

pub async fn history(
    State(app): State<Arc<App>>,
    Named(stream): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::of(raw.as_deref(), &OF_HISTORY)?;
    history_in(&app, &headers, &stream, &query).await
}

pub async fn history_of(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &with_stream(&OF_HISTORY))?;
    history_in(&app, &headers, query.required("stream")?, &query).await
}

async fn history_in(app: &Arc<App>, headers: &HeaderMap, stream: &str, query: &Query) -> Answer {
    let sql = "select json_build_object('stream', $1, 'steps', coalesce(json_agg(h), '[]')) from es_history($1, $2, $3, $4) h";
    let arguments = vec![
        Argument::text(stream),
        Argument::Integer(Some(query.integer("from_version")?.unwrap_or(1))),
        Argument::Integer(Some(count(query)?)),
        Argument::Text(query.text("fold")?.map(str::to_owned)),
    ];
    respond(StatusCode::OK, ask(app, headers, Statement::reading(sql, arguments)).await?, query)
}

/// The states of all streams of a category: the balance sheet.
pub async fn states(
    State(app): State<Arc<App>>,
    Named(category): Named<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::of(raw.as_deref(), &["as_of", "known_at", "fold", "on_error"])?;
    let sql = "select json_build_object('category', $1, 'as_of', $2::timestamptz, 'known_at', $3::timestamptz, 'states', coalesce(json_agg(s), '[]')) \
               from es_category_state($1, $2::timestamptz, $3::timestamptz, $4, $5) s";
    let arguments = vec![
        Argument::text(category),
        Argument::Text(query.moment("as_of")?),
        Argument::Text(query.moment("known_at")?),
        Argument::Text(query.text("fold")?.map(str::to_owned)),
        Argument::text(query.text("on_error")?.unwrap_or("fail")),
    ];
    respond(StatusCode::OK, ask(&app, &headers, Statement::reading(sql, arguments)).await?, &query)
}

/// `es_query`: the criteria are the body.
pub async fn search(
    State(app): State<Arc<App>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let query = Query::of(raw.as_deref(), &["max_count", "page"])?;
    let sql = format!(
        "select json_build_object('events', coalesce(json_agg({EVENT} order by n), '[]'), 'next', (array_agg(page order by n desc))[1]) \
         from (select page, event, row_number() over () as n from es_query($1, $2::int, $3)) q, lateral (select (q.event).*) e"
    );
    let arguments = vec![
        Argument::Document(Some(document(&body)?)),
        Argument::Integer(Some(count(&query)?)),
        Argument::Text(query.text("page")?.map(str::to_owned)),
    ];
    respond(StatusCode::OK, ask(&app, &headers, Statement::writing(sql, arguments)).await?, &query)
}

/// Who the request is, as the database sees it.
pub async fn me(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &[])?;
    let sql = "select json_build_object('role', current_user, 'tenant', (select t.tenant from eventstream.tenants t where t.uuid = i.tenant_uuid), 'log_id', i.log_id, 'incarnation', i.incarnation) from es_log_info() i";
    respond(StatusCode::OK, ask(&app, &headers, Statement::reading(sql, vec![])).await?, &query)
}
