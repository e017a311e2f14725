//! The privileges of `es_grant`. Owns their names and which of them a category may narrow;
//! who holds which is the business of `src/access`.
use crate::word::words;

words! {
    /// What a role may do in a tenant ("Privileges" in the SQL API).
    Privilege {
        /// Streams, states, views.
        Read = "read",
        /// Appending events.
        Append = "append",
        /// Having decisions made: commands, and operations outside that are executed once. It does not allow to append past them.
        Command = "command",
        /// Consuming subscriptions.
        Consume = "consume",
        /// Registering, creating, steering and dropping folds, upcasters, projections and subscriptions.
        Manage = "manage",
        /// What keeps the log going and shows nothing of it: partitions, due snapshots, retention.
        Upkeep = "upkeep",
        /// Seeing values that are protected, with a reason.
        Reveal = "reveal",
        /// Verification, chain heads, grants, access.
        Audit = "audit",
        /// Tenants and grants.
        Admin = "admin",
    }
}

impl Privilege {
    /// Whether a grant of it may be limited to one category: the others concern the whole tenant.
    #[must_use]
    pub const fn may_be_narrowed(self) -> bool {
        matches!(self, Self::Read | Self::Append | Self::Command | Self::Consume | Self::Manage | Self::Reveal)
    }
}
