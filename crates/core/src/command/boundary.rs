//! The boundary of an append: what it depends on, and whether that is still so. Owns the decision, and the order in which what is wrong is
//! said; the numbers come from rows that are locked. Called by the judge of every append.

use crate::error::{Error, Result};
use crate::expected::ExpectedVersion;

/// What an append depends on in one stream.
#[derive(Debug, Clone, Copy)]
pub struct Dependency<'a> {
    /// Its name.
    pub stream: &'a str,
    /// At which version the caller saw it.
    pub expected: ExpectedVersion,
    /// What the stream is to the append.
    pub role: Role,
}

/// What a stream is to an append that depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Events are appended to it.
    Appended {
        /// Whether it must have events already.
        must_exist: bool,
    },
    /// Only its version matters: what was decided on it holds as long as it stands still, also where it is closed.
    Checked,
}

/// How a stream was found, behind its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Of its newest event; 0: it has none.
    pub version: i64,
    /// Whether that event closed it.
    pub is_closed: bool,
}

impl Found {
    /// There is no such stream.
    pub const NOTHING: Self = Self { version: 0, is_closed: false };
}

impl Dependency<'_> {
    /// Whether the append goes on.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`], [`Error::VersionConflict`] with both versions, [`Error::StreamClosed`]: the first of them that is true.
    /// A writer who expected an older version hears of the conflict, and not of how the stream ended since.
    pub fn judge(&self, found: Found) -> Result<()> {
        let (stream, actual) = (self.stream, found.version);
        if self.role == (Role::Appended { must_exist: true }) && actual == 0 {
            return Err(Error::StreamNotFound { stream: stream.into() });
        }
        match self.expected.as_option() {
            Some(expected) if !self.expected.accepts(actual) => {
                Err(Error::VersionConflict { stream: stream.into(), expected, actual, is_closed: found.is_closed })
            }
            _ if found.is_closed && self.role != Role::Checked => {
                Err(Error::StreamClosed { stream: stream.into(), version: actual })
            }
            _ => Ok(()),
        }
    }
}
