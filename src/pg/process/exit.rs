//! What is done when this process ends.
use crate::pg::error::entry::logging;
use pgrx::pg_sys::{self, Datum};
use std::cell::Cell;
use std::ffi::c_int;
use std::thread::LocalKey;

/// Calls that when this process ends: after the abort of an open transaction, while shared memory is still there. Once, however often it is
/// asked for with the same `is_registered`. Must not raise.
pub fn at_exit(is_registered: &'static LocalKey<Cell<bool>>, callback: fn()) {
    if !is_registered.replace(true) {
        // SAFETY: the callback is a function of the library, which is never unloaded.
        unsafe { pg_sys::on_shmem_exit(Some(call), Datum::from(callback as usize)) };
    }
}

/// The same, before the abort of an open transaction: this process still has its number among the backends.
pub fn before_exit(is_registered: &'static LocalKey<Cell<bool>>, callback: fn()) {
    if !is_registered.replace(true) {
        // SAFETY: as above.
        unsafe { pg_sys::before_shmem_exit(Some(call), Datum::from(callback as usize)) };
    }
}

unsafe extern "C-unwind" fn call(_: c_int, callback: Datum) {
    // SAFETY: the two functions above pass nothing else.
    let callback = unsafe { std::mem::transmute::<usize, fn()>(callback.value()) };
    logging("the end of the process", || {
        callback();
        Ok(())
    });
}
