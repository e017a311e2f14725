//! States along a walk through a stream in the order of valid time, kept so that a late event can be folded in without going back to
//! the beginning: many of the recent ones, fewer and fewer of the older ones, bounded in number and bytes.
use crate::pg::jsonb::Stored;
use std::rc::Rc;

/// The state made of all events up to `version`, the last of which in valid time occurred at `max_occurred_at`.
#[derive(Clone)]
pub struct Checkpoint {
    pub version: i64,
    pub max_occurred_at: i64,
    pub state: Rc<Stored>,
}

#[derive(Default)]
pub struct Checkpoints {
    /// By version.
    kept: Vec<Checkpoint>,
    bytes: usize,
}

/// At this number they are thinned out; about half of them stay.
const MOST: usize = 128;
const MOST_BYTES: usize = 16 << 20;
/// The distance between two that stay is at most this part of their age.
const PART_OF_AGE: i64 = 4;

impl Checkpoints {
    pub fn keep(&mut self, checkpoint: Checkpoint) {
        self.bytes += checkpoint.state.size();
        self.kept.push(checkpoint);
        if self.kept.len() > MOST || self.bytes > MOST_BYTES {
            self.thin_out();
        }
    }

    /// The newest one that holds when an event is late that occurred at `occurred_at`. Those that would have to hold it are
    /// forgotten.
    pub fn before(&mut self, occurred_at: i64) -> Option<Checkpoint> {
        while let Some(newest) = self.kept.pop_if(|newest| newest.max_occurred_at > occurred_at) {
            self.bytes -= newest.state.size();
        }
        self.kept.last().cloned()
    }

    fn thin_out(&mut self) {
        let Some(now) = self.kept.last().map(|newest| newest.version) else { return };
        let mut stays: Vec<Checkpoint> = Vec::with_capacity(self.kept.len());
        let mut rest = std::mem::take(&mut self.kept).into_iter().peekable();
        while let Some(checkpoint) = rest.next() {
            let is_needless = match (stays.last(), rest.peek()) {
                (Some(before), Some(after)) => {
                    after.version - before.version <= (now - after.version) / PART_OF_AGE
                }
                _ => false,
            };
            if !is_needless {
                stays.push(checkpoint);
            }
        }
        let mut bytes: usize = stays.iter().map(|checkpoint| checkpoint.state.size()).sum();
        let mut needless = 0;
        while bytes > MOST_BYTES / 2 && needless + 1 < stays.len() {
            bytes -= stays[needless].state.size();
            needless += 1;
        }
        stays.drain(..needless);
        self.kept = stays;
        self.bytes = bytes;
    }
}
