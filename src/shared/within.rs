//! The tenant that users' code works in which is called for one: a handler, a decider, an invariant, a scheduled command. It is that of the projection, the command or the events, whatever the session's
//! is, and where a role needs a token (src/access/fixed.rs) it needs none there and can choose no other.
use crate::pg::error::failure::Result;
use crate::pg::function::call;
use crate::shared::settings;
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static TENANT: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

/// Its name, where such code runs.
pub fn tenant() -> Option<Rc<str>> {
    TENANT.with_borrow(Clone::clone)
}

/// Runs `work` of a registrant's, inside of `as_registrant`, in that tenant.
pub fn during<T>(tenant: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Also when a panic passes.
    struct Before(Option<Rc<str>>);
    impl Drop for Before {
        fn drop(&mut self) {
            TENANT.set(self.0.take());
        }
    }
    if settings::tenant().as_deref() != Some(tenant) {
        call::set(c"eventstream.tenant", tenant)?;
    }
    let _before = Before(TENANT.replace(Some(tenant.into())));
    work()
}
