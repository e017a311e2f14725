//! Who asks: a bearer token in es_use_token's form. It is not verified here: its issuer leads to a role by a table of the database (eventstream_server.role_of), and es_use_token verifies it in the same
//! transaction as what is asked. So what this program takes for somebody, the database does not.
use crate::problem::Problem;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventstream_client::{Error, Json, scope};
use postgres_types::{ToSql, Type};
use tokio_postgres::GenericClient;

/// es_use_token takes none longer than 8 KiB.
const MOST_BYTES: usize = 8 << 10;

#[derive(Clone)]
pub struct Bearer {
    token: String,
    issuer: String,
    claims: Json,
}

/// What a transaction is for. At READ COMMITTED whatever the role has set: each statement sees what was committed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Writing,
    Reading,
    /// Reads the log up to its horizon, which is taken by a statement before: one that took it itself would take it after its snapshot, and go on behind events that it did not see.
    OfLog,
}

impl Transaction {
    fn begin(self) -> &'static str {
        match self {
            Self::Writing => "begin isolation level read committed",
            Self::Reading | Self::OfLog => "begin isolation level read committed read only",
        }
    }
}

/// What [`HORIZON`] gives.
const LOOK: &str = "select set_config('eventstream_server.horizon', es_horizon()::text, true)";

/// The horizon, in a statement of [`Transaction::OfLog`].
pub const HORIZON: &str = "current_setting('eventstream_server.horizon')::bigint";

/// The role first: es_use_token asks whether that one needs a token.
const ENTER: &str =
    "select set_config('statement_timeout', $3, true), set_config('role', eventstream_server.role_of($1, $2), true)";

impl Bearer {
    /// Of a request. 401 where there is none, and where it cannot be one.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let header = match (given.next(), given.next()) {
            (Some(only), None) => only,
            (None, _) => return Err(Problem::unauthorized("a request needs a token: Authorization: Bearer <token>")),
            _ => return Err(Problem::unauthorized("a request has one Authorization header")),
        };
        let refused =
            || Problem::unauthorized("Authorization must be: Bearer <token>, a signed token as es_use_token takes it");
        let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MOST_BYTES {
            return Err(refused());
        }
        let claims = claims(token).ok_or_else(refused)?;
        let issuer = claims.string_at("/iss").ok_or_else(refused)?;
        Ok(Self { token: token.to_owned(), issuer, claims })
    }

    /// A transaction of the bearer's around one statement, in one round trip.
    pub async fn one<T>(
        &self,
        client: &impl GenericClient,
        timeout: std::time::Duration,
        kind: Transaction,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let timeout = timeout.as_millis().to_string();
        let opening = async {
            let role: [(&(dyn ToSql + Sync), Type); 3] =
                [(&self.issuer, Type::TEXT), (&self.claims, Type::JSONB), (&timeout, Type::TEXT)];
            let token: [(&(dyn ToSql + Sync), Type); 1] = [(&self.token, Type::TEXT)];
            let enter = client.query_typed(ENTER, &role);
            let take = client.query_typed("select es_use_token($1)", &token);
            let look = async {
                if kind == Transaction::OfLog {
                    client.batch_execute(LOOK).await?;
                }
                Ok(())
            };
            let (entered, taken, looked) = tokio::join!(biased; enter, take, look);
            entered.map_err(Error::from)?;
            taken.map_err(Error::from)?;
            looked.map_err(|failure: tokio_postgres::Error| Error::from(failure))
        };
        scope::one(client, kind.begin(), opening, statement).await
    }
}

/// What stands in the middle of a token, not verified.
fn claims(token: &str) -> Option<Json> {
    let mut parts = token.split('.');
    let (Some(_), Some(middle), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(middle).ok()?).ok()?;
    Json::parse_text(text).ok().filter(|claims| claims.as_str().trim_start().starts_with('{'))
}
