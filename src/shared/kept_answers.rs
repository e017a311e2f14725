//! How many answers were kept under keys of each of some slots, in shared memory: who looked for a key before he had its lock, and found nothing, knows behind it that
//! nothing has come since, without a second look.
//!
//! Promises: an answer is counted when it is there to be found, and before the lock of its key is let go.
use crate::pg::shmem::Area;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const SLOTS: usize = 1024;

pub static AREA: Area<AtomicU64> = Area::new(c"eventstream kept answers", || SLOTS, || AtomicU64::new(0));

/// None without preload: whoever asks then looks for itself.
fn slot(hash: u64) -> Option<&'static AtomicU64> {
    let place = hash as usize % SLOTS;
    AREA.get()?.get(place)
}

/// How many were kept until now.
pub fn count(hash: u64) -> Option<u64> {
    slot(hash).map(|slot| slot.load(SeqCst))
}

/// One was kept.
pub fn note(hash: u64) {
    if let Some(slot) = slot(hash) {
        slot.fetch_add(1, SeqCst);
    }
}
