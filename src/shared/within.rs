//! The tenant that users' code works in which is called for one: a handler, a decider, an invariant, a scheduled command. It is that of the projection, the command or the events, whatever the session's
//! is, and where a role needs a token (src/access/fixed.rs) it needs none there and can choose no other.
//!
//! Promises: it is that tenant by its id, whoever has its name by then; on whose behalf it was called stays known within, whichever role's rights are taken on there (SECURITY DEFINER), in a worker or anybody's session.
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call;
use crate::pg::process::server;
use crate::shared::{meant, settings};
use eventstream_core::error::Error;
use eventstream_core::withheld::Withheld;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::rc::Rc;

struct Within {
    tenant: Rc<str>,
    tenant_id: i64,
    /// Those that were asked for when it was entered: the session's, SET ROLE's, the registrant.
    roles: [Oid; 3],
}

thread_local! {
    static ENTERED: RefCell<Vec<Within>> = const { RefCell::new(Vec::new()) };
}

/// Its name and its id, where such code runs.
pub fn tenant() -> Option<(Rc<str>, i64)> {
    ENTERED.with_borrow(|entered| entered.last().map(|within| (Rc::clone(&within.tenant), within.tenant_id)))
}

/// The first of the roles on whose behalf such code runs for which `is_it` holds.
pub fn role(is_it: impl Fn(Oid) -> bool) -> Option<Oid> {
    ENTERED.with_borrow(|entered| entered.iter().flat_map(|within| within.roles).find(|&role| is_it(role)))
}

/// The roles that may need a token: the session's user, SET ROLE's, whose rights are on.
pub fn roles_now() -> [Oid; 3] {
    [server::session_role(), server::outer_role(), server::current_role()]
}

/// Runs `work` of a registrant's, inside of `as_registrant`, in that tenant. Errors: ES040 where the name has meant another one in this transaction.
pub fn during<T>(tenant_id: i64, tenant: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    /// How many there were, also when a panic passes.
    struct Before(usize);
    impl Drop for Before {
        fn drop(&mut self) {
            ENTERED.with_borrow_mut(|entered| entered.truncate(self.0));
        }
    }
    // The name may be another one's by now, or before the work is done: it counts as used for this one.
    if !meant::means(tenant, tenant_id) {
        return Err(changed(tenant));
    }
    if settings::tenant().as_deref() != Some(tenant) {
        call::set(c"eventstream.tenant", tenant)?;
    }
    let now = Within { tenant: tenant.into(), tenant_id, roles: roles_now() };
    let _before = ENTERED.with_borrow_mut(|entered| {
        entered.push(now);
        Before(entered.len() - 1)
    });
    work()
}

/// That the name has come to mean another tenant.
pub fn changed(tenant: &str) -> Failure {
    Error::Withheld(Box::new(Withheld::TenantChanged { tenant: tenant.into(), what: "transaction" })).into()
}
