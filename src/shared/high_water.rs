//! Marks in shared memory that only rise: for each sequence the highest value that is known to be used. Nothing is promised about a
//! sequence without one: whoever asks then looks for itself.
use crate::pg::process::server;
use crate::pg::shmem::Area;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

/// Sequences that have a mark until the server is started again.
const MARKS: usize = 4096;

#[repr(C, align(64))]
pub struct Mark {
    /// Database and sequence; 0: nobody's.
    key: AtomicU64,
    /// UNKNOWN until somebody has looked.
    value: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

pub static AREA: Area<Mark> = Area::new(
    c"eventstream high-water marks",
    || MARKS,
    || Mark { key: AtomicU64::new(0), value: AtomicI64::new(UNKNOWN) },
);

thread_local! {
    static MINE: Cell<Option<(u64, &'static Mark)>> = const { Cell::new(None) };
}

/// The mark of a sequence of this database. None without preload, and where all marks are taken.
pub fn of(sequence: Oid) -> Option<&'static Mark> {
    let key = u64::from(server::database().to_u32()) << 32 | u64::from(sequence.to_u32());
    if let Some((known, mark)) = MINE.get()
        && known == key
    {
        return Some(mark);
    }
    let marks = AREA.get()?;
    let start = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % marks.len();
    let mark = (0..marks.len()).map(|step| &marks[(start + step) % marks.len()]).find(|mark| {
        match mark.key.compare_exchange(0, key, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(taken) => taken == key,
        }
    })?;
    MINE.set(Some((key, mark)));
    Some(mark)
}

impl Mark {
    pub fn get(&self) -> Option<i64> {
        Some(self.value.load(SeqCst)).filter(|&value| value != UNKNOWN)
    }

    pub fn raise(&self, value: i64) {
        self.value.fetch_max(value, SeqCst);
    }
}
