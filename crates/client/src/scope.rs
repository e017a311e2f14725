//! A transaction with the rights of somebody: as a role, with a token, in a tenant, within a time. All that opens it is sent together with its first statement, so that it costs no round trip.
//!
//! Promise: where the role or the token is refused, nothing behind it is executed. The statements that open it stand in the transaction; if one fails, PostgreSQL executes nothing more until its end.
use crate::error::{Error, Result, is_of_aborted};
use postgres_types::{ToSql, Type};
use std::time::Duration;
use tokio_postgres::GenericClient;

/// Whose rights a transaction has. What is None stays as the session has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The role, as by SET LOCAL ROLE.
    pub role: Option<String>,
    /// The tenant, as the setting `eventstream.tenant` says it: for roles that need no token.
    pub tenant: Option<String>,
    /// For `es_use_token`.
    pub token: Option<String>,
    /// PostgreSQL's statement_timeout, whole milliseconds.
    pub timeout: Option<Duration>,
    /// Whether the transaction may write nothing.
    pub is_read_only: bool,
}

impl Scope {
    /// The settings that it has, for the transaction only.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let timeout = self.timeout.map(|timeout| timeout.as_millis().max(1).to_string());
        // The role last: what it may not set is set before it.
        [("statement_timeout", timeout), ("eventstream.tenant", self.tenant.clone()), ("role", self.role.clone())]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    fn begin(&self) -> &'static str {
        if self.is_read_only { "begin read only" } else { "begin" }
    }

    async fn enter(&self, client: &impl GenericClient) -> Result<()> {
        let settings = self.settings();
        if settings.is_empty() {
            return Ok(());
        }
        let calls: Vec<_> =
            (0..settings.len()).map(|n| format!("set_config(${}, ${}, true)", 2 * n + 1, 2 * n + 2)).collect();
        let arguments: Vec<(&(dyn ToSql + Sync), Type)> = settings
            .iter()
            .flat_map(|(name, value)| [(name as &(dyn ToSql + Sync), Type::TEXT), (value as _, Type::TEXT)])
            .collect();
        client.query_typed(&format!("select {}", calls.join(", ")), &arguments).await?;
        Ok(())
    }

    async fn use_token(&self, client: &impl GenericClient) -> Result<()> {
        if let Some(token) = &self.token {
            client.query_typed("select es_use_token($1)", &[(token, Type::TEXT)]).await?;
        }
        Ok(())
    }

    /// A transaction around one statement, in one round trip: `statement` must send all that it sends when it is first polled, as each call of [`crate::Log`] does.
    pub async fn one<T>(&self, client: &impl GenericClient, statement: impl Future<Output = Result<T>>) -> Result<T> {
        one(client, self.begin(), self.open(client), statement).await
    }

    /// A transaction around whatever `work` sends, which commits if that succeeds.
    ///
    /// A future that is dropped before its end leaves the transaction open: give the connection up then.
    pub async fn around<T>(&self, client: &impl GenericClient, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (begun, opened, answer) = tokio::join!(biased; simple(client, self.begin()), self.open(client), work);
        let done = first_cause(begun.and(opened), answer);
        simple(client, if done.is_ok() { "commit" } else { "rollback" }).await?;
        done
    }

    async fn open(&self, client: &impl GenericClient) -> Result<()> {
        let (entered, tokened) = tokio::join!(biased; self.enter(client), self.use_token(client));
        entered.and(tokened)
    }
}

/// A transaction around one statement, in one round trip, that `opening` opens: both must send all that they send when they are first polled.
pub async fn one<T>(
    client: &impl GenericClient,
    begin: &str,
    opening: impl Future<Output = Result<()>>,
    statement: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (begun, opened, answer, ended) = tokio::join!(
        biased;
        simple(client, begin),
        opening,
        statement,
        // Of a transaction in which something failed this is its rollback.
        simple(client, "commit"),
    );
    first_cause(begun.and(opened), answer).and_then(|answer| ended.map(|()| answer))
}

/// What failed first: behind it every statement fails with nothing to say.
fn first_cause<T>(opened: Result<()>, answer: Result<T>) -> Result<T> {
    match (opened, answer) {
        (Ok(()), answer) => answer,
        (Err(opening), Err(answer)) if is_of_aborted(&opening) && !is_of_aborted(&answer) => Err(answer),
        (Err(opening), _) => Err(opening),
    }
}

async fn simple(client: &impl GenericClient, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(Error::from)
}
