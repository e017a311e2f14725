//! Criteria: what each may be. An event is found where it meets all that are given; of a list it has to meet one.

use crate::argument::Argument;
use crate::command::condition;
use crate::command::tags::tag_set;
use crate::error::{Error, Result};
use crate::name::{Category, EventType, STREAM_MAX_BYTES, StreamName, check_label, is_reserved};
use crate::options::{CriteriaElement, Texts};
use crate::word::Sequence;

/// The most names in one criterion: each is a descent of its own.
pub const MOST_NAMES: usize = 100;
/// The member of an event's metadata that is its correlation id.
pub const CORRELATION: &str = "correlation_id";
/// The longest correlation id that is looked for, in bytes.
pub const MOST_CORRELATION_BYTES: usize = 255;
/// What stands before a correlation id where tags are looked for: no tag has a control character.
pub const CORRELATION_MARK: char = '\u{1}';

/// What an event with that correlation id is found by; None where it is not found so: it is empty, or too long.
#[must_use]
pub fn correlation_tag(correlation_id: &str) -> Option<String> {
    let is_found = (1..=MOST_CORRELATION_BYTES).contains(&correlation_id.len());
    is_found.then(|| format!("{CORRELATION_MARK}{correlation_id}"))
}

/// What comes after everything that begins with `prefix`, byte by byte; None where nothing does.
#[must_use]
pub fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The range skips what is no character.
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// Criteria as they were given, checked, but for documents and times.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are what their names say
pub struct Criteria {
    pub streams: Option<Vec<String>>,
    pub stream_prefix: Option<String>,
    pub categories: Option<Vec<String>>,
    pub event_types: Option<Vec<String>>,
    pub items: Option<condition::Query>,
    /// A set.
    pub tags: Vec<String>,
    pub subjects: Option<Vec<String>>,
    pub correlation_id: Option<String>,
    pub is_backward: bool,
}

impl Criteria {
    /// # Errors
    /// [`Error::InvalidArgument`], named by the place within the criteria; [`Error::InvalidStreamName`].
    pub fn read<D>(given: &CriteriaElement<D>) -> Result<Self> {
        let order = given.order.map(|word| Sequence::parse("order", word)).transpose()?;
        let tags = given.tags.iter().flat_map(|texts| &texts.0).copied();
        if given.tags.as_ref().is_some_and(|tags| tags.0.is_empty()) {
            return Err(wrong("tags", NONE));
        }
        Ok(Self {
            streams: names("streams", given.streams.as_ref(), |_, name| StreamName::parse(name).map(drop))?,
            stream_prefix: given.stream_prefix.map(prefix).transpose()?,
            categories: names("categories", given.categories.as_ref(), category)?,
            event_types: names("event_types", given.event_types.as_ref(), |place, name| {
                EventType::parse_as(place, name).map(drop)
            })?,
            items: given.items.as_ref().map(|items| condition::Query::of_items(items, EVERYTHING_HINT)).transpose()?,
            tags: tag_set("tags", tags)?.into_iter().map(ToOwned::to_owned).collect(),
            subjects: names("subjects", given.subjects.as_ref(), |place, name| check_label(place, name).map(drop))?,
            correlation_id: given.correlation_id.map(correlation).transpose()?,
            is_backward: order == Some(Sequence::Backward),
        })
    }
}

/// What to do about an item that names nothing.
const EVERYTHING_HINT: &str = "An event may be any one where there are no items: leave them out.";
const NONE: &str = "must have at least one element, or not be there";

/// A list of which an event has to meet one.
fn names(key: &str, given: Option<&Texts>, check: impl Fn(&str, &str) -> Result<()>) -> Result<Option<Vec<String>>> {
    let Some(Texts(texts)) = given else { return Ok(None) };
    if texts.is_empty() {
        return Err(wrong(key, NONE));
    }
    if texts.len() > MOST_NAMES {
        return Err(wrong(key, &format!("must have at most {MOST_NAMES} elements, not {}", texts.len())));
    }
    for (place, text) in texts.iter().enumerate() {
        check(&format!("{key}[{place}]"), text)?;
    }
    let mut names: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(Some(names))
}

fn category(place: &str, name: &str) -> Result<()> {
    if is_reserved(name) { Ok(()) } else { Category::parse(place, name).map(drop) }
}

fn prefix(given: &str) -> Result<String> {
    if (1..=STREAM_MAX_BYTES).contains(&given.len()) {
        return Ok(given.to_owned());
    }
    Err(wrong("stream_prefix", &format!("must have 1 to {STREAM_MAX_BYTES} bytes, not {}", given.len())))
}

fn correlation(given: &str) -> Result<String> {
    if correlation_tag(given).is_some() {
        return Ok(given.to_owned());
    }
    let reason = format!("must have 1 to {MOST_CORRELATION_BYTES} bytes, not {}", given.len());
    Err(wrong("correlation_id", &reason))
}

fn wrong(argument: &str, reason: &str) -> Error {
    Error::InvalidArgument { argument: argument.into(), reason: reason.into(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_prefix() {
        assert_eq!(after_prefix("account-1").as_deref(), Some("account-2"));
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(after_prefix("\u{10FFFF}\u{10FFFF}"), None);
        for prefix in ["x", "é", "\u{7F}", "\u{7FF}", "\u{FFFF}"] {
            let after = after_prefix(prefix).unwrap_or_default();
            assert!(after.as_str() > prefix && after > format!("{prefix}\u{10FFFF}\u{10FFFF}"));
        }
    }

    #[test]
    fn a_correlation_id_is_no_tag() {
        let tag = correlation_tag("c-1").unwrap_or_default();
        assert!(crate::command::tags::check_tag("tag", &tag).is_err());
        assert_eq!(correlation_tag(""), None);
        assert_eq!(correlation_tag(&"x".repeat(256)), None);
        assert_eq!(correlation_tag(&"x".repeat(255)).map(|tag| tag.len()), Some(256));
    }
}
