//! What a writer expects of the stream it appends to. Owns the meaning of the argument `expected_version`,
//! promises that nothing but NULL, 0 and positive versions passes; called by every append.

use crate::error::{Error, Result};

/// The argument `expected_version` of an append, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// NULL: whatever version the stream is at.
    Any,
    /// 0: the stream has no events yet.
    NoStream,
    /// N > 0: the stream is exactly at version N.
    Exact(i64),
}

impl ExpectedVersion {
    /// Checks the argument as SQL gave it (`None` = NULL).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a negative number: other stores use -1 and -2 for "none" and "exists",
    /// and guessing which was meant could write what should have been a conflict.
    pub fn parse(expected_version: Option<i64>) -> Result<Self> {
        match expected_version {
            None => Ok(Self::Any),
            Some(0) => Ok(Self::NoStream),
            Some(version) if version > 0 => Ok(Self::Exact(version)),
            Some(version) => Err(Error::InvalidArgument {
                argument: "expected_version".to_owned(),
                reason: format!("must be NULL, 0 or a positive version, not {version}"),
                hint: Some(
                    "0 means that the stream has no events yet, NULL means any version, and N > 0 means exactly N."
                        .to_owned(),
                ),
            }),
        }
    }

    /// Whether a stream at version `actual` (0 = it has no events) is what the writer expects.
    #[must_use]
    pub fn accepts(self, actual: i64) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == 0,
            Self::Exact(version) => actual == version,
        }
    }

    /// The number as SQL has it: `None` for any, 0 for no stream.
    #[must_use]
    pub fn as_option(self) -> Option<i64> {
        match self {
            Self::Any => None,
            Self::NoStream => Some(0),
            Self::Exact(version) => Some(version),
        }
    }
}
