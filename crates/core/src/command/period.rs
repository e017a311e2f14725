//! Closed periods: until when the events of a category, or those of them that bear a tag, may not say that they occurred. Owns that decision; when it
//! is asked, and that the answer still stands at the commit, is src/command's. A period is closed to its last microsecond: what occurred at `until` is refused.

use std::collections::HashMap;

/// What is closed of a tenant's categories.
#[derive(Debug, Default)]
pub struct Periods(HashMap<String, Vec<Of>>);

#[derive(Debug)]
struct Of {
    tag: Option<String>,
    until: i64,
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
        match closed.iter_mut().find(|of| of.tag.as_deref() == tag) {
            Some(of) => of.until = of.until.max(until),
            None => closed.push(Of { tag: tag.map(ToOwned::to_owned), until }),
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
        let applies = |of: &&Of| of.until >= occurred_at && of.tag.as_deref().is_none_or(|tag| tags.contains(&tag));
        let among = self.0.get(category)?.iter().filter(applies);
        let furthest = among.max_by_key(|of| (of.until, of.tag.is_none()))?;
        Some(Closed { tag: furthest.tag.as_deref(), until: furthest.until })
    }
}
