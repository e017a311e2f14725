//! REST under /v1. A handler turns a request into one statement with its arguments; the database answers the document, and it is handed on as it is.
mod append;
mod call;
mod command;
mod given;
mod log;
mod query;
mod read;
mod subscription;

use crate::problem::Problem;
use crate::serve::App;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::sync::Arc;

/// Every path. A stream's name may hold `/`, which proxies do not leave alone: so each path that names one exists without it, too, and takes `?stream=`.
pub fn router(app: Arc<App>) -> Router {
    let most = app.settings.max_body_bytes;
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/me", get(read::me))
        .route("/v1/streams/events", get(read::events_of).post(append::to_one_of))
        .route("/v1/streams/state", get(read::state_of))
        .route("/v1/streams/history", get(read::history_of))
        .route("/v1/streams/commands/{type}", post(command::send_of))
        .route("/v1/streams/{stream}/events", get(read::events).post(append::to_one))
        .route("/v1/streams/{stream}/state", get(read::state))
        .route("/v1/streams/{stream}/history", get(read::history))
        .route("/v1/streams/{stream}/commands/{type}", post(command::send))
        .route("/v1/categories/{category}/states", get(read::states))
        .route("/v1/appends", post(append::to_several))
        .route("/v1/conditions", post(append::condition))
        .route("/v1/log", get(log::page))
        .route("/v1/log/live", get(log::live))
        .route("/v1/query", post(read::search))
        .route("/v1/subscriptions/{subscription}/fetch", post(subscription::fetch))
        .route("/v1/subscriptions/{subscription}/ack", post(subscription::ack))
        .route("/v1/subscriptions/{subscription}/nack", post(subscription::nack))
        .fallback(nothing)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(most))
        .with_state(app)
}

async fn nothing() -> Problem {
    Problem::status(StatusCode::NOT_FOUND, "there is no such path; GET /v1/openapi.json lists them")
}

async fn not_allowed() -> Problem {
    Problem::status(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method; GET /v1/openapi.json lists them",
    )
}

async fn ready(State(app): State<Arc<App>>) -> axum::response::Response {
    if app.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response();
    }
    match app.is_ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(said) => {
            tracing::warn!("not ready: {said}");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
        }
    }
}

async fn openapi() -> axum::response::Response {
    match crate::openapi::document() {
        Ok(document) => ([(axum::http::header::CONTENT_TYPE, "application/json")], document).into_response(),
        Err(failure) => Problem::status(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()).into_response(),
    }
}
