//! NOTIFY.
use crate::pg::error::failure::c_string;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use std::ffi::CStr;

/// Sends `payload` to whoever listens, when this transaction commits.
pub fn send(channel: &CStr, payload: &str) -> Result<()> {
    let (channel, payload) = (channel.as_ptr(), c_string(payload)?);
    // SAFETY: both are copied.
    catch(|| unsafe { ffi::Async_Notify(channel, payload) })
}
