//! What is counted: for the whole database, since the server started, in shared memory where the library is preloaded; else, and
//! for databases beyond the first [`DATABASES`], in this backend. Counting never waits and never fails.
use pgrx::pg_sys;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// One a thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    Appends,
    EventsAppended,
    Conflicts,
    CacheHits,
    CacheMisses,
    SnapshotHits,
    SnapshotMisses,
    SnapshotsInvalid,
    SnapshotsTaken,
    EventsFolded,
}

pub const COUNTERS: usize = Counter::EventsFolded as usize + 1;

impl Counter {
    pub const ALL: [Self; COUNTERS] = [
        Self::Appends,
        Self::EventsAppended,
        Self::Conflicts,
        Self::CacheHits,
        Self::CacheMisses,
        Self::SnapshotHits,
        Self::SnapshotMisses,
        Self::SnapshotsInvalid,
        Self::SnapshotsTaken,
        Self::EventsFolded,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Appends => "appends",
            Self::EventsAppended => "events_appended",
            Self::Conflicts => "conflicts",
            Self::CacheHits => "cache_hits",
            Self::CacheMisses => "cache_misses",
            Self::SnapshotHits => "snapshot_hits",
            Self::SnapshotMisses => "snapshot_misses",
            Self::SnapshotsInvalid => "snapshots_invalid",
            Self::SnapshotsTaken => "snapshots_taken",
            Self::EventsFolded => "events_folded",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Appends => "calls that appended events, also where the transaction was rolled back later",
            Self::EventsAppended => "events that they appended",
            Self::Conflicts => "appends refused because the stream was at another version (ES001)",
            Self::CacheHits => "states that a session had kept, and could start from",
            Self::CacheMisses => "states that a session had not kept",
            Self::SnapshotHits => "states that a snapshot was the start of",
            Self::SnapshotMisses => "states for which no snapshot was found that would have helped",
            Self::SnapshotsInvalid => "snapshots that were damaged and not used; es_verify_snapshots() names them",
            Self::SnapshotsTaken => "snapshots taken by es_snapshot and es_maintain",
            Self::EventsFolded => "events folded into states",
        }
    }
}

/// Databases that are counted together, dropped ones included: 128 bytes of shared memory each.
const DATABASES: usize = 1024;

/// The counts of one database, on cache lines of its own. A block that was taken stays its database's until the server stops.
#[repr(C, align(64))]
struct Block {
    /// 0: nobody's.
    database: AtomicU32,
    counts: [AtomicU64; COUNTERS],
}

/// Where this backend counts.
#[derive(Clone, Copy)]
enum Home {
    Unknown,
    Backend,
    Shared(&'static Block),
}

static BLOCKS: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    static HOME: Cell<Home> = const { Cell::new(Home::Unknown) };
    static OWN: Block = const {
        Block { database: AtomicU32::new(0), counts: [const { AtomicU64::new(0) }; COUNTERS] }
    };
}

/// Bytes of shared memory.
pub(super) fn size() -> usize {
    DATABASES * size_of::<Block>() + align_of::<Block>()
}

/// Finds the shared memory, or makes it; see [`super::shared`].
///
/// # Safety
/// Only from the hook that PostgreSQL calls for this.
pub(super) unsafe fn attach() {
    // SAFETY: the memory is ours and of the size asked for, which has room to align the first block.
    unsafe {
        let mut found = false;
        let start = pg_sys::ShmemInitStruct(c"eventstream counters".as_ptr(), size(), &mut found).cast::<u8>();
        let blocks = start.add(start.align_offset(align_of::<Block>())).cast::<Block>();
        if !found {
            for place in 0..DATABASES {
                let counts = [const { AtomicU64::new(0) }; COUNTERS];
                blocks.add(place).write(Block { database: AtomicU32::new(0), counts });
            }
        }
        BLOCKS.store(blocks, SeqCst);
    }
}

/// The block of this backend's database. All look from the first one on and none is ever given back, so that two backends of one
/// database find the same.
fn home() -> Home {
    // SAFETY: a plain variable of this backend.
    let mine = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let blocks = BLOCKS.load(SeqCst);
    if blocks.is_null() || mine == 0 {
        return Home::Backend;
    }
    // SAFETY: `attach` wrote that many blocks, and shared memory stays mapped for the life of the process.
    let blocks: &'static [Block] = unsafe { std::slice::from_raw_parts(blocks, DATABASES) };
    for block in blocks {
        match block.database.compare_exchange(0, mine, SeqCst, SeqCst) {
            Ok(_) => return Home::Shared(block),
            Err(whose) if whose == mine => return Home::Shared(block),
            Err(_) => {}
        }
    }
    Home::Backend
}

fn with_block<T>(work: impl FnOnce(&Block) -> T) -> T {
    if let Home::Unknown = HOME.get() {
        HOME.set(home());
    }
    match HOME.get() {
        Home::Shared(block) => work(block),
        Home::Backend | Home::Unknown => OWN.with(work),
    }
}

pub fn add(counter: Counter, count: u64) {
    with_block(|block| block.counts[counter as usize].fetch_add(count, Relaxed));
}

pub fn get(counter: Counter) -> u64 {
    with_block(|block| block.counts[counter as usize].load(Relaxed))
}

/// Whether the counts are the database's, not only this session's.
pub fn are_shared() -> bool {
    with_block(|_| ());
    matches!(HOME.get(), Home::Shared(_))
}
