//! Protected fields: which values of a document are not shown, named by JSON Pointers, and the residual of a document, which has null in their places.
//!
//! Promises: what is protected is never in a residual, whatever the document looks like; what is not stays as it is, to the scale of a number. A value that stands in the way of a pointer, and is
//! none that the way could lead through, is told, so that nobody stores it, and is not shown either. Keys, lengths of arrays and what is absent stay visible.
mod binary;
mod given;
mod mask;
mod ways;

use crate::error::{Error, Result};
use crate::quote::shown;
use crate::rules::{Pointer, Read, Rules};
pub use binary::{Residual, Stray, residual};
pub use given::Given;
pub use mask::{MOST_POINTERS, Mask};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What is protected of one schema version of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Of payloads.
    pub payload: Mask,
    /// Of metadata.
    pub metadata: Mask,
}

/// Members of metadata that eventstream itself reads, and finds events by: never protected.
const OWN_MEMBERS: [&str; 5] = ["actor", "causation_id", "command", "correlation_id", "traceparent"];

impl Protection {
    /// As es_protect is given it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], named by its argument.
    pub fn new<S: AsRef<str>>(
        pointers: Option<&[S]>,
        clear_pointers: Option<&[S]>,
        metadata_pointers: &[S],
    ) -> Result<Self> {
        let payload = match (pointers, clear_pointers) {
            (Some(pointers), None) => Mask::listed("pointers", pointers)?,
            (None, Some(clear)) => Mask::all_but("clear_pointers", clear)?,
            (given, _) => {
                let found = if given.is_some() { "both are given" } else { "neither is given" };
                return Err(Error::InvalidArgument {
                    argument: "pointers".into(),
                    reason: format!("or clear_pointers must be given, exactly one of the two: {found}"),
                    hint: Some("pointers => '{}' protects nothing of the payload.".into()),
                });
            }
        };
        let metadata = Mask::listed("metadata_pointers", metadata_pointers)?;
        for text in metadata_pointers.iter().map(AsRef::as_ref) {
            let pointer = Pointer::parse(text).unwrap_or_default();
            let first = pointer.tokens().next().map(|token| token.as_str().to_owned());
            if first.as_deref().is_none_or(|first| OWN_MEMBERS.contains(&first)) {
                return Err(Error::InvalidArgument {
                    argument: "metadata_pointers".into(),
                    reason: format!(
                        "must not lead to what eventstream itself reads ({}): {}",
                        OWN_MEMBERS.join(", "),
                        shown(text)
                    ),
                    hint: None,
                });
            }
        }
        Ok(Self { payload, metadata })
    }

    /// Whether it protects nothing: that of a schema version that is named so that it may be appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty() && self.metadata.is_empty()
    }
}

/// What a rule says of a schema version of a type.
#[derive(Debug, Clone, Copy)]
pub enum Cover<'a> {
    /// Nothing: the type has no rule.
    Free,
    /// This.
    By(&'a Rc<Protection>),
    /// Nothing, though it does of others of the type: no such thing is appended, and what is there is not shown.
    Missing {
        /// The highest schema version that a rule names.
        highest: i32,
    },
}

/// Everything that is protected in a tenant, by type and schema version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protections(BTreeMap<String, BTreeMap<i32, Rc<Protection>>>);

impl Protections {
    /// One more.
    pub fn add(&mut self, name: String, schema_version: i32, protection: Protection) {
        self.0.entry(name).or_default().insert(schema_version, Rc::new(protection));
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said of that schema version.
    #[must_use]
    pub fn of(&self, name: &str, schema_version: i32) -> Cover<'_> {
        let Some(versions) = self.0.get(name) else { return Cover::Free };
        match versions.get(&schema_version) {
            Some(protection) => Cover::By(protection),
            None => Cover::Missing { highest: versions.keys().next_back().copied().unwrap_or_default() },
        }
    }

    /// What of these rules of a fold reads what is protected, in some schema version, or may do so by a key that an event names: it would find null there, and compute on that. Where it stands in the
    /// rules, of which event type, and what.
    #[must_use]
    pub fn read_by<'r>(&self, rules: &'r Rules) -> Option<(&'r str, &'r str, String)> {
        let found = rules.first_read(|event_type, read| {
            self.versions(event_type).any(|(_, protection)| match read {
                Read::Payload(pointer) => protection.payload.covers(pointer),
                Read::Keyed(keyed) => protection.payload.may_cover(keyed.steps()),
                Read::Metadata(pointer) => protection.metadata.covers(pointer),
            })
        });
        found.map(|(place, event_type, read)| match read {
            Read::Payload(pointer) => (place, event_type, pointer.to_string()),
            Read::Keyed(keyed) => (place, event_type, keyed.to_string()),
            Read::Metadata(pointer) => (place, event_type, format!("event:/metadata{pointer}")),
        })
    }

    /// What is protected of the metadata of events, of whatever type.
    pub fn of_metadata(&self) -> impl Iterator<Item = &Mask> {
        self.0
            .values()
            .flat_map(BTreeMap::values)
            .map(|protection| &protection.metadata)
            .filter(|mask| !mask.is_empty())
    }

    /// The types that rules name, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The schema versions of a type that rules name, each in its order.
    pub fn versions(&self, name: &str) -> impl DoubleEndedIterator<Item = (i32, &Rc<Protection>)> {
        self.0.get(name).into_iter().flatten().map(|(&version, protection)| (version, protection))
    }
}
