//! A process's own life, as a background worker or a waiting session sees it: sleeping on its latch.
use super::ffi;
use pgrx::pg_sys;
use std::ffi::c_long;
use std::time::Duration;

/// Sleeps until the latch of this process is set, or so long; None: without end. Ends the process where the postmaster is gone. Look for
/// what there is to do after this, never before: the latch is reset.
pub fn sleep(at_most: Option<Duration>) {
    let timeout = at_most.map(|time| c_long::try_from(time.as_micros().div_ceil(1000)).unwrap_or(c_long::MAX));
    let limit = if timeout.is_some() { pg_sys::WL_TIMEOUT } else { 0 };
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | limit;
    // SAFETY: the latch of this process; raises nothing but for a lack of memory or descriptors.
    unsafe {
        ffi::WaitLatch(pg_sys::MyLatch, events as i32, timeout.unwrap_or(-1), pg_sys::PG_WAIT_EXTENSION);
        ffi::ResetLatch(pg_sys::MyLatch);
    }
}

/// Ends here where a cancel, a timeout or a shutdown waits: call it inside `catch`.
pub fn check_for_interrupts() {
    super::jsonb::check_for_interrupts();
}

/// SIGTERM.
pub fn terminate(pid: i32) {
    // SAFETY: a process that was one of ours a moment ago.
    unsafe { ffi::kill(pid, SIGTERM) };
}

/// The same on all systems that PostgreSQL runs on.
const SIGTERM: i32 = 15;
