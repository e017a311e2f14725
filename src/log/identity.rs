//! Who this log is: what a consumer stores beside its checkpoint to notice a restored copy.
use super::{first_append, horizon};
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::{sequence, server};
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::{self, Whose};
use crate::shared::session::as_owner;
use eventstream_core::audit::owner_of;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::hash::Uuid;
use pgrx::pg_sys::{self, Datum, INT8OID, OIDOID, Oid};
use std::cell::RefCell;
use std::collections::HashMap;

/// Where this log is at home.
pub struct Home {
    pub log_id: String,
    /// This is where it was made, or es_activate() made it its home.
    pub is_here: bool,
}

pub struct LogInfo {
    pub log_id: Uuid,
    /// The tenant's.
    pub tenant_uuid: Uuid,
    pub system_identifier: i64,
    /// Of the log.
    pub incarnation: i64,
    pub timeline: i32,
    pub last_position: i64,
    /// The tenant's. None on a standby and without preload.
    pub horizon: Option<i64>,
    /// None on a standby and without preload.
    pub settled_until: Option<i64>,
}

thread_local! {
    static NOTED_HOME: Plan =
        const { Plan::new("select h::text from _eventstream.home_of_log() h where h is not null", &[]) };
    static LOG_ID: Plan = const { Plan::new("select log_id from _eventstream.this_log()", &[]) };
    static AUDIENCE: Plan = const { Plan::new(
        "select l.log_id::text, (select count(*) from _eventstream.activations a where a.log_id = l.log_id) \
         from _eventstream.this_log() l",
        &[],
    ) };
    static TENANT_UUID: Plan =
        const { Plan::new("select uuid from _eventstream.tenant_uuids() where id = $1", &[INT8OID]) };
    /// By id, of a log (its table of events) that has begun: from then on they never change.
    static TENANT_UUIDS: RefCell<(Oid, HashMap<i64, Uuid>)> = RefCell::new((pg_sys::InvalidOid, HashMap::new()));
    static TENANTS: Plan = const { Plan::new(
        "select name, uuid from _eventstream.tenant_uuids() where $1 is null or id = $1 order by id",
        &[INT8OID],
    ) };
    // Asked anew each time: a restore fills these tables by COPY, which invalidates nothing that could be kept. While a restore is
    // under way the row that counts may still be this database's own; projections and subscriptions older than it are then another's:
    // what is made here is never noted as older, whatever the clock does.
    static HOME: Plan = const { Plan::new(
        "select o.log_id::text, \
                o.system_identifier = $1 and o.database_oid = $2 \
                and not exists (select from _eventstream.projections p where p.created_at < o.created_at) \
                and not exists (select from _eventstream.subscriptions s where s.created_at < o.created_at) \
                or exists (select from _eventstream.activations a \
                           where a.log_id = o.log_id and a.system_identifier = $1 and a.database_oid = $2) \
         from _eventstream.this_log() o",
        &[INT8OID, OIDOID],
    ) };
}

pub fn home() -> Result<Home> {
    let place = [Some(Datum::from(server::system_identifier()?)), Some(Datum::from(server::database()))];
    as_owner(Planning::ByIndex, |db, _| {
        HOME.with(|home| {
            home.first(db, View::Latest, &place, |row| {
                Ok(Home { log_id: row.text(0)?.to_owned(), is_here: row.boolean(1)? })
            })
        })
    })?
    .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// Where the log was made, as the row says that counts now: JSON. Each act keeps it (src/log/audit.rs), so that a row that was edited is found.
pub fn noted_home() -> Result<String> {
    as_owner(Planning::ByIndex, |db, _| {
        NOTED_HOME.with(|plan| plan.first(db, View::Latest, &[], |row| Ok(row.text(0)?.to_owned())))
    })?
    .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

pub fn log_id(db: &Db) -> Result<Uuid> {
    LOG_ID
        .with(|plan| plan.first(db, View::Caller, &[], |row| row.uuid(0)))?
        .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// How often this log was made the original anew: what was issued for it before counts no more.
pub fn incarnation(db: &Db) -> Result<i64> {
    AUDIENCE
        .with(|plan| plan.first(db, View::Latest, &[], |row| row.int8(1)))?
        .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// What tokens for this log name as their audience.
pub fn audience(db: &Db) -> Result<String> {
    AUDIENCE
        .with(|plan| plan.first(db, View::Latest, &[], |row| Ok(format!("{}/{}", row.text(0)?, row.int8(1)?))))?
        .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// What hashes cover of a tenant. Of a log that has not begun, that of the tenant `default` may yet become another: a restore brings it.
pub fn tenant_uuid(db: &Db, catalog: &Catalog, tenant_id: i64) -> Result<Uuid> {
    let known = TENANT_UUIDS.with_borrow(
        |(log, known)| {
            if *log == catalog.events { known.get(&tenant_id).copied() } else { None }
        },
    );
    if let Some(known) = known {
        return Ok(known);
    }
    let uuid = TENANT_UUID
        .with(|plan| plan.first(db, View::Latest, &[Some(Datum::from(owner_of(tenant_id)))], |row| row.uuid(0)))?
        .ok_or_else(|| Error::Internal { what: format!("there is no tenant with id {tenant_id}") })?;
    if first_append::is_settled(catalog)? {
        TENANT_UUIDS.with_borrow_mut(|(log, known)| {
            if *log != catalog.events {
                (*log, *known) = (catalog.events, HashMap::new());
            }
            known.insert(tenant_id, uuid);
        });
    }
    Ok(uuid)
}

/// A position of another log means nothing here, also where this one is as long. Errors: ES025.
pub fn must_be_of_this_log(db: &Db, argument: &str, position: i64, given: &Uuid) -> Result<()> {
    let log_id = log_id(db)?;
    if *given == log_id {
        return Ok(());
    }
    let (given, log_id) = (to_uuid_text(given), to_uuid_text(&log_id));
    Err(Error::PositionOfAnother { argument: argument.into(), position, given, log_id }.into())
}

/// A tenant, as what is kept of it outside names it.
pub struct Tenant {
    pub name: String,
    pub uuid: String,
}

/// All of them, or that one.
pub fn tenants(tenant_id: Option<i64>, view: View) -> Result<Vec<Tenant>> {
    as_owner(Planning::ByIndex, |db, _| {
        TENANTS.with(|plan| {
            plan.rows(db, view, 0, &[tenant_id.map(Datum::from)], |row| {
                Ok(Tenant { name: row.text(0)?.to_owned(), uuid: to_uuid_text(&row.uuid(1)?) })
            })
        })
    })
}

/// As a tenant sees it.
pub fn log_info(tenant_id: i64) -> Result<LogInfo> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let log_id = log_id(db)?;
        let (last_position, horizon, settled_until) = if open_appends::are_there() && !server::is_standby() {
            let whose = Whose::Tenant(tenant_id);
            let horizon = horizon::horizon(catalog, whose)?;
            (horizon.last_position, Some(horizon.position), Some(horizon::settled_until(catalog, whose)?))
        } else {
            (sequence::last(catalog.positions)?.0, None, None)
        };
        Ok(LogInfo {
            log_id,
            tenant_uuid: tenant_uuid(db, catalog, tenant_id)?,
            system_identifier: server::system_identifier()?,
            incarnation: incarnation(db)?,
            timeline: server::timeline()?,
            last_position,
            horizon,
            settled_until,
        })
    })
}
