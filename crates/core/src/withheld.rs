//! What is withheld from whoever asks, whatever his rights: appends to a tenant that was ended, and clear values of which no record could be made. Owns the
//! words of these errors; [`crate::Error`] carries them.
use crate::quote::shown;
use serde_json::{Value, json};

/// Why it is withheld.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what their names say; the variants say what they mean
pub enum Withheld {
    /// ES045: the tenant was closed, for that reason, a reference.
    #[error("tenant {} is closed: nothing more is recorded in it", shown(tenant))]
    TenantClosed { tenant: String, closed_at: String, reason: String },

    /// ES040: what began in one tenant would go on in another, which has its name by now, or was chosen meanwhile; `what` reads "transaction".
    #[error("tenant {} is another tenant than the one that this {what} began in", shown(tenant))]
    TenantChanged { tenant: String, what: &'static str },

    /// ES070: nobody could write down in time who is shown events of the stream; `reason` reads "no worker …".
    #[error("stream {} is not revealed: no record of it could be made within {waited_ms} ms", shown(stream))]
    Unrecorded { stream: String, waited_ms: u64, reason: &'static str },

    /// 40001: what is protected has changed since a query that gives its rows in portions began to read.
    #[error("what is protected has changed since this query began to read")]
    RulesChanged,
}

impl Withheld {
    /// The five characters of its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::TenantClosed { .. } => "ES045",
            Self::TenantChanged { .. } => "ES040",
            Self::Unrecorded { .. } => "ES070",
            Self::RulesChanged => "40001",
        }
    }

    /// The same facts for machines.
    pub(crate) fn facts(&self) -> Value {
        match self {
            Self::TenantClosed { tenant, closed_at, reason } => {
                json!({"tenant": tenant, "closed_at": closed_at, "reason": reason})
            }
            Self::TenantChanged { tenant, .. } => json!({"tenant": tenant}),
            Self::Unrecorded { stream, reason, .. } => json!({"stream": stream, "reason": reason}),
            Self::RulesChanged => json!({"view": "eventstream.protections"}),
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::TenantClosed { .. } => {
                "What it has recorded can be read as before. A closed tenant is not opened again: append to another one.".to_owned()
            }
            Self::TenantChanged { what, .. } => {
                let renamed = "The one before may have another name by now: see eventstream.tenants.";
                format!("Begin the {what} again, in the tenant that it is for. {renamed}")
            }
            Self::Unrecorded { .. } => {
                "Nothing was shown. A worker process makes the record: see the server's log, and raise max_worker_processes where all of them are taken. What this transaction itself has made, commit first. Where standbys are synchronous, they must have it, too.".to_owned()
            }
            Self::RulesChanged => {
                "PostgreSQL may have read ahead under the rules of before: run the query again, in a new transaction.".to_owned()
            }
        }
    }
}
