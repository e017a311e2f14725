//! A memory context of one's own: for loops that would otherwise fill the caller's with what each step leaves behind.
use super::failure::{Result, catch};
use super::ffi;
use pgrx::pg_sys;

/// A child of the current memory context, deleted when dropped.
pub struct Scratch {
    context: pg_sys::MemoryContext,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        Self::with_room(0)
    }

    /// One that keeps `bytes` when it is emptied, so that steps of that size never ask the system for memory.
    pub fn with_room(bytes: usize) -> Result<Self> {
        let context = catch(|| {
            // SAFETY: the sizes are ALLOCSET_DEFAULT_SIZES, but for the room.
            unsafe {
                ffi::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"eventstream scratch".as_ptr(),
                    bytes,
                    bytes.max(8 * 1024),
                    8 * 1024 * 1024,
                )
            }
        })?;
        Ok(Self { context })
    }

    /// Empties the scratch, then runs one step in it.
    pub fn step<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: the context is ours and alive.
        unsafe { ffi::MemoryContextReset(self.context) };
        self.inside(work)
    }

    /// Runs a step in the scratch, which keeps what is in it.
    pub fn inside<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: the context is ours and alive; the previous one is put back, by the abort where a panic passes.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let result = work();
            pg_sys::CurrentMemoryContext = before;
            result
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: nothing made in it outlives the loop it served; an error keeps its copy elsewhere (see `catch`).
            unsafe { ffi::MemoryContextDelete(self.context) }
        }
    }
}

/// A context that lives as long as the process.
pub(super) fn lasting(name: &'static std::ffi::CStr) -> Result<pg_sys::MemoryContext> {
    // SAFETY: the sizes are ALLOCSET_DEFAULT_SIZES.
    catch(|| unsafe {
        let top = pg_sys::TopMemoryContext;
        ffi::AllocSetContextCreateInternal(top, name.as_ptr(), 0, 8 * 1024, 8 * 1024 * 1024)
    })
}

/// A value that is replaced again and again (the state of a fold): each is copied to one of two contexts, and the one before it
/// is freed, so that memory stays at two of them.
pub struct Replaced {
    contexts: [Scratch; 2],
    at: usize,
}

impl Replaced {
    pub fn new() -> Result<Self> {
        Ok(Self { contexts: [Scratch::new()?, Scratch::new()?], at: 0 })
    }

    /// A copy of a jsonb, which may lie anywhere, also in the value before.
    pub fn replace(&mut self, value: pg_sys::Datum) -> Result<pg_sys::Datum> {
        self.at = 1 - self.at;
        // SAFETY: a jsonb, whoever made it; the copy is detoasted.
        self.contexts[self.at]
            .step(|| catch(|| unsafe { pg_sys::Datum::from(ffi::pg_detoast_datum_copy(value.cast_mut_ptr())) }))
    }
}
