//! When what leads to events is left for a leap: where it misses again and again, the other criteria that have an index are asked where theirs go on, and what lies between is not
//! read. All is counted in steps of a scan, so that asking costs no more than what was walked in vain: a walk that nothing is found by costs a few times what it would without leaps
//! at most, and no more than a few times what the rarest of the criteria has.

/// What one descent of an index costs.
const DESCENT: usize = 16;
/// What an event costs that is looked at: it is looked up by its position.
pub const EVENT: usize = DESCENT;
/// So many steps in vain are enough, at least and at most.
const FEW: usize = 4 * EVENT;
const MANY: usize = 4096 * EVENT;

/// The misses since the last hit, or the last leap.
pub struct Misses {
    steps: usize,
    enough: usize,
    /// The position from which on nothing was found.
    since: i64,
}

impl Misses {
    pub fn from(position: i64) -> Self {
        Self { steps: 0, enough: FEW, since: position }
    }

    /// It was not in vain: nothing is missed before that position.
    pub fn hit(&mut self, position: i64) {
        (self.steps, self.since) = (0, position);
    }

    /// So many more steps in vain; whether that is enough.
    pub fn miss(&mut self, steps: usize) -> bool {
        self.steps += steps;
        self.steps >= self.enough
    }

    /// The walk goes on from `from` at `to`, which so many descents have told. The next leap is asked for when as much is walked as that costs; later where less was skipped
    /// than had been walked through.
    pub fn leapt(&mut self, (from, to): (i64, i64), descents: usize) {
        let is_useful = from.abs_diff(to) > self.since.abs_diff(from);
        let least = if is_useful { FEW } else { self.enough * 2 };
        let enough = descents.saturating_mul(DESCENT).max(least).min(MANY);
        *self = Self { steps: 0, enough, since: to };
    }
}
