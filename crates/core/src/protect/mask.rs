//! What of a document is protected.
use super::ways::Ways;
use crate::error::{Error, Result};
use crate::quote::shown;
use crate::rules::Pointer;

/// The most pointers of a list.
pub const MOST_POINTERS: usize = 64;

/// What of a document is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// What pointers lead to.
    Listed(Ways),
    /// All but what they lead to.
    AllBut(Ways),
}

impl Mask {
    /// Protects what these pointers lead to: `*` is any element of an array (in an object, the key `*`), and the outermost of two counts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for that argument.
    pub fn listed<S: AsRef<str>>(argument: &str, pointers: &[S]) -> Result<Self> {
        ways(argument, pointers).map(Self::Listed)
    }

    /// Protects everything but what these pointers lead to.
    ///
    /// # Errors
    /// As [`Mask::listed`].
    pub fn all_but<S: AsRef<str>>(argument: &str, pointers: &[S]) -> Result<Self> {
        ways(argument, pointers).map(Self::AllBut)
    }

    /// Whether it protects nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Listed(ways) if ways.is_nowhere())
    }

    /// Whether what a pointer leads to is always protected: it, or what it lies in.
    #[must_use]
    pub fn covers(&self, pointer: &Pointer) -> bool {
        match self {
            Self::Listed(ways) => ways.end_on(pointer),
            Self::AllBut(ways) => !ways.touch(pointer),
        }
    }
}

fn ways<S: AsRef<str>>(argument: &str, pointers: &[S]) -> Result<Ways> {
    let wrong = |reason: String| Error::InvalidArgument { argument: argument.into(), reason, hint: None };
    if pointers.len() > MOST_POINTERS {
        return Err(wrong(format!("must have at most {MOST_POINTERS} pointers, not {}", pointers.len())));
    }
    let parsed = pointers.iter().map(AsRef::as_ref).map(|text| {
        let pointer = Pointer::parse(text).map_err(|reason| wrong(format!("{reason}: {}", shown(text))))?;
        if pointer.tokens().any(|token| token.is_end()) {
            return Err(wrong(format!("must not have the step -, which leads to nothing: {}", shown(text))));
        }
        Ok(pointer)
    });
    Ways::new(&parsed.collect::<Result<Vec<_>>>()?).map_err(wrong)
}
