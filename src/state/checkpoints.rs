//! States along a stream in the order of valid time, kept so that a late event can be folded in without going back to the beginning:
//! many of the recent ones, fewer and fewer of the older ones, bounded in number and bytes.
use crate::pg::jsonb::Stored;
use eventstream_core::rules::Rank;
use std::rc::Rc;

/// The state made of the events known so far up to a place.
#[derive(Clone)]
pub struct Checkpoint {
    /// How many they are.
    pub folded: i64,
    /// Those that were not late are those up to this version.
    pub prefix: i64,
    /// In the order of valid time.
    pub last: Rank,
    pub state: Rc<Stored>,
}

#[derive(Default)]
pub struct Checkpoints {
    /// In the order of valid time.
    kept: Vec<Checkpoint>,
    bytes: usize,
}

/// At this number they are thinned out; about half of them stay.
const MOST: usize = 128;
const MOST_BYTES: usize = 16 << 20;
/// Between two that stay lie at most so many events, as a part of those that came since.
const PART_OF_AGE: i64 = 4;

impl Checkpoints {
    pub fn keep(&mut self, checkpoint: Checkpoint) {
        self.bytes += checkpoint.state.size();
        self.kept.push(checkpoint);
        if self.kept.len() > MOST || self.bytes > MOST_BYTES {
            self.thin_out();
        }
    }

    /// The newest one that a late event comes behind which occurred at `occurred_at`. Those that would have to hold it are forgotten.
    pub fn before(&mut self, occurred_at: i64) -> Option<Checkpoint> {
        while let Some(newest) = self.kept.pop_if(|newest| newest.last.0 > occurred_at) {
            self.bytes -= newest.state.size();
        }
        self.kept.last().cloned()
    }

    fn thin_out(&mut self) {
        let Some(now) = self.kept.last().map(|newest| newest.folded) else { return };
        let mut stays: Vec<Checkpoint> = Vec::with_capacity(self.kept.len());
        let mut rest = std::mem::take(&mut self.kept).into_iter().peekable();
        while let Some(checkpoint) = rest.next() {
            let is_needless = match (stays.last(), rest.peek()) {
                (Some(before), Some(after)) => after.folded - before.folded <= (now - after.folded) / PART_OF_AGE,
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
