//! Shared memory: how far a call that takes long has come (es_verify), one slot a backend, for the view eventstream.progress. Its caller's
//! transaction cannot tell others before it ends. Only the owner of a slot writes it, and nothing depends on it.
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::process::{exit, server};
use crate::pg::shmem::Area;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32};

#[repr(C)]
pub struct Slot {
    /// 0: nothing is under way.
    database: AtomicU32,
    pid: AtomicI32,
    done: AtomicI64,
    total: AtomicI64,
    since: AtomicI64,
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
pub struct UnderWay {
    pub pid: i32,
    pub done: i64,
    pub total: i64,
    /// Microseconds since 2000-01-01 UTC.
    pub since: i64,
}

pub static SLOTS: Area<Slot> = Area::new(c"eventstream tasks", backend_slots, || Slot {
    database: AtomicU32::new(0),
    pid: AtomicI32::new(0),
    done: AtomicI64::new(0),
    total: AtomicI64::new(0),
    since: AtomicI64::new(0),
});

thread_local! {
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn mine() -> Option<&'static Slot> {
    SLOTS.all().get(backend_number())
}

/// This backend's task; it ends when dropped, or with the backend.
pub struct Task {
    /// One within another (a function that a task calls) leaves the outer one's slot alone.
    slot: Option<&'static Slot>,
}

impl Task {
    pub fn begin(total: i64) -> Self {
        let slot = mine().filter(|slot| slot.database.load(Relaxed) == 0);
        if let Some(slot) = slot {
            exit::at_exit(&EXIT_REGISTERED, end);
            slot.pid.store(server::pid(), Relaxed);
            slot.done.store(0, Relaxed);
            slot.total.store(total, Relaxed);
            slot.since.store(server::clock(), Relaxed);
            slot.database.store(server::database().to_u32(), SeqCst);
        }
        Self { slot }
    }

    pub fn note(&self, done: i64) {
        if let Some(slot) = self.slot {
            slot.done.store(done, Relaxed);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.database.store(0, SeqCst);
        }
    }
}

fn end() {
    if let Some(slot) = mine() {
        slot.database.store(0, SeqCst);
    }
}

/// The tasks of the current database.
pub fn under_way() -> impl Iterator<Item = UnderWay> {
    let database = server::database().to_u32();
    SLOTS.all().iter().filter(move |slot| slot.database.load(SeqCst) == database).map(|slot| UnderWay {
        pid: slot.pid.load(Relaxed),
        done: slot.done.load(Relaxed),
        total: slot.total.load(Relaxed),
        since: slot.since.load(Relaxed),
    })
}
