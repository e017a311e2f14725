//! Commands for later: where one stands, and what comes after an attempt. Owns the decision; the row, its locks and its clock are src/command's.
//!
//! ```text
//! pending ─┬─(decided)──▶ done                     ┌──(es_retry_dead_letter)──▶ pending
//!     ▲    ├─(ES033)────▶ refused                  │
//!     │    ├─(failed too often, role gone)──▶ dead ┼──(es_drop_dead_letter)───▶ dropped
//!     │    ├─(es_unschedule_command)─┐             └──(es_unschedule_command)─┐
//!     └────┴─(failed) a pause        └─▶ unscheduled ◀────────────────────────┘
//! ```

use crate::backoff;
use crate::word::words;
use std::time::Duration;

/// The SQLSTATE of a refusal.
pub const REFUSED: &str = "ES033";

words! {
    /// Where a scheduled command stands.
    Stage {
        /// It waits for its time, or for its next attempt.
        Pending = "pending",
        /// It was executed.
        Done = "done",
        /// Its decider said no.
        Refused = "refused",
        /// It failed, and is not tried again by itself.
        Dead = "dead",
        /// It was not wanted any more.
        Unscheduled = "unscheduled",
        /// Somebody gave it up.
        Dropped = "dropped",
    }
}

/// What comes after an attempt that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was refused.
    Refused,
    /// Another attempt after this pause.
    Again(Duration),
    /// Nothing by itself.
    Dead,
}

/// How often, and after which pauses, what fails is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts after the first one.
    pub retries: u32,
    /// The pause before the first of them; each further one is twice as long.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Patience {
    /// After `attempts` of the command with that id, of which the last one failed so.
    #[must_use]
    pub fn after(&self, id: i64, attempts: u32, sqlstate: &str) -> Next {
        match sqlstate {
            REFUSED => Next::Refused,
            _ if attempts > self.retries => Next::Dead,
            _ => Next::Again(backoff::spread(backoff::pause(attempts, self.first, self.longest), id, attempts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { retries: 2, first: Duration::from_secs(4), longest: Duration::from_secs(6) };

    #[test]
    fn a_refusal_is_an_answer_however_often_it_was_tried() {
        assert_eq!(PATIENCE.after(1, 1, REFUSED), Next::Refused);
        assert_eq!(PATIENCE.after(1, 9, REFUSED), Next::Refused);
    }

    #[test]
    fn what_fails_is_tried_again_after_growing_pauses_and_then_dead() {
        let seconds = |attempts| match PATIENCE.after(7, attempts, "P0001") {
            Next::Again(pause) => pause.as_secs_f64(),
            other => panic!("{other:?}"),
        };
        assert!((4.0..=5.0).contains(&seconds(1)) && (6.0..=7.5).contains(&seconds(2)));
        assert_eq!(PATIENCE.after(7, 3, "P0001"), Next::Dead);
        assert_eq!(PATIENCE.after(7, 4, "42501"), Next::Dead);
        assert_eq!(Patience { retries: 0, ..PATIENCE }.after(7, 1, "P0001"), Next::Dead);
    }
}
