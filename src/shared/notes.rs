//! A note of a fold or an upcaster that failed, or of a snapshot that was damaged, as it lies in the block of a database ([`super::counters`]); [`super::failing`] writes and reads it.
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// What a fold could not fold, or an upcaster not upcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Which one of whom, as it is defined now; never 0.
    pub key: i64,
    /// The stream that failed last (0: it is not known by its id), and the newest event that was given to the fold then, or that the upcaster was given; of a snapshot its stream, its
    /// version, and where a position would be when it was taken (microseconds since 2000-01-01 UTC).
    pub stream_id: i64,
    pub version: i64,
    pub position: i64,
    /// How many streams failed when all were counted last; 0: nobody has counted.
    pub counted: i64,
}

/// A place for one. `key` 0: it is free.
pub struct Note {
    pub key: AtomicI64,
    pub stream_id: AtomicI64,
    pub version: AtomicI64,
    pub position: AtomicI64,
    pub counted: AtomicI64,
    pub seen_at: AtomicI64,
}

/// Those of a kind that can be noted at the same time in a database; the oldest note makes room for another.
pub type Notes<const PLACES: usize> = [Note; PLACES];

impl Note {
    /// No note.
    pub const fn none<const PLACES: usize>() -> Notes<PLACES> {
        [const { Self::new() }; PLACES]
    }

    const fn new() -> Self {
        Self {
            key: AtomicI64::new(0),
            stream_id: AtomicI64::new(0),
            version: AtomicI64::new(0),
            position: AtomicI64::new(0),
            counted: AtomicI64::new(0),
            seen_at: AtomicI64::new(0),
        }
    }

    pub fn clear(&self) {
        self.key.store(0, Relaxed);
    }

    pub fn read(&self) -> Option<Failing> {
        let key = self.key.load(Relaxed);
        (key != 0).then(|| Failing {
            key,
            stream_id: self.stream_id.load(Relaxed),
            version: self.version.load(Relaxed),
            position: self.position.load(Relaxed),
            counted: self.counted.load(Relaxed),
        })
    }
}
