//! A state, and of what it is the state: which version, and where it came from.
use crate::log::scan::Late;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::List;
use crate::state::moment::Selection;
use std::rc::Rc;
use std::time::Duration;

/// Where folding starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    InitialState,
    Snapshot,
    Cache,
}

impl From {
    pub fn as_str(self) -> &'static str {
        match self {
            From::InitialState => "initial_state",
            From::Snapshot => "snapshot",
            From::Cache => "cache",
        }
    }
}

/// The state, and how it came about.
pub struct Answer {
    pub state: Rc<Stored>,
    /// Whether it is a function of the chain: not where a failed upcaster was skipped.
    pub may_be_kept: bool,
    /// The newest version that counts; 0 where none does.
    pub version: i64,
    /// The stream's newest version in the view.
    pub head_version: i64,
    pub selection: Selection,
    pub from: From,
    pub from_version: i64,
    /// Events folded.
    pub folded: u64,
    /// Of them, those that were folded out of the order of versions, or lie behind the prefix.
    pub lates: List<Late>,
    /// What is wrong with snapshots that would have been used.
    pub snapshot_problems: Vec<String>,
    /// The time it took to find out what counts and where to start, and to fold.
    pub looked_up_in: Duration,
    pub folded_in: Duration,
}
