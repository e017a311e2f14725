//! Tenants that are closed: nothing is recorded in one any more.
//!
//! ```text
//! rights and arguments ─▶ the tenant's gate, alone ─▶ its commands for later taken back ─▶ its row ─▶ act, at the commit
//! ```
//! Promises: no append is half in when it is closed, and whoever enters the gate afterwards is refused, whatever he has known before; what was recorded before is answered
//! as ever, also to a retry or a repetition of a command; who has a scheduled command in hand is waited for by nobody who has the gate, and what is left of it meets ES045.
use super::ruling;
use super::scheduled::unwanted::unschedule_all;
use crate::access;
use crate::log::target::Target;
use crate::log::{acting, gate};
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::process::server;
use eventstream_core::shown;

/// Closes it; when it was closed. Errors: ES005 for the tenant `default`, 55P03.
pub fn close(target: Target, reason: &str) -> Result<i64> {
    server::must_be_writable(c"es_close_tenant")?;
    acting::refuse("es_close_tenant")?;
    access::must_not_be_first(target, "closed")?;
    if let Some(closed_at) = was_closed(target, reason)? {
        return Ok(closed_at);
    }
    gate::close(target)?;
    if let Some(closed_at) = was_closed(target, reason)? {
        return Ok(closed_at);
    }
    unschedule_all(target, reason)?;
    access::end(target, reason, &acting::recorded_by()?)
}

fn was_closed(target: Target, reason: &str) -> Result<Option<i64>> {
    let Some(ended) = access::ended(target.id)? else { return Ok(None) };
    let stays =
        if ended.reason == reason { "" } else { ": its reason stays, and the one that is given now is not kept" };
    report::notice(&format!("tenant {} is closed already{stays}", shown(target.name)))?;
    Ok(Some(ended.closed_at))
}

/// Errors: ES045. Exact for who has entered the tenant's gate.
pub fn must_be_open(tenant_id: i64) -> Result<()> {
    ruling::of(tenant_id)?.must_be_open()
}
