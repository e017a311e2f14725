//! What is counted. For now in this backend; see `eventstream.stats`.
use std::cell::Cell;

/// One a thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    CacheHits,
    CacheMisses,
    SnapshotHits,
    SnapshotMisses,
    SnapshotsInvalid,
    EventsFolded,
}

pub const COUNTERS: usize = Counter::EventsFolded as usize + 1;

thread_local! {
    static COUNTS: [Cell<u64>; COUNTERS] = const { [const { Cell::new(0) }; COUNTERS] };
}

pub fn add(counter: Counter, count: u64) {
    COUNTS.with(|counts| {
        let count_of = &counts[counter as usize];
        count_of.set(count_of.get() + count);
    });
}

pub fn get(counter: Counter) -> u64 {
    COUNTS.with(|counts| counts[counter as usize].get())
}
