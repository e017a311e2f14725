//! Conditions: which events a decision depends on, whatever stream they are in. Owns what a query may say. What it matches, and how far that was seen, is
//! found out by who has the log.
//!
//! The events that an append would have to be told of are those that match one of the items: of one of its types, if it names any, and with all of its tags.

use crate::command::tags::tag_set;
use crate::error::{Error, Result};
use crate::name::EventType;
use crate::options::{ItemElement, Items, QueryElement};

/// What to do about an item that names nothing.
const EVERYTHING_HINT: &str = r#"Every event of the tenant is meant by {"all": true}."#;

/// Which events: those that match one of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// One at least.
    pub items: Vec<Item>,
}

/// An item of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// One of which an event must be; None: any.
    pub event_types: Option<Vec<String>>,
    /// All of which it must bear: a set.
    pub tags: Vec<String>,
    /// That tag of them which was written first. Where it is kept from others no event comes that matches: an event has all of its tags when it is inserted.
    pub first_tag: Option<String>,
}

impl Query {
    /// As it was given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], named by the place within the query.
    pub fn read(given: &QueryElement) -> Result<Self> {
        match (&given.items, given.all) {
            (None, Some(true)) => Ok(Self { items: vec![Item::default()] }),
            (_, Some(false)) => Err(wrong("all", "must be true, or not be there", None)),
            (Some(_), Some(true)) => Err(wrong("all", "must not stand beside items", None)),
            (None, None) => Err(wrong("", r#"must have items, or be {"all": true}"#, None)),
            (Some(items), None) => Self::of_items(items, EVERYTHING_HINT),
        }
    }

    /// As its items were given. `everything`: how any event is asked for there.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], named by the place within the query.
    pub fn of_items(items: &Items, everything: &str) -> Result<Self> {
        if items.0.is_empty() {
            return Err(wrong("items", "must have at least one element", None));
        }
        let read = items.0.iter().enumerate().map(|(place, item)| {
            Item::read(item, everything).map_err(|error| error.within(&format!("[{place}]")).within("items"))
        });
        Ok(Self { items: read.collect::<Result<_>>()? })
    }

    /// Whether it has an item that any event may match, whatever its tags.
    #[must_use]
    pub fn is_of_any_tags(&self) -> bool {
        self.items.iter().any(|item| item.tags.is_empty())
    }
}

impl Item {
    fn read(given: &ItemElement, everything: &str) -> Result<Self> {
        if given.event_types.is_none() && given.tags.is_none() {
            return Err(wrong("", "must have event_types, or tags", Some(everything)));
        }
        for (key, texts) in [("event_types", &given.event_types), ("tags", &given.tags)] {
            if texts.as_ref().is_some_and(|texts| texts.0.is_empty()) {
                return Err(wrong(key, "must have at least one element, or not be there", None));
            }
        }
        for (place, event_type) in given.event_types.iter().flat_map(|texts| &texts.0).enumerate() {
            EventType::parse_as(&format!("event_types[{place}]"), event_type)?;
        }
        let tags = given.tags.iter().flat_map(|texts| &texts.0).copied();
        let owned = |text: &str| text.to_owned();
        Ok(Self {
            event_types: given.event_types.as_ref().map(|texts| texts.0.iter().copied().map(owned).collect()),
            first_tag: tags.clone().next().map(owned),
            tags: tag_set("tags", tags)?.into_iter().map(owned).collect(),
        })
    }
}

fn wrong(argument: &str, reason: &str, hint: Option<&str>) -> Error {
    Error::InvalidArgument { argument: argument.into(), reason: reason.into(), hint: hint.map(Into::into) }
}
