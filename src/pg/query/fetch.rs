//! Statements as they give rows: at once, or in portions: FETCH, the next one of what a client executes, the next rows of a loop, what is kept of a loop over a COMMIT within it. Whoever must agree
//! is asked before each portion.
use crate::pg::error::entry::raising;
use crate::pg::error::failure::Result;
use crate::pg::error::hushed;
use crate::pg::ffi::compared;
use crate::pg::process::session;
use pgrx::pg_sys::{self, QueryDesc};

static mut PREVIOUS: pg_sys::ExecutorRun_hook_type = None;
static mut LISTENER: Listener = Listener { is_asked: |_| false, may_go_on: |_| Ok([0; 3]), gave: |_, _| () };

/// What a statement is about to give.
pub struct Portion {
    /// Which statement: no other one that is open has the same number.
    pub statement: usize,
    pub is_first: bool,
    /// Nothing comes after it, but what is kept of it.
    pub is_last: bool,
    /// All that is left, kept beyond the transaction's end.
    pub is_kept: bool,
}

/// What a listener notes before a portion, and is told after it.
pub type Mark = [u64; 3];

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether there is anything to ask now; costs next to nothing, and never panics.
    pub is_asked: fn(&Portion) -> bool,
    pub may_go_on: fn(&Portion) -> Result<Mark>,
    /// It has given what it may; not called where that failed, which ends the statement.
    pub gave: fn(&Portion, Mark),
}

/// Sets the hook; once a process, from _PG_init.
pub fn init(listener: Listener) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        LISTENER = listener;
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

/// # Safety
/// A statement that is about to run.
unsafe fn portion(query: *mut QueryDesc, count: u64) -> Portion {
    // SAFETY: as the caller says; the portal that is at work lives meanwhile. One whose statement still runs has a store only while it is filled for after the end (HoldPortal).
    unsafe {
        let portal = pg_sys::ActivePortal;
        let is_its = !portal.is_null() && (*portal).queryDesc == query;
        let is_kept = is_its && !(*portal).holdStore.is_null();
        let goes_back = is_its && (*portal).cursorOptions & pg_sys::CURSOR_OPT_SCROLL as i32 != 0;
        Portion {
            statement: query as usize,
            is_first: !(*query).already_executed,
            is_last: count == 0 && !goes_back,
            is_kept,
        }
    }
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
                let listener = LISTENER;
                let portion = portion(query, count);
                let is_asked = !session::is_at_work() && (listener.is_asked)(&portion);
                let mark =
                    is_asked.then(|| raising("a statement that goes on", || (listener.may_go_on)(&portion)));
                $(let $once = $once && !hushed::is_on();)?
                if hushed::is_on() {
                    // No parallel workers, whatever was planned: they would write what they fail with into the log on their own. What has been executed in part has none.
                    (*query).already_executed = true;
                }
                match PREVIOUS {
                    Some(previous) => previous(query, direction, count $(, $once)?),
                    None => standard_ExecutorRun(query, direction, count $(, $once)?),
                }
                if let Some(mark) = mark.filter(|_| !portion.is_last) {
                    (listener.gave)(&portion, mark);
                }
            }
        }
    };
}
#[cfg(pre_pg18)]
hook!(once);
#[cfg(not(pre_pg18))]
hook!();
