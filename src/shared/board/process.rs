//! A process of this server that others find and wake.
use crate::pg::process::latch::Latch;
use crate::pg::process::life::{self, Signal};
use crate::pg::process::server;
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// A process that can be woken.
#[repr(C)]
pub struct Process {
    /// 0: there is none.
    pid: AtomicI32,
    latch: Latch,
}

impl Process {
    pub const fn none() -> Self {
        Self { pid: AtomicI32::new(0), latch: Latch::none() }
    }

    /// This process, from now on.
    pub fn enter(&self) {
        self.latch.become_mine();
        self.pid.store(server::pid(), SeqCst);
        IS_WORKER.set(true);
    }

    pub fn leave(&self) {
        self.pid.store(0, SeqCst);
    }

    pub fn is_me(&self) -> bool {
        self.pid.load(SeqCst) == server::pid()
    }

    /// None where there is none.
    pub fn pid(&self) -> Option<i32> {
        Some(self.pid.load(SeqCst)).filter(|&pid| pid != 0)
    }

    /// Never raises.
    pub fn wake(&self) {
        if self.pid.load(SeqCst) != 0 {
            self.latch.set();
        }
    }

    /// SIGTERM, if it is there still.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid().filter(|&pid| self.latch.is_of(pid)) {
            life::signal(pid, Signal::Terminate);
        }
    }
}

/// Whether this process is the launcher, a scheduler or a runner.
pub fn is_worker() -> bool {
    IS_WORKER.get()
}
