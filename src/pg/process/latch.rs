//! Latches: what wakes a process of this server that sleeps.
use crate::pg::ffi;
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

/// In shared memory: the latch of a process, as it was when it said so. A latch is that of a place among the server's processes: to set it when
/// another process has the place by now wakes that one for nothing, and does no harm.
#[repr(transparent)]
pub struct Latch(AtomicPtr<pg_sys::Latch>);

impl Latch {
    /// Nobody's.
    pub const fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// This process's, from now on.
    pub fn become_mine(&self) {
        // SAFETY: a plain variable of this process: its latch in shared memory, since InitProcess.
        self.0.store(unsafe { pg_sys::MyLatch }, SeqCst);
    }

    /// Whether that process has the place still, since it said so. Its number alone may be another's by now.
    pub fn is_of(&self, pid: i32) -> bool {
        let latch = self.0.load(SeqCst);
        // SAFETY: as in `set`; who owns it is one word, which that process clears when it ends (DisownLatch, in ProcKill).
        !latch.is_null() && unsafe { (&raw const (*latch).owner_pid).read_volatile() } == pid
    }

    /// Never raises.
    pub fn set(&self) {
        let latch = self.0.load(SeqCst);
        if !latch.is_null() {
            // SAFETY: the latch of a process in shared memory, where it stays as long as the server runs; it never raises.
            unsafe { ffi::SetLatch(latch) }
        }
    }
}
