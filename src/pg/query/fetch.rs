//! Statements that go on: FETCH, the next portion of what a client executes, the next rows of a loop. Whoever must agree to that is asked before each but the first.
use crate::pg::error::entry::raising;
use crate::pg::error::failure::Result;
use crate::pg::ffi::compared;
use crate::pg::process::session;
use pgrx::pg_sys::{self, QueryDesc};

static mut PREVIOUS: pg_sys::ExecutorRun_hook_type = None;
static mut MAY_GO_ON: fn() -> Result<()> = || Ok(());

/// Sets the hook; once a process, from _PG_init.
pub fn init(may_go_on: fn() -> Result<()>) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        MAY_GO_ON = may_go_on;
        PREVIOUS = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

compared! {
    #[cfg(pre_pg18)]
    fn standard_ExecutorRun(query: *mut QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64, once: bool);
    #[cfg(not(pre_pg18))]
    fn standard_ExecutorRun(query: *mut QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
}

/// The hook, whose last argument is gone since PostgreSQL 18.
macro_rules! hook {
    ($($once:ident)?) => {
        unsafe extern "C-unwind" fn run(
            query: *mut QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            $($once: bool)?
        ) {
            // SAFETY: the hook's own protocol; nothing is alive here that needs dropping when it raises. Our own statements, in pages, are their caller's matter.
            unsafe {
                if (*query).already_executed && !session::is_at_work() {
                    raising("a statement that goes on", || MAY_GO_ON());
                }
                match PREVIOUS {
                    Some(previous) => previous(query, direction, count $(, $once)?),
                    None => standard_ExecutorRun(query, direction, count $(, $once)?),
                }
            }
        }
    };
}
#[cfg(pre_pg18)]
hook!(once);
#[cfg(not(pre_pg18))]
hook!();
