//! What the server's log is spared: outcomes that callers expect and deal with (a version conflict, a condition that failed, a refusal) are errors for the client and
//! a number in eventstream.stats, and no line in the log; what users' code raises under their SQLSTATE is another matter, and is written; unless eventstream.log_conflicts asks for them.
use super::entry::silent;
use super::failure::{is_ours, packed_sqlstate};
use pgrx::pg_sys;

/// Answers to a question that the caller asked by trying.
const EXPECTED: [&str; 3] = ["ES001", "ES015", "ES033"];

static mut PREVIOUS: pg_sys::emit_log_hook_type = None;
static mut ARE_LOGGED: fn() -> bool = || true;

/// Sets the hook, with preload and without.
pub fn init(are_logged: fn() -> bool) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        ARE_LOGGED = are_logged;
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

unsafe extern "C-unwind" fn emit_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c passes the error that it is about to write, and lets the hook say that it is not to be (output_to_server).
    // Nothing here allocates or raises.
    unsafe {
        let is_expected = silent("the log hook", false, || {
            (*error).elevel == pg_sys::elog::PgLogLevel::ERROR as i32
                && is_ours(&*error)
                && EXPECTED.iter().any(|code| packed_sqlstate(code) == (*error).sqlerrcode)
                && !ARE_LOGGED()
        });
        if is_expected {
            (*error).output_to_server = false;
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}
