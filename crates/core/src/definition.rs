//! What is there, beside what is asked for: creating with `if_not_exists` goes through where both are the same, and says what differs else.

use crate::error::{Error, Result};
use crate::quote::shortened;

/// A part of a definition: its argument's name, as it is there, and as it was asked for. NULL reads `NULL`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are what their names say
pub struct Part {
    pub argument: &'static str,
    pub there: String,
    pub asked: String,
}

impl Part {
    /// Two values as text.
    pub fn new(argument: &'static str, there: impl ToString, asked: impl ToString) -> Self {
        Self { argument, there: there.to_string(), asked: asked.to_string() }
    }

    /// Two optional texts.
    #[must_use]
    pub fn optional(argument: &'static str, there: Option<&str>, asked: Option<&str>) -> Self {
        let shown = |text: Option<&str>| text.unwrap_or("NULL").to_owned();
        Self { argument, there: shown(there), asked: shown(asked) }
    }

    /// Two lists in an order, of which those elements are shown that are in one of them only.
    #[must_use]
    pub fn list(argument: &'static str, there: &[String], asked: &[String]) -> Self {
        let others = |of: &[String], than: &[String]| {
            let others: Vec<&str> = of.iter().filter(|one| !than.contains(one)).map(String::as_str).collect();
            if others.is_empty() { "no other".to_owned() } else { others.join(", ") }
        };
        if there == asked {
            return Self::new(argument, "", "");
        }
        match (others(there, asked), others(asked, there)) {
            (one, other) if one == other => {
                Self::new(argument, there.join(", "), format!("the order {}", asked.join(", ")))
            }
            (one, other) => Self::new(argument, one, other),
        }
    }

    /// Two lists, of which the order means nothing; None = all.
    #[must_use]
    pub fn set(argument: &'static str, there: Option<&[String]>, asked: Option<&[String]>) -> Self {
        Self { argument, there: set(there), asked: set(asked) }
    }
}

fn set(names: Option<&[String]>) -> String {
    let Some(names) = names else { return "NULL".to_owned() };
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    format!("{names:?}").replace('[', "{").replace(']', "}")
}

/// Lets a second creation of the same definition through.
///
/// # Errors
/// [`Error::InvalidArgument`] for `argument` that says which parts of the `kind` called `name` differ.
pub fn same(argument: &str, kind: &str, name: &str, parts: &[Part], hint: Option<String>) -> Result<()> {
    let differing: Vec<String> = parts
        .iter()
        .filter(|part| part.there != part.asked)
        .map(|part| format!("{} {}, not {}", part.argument, shortened(&part.there), shortened(&part.asked)))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: argument.to_owned(),
        reason: format!(
            "must be new, or of the same definition: there is {} {kind} {} with {}",
            if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" },
            crate::shown(name),
            differing.join("; ")
        ),
        hint,
    })
}
