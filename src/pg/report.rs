//! What is said without an error: warnings for the client and the server's log.
use super::failure::{Result, catch};
use super::{datum, ffi};
use std::ptr;

/// The levels of elog.h, the same in all supported versions.
const LOG: std::ffi::c_int = 15;
const NOTICE: std::ffi::c_int = 18;
const WARNING: std::ffi::c_int = 19;

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

fn say(level: std::ffi::c_int, message: &str) -> Result<()> {
    let message = datum::c_string(message)?;
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
