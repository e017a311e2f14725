//! What there is one of on the board: the launcher, and what it is asked for.
use super::process::Process;
use crate::pg::shmem::Area;
use pgrx::pg_sys::Oid;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::SeqCst};

/// What there is one of.
#[repr(C)]
pub struct Hall {
    launcher: Process,
    /// 1 once it has run: it may be about to be started again, but it will come.
    has_launcher: AtomicU32,
    /// Databases for whose scheduler the launcher finds no free worker slot.
    starving: AtomicU32,
    /// The database (0: none) that needs a partition which no worker can be had for: for that position, of that size.
    partition_for: AtomicU32,
    partition: [AtomicI64; 2],
}

pub static HALL: Area<Hall> = Area::one(c"eventstream board", || Hall {
    launcher: Process::none(),
    has_launcher: AtomicU32::new(0),
    starving: AtomicU32::new(0),
    partition_for: AtomicU32::new(0),
    partition: [AtomicI64::new(0), AtomicI64::new(0)],
});

fn hall() -> Option<&'static Hall> {
    HALL.first()
}

/// The launcher begins, or wakes up again.
pub fn launcher_enters() {
    if let Some(hall) = hall() {
        hall.launcher.enter();
        hall.has_launcher.store(1, SeqCst);
    }
}

pub fn launcher_leaves() {
    if let Some(hall) = hall()
        && hall.launcher.is_me()
    {
        hall.launcher.leave();
    }
}

/// Makes the launcher look at all databases.
pub fn wake_launcher() {
    if let Some(hall) = hall() {
        hall.launcher.wake();
    }
}

/// Asks the launcher, whose worker slot is its own whatever happens, to make a partition in this database. False where there is none. Another
/// database may take the place of the wish: whoever waits wishes again.
pub fn wish_for_partition(database: Oid, partition: [i64; 2]) -> bool {
    let Some(hall) = hall().filter(|hall| hall.has_launcher.load(SeqCst) != 0) else { return false };
    if hall.partition_for.load(SeqCst) == 0 {
        for (place, part) in hall.partition.iter().zip(partition) {
            place.store(part, SeqCst);
        }
        hall.partition_for.store(database.to_u32(), SeqCst);
    }
    hall.launcher.wake();
    true
}

/// Whether a partition is wished for.
pub fn is_partition_wished() -> bool {
    hall().is_some_and(|hall| hall.partition_for.load(SeqCst) != 0)
}

/// The partition that is wished for; by that it is wished for no more.
pub fn take_partition_wish() -> Option<(Oid, [i64; 2])> {
    let hall = hall()?;
    let partition = [hall.partition[0].load(SeqCst), hall.partition[1].load(SeqCst)];
    let database = hall.partition_for.swap(0, SeqCst);
    (database != 0).then(|| (database.into(), partition))
}

/// How many databases' schedulers found no free worker slot.
pub fn set_starving(databases: u32) {
    if let Some(hall) = hall() {
        hall.starving.store(databases, SeqCst);
    }
}

/// Whether there is such a database.
pub fn is_any_starving() -> bool {
    hall().is_some_and(|hall| hall.starving.load(SeqCst) > 0)
}

/// Whether a scheduler should give one of its runners' slots to a database that has none; true once for each such database.
pub fn should_give_a_slot() -> bool {
    let less = |starving: u32| starving.checked_sub(1);
    hall()
        .is_some_and(|hall| hall.starving.load(SeqCst) > 0 && hall.starving.fetch_update(SeqCst, SeqCst, less).is_ok())
}
