//! Stored schema versions of event types that no upcasters turn into the newest declared one, by what upkeep has counted: nothing of the log is read for that.
use super::check::{Check, Level, Writing};
use crate::command::stored_types::{self, Unreadable};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::{counted, shown};
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static TENANTS: Plan = const { Plan::new(
        "select t.id, t.name from _eventstream.tenants t \
         where ($1 is null or t.id = $1) and exists (select from _eventstream.event_types e where e.tenant_id = t.id) \
         order by t.name collate \"C\"",
        &[INT8OID],
    ) };
}

/// So many are named.
const MOST_NAMED: usize = 3;

/// Of a tenant, or (None) of every one that declares event types: its name, and those that it has.
pub fn unreadable(tenant_id: Option<i64>) -> Result<Vec<(String, Vec<Unreadable>)>> {
    let tenants = as_owner(Planning::ByIndex, |db, _| {
        TENANTS.with(|tenants| {
            tenants.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                Ok((row.int8(0)?, row.text(1)?.to_owned()))
            })
        })
    })?;
    tenants.into_iter().map(|(id, tenant)| Ok((tenant, stored_types::unreadable(id)?))).collect()
}

/// A row for each tenant that has some.
pub fn checks(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let found = unreadable(tenant_id)?;
    Ok(found
        .iter()
        .filter(|(_, unreadable)| !unreadable.is_empty())
        .map(|(tenant, all)| check(tenant, all, writing))
        .collect())
}

fn check(tenant: &str, unreadable: &[Unreadable], writing: &Writing) -> Check {
    let named: Vec<_> = unreadable
        .iter()
        .take(MOST_NAMED)
        .map(|Unreadable { event_type, schema_version, misfit, events }| {
            format!(
                "{} version {schema_version} ({}): {misfit}",
                shown(event_type),
                counted(*events, "event", "events")
            )
        })
        .collect();
    let more = unreadable.len().saturating_sub(MOST_NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let events = unreadable.iter().map(|unreadable| unreadable.events).sum();
    let (events, versions) = (
        counted(events, "event is", "events are"),
        counted(unreadable.len() as i64, "stored schema version", "stored schema versions"),
    );
    let detail = format!(
        "{events} not read in the newest declared schema version of their type, of {versions}: {}{more}. Folds, projections and consumers get them as they are. \
         Register the upcasters that are missing (es_register_upcaster), or take back what nobody writes (es_drop_event_type)",
        named.join("; ")
    );
    let fix = format!("{}select * from {}es_check_event_types();", writing.choice(Some(tenant)), writing.schema());
    Check::bad("event types", Level::Warning, "no upcaster", detail, fix).of(tenant)
}
