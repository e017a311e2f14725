//! What the server's log is spared: outcomes that callers expect and deal with (a version conflict, a condition that failed, a refusal) are errors for the client and
//! a number in eventstream.stats, and no line in the log; what users' code raises under their SQLSTATE is another matter, and is written; unless eventstream.log_conflicts asks for them.
//! What users' code says of what is protected (src/pg/error/hushed.rs) is another matter again: that it failed is written, without its words;
//! what PostgreSQL says of itself meanwhile (corruption, waits, timeouts) is written, without what it was at work on.
use super::entry::silent;
use super::failure::{is_ours, packed_sqlstate};
use super::hushed;
use pgrx::pg_sys;
use pgrx::pg_sys::elog::PgLogLevel;
use std::ptr;

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

/// What becomes of a message in the log.
enum Written {
    Whole,
    /// Without its QUERY, CONTEXT and STATEMENT.
    Bare,
    Not,
    /// That it came, and not what it says.
    Hushed,
    /// Our own line instead of a hushed error.
    Instead,
}

unsafe extern "C-unwind" fn emit_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c passes the message that it is about to write, and lets the hook say that it is not to be (output_to_server), or not all of it; the client is sent all the same.
    // Nothing is raised here; what is written instead is a message of its own.
    unsafe {
        match silent("the log hook", Written::Whole, || written(&*error)) {
            Written::Whole => (),
            Written::Bare => {
                ((*error).hide_ctx, (*error).hide_stmt) = (true, true);
                // Which elog.c writes whatever is hidden; a lock that the parser waits for has one.
                ((*error).internalquery, (*error).internalpos) = (ptr::null_mut(), 0);
            }
            Written::Not => (*error).output_to_server = false,
            Written::Hushed => {
                (*error).output_to_server = false;
                silent("the log hook", (), || hushed::tell(&*error));
            }
            // As severe as what it is written for; elog.c has decided by now that it is no error to be raised.
            Written::Instead => {
                ((*error).hide_ctx, (*error).hide_stmt, (*error).elevel) = (true, true, PgLogLevel::ERROR as i32);
            }
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}

/// # Safety
/// A message that elog.c made.
unsafe fn written(error: &pg_sys::ErrorData) -> Written {
    const ERROR: i32 = PgLogLevel::ERROR as i32;
    // SAFETY: as the caller says.
    let (hushed, is_ours) = unsafe { (hushed::of(error), is_ours(error)) };
    if error.elevel == ERROR {
        let is_expected = (is_ours || matches!(hushed, Some((_, hushed::Whose::Ours))))
            && EXPECTED.iter().any(|code| packed_sqlstate(code) == error.sqlerrcode)
            // SAFETY: set once, in _PG_init.
            && !unsafe { ARE_LOGGED() };
        return match (is_expected, hushed) {
            (true, _) => Written::Not,
            (false, Some(_)) => Written::Hushed,
            (false, None) => Written::Whole,
        };
    }
    match (hushed, hushed::is_on()) {
        (Some(_), _) => Written::Instead,
        // The end of the session or the server: PostgreSQL's own words, and where they met the code.
        (None, true) if error.elevel > ERROR => Written::Bare,
        // SAFETY: as the caller says.
        (None, true) if unsafe { hushed::is_of_server(error) } => Written::Bare,
        (None, true) => Written::Not,
        (None, false) => Written::Whole,
    }
}
