//! How every projection stands: what the view eventstream.projections, health and metrics are made of. Reads no event but the first
//! one that a projection has not seen.
pub mod subscriptions;
use crate::log::activation;
use crate::log::filter::Filter;
use crate::log::horizon::{self, Horizons};
use crate::log::pending::{self, First, Followed};
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::present::upcasters;
use crate::shared::session::as_owner;
use crate::usercode::registrant_of;
use eventstream_core::word::{Standing, Status, Word};
use pgrx::pg_sys::{Datum, INT8OID};

/// A projection, and how it stands.
pub struct Projection {
    pub id: i64,
    pub tenant: String,
    pub name: String,
    pub is_table: bool,
    pub is_inline: bool,
    /// None: every one.
    pub categories: Option<Vec<String>>,
    pub standing: Standing,
    pub position: i64,
    /// Settled positions that it has not passed; 0 where none of them is an event for it.
    pub lag: i64,
    /// Since the first event that it has not processed was recorded.
    pub lag_seconds: f64,
    pub attempts: i32,
    pub failed_position: Option<i64>,
    /// Microseconds since 2000-01-01 UTC.
    pub retry_at: Option<i64>,
    pub error: Option<(String, String)>,
    pub applied: i64,
    pub dead_letters: i64,
    /// Of the newest of them: its stream, and what of its reason holds nothing of a payload.
    pub last_dead: Option<String>,
    /// What it needs and is not there any more: "function ledger.apply(eventstream.event)".
    pub missing: Option<Missing>,
}

/// What a projection needs and is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// With its arguments.
    Function(String),
    Table(String),
    Fold(String),
    Role(String),
}

impl Missing {
    /// What it is, and its name.
    pub fn described(&self) -> String {
        let (kind, name) = match self {
            Self::Function(name) => ("function", name),
            Self::Table(name) => ("table", name),
            Self::Fold(name) => ("fold", name),
            Self::Role(name) => ("role", name),
        };
        format!("{kind} {name}")
    }
}

/// Where the log and the database stand, for all lags of one look.
pub struct Moment {
    pub now: i64,
    /// Everything of a tenant up to there is settled; on a standby, and without preload, the last position handed out.
    pub settled: Horizons,
    pub is_active: bool,
}

impl Moment {
    pub fn look() -> Result<Self> {
        let is_active = activation::is_active()?;
        let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::end_of_log(catalog))?;
        Ok(Self { now: server::clock(), settled, is_active })
    }

    /// The first event that a follower has not seen, which has seen everything up to `position`.
    pub fn first(&self, followed: Followed, position: i64) -> Result<Option<First>> {
        as_owner(Planning::ByIndex, |db, catalog| {
            pending::first(db, catalog, followed, (position, self.settled.of(followed.tenant_id)))
        })
    }

    /// Seconds since it was recorded.
    pub fn age(&self, first: First) -> f64 {
        (self.now - first.recorded_at).max(0) as f64 / 1e6
    }
}

columns! {
    mod of, selected;
    ID = "p.id",
    TENANT_ID = "p.tenant_id",
    TENANT = "t.name",
    NAME = "p.name",
    IS_TABLE = "p.kind = 'table'",
    IS_INLINE = "p.mode = 'inline'",
    STATUS = "g.status",
    POSITION = "g.global_position",
    ATTEMPTS = "g.attempts",
    FAILED_POSITION = "g.failed_position",
    RETRY_AT = "g.retry_at",
    SQLSTATE = "g.error_sqlstate",
    MESSAGE = "g.error_message",
    CATEGORIES = "p.categories",
    EVENT_TYPES = "p.event_types",
    APPLIED = "g.applied",
    DEAD_LETTERS = "(select count(*) from _eventstream.dead_letters d where d.projection_id = p.id)",
    LAST_DEAD = "(select d.stream || ': ' || d.outline from _eventstream.dead_letters d where d.projection_id = p.id \
                  order by d.global_position desc limit 1)",
    NO_HANDLER = "case when to_regprocedure(f.handler) is null then f.handler end",
    NO_RESET = "case when to_regprocedure(f.reset) is null then f.reset end",
    NO_TABLE = "case when to_regclass(p.table_name) is null then p.table_name end",
    NO_FOLD = "case when p.kind = 'table' and not exists ( \
                         select from _eventstream.folds d where d.tenant_id = p.tenant_id \
                         and case when p.fold is null then d.is_default and d.category = p.categories[1] else d.name = p.fold end) \
                    then coalesce(p.fold, 'the default one of category ' || p.categories[1]) end",
    NO_ROLE = "case when r.oid is null then p.registrant end",
}

thread_local! {
    static LIST: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id \
             join _eventstream.tenants t on t.id = p.tenant_id",
            registrant_of!("p"),
            "cross join lateral (select p.handler || case p.kind when 'event' then '(eventstream.event)' else '(eventstream.event[])' end, \
                                        p.reset || '()') f (handler, reset) \
             where $1 is null or p.tenant_id = $1 order by t.name collate \"C\", p.name collate \"C\""
        ),
        &[INT8OID],
    ) };
}

struct Listed {
    projection: Projection,
    tenant_id: i64,
    status: Status,
    filter: Filter,
}

fn owned(row: &Row, column: usize) -> Result<Option<String>> {
    Ok(row.text_opt(column)?.map(ToOwned::to_owned))
}

fn read(row: &Row) -> Result<Listed> {
    let function = owned(row, of::NO_HANDLER)?.or(owned(row, of::NO_RESET)?);
    let missing = match (function, owned(row, of::NO_TABLE)?, owned(row, of::NO_FOLD)?, owned(row, of::NO_ROLE)?) {
        (_, _, _, Some(role)) => Some(Missing::Role(role)),
        (Some(function), ..) => Some(Missing::Function(function)),
        (_, Some(table), ..) => Some(Missing::Table(table)),
        (_, _, Some(fold), _) => Some(Missing::Fold(fold)),
        _ => None,
    };
    Ok(Listed {
        projection: Projection {
            id: row.int8(of::ID)?,
            tenant: row.text(of::TENANT)?.to_owned(),
            name: row.text(of::NAME)?.to_owned(),
            is_table: row.boolean(of::IS_TABLE)?,
            is_inline: row.boolean(of::IS_INLINE)?,
            categories: row.text_array_opt(of::CATEGORIES)?,
            standing: Standing::Running,
            position: row.int8(of::POSITION)?,
            lag: 0,
            lag_seconds: 0.0,
            attempts: row.int4(of::ATTEMPTS)?,
            failed_position: row.int8_opt(of::FAILED_POSITION),
            retry_at: row.int8_opt(of::RETRY_AT),
            error: owned(row, of::SQLSTATE)?.zip(owned(row, of::MESSAGE)?),
            applied: row.int8(of::APPLIED)?,
            dead_letters: row.int8(of::DEAD_LETTERS)?,
            last_dead: owned(row, of::LAST_DEAD)?,
            missing,
        },
        tenant_id: row.int8(of::TENANT_ID)?,
        status: Status::named(row.text(of::STATUS)?).unwrap_or(Status::Running),
        filter: Filter::of(row.text_array_opt(of::CATEGORIES)?, row.text_array_opt(of::EVENT_TYPES)?),
    })
}

fn standing(listed: &Listed, is_active: bool) -> Standing {
    match listed.status {
        Status::Paused => Standing::Paused,
        Status::Stopped => Standing::Stopped,
        _ if listed.projection.is_inline => Standing::Running,
        _ if !is_active => Standing::Waiting,
        _ if listed.projection.attempts > 0 => Standing::Retrying,
        Status::Rebuilding => Standing::Rebuilding,
        Status::Running => Standing::Running,
    }
}

/// The projections of a tenant, or (None) of all, by tenant and name.
pub fn projections(moment: &Moment, tenant_id: Option<i64>) -> Result<Vec<Projection>> {
    let listed = as_owner(Planning::ByIndex, |db, _| {
        LIST.with(|list| list.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], read))
    })?;
    let mut projections = Vec::with_capacity(listed.len());
    for mut listed in listed {
        listed.projection.standing = standing(&listed, moment.is_active);
        if listed.projection.is_inline && listed.projection.standing == Standing::Running {
            // It has seen whatever was appended.
            listed.projection.position = moment.settled.of(listed.tenant_id);
        } else {
            let filter = upcasters::following(listed.tenant_id, listed.filter)?;
            let followed = Followed { tenant_id: listed.tenant_id, filter: &filter, slots: None };
            if let Some(first) = moment.first(followed, listed.projection.position)? {
                listed.projection.lag = moment.settled.of(listed.tenant_id) - listed.projection.position;
                listed.projection.lag_seconds = moment.age(first);
            }
        }
        projections.push(listed.projection);
    }
    Ok(projections)
}
