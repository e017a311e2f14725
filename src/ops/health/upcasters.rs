//! Upcasters that were seen to fail, by whoever read an event, a fold, a projection or a consumer. Nothing is upcast to find that out.
use super::check::{Check, Level, Writing};
use crate::log::delivery;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::present::upcasters;
use crate::shared::failing::{self, Kind};
use crate::shared::session::as_owner;
use eventstream_core::quote_literal;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static TENANTS: Plan = const { Plan::new(
        "select t.id, t.name from _eventstream.tenants t \
         where ($1 is null or t.id = $1) and exists (select from _eventstream.upcasters u where u.tenant_id = t.id) \
         order by t.name collate \"C\"",
        &[INT8OID],
    ) };
}

/// A row for each upcaster of the tenant, or (None) of every one, that is noted as it is defined now and for an event that is in the log.
pub fn failing(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let noted = failing::noted(Kind::Upcaster);
    if noted.is_empty() {
        return Ok(Vec::new());
    }
    let tenants = as_owner(Planning::ByIndex, |db, _| {
        TENANTS.with(|tenants| {
            tenants.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                Ok((row.int8(0)?, row.text(1)?.to_owned()))
            })
        })
    })?;
    let mut checks = Vec::new();
    for (tenant_id, tenant) in tenants {
        let upcasters = upcasters::of(tenant_id)?;
        for noted in &noted {
            let Some((event_type, from)) = upcasters.noted(noted.key) else { continue };
            let facts = as_owner(Planning::ByIndex, |db, catalog| delivery::facts(db, catalog, &[noted.position]))?;
            if let Some(event) = facts.first() {
                checks.push(check(&tenant, event_type, from, event, writing));
            }
        }
    }
    Ok(checks)
}

fn check(tenant: &str, event_type: &str, from: i32, event: &delivery::Facts, writing: &Writing) -> Check {
    let (stream, version) = (&event.stream, event.version);
    let detail = format!(
        "the upcaster of {event_type} from schema version {from} failed, the last time on stream {stream} at version {version}, global position {}: whoever \
         reads such an event gets the error, states fail and projections stop there. Ways out: an upcaster that takes them, registered again. The \
         statements show the event as it is stored, and read it anew, which says why, or that it is mended",
        event.position
    );
    let read =
        |raw| format!("select * from {}es_read({}, {version}, 1{raw});", writing.schema(), quote_literal(stream));
    let fix = format!("{}{}\n{}", writing.choice(Some(tenant)), read(", raw => true"), read(""));
    Check::bad(format!("upcaster of {event_type} from {from}"), Level::Warning, "failing", detail, fix).of(tenant)
}
