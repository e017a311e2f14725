//! What users' code says of something that is kept out of the server's log: a decider is given all of a command, and may repeat it in an error, a DETAIL, a warning, a CONTEXT.
//! Whoever called gets each word of it; the log is told the SQLSTATE and which code it was of (src/pg/error/log_hook.rs).
//!
//! Promises: an error stays hushed wherever it is caught, kept and raised again, as the names of its file and function do; what is said while the code works is hushed by then.
use super::failure::{Failure, PgError, Result, at_home, catch, is_ours, raise, unpacked_sqlstate};
use crate::pg::ffi;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::ptr;

/// The file and the functions that hushed errors are of: ours, and all others.
const FILE: &CStr = c"hushed.rs";
const OURS: &CStr = c"ours";
const THEIRS: &CStr = c"theirs";

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What is said is hushed until this is dropped, by an error or a panic too.
pub struct Hushing(());

impl Hushing {
    pub fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for Hushing {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether code works whose words are hushed.
pub fn is_on() -> bool {
    DEPTH.get() > 0
}

impl Failure {
    /// The same for its caller; the log is told what it is `of`, and its SQLSTATE.
    pub fn hushed(self, of: &str) -> Result<Self> {
        let PgError(error) = match self {
            Failure::Postgres(error) => error,
            // As it would be raised.
            rule @ Failure::Rule(_) => match catch(|| raise(rule)) {
                Err(Failure::Postgres(error)) => error,
                other => return other,
            },
        };
        let of = at_home(of)?.cast_mut();
        // SAFETY: a copy that CopyErrorData made, which points to names that are constants; `of` lives as long as it does, and is freed with it.
        unsafe {
            let error = &mut *error;
            error.funcname = if is_ours(error) { OURS } else { THEIRS }.as_ptr();
            error.filename = FILE.as_ptr();
            // Which no client is sent.
            error.detail_log = of;
        }
        Ok(Failure::Postgres(PgError(error)))
    }
}

/// What a hushed error is of, and whether it is one of ours; None: it is not hushed.
///
/// # Safety
/// An error that elog.c made.
pub unsafe fn of(error: &pg_sys::ErrorData) -> Option<(&CStr, bool)> {
    // SAFETY: null, or cstrings, which live as long as the error.
    let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
    if text(error.filename) != Some(FILE) {
        return None;
    }
    Some((text(error.detail_log).unwrap_or_default(), text(error.funcname) == Some(OURS)))
}

/// What the log says instead of such an error, from within its hook; which it passes through, too, as a message that is hushed and no error.
///
/// # Safety
/// An error is being written.
pub unsafe fn tell(of: &CStr, code: i32) {
    let sqlstate = unpacked_sqlstate(code);
    // SAFETY: the protocol of ereport(); every text is passed through "%s". Where it raises, nothing is left to tell.
    let _ = catch(|| unsafe {
        if ffi::errstart(pg_sys::LOG_SERVER_ONLY as i32, ptr::null()) {
            ffi::errcode(code);
            ffi::errmsg(
                c"error %.5s of %s: what it says is told to its caller, and not here, because fields of commands or events are protected".as_ptr(),
                sqlstate.as_ptr(),
                of.as_ptr(),
            );
            ffi::errfinish(FILE.as_ptr(), 0, c"tell".as_ptr());
        }
    });
}
