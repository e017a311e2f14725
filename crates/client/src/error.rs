//! What can go wrong in a call: a refusal by a rule of eventstream's or of PostgreSQL's, with what the database said of it, or a failure between here and there.
use crate::json::Json;
use std::fmt;
use tokio_postgres::error::SqlState;

/// A result whose error is [`enum@Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused the call, and said why.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The connection failed, or could not be had: whether the call was executed is not known, unless it bore a key or event ids and is sent again.
    #[error("{}", Connection(.0))]
    Connection(#[source] tokio_postgres::Error),
    /// What should be a JSON document is none, or not one of the type asked for.
    #[error("not the JSON that was expected: {0}")]
    NotJson(#[source] serde_json::Error),
    /// The database answered in a form that this client does not know.
    #[error("the database answered in a form that this client does not know: {0}")]
    Answer(#[source] tokio_postgres::Error),
    /// An argument cannot be sent.
    #[error("{0}")]
    Argument(String),
}

/// What the database said: PostgreSQL's fields of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    /// `ES001`, `42501`, …
    pub sqlstate: String,
    pub message: String,
    /// The numbers of it. eventstream's own errors have a JSON object here.
    pub detail: Option<Json>,
    /// What to do.
    pub hint: Option<String>,
}

/// What sort of refusal it is, by its SQLSTATE (docs/reference.md, Errors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ES001: the stream is not at the version that was expected ([`Refusal::versions`]).
    VersionConflict,
    /// ES002: no stream of that name.
    StreamNotFound,
    /// ES003: the stream is closed for ever.
    StreamClosed,
    /// ES004, ES005, ES007, ES011, ES041: the call itself is wrong; sent again it fails again.
    InvalidArgument,
    /// ES006: the event id, or some of a batch, was used with other content.
    EventIdReused,
    /// ES010, ES012, ES020, ES036, ES040: what was named does not exist.
    NotFound,
    /// ES013, ES014, ES037: code of the users', a fold, an upcaster or a decider, failed.
    UsersCode,
    /// ES015: something that the decision rests on was appended meanwhile.
    ConditionFailed,
    /// ES016 to ES019, ES035: a declared rule forbids what was to be recorded.
    RuleBroken,
    /// ES030: the command key was used for another request.
    CommandKeyReused,
    /// ES024, ES031: a lease, or an attempt, is somebody else's by now.
    LeaseLost,
    /// ES025: a position, or a page, of another log, or beyond this one.
    PositionUnusable,
    /// ES032: the page is none of this query.
    PageRefused,
    /// ES033: the decider refused the command ([`Refusal::code`]).
    CommandRefused,
    /// ES034: a decision reached beyond its boundary.
    BeyondBoundary,
    /// ES042, ES043: a token is missing, refused or over.
    TokenRequired,
    /// 42501, ES044: the role, or its token, may not.
    Forbidden,
    /// ES045: the tenant is closed.
    TenantClosed,
    /// ES008, ES009, ES026, ES070 and the classes 53, 57 and 58: the server cannot serve it as it is now.
    Unavailable,
    /// 40001, 40P01, 55P03: another transaction was in the way; the same again may succeed.
    Contention,
    /// Any other.
    Other,
}

impl Kind {
    pub fn of(sqlstate: &str) -> Self {
        match sqlstate {
            "ES001" => Self::VersionConflict,
            "ES002" => Self::StreamNotFound,
            "ES003" => Self::StreamClosed,
            "ES004" | "ES005" | "ES007" | "ES011" | "ES041" => Self::InvalidArgument,
            "ES006" => Self::EventIdReused,
            "ES010" | "ES012" | "ES020" | "ES036" | "ES040" => Self::NotFound,
            "ES013" | "ES014" | "ES037" => Self::UsersCode,
            "ES015" => Self::ConditionFailed,
            "ES016" | "ES017" | "ES018" | "ES019" | "ES035" => Self::RuleBroken,
            "ES024" | "ES031" => Self::LeaseLost,
            "ES025" => Self::PositionUnusable,
            "ES030" => Self::CommandKeyReused,
            "ES032" => Self::PageRefused,
            "ES033" => Self::CommandRefused,
            "ES034" => Self::BeyondBoundary,
            "ES042" | "ES043" => Self::TokenRequired,
            "42501" | "ES044" => Self::Forbidden,
            "ES045" => Self::TenantClosed,
            "ES008" | "ES009" | "ES026" | "ES070" => Self::Unavailable,
            "40001" | "40P01" | "55P03" => Self::Contention,
            other if ["53", "57", "58"].iter().any(|class| other.starts_with(class)) => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

impl Refusal {
    /// Of [`Kind::VersionConflict`]: the version that was expected, and the one that the stream has.
    pub fn versions(&self) -> Option<(i64, i64)> {
        let detail = self.detail.as_ref().filter(|_| self.kind == Kind::VersionConflict)?;
        Some((detail.integer_at("/expected_version")?, detail.integer_at("/actual_version")?))
    }

    /// Of [`Kind::CommandRefused`]: the code that the decider refused with.
    pub fn code(&self) -> Option<String> {
        self.detail.as_ref().filter(|_| self.kind == Kind::CommandRefused)?.string_at("/code")
    }

    /// Whether it is one of eventstream's own errors.
    pub fn is_ours(&self) -> bool {
        self.sqlstate.starts_with("ES")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for Refusal {}

impl Error {
    /// The refusal, where the database refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    pub fn kind(&self) -> Option<Kind> {
        self.refusal().map(|refusal| refusal.kind)
    }

    /// Whether the connection is of no use any more, or was ended by the server.
    pub fn is_of_connection(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            // The server ends (57P01 to 57P05), or takes no connection yet.
            Self::Refused(refusal) => refusal.sqlstate.starts_with("57P") || refusal.sqlstate.starts_with("08"),
            _ => false,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return if is_of_form(&error) { Self::Answer(error) } else { Self::Connection(error) };
        };
        let sqlstate = said.code().code();
        let detail = said.detail().map(|detail| {
            Json::parse_text(detail).or_else(|_| Json::of(detail)).expect("a text can be written as JSON")
        });
        Self::Refused(Box::new(Refusal {
            kind: Kind::of(sqlstate),
            sqlstate: sqlstate.to_owned(),
            message: said.message().to_owned(),
            detail,
            hint: said.hint().map(str::to_owned),
        }))
    }
}

/// Whether the answer came, and could not be read: the connection is whole.
fn is_of_form(error: &tokio_postgres::Error) -> bool {
    let said = error.to_string();
    !error.is_closed()
        && (said.contains("deserializing column")
            || said.contains("serializing parameter")
            || said.contains("unexpected number of rows"))
}

/// A failure of the connection, with its cause: tokio-postgres says only what it was at.
struct Connection<'a>(&'a tokio_postgres::Error);

impl fmt::Display for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection to the database failed: {}", self.0)?;
        match std::error::Error::source(self.0) {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// The code of a failure that a statement met in a transaction that had failed before it: it says nothing by itself.
pub fn is_of_aborted(error: &Error) -> bool {
    error.refusal().is_some_and(|refusal| refusal.sqlstate == SqlState::IN_FAILED_SQL_TRANSACTION.code())
}
