//! The gate of a tenant: every append holds it as one of many from its first step to the end of its transaction, and who needs the tenant's
//! appends to rest holds it alone. A lock of our own (src/pg/process/lock.rs): no role can squat on it, and no tenant has anything of another's.
//!
//! ```text
//! append, es_load(for_update): share ─▶ … ─▶ commit
//! attach, detach: ask for eventstream.gate_wait at a time ─┬─ had ─▶ work ─▶ commit; an idle session is ended after gate_timeout
//!                        ▲── let appends pass for as long ──┴─ in vain for gate_timeout ─▶ 55P03 with the holders
//! ```
//! Promises: who got the gate alone sees, under a new snapshot, all that the tenant's appends wrote, and no other comes before its end; who
//! enters the gate has heard of whatever was changed behind a closed one. It is the first lock of all: whoever holds a lock of ours that an
//! append may want takes the gate before. What no append wants (a projection's progress) is locked before the gate, by everybody.
use super::acts;
use super::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::lock::LockTag;
use crate::pg::process::server;
use crate::shared::catalog::Catalog;
use crate::shared::settings;
use crate::shared::transaction;
use eventstream_core::error::Error;
use std::time::Instant;

fn tag(catalog: &Catalog, tenant_id: i64) -> LockTag {
    LockTag { table: catalog.tenants, object: tenant_id, part: 0 }
}

/// Enters as one of many, until the end of the (sub)transaction. Waits while somebody has it alone.
pub fn enter(tenant_id: i64) -> Result<()> {
    if transaction::has_entered(tenant_id) {
        return Ok(());
    }
    tag(&Catalog::current()?, tenant_id).share()?;
    transaction::note_entered(tenant_id);
    invalidation::take_in()
}

/// What [`pass`] has entered anew.
pub struct Passing(Option<LockTag>);

/// As [`enter`], for who may yet find that there is nothing to be done.
pub fn pass(tenant_id: i64) -> Result<Passing> {
    let had = transaction::has_entered(tenant_id);
    enter(tenant_id)?;
    Ok(Passing(if had { None } else { Some(tag(&Catalog::current()?, tenant_id)) }))
}

impl Passing {
    /// Nothing was done behind it.
    pub fn leave(self) -> Result<()> {
        let Some(tag) = self.0 else { return Ok(()) };
        transaction::note_left();
        tag.end_sharing()
    }
}

/// Has it alone until the end of the transaction. To be called outside of `as_owner`. Errors: 55P03.
pub fn close(target: Target) -> Result<()> {
    let tag = tag(&Catalog::current()?, target.id);
    let (wait, begun) = (settings::gate_wait(), Instant::now());
    let most = acts::patience();
    while !tag.lock_within(wait.min(most.saturating_sub(begun.elapsed())))? {
        let left = most.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let (tenant, waited_ms) = (target.name.to_owned(), most.as_millis() as u64);
            return Err(Error::GateBusy { tenant, waited_ms, holders: acts::holders(tag)? }.into());
        }
        server::pause(wait.min(left))?;
    }
    transaction::note_gate();
    end_when_idle()?;
    invalidation::take_in()
}

/// A session that has the gate alone and idles stops its tenant's appends for nothing.
fn end_when_idle() -> Result<()> {
    let most = settings::gate_timeout();
    if server::idle_in_transaction_timeout().is_none_or(|own| own > most) {
        server::set_locally(c"idle_in_transaction_session_timeout", &most.as_millis().to_string())?;
    }
    Ok(())
}
