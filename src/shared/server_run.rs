//! Which run of the server this is: a number that is drawn whenever shared memory is made, at its start and after a crash. What was read in another run may have
//! been lost with its end (a commit that was not flushed), or by a restore of its files.
use crate::pg::shmem::Area;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub static AREA: Area<u64> =
    Area::new(c"eventstream run", || 1, || RandomState::new().hash_one(std::time::SystemTime::now()));

/// None without preload.
pub fn id() -> Option<u64> {
    AREA.get()?.first().copied()
}
