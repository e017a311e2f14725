//! Folds that were seen to fail lately, as numbers that fit into shared memory: who notes one, and who asks, knows what they mean. A note
//! says where to look, and no more: it may be lost, or mixed with one that is written at the same moment.
use super::counters::with_block;
use super::server::clock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// Folds of a database that can be noted at the same time; the oldest note makes room for another.
const PLACES: usize = 4;

/// What a fold could not fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Which fold of whom, as it is defined now; never 0.
    pub key: i64,
    /// The stream that failed last, and the newest event that was given to the fold then.
    pub stream_id: i64,
    pub version: i64,
    pub position: i64,
    /// How many streams failed when all were counted last; 0: nobody has counted.
    pub counted: i64,
}

/// A place for one. `key` 0: it is free.
pub(super) struct Note {
    key: AtomicI64,
    stream_id: AtomicI64,
    version: AtomicI64,
    position: AtomicI64,
    counted: AtomicI64,
    seen_at: AtomicI64,
}

pub(super) type Notes = [Note; PLACES];

impl Note {
    /// No note.
    pub(super) const fn none() -> Notes {
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

    pub(super) fn clear(&self) {
        self.key.store(0, Relaxed);
    }

    fn read(&self) -> Option<Failing> {
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

/// Notes a stream's failure; `counted` 0 leaves the number that was counted.
pub fn note(failing: Failing) {
    with_block(|block| {
        let known = block.failing.iter().find(|note| note.key.load(Relaxed) == failing.key);
        let oldest = || {
            block.failing.iter().min_by_key(|note| match note.key.load(Relaxed) {
                0 => i64::MIN,
                _ => note.seen_at.load(Relaxed),
            })
        };
        let Some(note) = known.or_else(oldest) else { return };
        if known.is_none() || failing.counted > 0 {
            note.counted.store(failing.counted, Relaxed);
        }
        note.stream_id.store(failing.stream_id, Relaxed);
        note.version.store(failing.version, Relaxed);
        note.position.store(failing.position, Relaxed);
        note.seen_at.store(clock(), Relaxed);
        note.key.store(failing.key, Relaxed);
    });
}

/// How many streams of a fold that is noted failed when all were counted: none, and the note is gone.
pub fn count(key: i64, counted: i64) {
    with_block(|block| {
        for note in block.failing.iter().filter(|note| note.key.load(Relaxed) == key) {
            note.counted.store(counted, Relaxed);
            if counted == 0 {
                note.clear();
            }
        }
    });
}

/// All of the stream's events up to a version were folded: where it is noted as one that fails, and `key` is its note's, the note is gone.
pub fn passed(stream_id: i64, version: i64, key: impl Fn() -> i64) {
    with_block(|block| {
        for note in &block.failing {
            let is_noted = note.key.load(Relaxed) != 0
                && note.stream_id.load(Relaxed) == stream_id
                && note.version.load(Relaxed) <= version;
            if is_noted && note.key.load(Relaxed) == key() {
                note.clear();
            }
        }
    });
}

/// All that is noted.
pub fn noted() -> Vec<Failing> {
    with_block(|block| block.failing.iter().filter_map(Note::read).collect())
}
