//! Errors as problem documents (RFC 9457). What the database says under a code of eventstream's own is told whole; what comes from elsewhere is told by its code only, since its text may hold what nobody should see.
use crate::database::NoConnection;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use eventstream_client::{Error, Json, Kind, Refusal};
use serde::Serialize;

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// Boxed: it is the rare way of every function that may fail.
    said: Box<Said>,
    retry_after_seconds: Option<u32>,
}

/// The document.
#[derive(Debug, Serialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, code: Option<&str>, detail: impl Into<String>) -> Self {
        let said = Said {
            kind: code.map_or_else(|| "about:blank".to_owned(), |code| format!("urn:eventstream:{code}")),
            title: title(status),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.map(str::to_owned),
            facts: None,
            hint: None,
        };
        Self { status, said: Box::new(said), retry_after_seconds: None }
    }

    /// The request itself is wrong.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, detail)
    }

    pub fn status(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::new(status, None, detail)
    }

    /// Nobody said who asks, or what said so was refused.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Some("ES042"), detail)
    }

    /// What the database refused. `is_conditional`: whether the request named the version, or the condition, that does not hold.
    pub fn of(failure: Error, is_conditional: bool) -> Self {
        match failure {
            Error::Refused(refusal) => Self::of_refusal(*refusal, is_conditional),
            Error::Argument(said) => Self::bad_request(said),
            Error::NotJson(said) => Self::bad_request(format!("not JSON: {said}")),
            Error::Connection(cause) => {
                tracing::warn!("the connection to the database failed: {cause}");
                let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, None, "the database cannot be reached");
                problem.retry_after_seconds = Some(1);
                problem
            }
            Error::Answer(cause) => {
                tracing::error!("the database answered in a form that this program does not know: {cause}");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    None,
                    "the database answered in a form that this program does not know",
                )
            }
        }
    }

    fn of_refusal(refusal: Refusal, is_conditional: bool) -> Self {
        let status = status_of(&refusal.sqlstate, is_conditional);
        let code = refusal.sqlstate.as_str();
        let mut problem = if refusal.is_ours() {
            let mut problem = Self::new(status, Some(code), &refusal.message);
            problem.said.facts = refusal.detail;
            problem.said.hint = refusal.hint;
            problem
        } else {
            tracing::warn!(code, "the database refused: {}", refusal.message);
            Self::new(status, Some(code), foreign(&refusal))
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem.retry_after_seconds = Some(1);
        }
        problem
    }
}

/// What is said of an error that is none of eventstream's.
fn foreign(refusal: &Refusal) -> &'static str {
    match (refusal.kind, refusal.sqlstate.as_str()) {
        (_, "42501") => "the role of this request may not do that",
        (_, "22P05" | "22021") => {
            "PostgreSQL keeps no text with the character NUL (\\u0000), and no other that it cannot write as UTF-8"
        }
        (_, "54001") => "a document is nested too deeply",
        (_, "57014") => "it took longer than a request may",
        (Kind::Contention, _) => "other transactions were in the way",
        (Kind::Unavailable, _) => "the database cannot serve it now",
        _ => "the database failed; its log says more under this code",
    }
}

/// The status of a SQLSTATE.
fn status_of(sqlstate: &str, is_conditional: bool) -> StatusCode {
    match sqlstate {
        "ES001" | "ES015" if is_conditional => StatusCode::PRECONDITION_FAILED,
        "ES001" | "ES003" | "ES015" | "ES024" | "ES031" | "ES045" => StatusCode::CONFLICT,
        "ES002" | "ES010" | "ES012" | "ES020" | "ES036" | "ES040" => StatusCode::NOT_FOUND,
        "ES004" | "ES005" | "ES011" | "ES032" | "ES041" => StatusCode::BAD_REQUEST,
        "ES007" => StatusCode::PAYLOAD_TOO_LARGE,
        "ES006" | "ES016" | "ES017" | "ES018" | "ES019" | "ES030" | "ES033" | "ES034" | "ES035" | "ES060" | "ES061" => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        "42501" | "ES044" => StatusCode::FORBIDDEN,
        "ES042" | "ES043" => StatusCode::UNAUTHORIZED,
        "ES025" => StatusCode::GONE,
        "57014" => StatusCode::GATEWAY_TIMEOUT,
        "22P05" | "22021" | "54001" => StatusCode::BAD_REQUEST,
        other => match Kind::of(other) {
            Kind::Unavailable | Kind::Contention => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

impl Problem {
    /// As the last event of a live stream.
    pub fn as_event(&self) -> String {
        format!("event: problem\ndata: {}\n\n", serde_json::to_string(&self.said).unwrap_or_default())
    }
}

impl From<NoConnection> for Problem {
    fn from(failure: NoConnection) -> Self {
        match failure {
            NoConnection::Busy(_) => {
                let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, None, failure.to_string());
                problem.retry_after_seconds = Some(1);
                problem
            }
            NoConnection::Refused(failure) => Self::of(failure, false),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        // Every part of it can be written as JSON.
        let body = serde_json::to_string(&self.said).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
