//! What of a document is protected.
use super::ways::{Met, Ways};
use crate::breach::Breach;
use crate::error::{Error, Result};
use crate::quote::shown;
use crate::rules::{Pointer, Token};

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

    /// Whether what stands in the way of a pointer could be what it protects: not where it protects all but what pointers lead to.
    #[must_use]
    pub fn refuses_strays(&self) -> bool {
        matches!(self, Self::Listed(_))
    }

    /// Whether what a pointer leads to is protected: it, or what it lies in.
    #[must_use]
    pub fn covers(&self, pointer: &Pointer) -> bool {
        self.may_cover(pointer.tokens().map(Some))
    }

    /// The same of a pointer of which steps that are None are keys that an event names: whether one of them may lead there.
    pub fn may_cover<'s>(&self, steps: impl Iterator<Item = Option<&'s Token>>) -> bool {
        match self {
            Self::Listed(ways) => ways.meet(steps, true) == Met::End,
            Self::AllBut(ways) => ways.meet(steps, false) == Met::Nowhere,
        }
    }

    /// Whether a breach of a schema may come of null in the place of what is protected: it is there, or the rule asks what lies within.
    #[must_use]
    pub fn may_make(&self, breach: &Breach) -> bool {
        let Ok(pointer) = Pointer::parse(&breach.value) else { return true };
        // What an if has found decides elsewhere.
        if breach.rule.split('/').any(|step| matches!(step, "then" | "else")) {
            return true;
        }
        // A key that the schema does not name is told as *.
        let steps = || pointer.tokens().map(|token| (token.as_str() != "*").then_some(token));
        let (is_within, lies_around) = match self {
            Self::Listed(ways) => (ways.meet(steps(), true) == Met::End, ways.meet(steps(), true) == Met::GoOn),
            Self::AllBut(ways) => (ways.meet(steps(), false) == Met::Nowhere, ways.meet(steps(), false) == Met::GoOn),
        };
        let keyword = breach.rule.rsplit('/').next().unwrap_or_default();
        is_within || lies_around && !OF_SHAPE.contains(&keyword)
    }
}

/// Keywords that look at nothing which a residual hides: keys, lengths, and what is an object or an array.
const OF_SHAPE: [&str; 8] = [
    "additionalProperties",
    "dependentRequired",
    "maxItems",
    "maxProperties",
    "minItems",
    "minProperties",
    "required",
    "type",
];

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
