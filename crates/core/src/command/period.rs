//! Closed periods: until when the events of a category, or those of them that bear a tag, may not say that they occurred. Owns that decision; when it
//! is asked, and that the answer still stands at the commit, is src/command's. A period is closed to its last microsecond: what occurred at `until` is refused.

use std::collections::HashMap;

/// What is closed of a tenant's categories.
#[derive(Debug, Default)]
pub struct Periods(HashMap<String, Of>);

/// What is closed of a category.
#[derive(Debug, Default)]
struct Of {
    all: Option<i64>,
    by_tag: HashMap<String, i64>,
}

/// A closing that was made, for whoever looks afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Only events that bear it; None: all.
    pub tag: Option<String>,
    /// What occurred then or before is closed.
    pub until: i64,
    /// The last position that was handed out before it.
    pub after_position: i64,
    /// The last one before it was taken back; None: it stands.
    pub to_position: Option<i64>,
}

impl Closing {
    /// Whether an event was recorded in spite of it.
    #[must_use]
    pub fn is_broken_by<T: AsRef<str>>(&self, position: i64, occurred_at: i64, tags: &[T]) -> bool {
        position > self.after_position
            && self.to_position.is_none_or(|to| position <= to)
            && occurred_at <= self.until
            && self.tag.as_deref().is_none_or(|closed| tags.iter().any(|tag| tag.as_ref() == closed))
    }
}

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed<'a> {
    /// None: for all events of the category.
    pub tag: Option<&'a str>,
    /// In the unit and epoch of what was closed.
    pub until: i64,
}

impl Periods {
    /// Closes a category up to that moment, for events that bear the tag (None: for all); what is closed further stays so.
    pub fn close(&mut self, category: &str, tag: Option<&str>, until: i64) {
        let closed = self.0.entry(category.to_owned()).or_default();
        match tag {
            None => closed.all = closed.all.max(Some(until)),
            Some(tag) => {
                let of_tag = closed.by_tag.entry(tag.to_owned()).or_insert(until);
                *of_tag = until.max(*of_tag);
            }
        }
    }

    /// Whether nothing is closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What keeps an event of that category with these tags from having occurred then: of several the one that is closed furthest, and of those the one for
    /// all events.
    #[must_use]
    pub fn closed(&self, category: &str, tags: &[&str], occurred_at: i64) -> Option<Closed<'_>> {
        let of = self.0.get(category)?;
        let all = of.all.map(|until| Closed { tag: None, until });
        let by_tag = tags.iter().filter_map(|tag| {
            let (tag, &until) = of.by_tag.get_key_value(*tag)?;
            Some(Closed { tag: Some(tag), until })
        });
        let applies = all.into_iter().chain(by_tag).filter(|closed| closed.until >= occurred_at);
        applies.max_by_key(|closed| (closed.until, closed.tag.is_none()))
    }
}
