//! Shared memory, which a preloaded library asks for while the server starts: named arrays of values that any process may use at any time.
//! What lies in them is said where [`init`] is called.
use super::error::entry::raising;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;
static mut PARTS: &[&dyn Part] = &[];

/// An [`Area`] of any type.
pub trait Part: Sync {
    /// Bytes that it takes.
    fn bytes(&self) -> usize;
    /// Finds its values, or makes them.
    fn attach(&self, at: &Startup);
}

/// That the server is attaching shared memory.
pub struct Startup(());

/// Asks for the shared memory of these; of no effect but while shared_preload_libraries is processed. Once a process, from _PG_init.
pub fn init(parts: &'static [&'static dyn Part]) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
        PARTS = parts;
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
        let parts = PARTS;
        raising("the request for shared memory", || {
            pg_sys::RequestAddinShmemSpace(parts.iter().map(|part| part.bytes()).sum());
            Ok(())
        });
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: the hook's own protocol. After a crash the memory is made anew.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let parts = PARTS;
        raising("the start of shared memory", || {
            parts.iter().for_each(|part| part.attach(&Startup(())));
            Ok(())
        });
    }
}

/// A named array in shared memory.
pub struct Area<T> {
    name: &'static CStr,
    wanted: fn() -> usize,
    make: fn() -> T,
    start: AtomicPtr<T>,
    count: AtomicUsize,
}

impl<T: Sync> Area<T> {
    /// Of so many values, each of which begins as `make` has it. `wanted` is asked when PostgreSQL's own settings are final.
    pub const fn new(name: &'static CStr, wanted: fn() -> usize, make: fn() -> T) -> Self {
        Self { name, wanted, make, start: AtomicPtr::new(ptr::null_mut()), count: AtomicUsize::new(0) }
    }

    /// One value.
    pub const fn one(name: &'static CStr, make: fn() -> T) -> Self {
        Self::new(name, || 1, make)
    }

    /// None where the library was not preloaded.
    pub fn get(&self) -> Option<&'static [T]> {
        let start = self.start.load(SeqCst);
        // SAFETY: `attach` wrote that many values, and shared memory stays mapped for the life of the process.
        (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, self.count.load(SeqCst)) })
    }

    /// The values; none where the library was not preloaded.
    pub fn all(&self) -> &'static [T] {
        self.get().unwrap_or_default()
    }

    /// The first value. None where the library was not preloaded.
    pub fn first(&self) -> Option<&'static T> {
        self.all().first()
    }
}

impl<T: Sync> Part for Area<T> {
    /// With room to align the first value as PostgreSQL does (to cache lines).
    fn bytes(&self) -> usize {
        (self.wanted)() * size_of::<T>() + align_of::<T>() + pg_sys::PG_CACHE_LINE_SIZE as usize
    }

    fn attach(&self, _: &Startup) {
        let count = (self.wanted)();
        // SAFETY: the memory is ours and of the size asked for, which has room to align the first value.
        unsafe {
            let mut found = false;
            let bytes = count * size_of::<T>() + align_of::<T>();
            let start = pg_sys::ShmemInitStruct(self.name.as_ptr(), bytes, &mut found).cast::<u8>();
            let values = start.add(start.align_offset(align_of::<T>())).cast::<T>();
            if !found {
                for place in 0..count {
                    values.add(place).write((self.make)());
                }
            }
            self.count.store(count, SeqCst);
            self.start.store(values, SeqCst);
        }
    }
}
