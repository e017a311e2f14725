//! Arguments that are one of a few words.
use crate::error::{Error, Result};
use crate::quote::shown;
use crate::word::Word;

/// `a`, `a or b`, `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// What an argument can mean.
pub trait Argument: Word {
    /// The one that an argument's word means.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the words there are.
    fn parse(argument: &str, word: &str) -> Result<Self> {
        Self::named(word).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|one| one.as_str()).collect();
            Error::InvalidArgument {
                argument: argument.into(),
                reason: format!("must be {}, not {}", listed(&words), shown(word)),
                hint: None,
            }
        })
    }
}

impl<W: Word> Argument for W {}
