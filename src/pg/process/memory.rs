//! A memory context of one's own: for loops that would otherwise fill the caller's with what each step leaves behind.
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use crate::pg::jsonb::Jsonb;
use pgrx::pg_sys;

/// A child of the current memory context, deleted when dropped.
pub struct Scratch {
    context: pg_sys::MemoryContext,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        // SAFETY: there is always a current memory context.
        Self::under(unsafe { pg_sys::CurrentMemoryContext })
    }

    fn under(parent: pg_sys::MemoryContext) -> Result<Self> {
        // SAFETY: the parent is alive.
        let context = unsafe { context_in(parent, c"eventstream scratch") }?;
        Ok(Self { context })
    }

    /// Empties the scratch, then runs one step in it.
    pub fn step<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.empty();
        self.inside(work)
    }

    pub fn empty(&self) {
        // SAFETY: the context is ours and alive.
        unsafe { ffi::MemoryContextReset(self.context) };
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

/// Errors: 53200 where there are not so many bytes to be had. To be asked before Rust's memory grows by fewer: that ends the server where it fails.
pub fn expect_room(bytes: usize) -> Result<()> {
    // SAFETY: allocated and freed; it raises where there is no memory.
    catch(|| unsafe { ffi::pfree(ffi::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, bytes)) })
}

/// A context of PostgreSQL's ordinary sizes.
///
/// # Safety
/// The parent is alive.
pub unsafe fn context_in(
    parent: pg_sys::MemoryContext,
    name: &'static std::ffi::CStr,
) -> Result<pg_sys::MemoryContext> {
    // SAFETY: as the caller says.
    catch(|| unsafe {
        ffi::AllocSetContextCreateInternal(
            parent,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    })
}

/// A context that lives as long as the process.
pub fn lasting(name: &'static std::ffi::CStr) -> Result<pg_sys::MemoryContext> {
    // SAFETY: that context is always alive.
    unsafe { context_in(pg_sys::TopMemoryContext, name) }
}

/// Room for copies of rows, one behind the other, to be emptied when these are not needed any more: a fold copies each event, and asks for memory
/// once.
pub struct Room {
    /// Nothing but room, aligned as rows are.
    memory: Vec<u64>,
    used: usize,
}

impl Room {
    pub fn of_bytes(bytes: usize) -> Self {
        Self { memory: Vec::with_capacity(bytes.div_ceil(size_of::<u64>())), used: 0 }
    }

    pub fn empty(&mut self) {
        self.used = 0;
    }

    /// Whether any row still fits in: none is larger than a block.
    pub fn is_for_another(&self) -> bool {
        self.left() >= pg_sys::BLCKSZ as usize
    }

    fn left(&self) -> usize {
        self.memory.capacity() * size_of::<u64>() - self.used
    }

    /// So many bytes of it.
    pub fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        if self.left() < bytes {
            return None;
        }
        // SAFETY: within the room.
        let taken = unsafe { self.memory.as_mut_ptr().cast::<u8>().add(self.used) };
        self.used += bytes.next_multiple_of(size_of::<u64>()).min(self.left());
        Some(taken)
    }
}

/// A jsonb that is replaced again and again (the state of a fold): each is copied to one of two contexts, and the one before it
/// is freed, so that memory stays at two of them.
pub struct Replaced {
    contexts: [Scratch; 2],
    at: usize,
    value: pg_sys::Datum,
}

impl Replaced {
    pub fn of(value: Jsonb) -> Result<Self> {
        let mut made = Self { contexts: [Scratch::new()?, Scratch::new()?], at: 0, value: value.datum() };
        let first = made.value;
        // SAFETY: a jsonb.
        catch(|| unsafe { made.replace(first) })?;
        Ok(made)
    }

    pub fn value(&self) -> Jsonb<'_> {
        // SAFETY: a detoasted copy of a jsonb, which is freed by what replaces it.
        unsafe { Jsonb::of_detoasted(self.value) }
    }

    /// Takes a copy of a jsonb, which may lie anywhere, also in the value before.
    ///
    /// # Safety
    /// A jsonb, whoever made it. May raise.
    pub unsafe fn replace(&mut self, value: pg_sys::Datum) {
        self.at = 1 - self.at;
        let context = self.contexts[self.at].context;
        // SAFETY: as the caller says; the context is ours and alive, and the abort puts the previous one back where this raises.
        unsafe {
            ffi::MemoryContextReset(context);
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context;
            self.value = pg_sys::Datum::from(ffi::pg_detoast_datum_copy(value.cast_mut_ptr()));
            pg_sys::CurrentMemoryContext = before;
        }
    }
}

/// A list that grows with what is in the log, in PostgreSQL's memory: where there is not enough, that is an error (53200), and not the end of
/// the server, as it is with Rust's own.
pub struct List<T: Copy> {
    memory: Scratch,
    start: *mut T,
    length: usize,
    room: usize,
}

impl<T: Copy> List<T> {
    /// An empty one. Its memory is the transaction's, since the current context ends with the look at the log that the list is made in.
    pub fn new() -> Result<Self> {
        // SAFETY: in a transaction, as whatever reads the log.
        let memory = Scratch::under(unsafe { pg_sys::CurTransactionContext })?;
        Ok(Self { memory, start: std::ptr::NonNull::dangling().as_ptr(), length: 0, room: 0 })
    }

    /// With the values that another one has.
    pub fn of(values: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut list = Self::new()?;
        for value in values {
            list.push(value)?;
        }
        Ok(list)
    }

    pub fn push(&mut self, value: T) -> Result<()> {
        if self.length == self.room {
            self.grow()?;
        }
        // SAFETY: there is room for one more.
        unsafe { self.start.add(self.length).write(value) };
        self.length += 1;
        Ok(())
    }

    fn grow(&mut self) -> Result<()> {
        const FIRST: usize = 64;
        let room = (self.room * 2).max(FIRST);
        let bytes = room.saturating_mul(size_of::<T>());
        // SAFETY: the context is ours and alive, and what is in it is what was allocated there before; both raise where there is no memory.
        // PostgreSQL aligns to 8 bytes, which is what values of a list need at most.
        self.start = catch(|| unsafe {
            if self.room == 0 {
                ffi::MemoryContextAllocHuge(self.memory.context, bytes)
            } else {
                ffi::repalloc_huge(self.start.cast(), bytes)
            }
        })?
        .cast();
        self.room = room;
        Ok(())
    }

    /// Leaves out those for which `stays` is false.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for at in 0..self.length {
            let value = self[at];
            if stays(&value) {
                self[kept] = value;
                kept += 1;
            }
        }
        self.length = kept;
    }
}

impl<T: Copy> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values were written there; of none the pointer is dangling, as a slice wants it.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T: Copy> std::ops::DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; nobody else has the list.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}
