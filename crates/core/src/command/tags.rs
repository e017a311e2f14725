//! Tags: what an event is about, beside its stream, so that a decision finds it across streams. Owns what a tag may be, and how many; called for
//! every event that is to be appended.

use crate::error::{Error, Result};
use crate::name::check_label;

/// Tags that an event may have.
pub const MOST_TAGS: usize = 32;

/// One tag. `argument`: what the caller calls it.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no label (1 to 255 bytes, as an event type).
pub fn check_tag<'a>(argument: &str, tag: &'a str) -> Result<&'a str> {
    check_label(argument, tag)
}

/// The set of these tags, as it is stored, hashed and compared: in the order of their bytes, each once, however often it was given.
/// `argument`: what the caller calls them.
///
/// # Errors
/// [`Error::InvalidArgument`] for a tag that is no label (1 to 255 bytes, as an event type), named by its place, and for more than
/// [`MOST_TAGS`] of them.
pub fn tag_set<'a>(argument: &str, given: impl IntoIterator<Item = &'a str>) -> Result<Vec<&'a str>> {
    let mut tags = Vec::new();
    for (place, tag) in given.into_iter().enumerate() {
        tags.push(check_tag(&format!("{argument}[{place}]"), tag)?);
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > MOST_TAGS {
        let reason = format!("must have at most {MOST_TAGS} tags, not {}", tags.len());
        return Err(Error::InvalidArgument { argument: argument.to_owned(), reason, hint: None });
    }
    Ok(tags)
}
