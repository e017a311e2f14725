//! The privileges of `es_grant`. Owns their names and which of them a category may narrow;
//! who holds which is the business of `src/access`.

/// What a role may do in a tenant ("Privileges" in the SQL API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Privilege {
    /// Streams, states, views.
    Read,
    /// Appending events.
    Append,
    /// Consuming subscriptions.
    Consume,
    /// Registering, creating, steering and dropping folds, upcasters, projections and subscriptions.
    Manage,
    /// What keeps the log going and shows nothing of it: partitions, due snapshots, retention.
    Upkeep,
    /// Verification, chain heads, grants, access.
    Audit,
    /// Tenants and grants.
    Admin,
}

impl Privilege {
    /// All of them, in the order the documentation lists them.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Append, Self::Consume, Self::Manage, Self::Upkeep, Self::Audit, Self::Admin];

    /// The one of that name, in lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|privilege| privilege.as_str() == name)
    }

    /// Its name in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Consume => "consume",
            Self::Manage => "manage",
            Self::Upkeep => "upkeep",
            Self::Audit => "audit",
            Self::Admin => "admin",
        }
    }

    /// Whether a grant of it may be limited to one category: the others concern the whole tenant.
    #[must_use]
    pub const fn may_be_narrowed(self) -> bool {
        matches!(self, Self::Read | Self::Append | Self::Consume | Self::Manage)
    }
}
