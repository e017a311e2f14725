//! What a session is told that works, or tries to work, without a token that it needs: the words of ES042, ES043 and ES044, and who may say so. Owns these; [`crate::Error`] carries them.
use crate::error_words::in_category;
use crate::quote::shown;
use serde_json::{Value, json};

/// A call that the token of its transaction, or that there is none, does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what their names say; the variants say what they mean
pub enum Tokenless {
    /// ES042: the role needs a token in each transaction, and this one has none.
    #[error("role {} needs a token in each transaction, and this one has none", shown(role))]
    Required { role: String },

    /// ES042: this transaction had one, which counts no more: it has expired, or its key was revoked.
    #[error("the token of this transaction does not count any more")]
    Ended,

    /// ES043: why is in the server's log.
    #[error("the token is refused")]
    Refused,

    /// ES044: this transaction is of the tenant that its token names.
    #[error("this transaction is of tenant {} by its token, and not of {}", shown(tenant), shown(other))]
    OtherTenant { tenant: String, other: String },

    /// 42501: the role has the privilege, of that category (None: of some that nobody names), and its token leaves it out.
    #[error(
        "the token of this transaction leaves out the privilege \"{privilege}\" of role {} in tenant {}{}",
        shown(role),
        shown(tenant),
        in_category(category.as_deref())
    )]
    LeftOut { role: String, privilege: &'static str, tenant: String, category: Option<String> },

    /// 42501: which roles need a token, and which of them have grants in every tenant, is no tenant's to say.
    #[error("role {} may not decide for every tenant", shown(role))]
    OfEveryTenant { role: String },

    /// 42501: what tells of every tenant, by its name in SQL, is not for who is held to one.
    #[error("{what} tells of every tenant, and this session is held to one by a token")]
    TellsOfAll { what: &'static str },

    /// 42501: the role has no privilege admin there, and one that works with tokens is to have none.
    #[error("role {} lacks the privilege \"admin\" in tenant {}", shown(role), shown(tenant))]
    NoAdmin { role: String, tenant: String },
}

impl Tokenless {
    /// The five characters of its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::Required { .. } | Self::Ended => "ES042",
            Self::Refused => "ES043",
            Self::OtherTenant { .. } => "ES044",
            Self::LeftOut { .. } | Self::OfEveryTenant { .. } | Self::TellsOfAll { .. } | Self::NoAdmin { .. } => {
                "42501"
            }
        }
    }

    /// The same facts for machines.
    #[must_use]
    pub fn facts(&self) -> Value {
        match self {
            Self::Required { role } => json!({"role": role, "function": "es_use_token"}),
            Self::OfEveryTenant { role } => json!({"role": role}),
            Self::TellsOfAll { what } => json!({"function": what.trim_end_matches("()")}),
            Self::NoAdmin { role, tenant } => {
                json!({"role": role, "privilege": "admin", "tenant": tenant, "category": null})
            }
            Self::Ended => json!({"function": "es_use_token"}),
            Self::Refused => json!({"argument": "token"}),
            Self::OtherTenant { tenant, other } => json!({"tenant": tenant, "other": other}),
            Self::LeftOut { role, privilege, tenant, category } => {
                json!({"role": role, "privilege": privilege, "tenant": tenant, "category": category})
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Required { .. } => {
                "Begin each transaction with select es_use_token($1), the token bound as a parameter, in the same transaction as what follows."
            }
            Self::Ended => {
                "It has expired, or its key was revoked: begin a new transaction with a new token. A retry with the same event ids writes nothing twice."
            }
            Self::Refused => {
                "The server's log says why. Have it issued anew, for this log (es_log_info) and this tenant, by an issuer whose key is registered (es_add_token_key)."
            }
            // What it registers runs with all rights of the role.
            Self::LeftOut { privilege: "manage" | "admin", .. } => {
                "The role has it, but manage and admin are never left by a token with the claims privileges or categories. Begin a new transaction, with a token that has neither."
            }
            Self::LeftOut { .. } => {
                "The role has it: no grant is missing. The claims privileges and categories of a token say what is left of it. Begin a new transaction, with a token that leaves this."
            }
            Self::OfEveryTenant { .. } => "Superusers and the owner of the log do.",
            Self::TellsOfAll { .. } => "Ask as a role that needs no token, and uses none, in pg_monitor.",
            Self::NoAdmin { .. } => {
                "Have it done by a role that is admin and needs no token: what admin grants, and whose keys it adds, outlives every token, so no login that needs one is to have it."
            }
            Self::OtherTenant { .. } => {
                "A transaction has one tenant: do the rest in another one, with a token of its own."
            }
        }
    }
}
