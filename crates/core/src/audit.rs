//! Acts of administration as events: what they are called, where they go, and what may be said as their reason.

use crate::error::{Error, Result};
use crate::name::edge_fault;
use crate::word::words;

/// The category of acts of administration.
pub const CATEGORY: &str = "$audit";
/// The category of what says who was shown values in clear.
pub const ACCESS: &str = "$access";
/// The longest reference to why something was done, in bytes.
const REFERENCE_MAX_BYTES: usize = 64;

/// The sign of an address, also as it is written small and in full width.
const AT_SIGNS: [char; 3] = ['@', '\u{FE6B}', '\u{FF20}'];

words! {
    /// What an act defines, and takes back.
    Kind {
        #[allow(missing_docs)]
        Tenant = "tenant",
        #[allow(missing_docs)]
        Grant = "grant",
        /// What is demanded of a role that needs a token, and granted to it, in every tenant.
        TokenRole = "token_role",
        #[allow(missing_docs)]
        TokenKey = "token_key",
        #[allow(missing_docs)]
        Fold = "fold",
        #[allow(missing_docs)]
        Upcaster = "upcaster",
        /// A schema version of an event type.
        EventType = "event_type",
        /// That a period is closed.
        Period = "period",
        /// Which values of documents are not shown.
        Protection = "protection",
        /// What a category asks of its events.
        CategoryRule = "category_rule",
        #[allow(missing_docs)]
        Decider = "decider",
        /// Of these only what is done to dead letters is an act.
        ScheduledCommand = "scheduled_command",
        #[allow(missing_docs)]
        Invariant = "invariant",
        #[allow(missing_docs)]
        Projection = "projection",
        #[allow(missing_docs)]
        Subscription = "subscription",
        /// That a copy is the original now.
        Activation = "activation",
    }
}

impl Kind {
    /// The type of the event that says so: it was made, changed, or taken back.
    #[must_use]
    pub const fn event_type(self, change: Change) -> &'static str {
        use Change::{Altered, Dropped, Made};
        match (self, change) {
            (Self::Tenant, Made) => "TenantCreated",
            (Self::Tenant, Altered) => "TenantAltered",
            (Self::Tenant, Dropped) => "TenantDropped",
            (Self::Grant, Made) => "PrivilegeGranted",
            (Self::Grant, Altered) => "PrivilegeAltered",
            (Self::Grant, Dropped) => "PrivilegeRevoked",
            (Self::TokenRole, Made) => "TokenRoleGranted",
            (Self::TokenRole, Altered) => "TokenRoleAltered",
            (Self::TokenRole, Dropped) => "TokenRoleRevoked",
            (Self::TokenKey, Made) => "TokenKeyAdded",
            (Self::TokenKey, Altered) => "TokenKeyAltered",
            (Self::TokenKey, Dropped) => "TokenKeyRevoked",
            (Self::Fold, Made) => "FoldRegistered",
            (Self::Fold, Altered) => "FoldAltered",
            (Self::Fold, Dropped) => "FoldUnregistered",
            (Self::Upcaster, Made) => "UpcasterRegistered",
            (Self::Upcaster, Altered) => "UpcasterAltered",
            (Self::Upcaster, Dropped) => "UpcasterUnregistered",
            (Self::EventType, Made) => "EventTypeCreated",
            (Self::EventType, Altered) => "EventTypeAltered",
            (Self::EventType, Dropped) => "EventTypeDropped",
            (Self::Period, Made) => "PeriodClosed",
            (Self::Period, Altered) => "PeriodReopened",
            (Self::Period, Dropped) => "PeriodForgotten",
            (Self::Protection, Made) => "FieldsProtected",
            (Self::Protection, Altered) => "ProtectionAltered",
            (Self::Protection, Dropped) => "FieldsUnprotected",
            (Self::CategoryRule, Made | Altered) => "CategoryAltered",
            (Self::CategoryRule, Dropped) => "CategoryForgotten",
            (Self::Decider, Made) => "DeciderRegistered",
            (Self::Decider, Altered) => "DeciderAltered",
            (Self::Decider, Dropped) => "DeciderUnregistered",
            (Self::Invariant, Made) => "InvariantRegistered",
            (Self::Invariant, Altered) => "InvariantAltered",
            (Self::Invariant, Dropped) => "InvariantUnregistered",
            (Self::ScheduledCommand, Made) => "CommandScheduled",
            (Self::ScheduledCommand, Altered) => "ScheduledCommandAltered",
            (Self::ScheduledCommand, Dropped) => "CommandUnscheduled",
            (Self::Projection, Made) => "ProjectionCreated",
            (Self::Projection, Altered) => "ProjectionAltered",
            (Self::Projection, Dropped) => "ProjectionDropped",
            (Self::Subscription, Made) => "SubscriptionCreated",
            (Self::Subscription, Altered) => "SubscriptionAltered",
            (Self::Subscription, Dropped) => "SubscriptionDropped",
            (Self::Activation, Made | Altered) => "LogActivated",
            (Self::Activation, Dropped) => "LogDeactivated",
        }
    }
}

/// What became of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    #[allow(missing_docs)]
    Made,
    #[allow(missing_docs)]
    Altered,
    #[allow(missing_docs)]
    Dropped,
}

impl Change {
    /// By what there was and what there is; None where there was and is nothing.
    #[must_use]
    pub const fn of(was: bool, is: bool) -> Option<Self> {
        match (was, is) {
            (false, true) => Some(Self::Made),
            (true, true) => Some(Self::Altered),
            (true, false) => Some(Self::Dropped),
            (false, false) => None,
        }
    }
}

/// The acts that change no definition.
pub mod act {
    #![allow(missing_docs)]
    pub const PROJECTION_PAUSED: &str = "ProjectionPaused";
    pub const PROJECTION_RESUMED: &str = "ProjectionResumed";
    pub const PROJECTION_REBUILT: &str = "ProjectionRebuildBegun";
    pub const EVENT_SKIPPED: &str = "EventSkipped";
    pub const SUBSCRIPTION_MOVED: &str = "SubscriptionMoved";
    pub const DEAD_LETTER_RETRIED: &str = "DeadLetterRetried";
    pub const DEAD_LETTER_DROPPED: &str = "DeadLetterDropped";
    pub const PAGE_KEY_CHANGED: &str = "PageKeyChanged";
    /// No act of administration: a page of events was shown in clear.
    pub const EVENTS_REVEALED: &str = "EventsRevealed";
}

/// The stream that a tenant's acts go to.
#[must_use]
pub fn stream_of(tenant_uuid: &str) -> String {
    format!("{CATEGORY}-{tenant_uuid}")
}

/// The stream that says who was shown values of a tenant in clear.
#[must_use]
pub fn access_stream_of(tenant_uuid: &str) -> String {
    format!("{ACCESS}-{tenant_uuid}")
}

/// Under which id a tenant's reserved streams stand: beside its own, so that whoever reads the tenant's does not come by them.
#[must_use]
pub const fn reserved_of(tenant_id: i64) -> i64 {
    -tenant_id
}

/// Whether streams under that id are reserved ones.
#[must_use]
pub const fn is_of_acts(id: i64) -> bool {
    id < 0
}

/// The tenant whose streams, reserved or not, stand under an id.
#[must_use]
pub const fn owner_of(id: i64) -> i64 {
    id.abs()
}

/// What to name as a reference.
pub const REFERENCE: &str =
    "It is kept for ever, beside who did it: name a ticket, such as CHG-4711, and say there why.";

/// Why something was done that becomes an event: a reference, such as the number of a ticket, and no free text, which could hold what must be
/// erased one day.
///
/// # Errors
/// [`Error::InvalidArgument`] for the argument `reason`.
pub fn checked_reference(reason: &str) -> Result<&str> {
    let fault = if reason.trim().is_empty() {
        Some("must not be empty".to_owned())
    } else if reason.len() > REFERENCE_MAX_BYTES {
        Some(format!("must be a reference of at most {REFERENCE_MAX_BYTES} bytes, not of {}", reason.len()))
    } else if reason.contains(AT_SIGNS) {
        // It may be an address: it is not repeated where others read it.
        Some("must be a reference without @".to_owned())
    } else {
        edge_fault(reason)
    };
    match fault {
        None => Ok(reason),
        Some(reason) => {
            Err(Error::InvalidArgument { argument: "reason".to_owned(), reason, hint: Some(REFERENCE.to_owned()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Word as _;

    #[test]
    fn every_change_of_every_kind_has_a_name_of_its_own_but_for_an_activation_and_a_category() {
        let mut names: Vec<&str> = Kind::ALL
            .iter()
            .flat_map(|kind| [Change::Made, Change::Altered, Change::Dropped].map(|change| kind.event_type(change)))
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len() * 3 - 2);
        for &kind in Kind::ALL {
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::named("table"), None);
    }

    #[test]
    fn what_was_and_is_makes_a_change() {
        assert_eq!(Change::of(false, true), Some(Change::Made));
        assert_eq!(Change::of(true, true), Some(Change::Altered));
        assert_eq!(Change::of(true, false), Some(Change::Dropped));
        assert_eq!(Change::of(false, false), None);
    }

    #[test]
    fn a_reason_is_a_reference() {
        for good in ["CHG-1", "ticket 4711", &"x".repeat(64)] {
            assert_eq!(checked_reference(good), Ok(good));
        }
        for bad in ["", "   ", &"x".repeat(65), "ask ada@example.org", "two\nlines"] {
            let error = checked_reference(bad).expect_err(bad);
            assert_eq!(error.sqlstate(), "ES005", "{bad:?}");
        }
        // As names and tags do: nothing that is not seen, no outer blank, one form for one text; and no address in other signs.
        for bad in [
            "\u{200B}",
            "CHG\u{202E}-1",
            "CHG-1 ",
            "\u{A0}",
            "CHG-e\u{301}",
            "ada\u{FF20}example.org",
            "ada\u{FE6B}example.org",
        ] {
            let error = checked_reference(bad).expect_err(bad);
            assert_eq!(error.sqlstate(), "ES005", "{bad:?}");
        }
    }
}
