//! Shared memory, which a preloaded library asks for while the server starts: [`crate::shared::open_appends`], [`crate::shared::counters`],
//! [`crate::shared::tasks`], [`crate::shared::board`] and [`crate::shared::high_water`] live in it.
use crate::shared::{board, counters, high_water, open_appends, tasks};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

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
        pg_sys::RequestAddinShmemSpace(
            open_appends::size() + counters::size() + tasks::size() + board::size() + high_water::size(),
        );
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: the hook's own protocol. After a crash the memory is made anew.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        open_appends::attach();
        counters::attach();
        tasks::attach();
        board::attach();
        high_water::attach();
    }
}

/// A named array in shared memory, of values that any process may use at any time (atomics).
pub struct Area<T> {
    name: &'static CStr,
    start: AtomicPtr<T>,
    count: AtomicUsize,
}

impl<T: Sync> Area<T> {
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, start: AtomicPtr::new(ptr::null_mut()), count: AtomicUsize::new(0) }
    }

    /// Bytes that `count` values take, with room to align the first one as PostgreSQL does (to cache lines).
    pub const fn size(&self, count: usize) -> usize {
        count * size_of::<T>() + align_of::<T>() + 128
    }

    /// Finds the values, or makes them.
    ///
    /// # Safety
    /// Only from [`startup`], with the count that was asked for.
    pub unsafe fn attach(&self, count: usize, make: impl Fn() -> T) {
        // SAFETY: the memory is ours and of the size asked for, which has room to align the first value.
        unsafe {
            let mut found = false;
            let bytes = count * size_of::<T>() + align_of::<T>();
            let start = pg_sys::ShmemInitStruct(self.name.as_ptr(), bytes, &mut found).cast::<u8>();
            let values = start.add(start.align_offset(align_of::<T>())).cast::<T>();
            if !found {
                for place in 0..count {
                    values.add(place).write(make());
                }
            }
            self.count.store(count, SeqCst);
            self.start.store(values, SeqCst);
        }
    }

    /// None where the library was not preloaded.
    pub fn get(&self) -> Option<&'static [T]> {
        let start = self.start.load(SeqCst);
        // SAFETY: `attach` wrote that many values, and shared memory stays mapped for the life of the process.
        (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, self.count.load(SeqCst)) })
    }
}
