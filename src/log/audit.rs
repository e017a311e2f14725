//! Acts of administration: noted when they are done, appended when their transaction commits (src/command/acts.rs).
//!
//! ```text
//! a register is written by a statement of ours ─▶ its trigger ─▶ noted ─┐
//! an act that changes no definition (pause, skip …) ─▶ noted ───────────┴─▶ BEFORE COMMIT: appended to $audit-<tenant's uuid>
//! ```
//! Promises: each act that commits is an event, in the act's own transaction and in the order of the commits; a (sub)transaction that is rolled
//! back leaves none. Until the commit an act holds neither a position nor a stream: however long its transaction is, it holds up nobody. Reserved
//! streams stand under an id of their own beside the tenant's (`reserved_of`): what reads, counts, follows or folds the tenant's streams never comes
//! by them.
use super::{acting, identity, metadata};
use crate::pg::error::failure::Result;
use crate::pg::guard;
use crate::pg::process::{server, session, xact};
use crate::shared::catalog::Catalog;
use crate::shared::transaction::{self, Due, End};
use eventstream_core::audit::Change;
pub use eventstream_core::audit::Kind;
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// An act of this transaction.
pub struct Act {
    tenant_id: i64,
    pub event_type: &'static str,
    /// JSON.
    pub payload: String,
    /// As an event that is appended when it is done, and not when it commits, would have them. JSON.
    pub metadata: String,
    /// So that of the event, too.
    pub recorded_by: String,
    done_in: u32,
    /// The table of events of the log that it is of: the transaction may drop that one, and make another.
    log: Oid,
}

/// Appends them (src/command/acts.rs).
static APPENDED_BY: OnceLock<fn() -> Result<()>> = OnceLock::new();

/// Has that append what is due before a commit; once a process, from _PG_init.
pub fn init(append_all: fn() -> Result<()>) {
    APPENDED_BY.get_or_init(|| append_all);
}

thread_local! {
    static ACTS: RefCell<Vec<Act>> = const { RefCell::new(Vec::new()) };
}

/// What a statement of ours did to a definition; JSON as PostgreSQL prints it. What somebody else wrote by hand is no act.
pub fn note_definition(kind: Kind, tenant_id: i64, before: Option<&str>, after: Option<&str>) -> Result<()> {
    let Some(change) = Change::of(before.is_some(), after.is_some()).filter(|_| guard::is_own_work()) else {
        return Ok(());
    };
    let (before, after) = (before.unwrap_or("null"), after.unwrap_or("null"));
    let kind_name = json!(kind.as_str());
    let payload = format!("{{\"kind\": {kind_name}, \"before\": {before}, \"after\": {after}, {}}}", circumstances()?);
    note(tenant_id, kind.event_type(change), payload)
}

/// An act that changes no definition: of what, and its particulars, which are no user's free text.
pub fn note_act(
    tenant_id: i64,
    event_type: &'static str,
    (kind, name): (Kind, &str),
    particulars: &serde_json::Value,
) -> Result<()> {
    let payload = format!(
        "{{\"kind\": {}, \"name\": {}, \"particulars\": {particulars}, {}}}",
        json!(kind.as_str()),
        json!(name),
        circumstances()?
    );
    note(tenant_id, event_type, payload)
}

/// Members that say whose rights were used, and where the log was at home.
fn circumstances() -> Result<String> {
    let role = session::caller();
    let (name, home) = (json!(server::role_name(role)?), identity::noted_home()?);
    Ok(format!("\"role\": {name}, \"role_oid\": \"{}\", \"home\": {home}", u32::from(role)))
}

fn note(tenant_id: i64, event_type: &'static str, payload: String) -> Result<()> {
    if let Some(&before_commit) = APPENDED_BY.get() {
        transaction::call_before_commit(Due { before_commit, on_end });
    }
    let act = Act {
        tenant_id,
        event_type,
        payload,
        metadata: metadata::of_now()?,
        recorded_by: acting::recorded_by()?,
        done_in: xact::current_subtransaction(),
        log: Catalog::current()?.events,
    };
    ACTS.with_borrow_mut(|acts| acts.push(act));
    Ok(())
}

/// The acts of that log that are due, a tenant after the other in the order of their ids, so that two commits never wait for each other in a circle.
pub fn take(log: Option<Oid>) -> BTreeMap<i64, Vec<Act>> {
    let mut by_tenant: BTreeMap<i64, Vec<Act>> = BTreeMap::new();
    for act in ACTS.take().into_iter().filter(|act| Some(act.log) == log) {
        by_tenant.entry(act.tenant_id).or_default().push(act);
    }
    by_tenant
}

/// Whether this transaction has acts of that log, by its table of events.
pub fn are_due(log: Oid) -> bool {
    ACTS.with_borrow(|acts| acts.iter().any(|act| act.log == log))
}

fn on_end(end: End) {
    ACTS.with_borrow_mut(|acts| match end {
        End::Committed | End::RolledBack => acts.clear(),
        End::SubtransactionRolledBack(this) => {
            acts.retain(|act| act.done_in < this);
            if acts.is_empty() {
                transaction::nothing_due();
            }
        }
    });
}
