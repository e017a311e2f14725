//! Shared memory: how far a call that takes long has come (es_verify, es_check_event_types), one entry a backend, for the view eventstream.progress. Its caller's
//! transaction cannot tell others before it ends. Only the owner of an entry writes it, and nothing depends on it.
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::process::{exit, server};
use crate::pg::shmem::Area;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32};

#[repr(C)]
pub struct Entry {
    /// 0: nothing is under way.
    database: AtomicU32,
    kind: AtomicU32,
    pid: AtomicI32,
    done: AtomicI64,
    total: AtomicI64,
    since: AtomicI64,
}

/// What takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Verify,
    Check,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Check => "check",
        }
    }
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
pub struct UnderWay {
    pub kind: Kind,
    pub pid: i32,
    pub done: i64,
    pub total: i64,
    /// Microseconds since 2000-01-01 UTC.
    pub since: i64,
}

pub static ENTRIES: Area<Entry> = Area::new(c"eventstream tasks", backend_slots, || Entry {
    database: AtomicU32::new(0),
    kind: AtomicU32::new(0),
    pid: AtomicI32::new(0),
    done: AtomicI64::new(0),
    total: AtomicI64::new(0),
    since: AtomicI64::new(0),
});

thread_local! {
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn mine() -> Option<&'static Entry> {
    ENTRIES.all().get(backend_number())
}

/// This backend's task; it ends when dropped, or with the backend.
pub struct Task {
    /// One within another (a function that a task calls) leaves the outer one's entry alone.
    entry: Option<&'static Entry>,
}

impl Task {
    pub fn begin(kind: Kind, total: i64) -> Self {
        let entry = mine().filter(|entry| entry.database.load(Relaxed) == 0);
        if let Some(entry) = entry {
            exit::at_exit(&EXIT_REGISTERED, end);
            entry.kind.store(kind as u32, Relaxed);
            entry.pid.store(server::pid(), Relaxed);
            entry.done.store(0, Relaxed);
            entry.total.store(total, Relaxed);
            entry.since.store(server::clock(), Relaxed);
            entry.database.store(server::database().to_u32(), SeqCst);
        }
        Self { entry }
    }

    pub fn note(&self, done: i64) {
        if let Some(entry) = self.entry {
            entry.done.store(done, Relaxed);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            entry.database.store(0, SeqCst);
        }
    }
}

fn end() {
    if let Some(entry) = mine() {
        entry.database.store(0, SeqCst);
    }
}

/// The tasks of the current database.
pub fn under_way() -> impl Iterator<Item = UnderWay> {
    let database = server::database().to_u32();
    ENTRIES.all().iter().filter(move |entry| entry.database.load(SeqCst) == database).map(|entry| UnderWay {
        kind: if entry.kind.load(Relaxed) == Kind::Check as u32 { Kind::Check } else { Kind::Verify },
        pid: entry.pid.load(Relaxed),
        done: entry.done.load(Relaxed),
        total: entry.total.load(Relaxed),
        since: entry.since.load(Relaxed),
    })
}
