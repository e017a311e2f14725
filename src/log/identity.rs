//! Who this log is: what a consumer stores beside its checkpoint to notice a restored copy.
use super::horizon;
use crate::pg::failure::Result;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Db, Planning, as_owner};
use crate::pg::slots::{self, Whose};
use crate::pg::{sequence, server};
use eventstream_core::error::Error;

pub struct LogInfo {
    pub log_id: [u8; 16],
    pub system_identifier: i64,
    pub timeline: i32,
    pub last_position: i64,
    /// The tenant's. None on a standby and without preload.
    pub horizon: Option<i64>,
    /// None on a standby and without preload.
    pub settled_until: Option<i64>,
}

thread_local! {
    // Restored rows are older than the one that CREATE EXTENSION made in the copy.
    static OLDEST: Plan = const {
        Plan::new("select log_id from _eventstream.log_identities order by created_at limit 1", &[])
    };
}

pub fn log_id(db: &Db) -> Result<[u8; 16]> {
    OLDEST
        .with(|oldest| oldest.first(db, View::Caller, &[], |row| row.uuid(0)))?
        .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// As a tenant sees it.
pub fn log_info(tenant_id: i64) -> Result<LogInfo> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let log_id = log_id(db)?;
        let (last_position, horizon, settled_until) = if slots::are_there() && !server::is_standby() {
            let whose = Whose::Tenant(tenant_id);
            let horizon = horizon::horizon(catalog, whose)?;
            (horizon.last_position, Some(horizon.position), Some(horizon::settled_until(catalog, whose)?))
        } else {
            (sequence::last(catalog.positions)?.0, None, None)
        };
        Ok(LogInfo {
            log_id,
            system_identifier: server::system_identifier()?,
            timeline: server::timeline()?,
            last_position,
            horizon,
            settled_until,
        })
    })
}
