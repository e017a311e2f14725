//! What becomes of a tenant after it was made: another name, and its end. Writes the rows alone; src/command/ended.rs has the order of an end.
//!
//! ```text
//! open ──(es_close_tenant)──▶ closed, for good         either ──(es_rename_tenant)──▶ the same under another name
//! ```
//! Promises: whoever enters the tenant's gate afterwards knows of it, in every session; hashes, grants and whatever else is kept go by uuid or id, and bear a new
//! name; the tenant `default`, whose row no dump has, stays as it is.
use super::fixed::must_be_free;
use crate::log::target::Target;
use crate::log::{acting, gate};
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::error::report;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::catalog::announce_tenant_change;
use crate::shared::meant;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::TenantName;
use eventstream_core::shown;
use eventstream_core::withheld::Withheld;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};

/// The tenant `default`, which every log has.
const FIRST: i64 = 1;
/// unique_violation
const TAKEN: &str = "23505";

thread_local! {
    static ENDED: Plan = const { Plan::new(
        "select name, closed_at, close_reason from _eventstream.tenants where id = $1 and closed_at is not null",
        &[INT8OID],
    ) };
    static END: Plan = const { Plan::new(
        "update _eventstream.tenants set closed_at = clock_timestamp(), closed_by = $2, close_reason = $3 where id = $1 returning closed_at",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static RENAME: Plan = const { Plan::new("update _eventstream.tenants set name = $2 where id = $1", &[INT8OID, TEXTOID]) };
    /// Who has the old name in a setting: "role … in database …".
    static SETTINGS: Plan = const { Plan::new(
        "select concat_ws(' in ', 'role ' || r.rolname, 'database ' || d.datname) from pg_db_role_setting s \
         left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase \
         where s.setconfig @> array['eventstream.tenant=' || $1] and (s.setdatabase = 0 or d.datname = current_database()) order by 1 limit 10",
        &[TEXTOID],
    ) };
}

/// That a tenant was closed.
#[derive(Debug)]
pub struct Ended {
    tenant: String,
    /// Microseconds since 2000-01-01 UTC.
    pub closed_at: i64,
    pub reason: String,
}

impl Ended {
    /// ES045.
    pub fn refusal(&self) -> Result<Failure> {
        let (tenant, reason) = (self.tenant.clone(), self.reason.clone());
        let closed_at = server::print_time_utc(self.closed_at)?;
        Ok(Error::Withheld(Box::new(Withheld::TenantClosed { tenant, closed_at, reason })).into())
    }
}

/// None: it is open.
pub fn ended(tenant_id: i64) -> Result<Option<Ended>> {
    as_owner(Planning::ByIndex, |db, _| {
        ENDED.with(|plan| {
            plan.first(db, View::Latest, &[Some(Datum::from(tenant_id))], |row| {
                let (tenant, reason) = (row.text(0)?.to_owned(), row.text(2)?.to_owned());
                Ok(Ended { tenant, closed_at: row.int8(1)?, reason })
            })
        })
    })
}

/// Notes that it is closed; when. Behind its gate, had alone.
pub fn end(target: Target, reason: &str, by: &str) -> Result<i64> {
    let row = [Some(Datum::from(target.id)), Some(from_text(by)?), Some(from_text(reason)?)];
    let closed_at = as_owner(Planning::ByIndex, |db, catalog| {
        let closed_at = END.with(|plan| plan.first(db, View::Write, &row, |row| row.int8(0)))?;
        announce_tenant_change(catalog)?;
        Ok(closed_at)
    })?;
    closed_at.ok_or_else(|| Error::TenantNotFound { tenant: target.name.into() }.into())
}

/// Errors: ES005 for the tenant `default`.
pub fn must_not_be_first(target: Target, what: &str) -> Result<()> {
    if target.id == FIRST {
        return Err(invalid("tenant", format!("must not be default, which every log has: it is not {what}")));
    }
    Ok(())
}

/// Errors: ES005 for the tenant `default`, and where there is one of that name, 55P03.
pub fn rename_tenant(target: Target, new_name: &str) -> Result<()> {
    TenantName::parse_as("new_name", new_name)?;
    must_be_free()?;
    server::must_be_writable(c"es_rename_tenant")?;
    acting::refuse("es_rename_tenant")?;
    must_not_be_first(target, "renamed")?;
    if new_name == target.name {
        return report::notice(&format!("tenant {} has that name already", shown(target.name)));
    }
    // Nobody who appends, and no handler on his behalf, has the one name in hand and meets the other.
    gate::close(target)?;
    let renamed = attempt(|| {
        let row = [Some(Datum::from(target.id)), Some(from_text(new_name)?)];
        as_owner(Planning::ByIndex, |db, _| RENAME.with(|plan| plan.write(db, &row)))
    })?;
    match renamed {
        Ok(1) => {}
        Ok(_) => return Err(Error::TenantNotFound { tenant: target.name.into() }.into()),
        Err(caught) if caught.sqlstate == TAKEN => {
            let reason = format!("must be a new name: there is a tenant {} already", shown(new_name));
            return Err(invalid("new_name", reason));
        }
        Err(caught) => {
            return Err(Error::Internal { what: format!("the tenant was not renamed: {}", caught.message) }.into());
        }
    }
    [target.name, new_name].into_iter().for_each(meant::forget);
    as_owner(Planning::ByIndex, |db, catalog| {
        announce_tenant_change(catalog)?;
        let named = SETTINGS.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(from_text(target.name)?)], |row| Ok(row.text(0)?.to_owned()))
        })?;
        if named.is_empty() {
            return Ok(());
        }
        report::notice(&format!("eventstream.tenant is still set to the old name for {}", named.join(", ")))
    })
}
