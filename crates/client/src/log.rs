//! The calls. Each is one statement in one round trip, by tokio-postgres's unnamed statements: nothing stays in the session.
use crate::command::{Answer, Command};
use crate::error::{Error, Result};
use crate::event::{Append, Appended, COLUMNS, Delivery, Event, Expected, NewEvent};
use crate::json::Json;
use jiff::Timestamp;
use postgres_types::{ToSql, Type};
use std::time::Duration;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

/// Typed calls over a connection, a transaction, or one of a pool.
#[derive(Clone, Copy)]
pub struct Log<'a, C> {
    client: &'a C,
}

/// Which events of the log are wanted; all where nothing is named.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub categories: Option<Vec<String>>,
    pub event_types: Option<Vec<String>>,
}

/// A page of a query: its events, and what the next one begins with.
#[derive(Debug, Clone)]
pub struct Page {
    pub events: Vec<Event>,
    /// None where there was nothing more.
    pub next: Option<String>,
}

type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

impl<'a, C: GenericClient> Log<'a, C> {
    pub fn new(client: &'a C) -> Self {
        Self { client }
    }

    async fn rows(&self, sql: &str, arguments: &[Typed<'_>]) -> Result<Vec<Row>> {
        Ok(self.client.query_typed(sql, arguments).await?)
    }

    /// The one row of a call that answers one.
    async fn row(&self, sql: &str, arguments: &[Typed<'_>]) -> Result<Row> {
        let rows = self.rows(sql, arguments).await?;
        rows.into_iter().next().ok_or_else(|| Error::Argument(format!("the database answered no row to: {sql}")))
    }

    async fn events(&self, from: &str, arguments: &[Typed<'_>]) -> Result<Vec<Event>> {
        let rows = self.rows(&format!("select {COLUMNS} from {from} event"), arguments).await?;
        rows.iter().map(|row| Event::of(row, 0)).collect()
    }

    /// Appends to one stream, all or nothing; the version that it has then.
    pub async fn append(&self, stream: &str, events: &[NewEvent], expected: Expected) -> Result<i64> {
        let (events, version, must_exist) = (Json::of(events)?, expected.version(), expected == Expected::Exists);
        let row = self
            .row(
                "select es_append_events($1, $2, $3, $4)",
                &[(&stream, Type::TEXT), (&events, Type::JSONB), (&version, Type::INT8), (&must_exist, Type::BOOL)],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Appends to several streams, all or nothing, under a condition of [`Log::condition`] if one is given.
    pub async fn append_streams(&self, appends: &[Append], condition: Option<&Json>) -> Result<Vec<Appended>> {
        let appends = Json::of(appends)?;
        let rows = self
            .rows(
                "select stream, version, positions from es_append_streams($1, condition => $2)",
                &[(&appends, Type::JSONB), (&condition, Type::JSONB)],
            )
            .await?;
        let appended = |row: &Row| -> Result<Appended> {
            Ok(Appended { stream: row.try_get(0)?, version: row.try_get(1)?, positions: row.try_get(2)? })
        };
        rows.iter().map(appended).collect()
    }

    /// A condition over what matches `query` by now: an append under it fails (ES015) where more of it was appended meanwhile.
    pub async fn condition(&self, query: &Json) -> Result<Json> {
        Ok(self.row("select es_condition($1)", &[(query, Type::JSONB)]).await?.try_get(0)?)
    }

    /// Events of a stream from a version on, oldest first.
    pub async fn read(&self, stream: &str, from_version: i64, max_count: i64) -> Result<Vec<Event>> {
        let arguments: [Typed; 3] = [(&stream, Type::TEXT), (&from_version, Type::INT8), (&max_count, Type::INT8)];
        self.events("es_read($1, $2, $3)", &arguments).await
    }

    /// Events of the log behind a position, in its order; none where there are none yet. What was given is never followed by something that belongs before it.
    pub async fn read_all(&self, after_position: i64, max_count: i64, filter: &Filter) -> Result<Vec<Event>> {
        let arguments: [Typed; 4] = [
            (&after_position, Type::INT8),
            (&max_count, Type::INT8),
            (&filter.categories, Type::TEXT_ARRAY),
            (&filter.event_types, Type::TEXT_ARRAY),
        ];
        self.events("es_read_all($1, $2, $3, $4)", &arguments).await
    }

    /// A page of what meets `criteria` (docs/query.md), from its beginning or from where another ended.
    pub async fn query(&self, criteria: &Json, max_count: i32, page: Option<&str>) -> Result<Page> {
        let sql = format!("select page, {COLUMNS} from es_query($1, $2, $3)");
        let arguments: [Typed; 3] = [(criteria, Type::JSONB), (&max_count, Type::INT4), (&page, Type::TEXT)];
        let rows = self.rows(&sql, &arguments).await?;
        let next = match rows.last() {
            Some(last) => Some(last.try_get(0)?),
            None => None,
        };
        Ok(Page { events: rows.iter().map(|row| Event::of(row, 1)).collect::<Result<_>>()?, next })
    }

    /// The state of a stream, by its category's default fold or another one.
    pub async fn state(&self, stream: &str, fold: Option<&str>) -> Result<Json> {
        let arguments: [Typed; 2] = [(&stream, Type::TEXT), (&fold, Type::TEXT)];
        Ok(self.row("select es_state($1, $2)", &arguments).await?.try_get(0)?)
    }

    /// The state as it was valid at `as_of`, by what was known at `known_at` (None: by now).
    pub async fn state_at(
        &self,
        stream: &str,
        as_of: Timestamp,
        known_at: Option<Timestamp>,
        fold: Option<&str>,
    ) -> Result<Json> {
        let arguments: [Typed; 4] =
            [(&stream, Type::TEXT), (&as_of, Type::TIMESTAMPTZ), (&known_at, Type::TIMESTAMPTZ), (&fold, Type::TEXT)];
        Ok(self.row("select es_state_at($1, $2, $3, $4)", &arguments).await?.try_get(0)?)
    }

    /// The state after the event of that version.
    pub async fn state_at_version(&self, stream: &str, version: i64, fold: Option<&str>) -> Result<Json> {
        let arguments: [Typed; 3] = [(&stream, Type::TEXT), (&version, Type::INT8), (&fold, Type::TEXT)];
        Ok(self.row("select es_state_at_version($1, $2, $3)", &arguments).await?.try_get(0)?)
    }

    /// State and version for a decision; `for_update` holds the stream until the transaction ends.
    pub async fn load(&self, stream: &str, fold: Option<&str>, for_update: bool) -> Result<(Json, i64)> {
        let arguments: [Typed; 3] = [(&stream, Type::TEXT), (&fold, Type::TEXT), (&for_update, Type::BOOL)];
        let row = self.row("select state, version from es_load($1, $2, $3)", &arguments).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Sends a command once. Where it may be sent again, see [`crate::again`].
    pub async fn command(&self, command: &Command) -> Result<Answer> {
        let arguments: [Typed; 9] = [
            (&command.stream, Type::TEXT),
            (&command.command_type, Type::TEXT),
            (&command.payload, Type::JSONB),
            (&command.expected_version, Type::INT8),
            (&command.metadata, Type::JSONB),
            (&command.key, Type::TEXT),
            (&command.occurred_at, Type::TIMESTAMPTZ),
            (&command.decider, Type::TEXT),
            (&command.subject, Type::TEXT),
        ];
        let row = self.row("select es_command($1, $2, $3, $4, $5, $6, $7, $8, $9)", &arguments).await?;
        row.try_get::<_, Json>(0)?.read()
    }

    /// Up to where every position is decided: what lies behind it may still be open.
    pub async fn horizon(&self) -> Result<i64> {
        Ok(self.row("select es_horizon()", &[]).await?.try_get(0)?)
    }

    /// Leases the next events of a subscription. Commits at once where no transaction is open: then do the work, and acknowledge.
    pub async fn fetch(
        &self,
        subscription: &str,
        consumer: &str,
        max_count: i64,
        (lease, wait): (Duration, Duration),
    ) -> Result<Vec<Delivery>> {
        let sql = format!(
            "select lease_id, lease_until, attempt, {COLUMNS} from es_fetch($1, $2, $3, make_interval(secs => $4), make_interval(secs => $5))"
        );
        let (lease, wait) = (lease.as_secs_f64(), wait.as_secs_f64());
        let arguments: [Typed; 5] = [
            (&subscription, Type::TEXT),
            (&consumer, Type::TEXT),
            (&max_count, Type::INT8),
            (&lease, Type::FLOAT8),
            (&wait, Type::FLOAT8),
        ];
        let delivery = |row: &Row| -> Result<Delivery> {
            Ok(Delivery {
                lease_id: row.try_get(0)?,
                lease_until: row.try_get(1)?,
                attempt: row.try_get(2)?,
                event: Event::of(row, 3)?,
            })
        };
        self.rows(&sql, &arguments).await?.iter().map(delivery).collect()
    }

    /// Acknowledges what is left of a lease, or its events up to a position; how many these were.
    pub async fn ack(&self, lease: Uuid, up_to: Option<i64>) -> Result<i64> {
        let arguments: [Typed; 2] = [(&lease, Type::UUID), (&up_to, Type::INT8)];
        Ok(self.row("select es_ack($1, $2)", &arguments).await?.try_get(0)?)
    }

    /// Gives an event back with the later ones of its stream: again after `retry_after`, or by the database's own pauses; or for good.
    pub async fn nack(
        &self,
        lease: Uuid,
        position: i64,
        reason: &str,
        retry_after: Option<Duration>,
        dead_letter: bool,
    ) -> Result<i64> {
        let seconds = retry_after.map(|pause| pause.as_secs_f64());
        let sql = "select es_nack($1, $2, $3, make_interval(secs => $4), $5)";
        let arguments: [Typed; 5] = [
            (&lease, Type::UUID),
            (&position, Type::INT8),
            (&reason, Type::TEXT),
            (&seconds, Type::FLOAT8),
            (&dead_letter, Type::BOOL),
        ];
        Ok(self.row(sql, &arguments).await?.try_get(0)?)
    }

    /// Holds a lease for longer: until `by` from now.
    pub async fn extend_lease(&self, lease: Uuid, by: Duration) -> Result<i64> {
        let seconds = by.as_secs_f64();
        let arguments: [Typed; 2] = [(&lease, Type::UUID), (&seconds, Type::FLOAT8)];
        Ok(self.row("select es_extend_lease($1, make_interval(secs => $2))", &arguments).await?.try_get(0)?)
    }
}
