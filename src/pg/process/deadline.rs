//! A time by which users' code must be done where no statement_timeout acts: at the end of a transaction, whose timer PostgreSQL has stopped by then. A timer of our own, beside the
//! session's. Promises: what runs on is cancelled, again every second where it catches that, and at last its session is ended; a cancel that comes too late hits nothing else.
use super::server;
use crate::pg::error::entry::silent;
use crate::pg::error::failure::{Result, catch};
use crate::pg::{compat, ffi};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::LocalKey;
use std::time::Duration;

/// A cancel that is caught is followed by another one.
const AGAIN: Duration = Duration::from_secs(1);
/// So many cancels, and then the session is ended.
const CANCELS: u32 = 6;

/// How often the timer has fired.
static FIRED: AtomicU32 = AtomicU32::new(0);

/// The timer of the process's end has fired.
static IS_OVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What PostgreSQL has given us: of [`within`], and of the process's end.
    static TIMER: Cell<Option<c_int>> = const { Cell::new(None) };
    static LAST_TIMER: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// Does only what a signal handler may.
unsafe extern "C-unwind" fn fire() {
    silent("the end of a time", (), || {
        let is_last = FIRED.fetch_add(1, Relaxed) + 1 >= CANCELS;
        // SAFETY: as StatementTimeoutHandler of postinit.c and die() of postgres.c: flags that the process looks at, and its own latch.
        unsafe {
            if is_last {
                pg_sys::ProcDiePending = 1;
            }
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
            ffi::SetLatch(pg_sys::MyLatch);
        }
    });
}

/// The same, at once with the process's end.
unsafe extern "C-unwind" fn end_process() {
    silent("the end of a process's time", (), || {
        IS_OVER.store(true, Relaxed);
        // SAFETY: as above.
        unsafe {
            pg_sys::ProcDiePending = 1;
            pg_sys::InterruptPending = 1;
            ffi::SetLatch(pg_sys::MyLatch);
        }
    });
}

/// A timer with that handler, for as long as this process lives.
fn registered(timer: &'static LocalKey<Cell<Option<c_int>>>, handler: unsafe extern "C-unwind" fn()) -> Result<c_int> {
    if let Some(timer) = timer.get() {
        return Ok(timer);
    }
    // SAFETY: once a process; the handler lives as long as the library.
    let made = catch(|| unsafe { ffi::RegisterTimeout(compat::USER_TIMEOUT, Some(handler)) })?;
    timer.set(Some(made));
    Ok(made)
}

/// As a moment of the server's clock.
pub fn from_now(time: Duration) -> i64 {
    server::clock().saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2))
}

/// To be called before [`end_process_in`] is.
pub fn may_end_process() -> Result<()> {
    registered(&LAST_TIMER, end_process).map(drop)
}

/// Ends this process so long from now, at its next check for interrupts, unless it is called again before; None: not at all.
pub fn end_process_in(time: Option<Duration>) {
    let Some(timer) = LAST_TIMER.get() else { return };
    // SAFETY: a timer of this process.
    unsafe {
        match time {
            Some(time) => ffi::enable_timeout_every(timer, from_now(time), AGAIN.as_millis() as c_int),
            None => ffi::disable_timeout(timer, false),
        }
    }
}

/// Whether that is what this process ends of.
pub fn has_ended_process() -> bool {
    IS_OVER.load(Relaxed)
}

/// Stops the timer when dropped, also where a panic passes.
struct Running(c_int);

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: a timer of this process.
        unsafe {
            ffi::disable_timeout(self.0, false);
            if FIRED.load(Relaxed) > 0 {
                // It was for what is over by now.
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}

/// Runs `work` for so long at most; what came of it, and whether its time ran out: then it has failed, or what it made came too late. None: without end.
pub fn within<T>(time: Option<Duration>, work: impl FnOnce() -> Result<T>) -> Result<(Result<T>, bool)> {
    let Some(time) = time else { return Ok((work(), false)) };
    let timer = registered(&TIMER, fire)?;
    FIRED.store(0, Relaxed);
    let running = Running(timer);
    // SAFETY: a timer of this process.
    unsafe { ffi::enable_timeout_every(timer, from_now(time), AGAIN.as_millis() as c_int) };
    let done = work();
    drop(running);
    Ok((done, FIRED.load(Relaxed) > 0))
}
