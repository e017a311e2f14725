//! What is said without an error: warnings for the client and the server's log.
use super::failure::packed_sqlstate;
use super::failure::{Result, catch};
use crate::pg::error::failure::c_string;
use crate::pg::ffi;
use pgrx::pg_sys;
use std::ptr;

/// The levels of elog.h, the same in all supported versions.
const LOG: std::ffi::c_int = 15;
const NOTICE: std::ffi::c_int = 18;
const WARNING: std::ffi::c_int = 19;
const ERROR: std::ffi::c_int = 21;

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
    // SAFETY: a plain variable of this backend, put back in any case, as a failure is a value here.
    unsafe {
        let found = pg_sys::client_min_messages;
        pg_sys::client_min_messages = ERROR;
        let done = work();
        pg_sys::client_min_messages = found;
        done
    }
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

fn say(level: std::ffi::c_int, message: &str) -> Result<()> {
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
