//! Operations that are executed outside of the database, once a key: what a call of one is answered. Owns the decision, and what is kept of a request; the row,
//! its locks and its clock are src/command's.
//!
//! ```text
//! (new key) ─▶ executing ─┬─ completed ─▶ replayed
//!                 ▲       ├─ failed, not retryable ─▶ replayed
//!                 │       ├─ failed, retryable ──┐
//!                 │       └─ lease over ─────────┤
//!                 └────── the next attempt ◀─────┘      kept long enough ─▶ forgotten ─▶ as a new key
//! ```

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::check_text;
use crate::word::words;
use sha2::{Digest, Sha256};

/// Bytes that a key may have.
pub const MOST_KEY_BYTES: usize = 1024;

words! {
    /// Where an operation stands.
    Stage {
        /// An attempt is under way, or was left.
        Executing = "executing",
        /// It was done.
        Completed = "completed",
        /// It was not.
        Failed = "failed",
        /// It was either, and its answer is not kept any more.
        Forgotten = "forgotten",
    }
}

/// What is known of an operation whose key a call has. Moments in one unit and epoch.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Where it stands.
    pub stage: Stage,
    /// Whether the request is the one of before.
    pub is_same: bool,
    /// Whether the failure may be tried again.
    pub is_retryable: bool,
    /// Until when the attempt is its owner's alone.
    pub lease_until: i64,
    /// When its answer is forgotten; None: never.
    pub forget_at: Option<i64>,
}

/// What a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It executes the operation: with another key, or for the first time since it was forgotten.
    First,
    /// It executes the operation after an attempt that came to nothing.
    Again,
    /// It is told what came of it.
    Replay,
    /// Another attempt is under way.
    InProgress,
    /// The key belongs to another request.
    Differs,
}

impl Known {
    /// What a call is answered at that moment.
    #[must_use]
    pub fn outcome(&self, now: i64) -> Outcome {
        let is_over = self.stage != Stage::Executing && self.forget_at.is_some_and(|at| at <= now);
        if self.stage == Stage::Forgotten || is_over {
            return Outcome::First;
        }
        if !self.is_same {
            return Outcome::Differs;
        }
        match self.stage {
            Stage::Executing if self.lease_until > now => Outcome::InProgress,
            Stage::Executing => Outcome::Again,
            Stage::Failed if self.is_retryable => Outcome::Again,
            Stage::Completed | Stage::Failed | Stage::Forgotten => Outcome::Replay,
        }
    }
}

/// A command key, which is the client's name for one intention.
///
/// # Errors
/// [`Error::InvalidArgument`] for what has not 1 to [`MOST_KEY_BYTES`] bytes, or has signs that are not seen.
pub fn check_key(key: &str) -> Result<&str, Error> {
    check_text("command_key", key, MOST_KEY_BYTES)
}

/// What is kept of a request: it can be compared with another, and not be read.
#[must_use]
pub fn request_digest(salt: &[u8], request: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"eventstream request 1\0");
    hasher.update(salt);
    hasher.update(request);
    hasher.finalize().into()
}

/// The id of the n-th event of an operation: the same for every attempt. A uuid of version 8.
#[must_use]
pub fn event_id(salt: &[u8], n: i64) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(b"eventstream event id 1\0");
    hasher.update(salt);
    hasher.update(n.to_be_bytes());
    let digest: Hash = hasher.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id[6] = id[6] & 0x0F | 0x80;
    id[8] = id[8] & 0x3F | 0x80;
    id
}
