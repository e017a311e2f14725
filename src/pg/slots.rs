//! Shared memory: one slot a backend, in which an open transaction that has appended says from which position on, and
//! from which recorded_at on, it may own events. `log::horizon` reads them; only the owner of a slot writes it.
use super::compat::{backend_number, backend_slots};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering::SeqCst, fence};

/// No open append: larger than every position.
const FREE: i64 = i64::MAX;
/// The owner of the slot is about to store the bound.
const PENDING: i64 = i64::MIN;

#[repr(C)]
struct Slot {
    position: AtomicI64,
    recorded_at: AtomicI64,
    since: AtomicI64,
    database: AtomicU32,
    pid: AtomicI32,
}

/// What an open append holds.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// No position below this one is the transaction's. None: it is about to say so.
    pub position: Option<i64>,
    /// No recorded_at below is the transaction's (microseconds since 2000-01-01 UTC). None: it is about to say so.
    pub recorded_at: Option<i64>,
    /// When it began to append (the same unit).
    pub since: i64,
    pub pid: i32,
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    static HELD: Cell<Option<i64>> = const { Cell::new(None) };
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Bytes of shared memory.
pub(super) fn size() -> usize {
    backend_slots() * size_of::<Slot>()
}

/// Finds the shared memory, or makes it; see [`super::shared`].
///
/// # Safety
/// Only from the hook that PostgreSQL calls for this.
pub(super) unsafe fn attach() {
    // SAFETY: the memory is ours and of the size asked for.
    unsafe {
        let mut found = false;
        let slots = pg_sys::ShmemInitStruct(c"eventstream append slots".as_ptr(), size(), &mut found).cast::<Slot>();
        if !found {
            for place in 0..backend_slots() {
                slots.add(place).write(Slot {
                    position: AtomicI64::new(FREE),
                    recorded_at: AtomicI64::new(0),
                    since: AtomicI64::new(0),
                    database: AtomicU32::new(0),
                    pid: AtomicI32::new(0),
                });
            }
        }
        SLOTS.store(slots, SeqCst);
    }
}

fn slots() -> Option<&'static [Slot]> {
    let slots = SLOTS.load(SeqCst);
    // SAFETY: `attach` wrote that many slots, and shared memory stays mapped for the life of the process.
    (!slots.is_null()).then(|| unsafe { std::slice::from_raw_parts(slots, backend_slots()) })
}

/// Whether the library was preloaded, so that there is a horizon.
pub fn are_there() -> bool {
    !SLOTS.load(SeqCst).is_null()
}

/// The lower bound of recorded_at that this transaction holds, if it has appended.
pub fn held_recorded_at() -> Option<i64> {
    HELD.get()
}

/// Says that this transaction is about to [`hold`] positions, which has to follow at once. Whoever scans the slots from now on waits
/// for the bound; whoever did so before read a last position that this transaction has not read yet, so that its bound lies
/// above: the horizon never steps back.
pub fn announce(now: i64) {
    if let Some(slots) = slots() {
        if !EXIT_REGISTERED.replace(true) {
            // SAFETY: on_shmem_exit callbacks run after the abort of an open transaction: nothing can commit any more.
            unsafe { pg_sys::on_shmem_exit(Some(at_exit), pg_sys::Datum::null()) };
        }
        let slot = &slots[backend_number()];
        // SAFETY: plain variables of this backend.
        let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
        slot.recorded_at.store(PENDING, SeqCst);
        slot.since.store(now, SeqCst);
        slot.database.store(database.to_u32(), SeqCst);
        slot.pid.store(pid, SeqCst);
        slot.position.store(PENDING, SeqCst);
        fence(SeqCst);
    }
    HELD.set(Some(now));
}

/// Stores the lower bound of this transaction's positions, which must come from a last position that was read after [`announce`].
/// To be called before it takes the first one; [`hold_recorded_at`] has to follow at once.
pub fn hold(position: i64) {
    if let Some(slots) = slots() {
        slots[backend_number()].position.store(position, SeqCst);
        fence(SeqCst);
    }
}

/// Stores the lower bound of this transaction's recorded_at, which must come from a floor that was read after [`hold`].
pub fn hold_recorded_at(recorded_at: i64) {
    if let Some(slots) = slots() {
        slots[backend_number()].recorded_at.store(recorded_at, SeqCst);
    }
    HELD.set(Some(recorded_at));
}

/// Clears this backend's slot. To be called after the transaction's end is visible to others.
pub fn release() {
    if HELD.take().is_some()
        && let Some(slots) = slots()
    {
        slots[backend_number()].position.store(FREE, SeqCst);
    }
}

unsafe extern "C-unwind" fn at_exit(_: std::ffi::c_int, _: pg_sys::Datum) {
    release();
}

/// The open appends of the current database.
pub fn scan() -> impl Iterator<Item = Held> {
    fence(SeqCst);
    // SAFETY: a plain variable of this backend.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    slots().unwrap_or_default().iter().filter_map(move |slot| {
        let position = slot.position.load(SeqCst);
        (position != FREE && slot.database.load(SeqCst) == database).then(|| Held {
            position: Some(position).filter(|&position| position != PENDING),
            recorded_at: Some(slot.recorded_at.load(SeqCst)).filter(|&bound| bound != PENDING),
            since: slot.since.load(SeqCst),
            pid: slot.pid.load(SeqCst),
        })
    })
}

/// Cancels the statement of the process that holds this. False where it holds it no longer.
pub fn cancel(held: &Held) -> bool {
    signal(held, SIGINT)
}

/// Ends the session of the process that holds this. False where it holds it no longer.
pub fn terminate(held: &Held) -> bool {
    signal(held, SIGTERM)
}

/// The same on all systems that PostgreSQL runs on.
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

fn signal(held: &Held, signal: i32) -> bool {
    let holds = scan().any(|other| other.pid == held.pid && other.since == held.since);
    // SAFETY: a process of this server, which was in its transaction a moment ago: what pg_cancel_backend and pg_terminate_backend do.
    holds && unsafe { super::ffi::kill(held.pid, signal) } == 0
}
