//! The log in its order: a page behind a position, and the live stream of it (server-sent events).
//!
//! The promise of the live stream: every event behind where it begins that its bearer may see, once and in the order of the log, over restarts of this program and of the database, because what a client
//! saw last (`Last-Event-ID`) is where the next connection begins, and the log alone says what comes behind it.
use super::call::{Argument, Statement, ask, respond};
use super::query::Query;
use super::read::{Answer, EVENT, count};
use crate::identity::HORIZON;
use crate::problem::Problem;
use crate::serve::App;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// A comment is sent so often where there is nothing else, so that proxies keep the connection, and the log is looked at.
const BEAT: Duration = Duration::from_secs(15);
/// How many events are read at once for a live stream; as many again wait for a slow client at most.
const BATCH: i64 = 200;

pub async fn page(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &["after", "max_count", "category", "event_type", "log_id"])?;
    let asked = Asked {
        after: query.integer("after")?.unwrap_or(0),
        categories: query.list("category"),
        event_types: query.list("event_type"),
        log_id: log_id(query.text("log_id")?)?,
    };
    let sql = format!(
        "with known as materialized (select {HORIZON} as horizon, (select log_id from es_log_info()) as log_id), \
         page as materialized (select e.global_position, {EVENT} as event from known, lateral es_read_all($1, $2, $3, $4, known.horizon, $5::uuid) e) \
         select json_build_object('log_id', log_id, 'events', coalesce((select json_agg(event) from page), '[]'), \
         'next', case when (select count(*) from page) = $2 then (select max(global_position) from page) else greatest(horizon, $1) end) from known"
    );
    let most = count(&query)?;
    respond(StatusCode::OK, ask(&app, &headers, Statement::of_log(sql, asked.arguments(most))).await?, &query)
}

/// Where to go on, and with what.
struct Asked {
    after: i64,
    categories: Option<Vec<String>>,
    event_types: Option<Vec<String>>,
    log_id: Option<String>,
}

impl Asked {
    fn arguments(&self, most: i64) -> Vec<Argument> {
        vec![
            Argument::Integer(Some(self.after)),
            Argument::Integer(Some(most)),
            Argument::Texts(self.categories.clone()),
            Argument::Texts(self.event_types.clone()),
            Argument::Text(self.log_id.clone()),
        ]
    }
}

fn log_id(text: Option<&str>) -> Result<Option<String>, Problem> {
    let parsed = text.map(|text| {
        text.parse::<uuid::Uuid>().map_err(|_| Problem::bad_request(format!("log_id must be a uuid, not \"{text}\"")))
    });
    Ok(parsed.transpose()?.map(|id| id.to_string()))
}

pub async fn live(State(app): State<Arc<App>>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::of(raw.as_deref(), &["after", "category", "event_type"])?;
    let place = app.live.place().ok_or_else(|| {
        Problem::status(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("all {} live streams of this server are taken", app.settings.max_live_streams),
        )
    })?;
    let knocks = app.live.knocks();
    let mut asked =
        Asked { after: 0, categories: query.list("category"), event_types: query.list("event_type"), log_id: None };
    match last_seen(&headers)? {
        Some((log_id, position)) => (asked.log_id, asked.after) = (Some(log_id), position),
        None => asked.after = query.integer("after")?.unwrap_or(i64::MAX),
    }
    // The first look is the answer's status: who may not read is told so.
    let first = look(&app, &headers, &asked).await?;
    let (send, receive) = mpsc::channel::<Bytes>(1);
    tokio::spawn(follow(Following { app, headers, asked, knocks, send, _place: place }, first));
    let stream = futures_util::stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|bytes| (Ok::<_, Infallible>(bytes), receive))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What the client saw last: the log, and the position in it.
fn last_seen(headers: &HeaderMap) -> Result<Option<(String, i64)>, Problem> {
    let Some(given) = headers.get("last-event-id") else { return Ok(None) };
    let parsed = given.to_str().ok().and_then(|text| {
        let (log_id, position) = text.split_once(':')?;
        Some((log_id.parse::<uuid::Uuid>().ok()?.to_string(), position.parse::<i64>().ok()?))
    });
    parsed.map(Some).ok_or_else(|| {
        Problem::bad_request("Last-Event-ID must be the id of an event of this stream: <log id>:<position>")
    })
}

/// What a look at the log gives.
#[derive(Deserialize)]
struct Seen {
    log_id: String,
    /// Up to where the log was looked at.
    up_to: i64,
    events: Vec<(i64, Box<RawValue>)>,
}

async fn look(app: &Arc<App>, headers: &HeaderMap, asked: &Asked) -> Result<Seen, Problem> {
    let sql = format!(
        "with known as materialized (select {HORIZON} as horizon, (select log_id from es_log_info()) as log_id), \
         at as materialized (select least($1, case when $1 = 9223372036854775807 then horizon end) as after, horizon, log_id from known), \
         page as materialized (select e.global_position, {EVENT} as event from at, lateral es_read_all(at.after, $2, $3, $4, at.horizon, $5::uuid) e) \
         select json_build_object('log_id', log_id, 'events', coalesce((select json_agg(json_build_array(global_position, event)) from page), '[]'), \
         'up_to', case when (select count(*) from page) = $2 then (select max(global_position) from page) else greatest(horizon, after) end) from at"
    );
    let answered = ask(app, headers, Statement::of_log(sql, asked.arguments(BATCH))).await?;
    answered.document.read().map_err(|failure| Problem::of(failure, false))
}

struct Following {
    app: Arc<App>,
    headers: HeaderMap,
    asked: Asked,
    knocks: watch::Receiver<u64>,
    send: mpsc::Sender<Bytes>,
    /// Given back when it ends.
    _place: OwnedSemaphorePermit,
}

/// Sends what comes, until the client goes away, its token is over, or the program ends.
async fn follow(mut following: Following, first: Seen) {
    let mut seen = first;
    loop {
        let is_full = seen.events.len() as i64 == BATCH;
        let text = written(&seen);
        if !text.is_empty() && following.send.send(text.into()).await.is_err() {
            return;
        }
        (following.asked.after, following.asked.log_id) = (seen.up_to, Some(seen.log_id));
        if !is_full && !following.is_knocked().await {
            return;
        }
        seen = match look(&following.app, &following.headers, &following.asked).await {
            Ok(seen) => seen,
            Err(problem) => {
                // The client connects again, is told by a status what is wrong, and misses nothing.
                let _ = following.send.send(problem.as_event().into()).await;
                return;
            }
        };
    }
}

impl Following {
    /// Waits until there may be something new; false where it is over.
    async fn is_knocked(&mut self) -> bool {
        tokio::select! {
            knocked = self.knocks.changed() => knocked.is_ok(),
            () = tokio::time::sleep(BEAT) => self.send.send(Bytes::from_static(b":\n\n")).await.is_ok(),
            () = self.send.closed() => false,
            () = self.app.stop.cancelled() => {
                let _ = self.send.send(Bytes::from_static(b"retry: 1000\n\n")).await;
                false
            }
        }
    }
}

/// The events as text/event-stream has them.
fn written(seen: &Seen) -> String {
    let mut text = String::new();
    for (position, event) in &seen.events {
        text.push_str(&format!("id: {}:{position}\nevent: event\n", seen.log_id));
        // A line of data for each line: JSON has none within a string.
        for line in event.get().lines() {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
    }
    text
}
