//! Shared memory, which a preloaded library asks for while the server starts: [`super::slots`], [`super::counters`] and [`super::tasks`]
//! live in it.
use super::{counters, slots, tasks};
use pgrx::pg_sys;

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for the shared memory; only while shared_preload_libraries is processed.
pub fn init() {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

unsafe extern "C-unwind" fn request() {
    // SAFETY: the hook's own protocol.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(slots::size() + counters::size() + tasks::size());
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: the hook's own protocol. After a crash the memory is made anew.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        slots::attach();
        counters::attach();
        tasks::attach();
    }
}
