//! What is said without an error: warnings for the client and the server's log.
use super::failure::packed_sqlstate;
use super::failure::{Result, catch};
use crate::pg::error::failure::c_string;
use crate::pg::ffi;
use pgrx::pg_sys;
use pgrx::pg_sys::elog::PgLogLevel;
use std::ffi::c_int;
use std::ptr;

/// Levels of elog.h.
const LOG: c_int = PgLogLevel::LOG as c_int;
const NOTICE: c_int = PgLogLevel::NOTICE as c_int;
const WARNING: c_int = PgLogLevel::WARNING as c_int;
const ERROR: c_int = PgLogLevel::ERROR as c_int;

/// A NOTICE.
pub fn notice(message: &str) -> Result<()> {
    say(NOTICE, message)
}

/// A WARNING.
pub fn warning(message: &str) -> Result<()> {
    say(WARNING, message)
}

/// A line in the server's log, whatever log_min_messages is (but for FATAL and PANIC).
pub fn log(message: &str) -> Result<()> {
    say(LOG, message)
}

/// The same, of which no client is told, whatever it asks for (client_min_messages).
pub fn log_for_server(message: &str) -> Result<()> {
    say(pg_sys::LOG_SERVER_ONLY as c_int, message)
}

/// A line in the server's log with the SQLSTATE of what failed, and for machines a DETAIL, which is a JSON object.
pub fn failure(sqlstate: &str, message: &str, detail: &serde_json::Value) -> Result<()> {
    let (message, detail) = (c_string(message)?, c_string(&detail.to_string())?);
    let code = packed_sqlstate(sqlstate);
    catch(|| {
        // SAFETY: the protocol of ereport(); every text is passed through "%s".
        unsafe {
            if ffi::errstart(LOG, ptr::null()) {
                ffi::errcode(code);
                ffi::errmsg(c"%s".as_ptr(), message);
                ffi::errdetail(c"%s".as_ptr(), detail);
                ffi::errfinish(c"report.rs".as_ptr(), 0, c"failure".as_ptr());
            }
        }
    })
}

/// Runs `work`, of whose NOTICEs and WARNINGs the client gets none: users' code says payloads in them, too. The server's log gets them.
pub fn silently<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Puts the session's own back, also when a panic passes.
    struct Back(c_int);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: a plain variable of this backend, which elog.c reads.
            unsafe { pg_sys::client_min_messages = self.0 }
        }
    }
    // SAFETY: as above.
    let _back = Back(unsafe { (&raw mut pg_sys::client_min_messages).replace(ERROR) });
    work()
}

/// A WARNING with what to do.
pub fn warning_with(message: &str, hint: &str) -> Result<()> {
    warning_of("01000", message, hint)
}

/// A WARNING of that SQLSTATE, with what to do.
pub fn warning_of(sqlstate: &str, message: &str, hint: &str) -> Result<()> {
    let code = packed_sqlstate(sqlstate);
    let (message, hint) = (c_string(message)?, c_string(hint)?);
    catch(|| {
        // SAFETY: as above.
        unsafe {
            if ffi::errstart(WARNING, ptr::null()) {
                ffi::errcode(code);
                ffi::errmsg(c"%s".as_ptr(), message);
                ffi::errhint(c"%s".as_ptr(), hint);
                ffi::errfinish(c"report.rs".as_ptr(), 0, c"warning".as_ptr());
            }
        }
    })
}

fn say(level: c_int, message: &str) -> Result<()> {
    let message = c_string(message)?;
    catch(|| {
        // SAFETY: the protocol of ereport(); the text is passed through "%s".
        unsafe {
            if ffi::errstart(level, ptr::null()) {
                ffi::errmsg(c"%s".as_ptr(), message);
                ffi::errfinish(c"report.rs".as_ptr(), 0, c"warning".as_ptr());
            }
        }
    })
}

/// A NOTICE.
pub fn is_there(kind: &str, name: &str) -> Result<()> {
    notice(&format!("{kind} {} is there already, as it was asked for", eventstream_core::shown(name)))
}
