//! A call of the database for a request: a transaction of the bearer's around one statement, that answers one document; tried again where other transactions were in the way.
use super::query::Query;
use crate::identity::{Bearer, Transaction};
use crate::numbers;
use crate::problem::Problem;
use crate::serve::App;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use eventstream_client::again::{Again, Reason};
use eventstream_client::{Error, Json};
use postgres_types::{ToSql, Type};
use std::sync::Arc;

/// An argument of a statement.
#[derive(Debug, Clone)]
pub enum Argument {
    Text(Option<String>),
    Texts(Option<Vec<String>>),
    Integer(Option<i64>),
    Flag(bool),
    Document(Option<Json>),
}

impl Argument {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Integer(integer) => (integer, Type::INT8),
            Self::Flag(flag) => (flag, Type::BOOL),
            Self::Document(document) => (document, Type::JSONB),
        }
    }
}

/// A statement whose first column is the document, as json or jsonb, and whose second, if any, is the version for the ETag; and its arguments.
pub struct Statement {
    pub text: String,
    pub arguments: Vec<Argument>,
    pub kind: Transaction,
    /// Whether the request named the version or the condition that must hold.
    pub is_conditional: bool,
}

/// What the database answered.
pub struct Answered {
    pub document: Json,
    pub version: Option<i64>,
}

impl Statement {
    pub fn reading(text: impl Into<String>, arguments: Vec<Argument>) -> Self {
        Self { text: text.into(), arguments, kind: Transaction::Reading, is_conditional: false }
    }

    pub fn of_log(text: impl Into<String>, arguments: Vec<Argument>) -> Self {
        Self { kind: Transaction::OfLog, ..Self::reading(text, arguments) }
    }

    pub fn writing(text: impl Into<String>, arguments: Vec<Argument>) -> Self {
        Self { text: text.into(), arguments, kind: Transaction::Writing, is_conditional: false }
    }

    pub fn under(self, is_conditional: bool) -> Self {
        Self { is_conditional, ..self }
    }
}

/// Asks the database, as the bearer of the request. It runs to its end also where the client goes away meanwhile: a transaction is never left half-way.
pub async fn ask(app: &Arc<App>, headers: &HeaderMap, statement: Statement) -> Result<Answered, Problem> {
    let bearer = Bearer::of(headers)?;
    let app = Arc::clone(app);
    let asked = tokio::spawn(async move {
        let (again, mut attempt) = (Again::default(), 1);
        loop {
            let client = app.connections.one().await?;
            let failure = match once(&app, &client, &bearer, &statement).await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            let is_in_the_way = Reason::of(&failure) == Some(Reason::Contention);
            let Some(pause) = again.pause(attempt).filter(|_| is_in_the_way) else {
                return Err(Problem::of(failure, statement.is_conditional));
            };
            // The connection serves others meanwhile.
            drop(client);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    });
    let mistake =
        || Problem::status(StatusCode::INTERNAL_SERVER_ERROR, "the request failed by a mistake of this program");
    asked.await.unwrap_or_else(|_| Err(mistake()))
}

async fn once(
    app: &App,
    client: &tokio_postgres::Client,
    bearer: &Bearer,
    statement: &Statement,
) -> Result<Answered, Error> {
    let arguments: Vec<_> = statement.arguments.iter().map(Argument::typed).collect();
    let call = async {
        let rows = client.query_typed(&statement.text, &arguments).await?;
        let row = rows.first().ok_or_else(|| Error::Argument("the database answered no row".into()))?;
        let version = if row.len() > 1 { row.try_get(1)? } else { None };
        Ok(Answered { document: row.try_get(0)?, version })
    };
    bearer.one(client, app.connections.statement_timeout, statement.kind, call).await
}

/// A document as a response.
pub fn respond(status: StatusCode, answered: Answered, query: &Query) -> Result<Response<Body>, Problem> {
    let text = answered.document.as_str();
    let body = if query.numbers_as_strings()? { numbers::as_strings(text) } else { text.to_owned() };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(version) = answered.version
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\""))
    {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}
