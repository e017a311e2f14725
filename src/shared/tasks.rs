//! Shared memory: how far a call that takes long has come (es_verify), one slot a backend, for the view eventstream.progress. Its caller's
//! transaction cannot tell others before it ends. Only the owner of a slot writes it, and nothing depends on it.
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::shared::Area;
use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32};

#[repr(C)]
struct Slot {
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

static SLOTS: Area<Slot> = Area::new(c"eventstream tasks");

thread_local! {
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Bytes of shared memory.
pub fn size() -> usize {
    SLOTS.size(backend_slots())
}

/// Finds the shared memory, or makes it; see [`crate::pg::shared`].
///
/// # Safety
/// Only from the hook that PostgreSQL calls for this.
pub unsafe fn attach() {
    let nothing = || Slot {
        database: AtomicU32::new(0),
        pid: AtomicI32::new(0),
        done: AtomicI64::new(0),
        total: AtomicI64::new(0),
        since: AtomicI64::new(0),
    };
    // SAFETY: as the caller says.
    unsafe { SLOTS.attach(backend_slots(), nothing) }
}

fn slots() -> &'static [Slot] {
    SLOTS.get().unwrap_or_default()
}

fn mine() -> Option<&'static Slot> {
    slots().get(backend_number())
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
            if !EXIT_REGISTERED.replace(true) {
                // SAFETY: on_shmem_exit callbacks run while shared memory is there.
                unsafe { pg_sys::on_shmem_exit(Some(at_exit), pg_sys::Datum::null()) };
            }
            // SAFETY: plain variables of this backend, and its clock.
            let (database, pid, now) =
                unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid, pg_sys::GetCurrentTimestamp()) };
            slot.pid.store(pid, Relaxed);
            slot.done.store(0, Relaxed);
            slot.total.store(total, Relaxed);
            slot.since.store(now, Relaxed);
            slot.database.store(database.to_u32(), SeqCst);
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

unsafe extern "C-unwind" fn at_exit(_: std::ffi::c_int, _: pg_sys::Datum) {
    if let Some(slot) = mine() {
        slot.database.store(0, SeqCst);
    }
}

/// The tasks of the current database.
pub fn under_way() -> impl Iterator<Item = UnderWay> {
    // SAFETY: a plain variable of this backend.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    slots().iter().filter(move |slot| slot.database.load(SeqCst) == database).map(|slot| UnderWay {
        pid: slot.pid.load(Relaxed),
        done: slot.done.load(Relaxed),
        total: slot.total.load(Relaxed),
        since: slot.since.load(Relaxed),
    })
}
