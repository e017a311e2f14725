//! Command keys: a client's name for one intention. Owns what a key may be, and what of a command a repetition must have in common with the first.
use crate::error::Result;
use crate::hash::Hash;
use crate::name::check_text;
use sha2::{Digest, Sha256};

/// The longest key, in bytes.
pub const MOST_KEY_BYTES: usize = 1024;

/// Tells these bytes from all others that are hashed here.
const DOMAIN: &[u8] = b"eventstream command 1\0";

/// A key of 1 to 1,024 bytes, without outer blanks and what is not seen.
///
/// # Errors
/// [`crate::Error::InvalidArgument`] for the argument `command_key`.
pub fn check_key(key: &str) -> Result<&str> {
    check_text("command_key", key, MOST_KEY_BYTES)
}

/// What is kept of a command beside its answer: a repetition has the same.
#[derive(Debug, Clone, Copy)]
pub struct Repeated<'a> {
    /// Where it goes.
    pub stream: &'a str,
    /// Which it is.
    pub command_type: &'a str,
    /// JSON as PostgreSQL prints it, without what is protected: nobody guesses that by repetitions.
    pub payload: &'a [u8],
    /// With it.
    pub whole: &'a [u8],
    /// As it was given, in microseconds.
    pub occurred_at: Option<i64>,
}

impl Repeated<'_> {
    /// A digest over all of it, under a salt of the row's own: who reads the table cannot guess what the payload was.
    #[must_use]
    pub fn digest(&self, salt: &[u8]) -> Hash {
        self.digest_over(salt, self.payload)
    }

    /// Whether it is what has that digest. `is_its_own`: what was kept is executed as it was kept, and may be so since before something was protected.
    #[must_use]
    pub fn has(&self, salt: &[u8], digest: Option<&[u8]>, is_its_own: bool) -> bool {
        digest == Some(&self.digest(salt)[..]) || is_its_own && digest == Some(&self.digest_over(salt, self.whole)[..])
    }

    fn digest_over(&self, salt: &[u8], payload: &[u8]) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        for part in [salt, self.stream.as_bytes(), self.command_type.as_bytes(), payload] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        match self.occurred_at {
            None => hasher.update([0]),
            Some(moment) => {
                hasher.update([1]);
                hasher.update(moment.to_be_bytes());
            }
        }
        hasher.finalize().into()
    }
}
