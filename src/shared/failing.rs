//! Folds and upcasters that were seen to fail lately, and snapshots that were seen to be damaged, as numbers that fit into shared memory: who notes one, and who asks, knows what they mean. A
//! note says where to look, and no more: it may be lost, or mixed with one that is written at the same moment.
use super::counters::{Block, with_block};
pub use super::notes::Failing;
use super::notes::Note;
use super::trial;
use crate::pg::process::server::clock;
use eventstream_core::hash::fingerprint;
use std::sync::atomic::Ordering::Relaxed;

/// What fails. Each kind has places of its own.
#[derive(Clone, Copy)]
pub enum Kind {
    Fold,
    Upcaster,
    Snapshot,
}

impl Kind {
    fn notes(self, block: &Block) -> &[Note] {
        match self {
            Kind::Fold => &block.failing_folds,
            Kind::Upcaster => &block.failing_upcasters,
            Kind::Snapshot => &block.damaged_snapshots,
        }
    }
}

/// What the notes of something are found by, made of all that it is: registered anew, it is another one.
pub fn key(parts: &[&str]) -> i64 {
    match fingerprint(parts).iter().take(8).fold(0_i64, |key, &byte| key << 8 | i64::from(byte)) {
        0 => 1,
        key => key,
    }
}

/// Notes a failure; `counted` 0 leaves the number that was counted.
pub fn note(kind: Kind, failing: Failing) {
    if trial::is_on() {
        // Nothing of it is in the log.
        return;
    }
    with_block(|block| {
        let notes = kind.notes(block);
        let known = notes.iter().find(|note| note.key.load(Relaxed) == failing.key);
        let oldest = || {
            notes.iter().min_by_key(|note| match note.key.load(Relaxed) {
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

/// How many streams of a fold that is noted failed when all were counted: none, and the note is gone. A test has no stream but its own.
pub fn count(key: i64, counted: i64) {
    if trial::is_on() {
        return;
    }
    with_block(|block| {
        for note in Kind::Fold.notes(block).iter().filter(|note| note.key.load(Relaxed) == key) {
            note.counted.store(counted, Relaxed);
            if counted == 0 {
                note.clear();
            }
        }
    });
}

/// All of the stream's events up to a version were folded: where it is noted as one that fails, and `key` is its note's, the note is gone.
pub fn folded(stream_id: i64, version: i64, key: impl Fn() -> i64) {
    clear(Kind::Fold, key, |note| note.stream_id.load(Relaxed) == stream_id && note.version.load(Relaxed) <= version);
}

/// The event at that position was upcast: where it is the one that is noted, and `key` is its note's, the note is gone.
pub fn upcast(position: i64, key: impl Fn() -> i64) {
    clear(Kind::Upcaster, key, |note| note.position.load(Relaxed) == position);
}

fn clear(kind: Kind, key: impl Fn() -> i64, is_meant: impl Fn(&Note) -> bool) {
    with_block(|block| {
        for note in kind.notes(block) {
            if note.key.load(Relaxed) != 0 && is_meant(note) && note.key.load(Relaxed) == key() {
                note.clear();
            }
        }
    });
}

/// All that is noted.
pub fn noted(kind: Kind) -> Vec<Failing> {
    with_block(|block| kind.notes(block).iter().filter_map(Note::read).collect())
}
