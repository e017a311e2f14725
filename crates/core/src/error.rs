//! Every error of the product, one variant a condition. Owns SQLSTATE, message, DETAIL and HINT of each
//! ("Errors" in the SQL API), so that they are the same wherever the condition is met.
//! `src/pg` carries them to the client and adds nothing.

use serde_json::{Value, json};

use crate::breach::Breach;
use crate::broken::Broken;
pub use crate::error_words::Match;
use crate::error_words::{
    already, at_event, at_version, because, events_noun, fold_not_found, for_tag, holders_facts, in_category,
    matches_words, some_streams,
};
use crate::quote::shown;
use crate::tokenless::Tokenless;
use crate::undecided::Undecided;
use crate::violation::Violation;
use crate::withheld::Withheld;

/// A result whose error is [`enum@Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Fields under their own names, or values under others.
macro_rules! facts {
    (@ $field:ident) => { $field };
    (@ $field:ident $value:expr) => { $value };
    ($($field:ident $(= $value:expr)?),+) => { json!({ $(stringify!($field): facts!(@ $field $($value)?)),+ }) };
}

/// What went wrong. `to_string()` is the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what their names say; the variants say what they mean
pub enum Error {
    /// ES001: `expected_version` is not the stream's (0 = it has no events).
    #[error("version conflict on stream \"{stream}\": expected version {expected}, actual version {actual}")]
    VersionConflict { stream: String, expected: i64, actual: i64, is_closed: bool },

    /// ES002: no such stream in the current tenant.
    #[error("stream \"{stream}\" does not exist")]
    StreamNotFound { stream: String },

    /// ES003: the stream's last event, at `version`, is `StreamClosed`.
    #[error("stream \"{stream}\" was closed at version {version}")]
    StreamClosed { stream: String, version: i64 },

    /// ES004: `name` breaks a rule of stream names; `reason` says which ("must …").
    #[error("invalid stream name {name:?}: {reason}")]
    InvalidStreamName { name: String, reason: String },

    /// ES005: `reason` reads "must be …, not …".
    #[error("{argument} {reason}")]
    InvalidArgument { argument: String, reason: String, hint: Option<String> },

    /// ES006: an id that the stream has already, at `version`, or (None) that a batch for it has twice. `reason` goes on
    /// after the comma: "with another payload", "in one batch".
    #[error("event id {event_id} is {} stream \"{stream}\"{}, {reason}", already(*version), at_version(*version))]
    EventIdReused { stream: String, event_id: String, version: Option<i64>, reason: String },

    /// ES007: `what` is the finding, with its number and unit ("payload has 1048577 bytes as text"); `setting` is the full
    /// name of the setting; `actual` is the number alone, `None` where counting stopped at the limit.
    #[error("{what}, more than {setting} allows ({limit})")]
    LimitExceeded { setting: &'static str, limit: i64, actual: Option<i64>, what: String },

    /// ES008: `what` (a function, a feature) works only in a preloaded library.
    #[error("{what} needs eventstream in shared_preload_libraries")]
    PreloadRequired { what: String },

    /// ES009: `what` cannot work on a standby.
    #[error("{what} needs the primary, and this server is a standby")]
    PrimaryRequired { what: String },

    /// ES010: no fold of that name (None: no default one) for the category (None: in the tenant; neither: for what a decider's query matches).
    #[error("{}", fold_not_found(fold.as_deref(), category.as_deref()))]
    FoldNotFound { fold: Option<String>, category: Option<String> },

    /// ES011: rules with a mistake at `pointer` (a JSON Pointer into the rules); `reason` reads "must …".
    #[error("invalid rules: {} {reason}", if pointer.is_empty() { "the document" } else { pointer })]
    InvalidRules { pointer: String, reason: String },

    /// ES012: none at that version (None: none at all) that serves; `reason` where one is there that does not.
    #[error("stream \"{stream}\" has no snapshot{} by fold \"{fold}\"{}", at_version(*version), because(reason.as_deref()))]
    SnapshotNotFound { stream: String, fold: String, version: Option<i64>, reason: Option<String> },

    /// ES013: the fold cannot be used as it was registered: its function or its registrant is gone, or has changed.
    #[error("fold \"{fold}\" cannot be used: {reason}")]
    FoldUnusable { fold: String, reason: String },

    /// ES013: the fold made of an event what no state can be.
    #[error("fold \"{fold}\" failed on stream \"{stream}\" at version {version}: {reason}")]
    FoldFailed { fold: String, stream: String, version: i64, reason: String },

    /// ES013: as [`Error::FoldFailed`], on an event of es_simulate, which is not written.
    #[error("fold \"{fold}\" failed on stream \"{stream}\" at version {version}, which is not written: {reason}")]
    UnwrittenFailed { fold: String, stream: String, version: i64, reason: String },

    /// ES013: `failed` streams of a category (not `is_all`: or more) have no state, or (`is_misfit`) one that a
    /// view's columns cannot take; the first of them, and why.
    #[error(
        "{} of category \"{category}\" cannot be {}; the first met is \"{stream}\": {message} ({state})",
        some_streams(*failed, *is_all),
        if *is_misfit { "shown in the columns asked for" } else { "folded" }
    )]
    StatesFailed {
        category: String,
        fold: String,
        failed: i64,
        is_all: bool,
        is_misfit: bool,
        stream: String,
        // Boxed, because every result is as large as the largest of these.
        state: Box<str>,
        message: Box<str>,
    },

    /// 55000: a projection cannot write its state table.
    #[error("projection \"{projection}\" cannot write its state table {table}: {reason}")]
    TableUnusable { projection: String, table: String, reason: String },

    /// ES014: a step from one schema version to the next could not be made.
    #[error(
        "upcaster of \"{event_type}\" from schema version {from_schema_version} failed on stream \"{stream}\" at version \
         {version}: {reason}"
    )]
    UpcastFailed {
        stream: String,
        version: i64,
        event_type: String,
        from_schema_version: i32,
        reason: String,
        /// Its function or its registrant is gone, or has changed: it would fail for any event.
        is_unusable: bool,
    },

    /// ES015: events that match its query came since the condition was taken: after position `after` there are `matches` (at least, where nothing was
    /// `seen`: a plain condition), the first of which is `first`.
    #[error("the condition does not hold: {}", matches_words(*after, *seen, *matches))]
    ConditionFailed { after: i64, seen: Option<i64>, matches: i64, first: Option<Box<Match>> },

    /// ES015: the condition was taken of another log than this one, or of what this one was before; `reason` reads "it was taken …".
    #[error("the condition does not hold: {reason}")]
    ConditionOfAnother { reason: String },

    /// ES016: `what` ("payload of event 0 for stream …", "example") is none that the declared schema version allows. `is_example`: of what is being declared.
    #[error("{what} is refused by the schema of event type {} version {schema_version}: {breach}", shown(event_type))]
    PayloadRefused { what: String, event_type: String, schema_version: i32, breach: Box<Breach>, is_example: bool },

    /// ES016: the event type is declared, and this cannot be appended of it; `reason` reads "… is not appendable".
    #[error("event type {} is refused: {reason}", shown(event_type))]
    EventTypeRefused { event_type: String, reason: String, hint: String },

    /// ES017: an append breaks a rule of its category.
    #[error("{0}")]
    RuleBroken(Box<Broken>),

    /// ES018: it says that it occurred in a closed period. `what` ("event 1 for stream …"); the times in UTC.
    #[error(
        "{what} occurred at {occurred_at}, and category \"{category}\" is closed until {closed_until}{}",
        for_tag(tag.as_deref())
    )]
    PeriodClosed { what: String, category: String, tag: Option<String>, closed_until: Box<str>, occurred_at: Box<str> },

    /// ES019, 57014: what was appended breaks an invariant, or cannot be judged by it.
    #[error("{0}")]
    InvariantBroken(Box<Violation>),

    /// ES020: no projection of that name in the tenant.
    #[error("there is no projection {}", shown(projection))]
    ProjectionNotFound { projection: String },

    /// ES020: no subscription of that name in the tenant.
    #[error("there is no subscription {}", shown(subscription))]
    SubscriptionNotFound { subscription: String },

    /// ES021: it failed, and waits for somebody. `position`: of the event that fails, where that is known.
    #[error("projection \"{projection}\" is stopped{}: {message}", at_event(*position))]
    ProjectionStopped { projection: String, position: Option<i64>, sqlstate: String, message: String },

    /// ES022: it is being rebuilt already.
    #[error("projection \"{projection}\" is being rebuilt already")]
    RebuildInProgress { projection: String },

    /// ES023: the projection has not passed `up_to` in time; `reason` says what it waits for.
    #[error("projection \"{projection}\" has reached position {position}, not {up_to}, within {waited}: {reason}")]
    WaitTimeout { projection: String, up_to: i64, position: i64, waited: String, reason: String, holder: Option<i32> },

    /// ES024: the lease is not held; `reason` reads "it …".
    #[error("lease {lease_id} is not held: {reason}")]
    LeaseLost { lease_id: String, reason: String },

    /// ES026: `what` (a function) does nothing in a copy of a log before es_activate().
    #[error("{what} waits: this database is a copy of the log {log_id}")]
    NotActivated { what: String, log_id: String },

    /// ES025: the caller's position, given as `argument`, lies beyond the log.
    #[error("{argument} {position} lies beyond the log, whose last position is {last_position}")]
    PositionAhead { argument: String, position: i64, last_position: i64 },

    /// ES025: the caller's position, given as `argument`, is of another log than this one.
    #[error("{argument} {position} is of another log: of {given}, and this one is {log_id}")]
    PositionOfAnother { argument: String, position: i64, given: String, log_id: String },

    /// 40001: the transaction's snapshot does not show `version` of the stream, which lies below an event that it appended itself.
    #[error("could not serialize access: this transaction's snapshot does not show all of stream \"{stream}\"")]
    NotInSnapshot { stream: String, version: i64 },

    /// ES030: the command key was used for another request before. `of` is what it is a key of: "operation …".
    #[error("command key {} of {of} was used for another request", shown(key))]
    CommandKeyReused { of: String, key: String },

    /// ES030: it was used before a rule that hides of such requests what would tell whether this one is the same.
    #[error(
        "command key {} of {of} was used before fields of such requests were protected as they are now: whether this one is the same cannot be told any more",
        shown(key)
    )]
    CommandKeyHidden { of: String, key: String },

    /// ES031: the attempt is not under way any more; `reason` reads "it …".
    #[error("attempt {attempt_token} is not under way: {reason}")]
    AttemptLost { attempt_token: String, reason: String },

    /// ES032: the page is none of this query, of this tenant and of what the role may read here; or its key was changed twice since.
    #[error("the page is none of this query")]
    PageRefused,

    /// 40001: the transaction's snapshot does not show all events that match the query of a condition: what it reads would not be what the condition had seen.
    #[error("could not serialize access: this transaction's snapshot does not show all events that the query matches")]
    MatchesNotInSnapshot,

    /// ES016, ES033 to ES037: a command comes to nothing.
    #[error("{0}")]
    Undecided(Box<Undecided>),

    /// ES040: no such tenant, or none that the role may know of.
    #[error("tenant {} does not exist", shown(tenant))]
    TenantNotFound { tenant: String },

    /// ES041: the role may use several tenants (`tenants`) and has not said which, or may use none.
    #[error("role \"{role}\" must say which tenant it means")]
    TenantRequired { role: String, tenants: Vec<String> },

    /// ES042, ES043, ES044: what a role that needs a token has, or has not, said with one.
    #[error("{0}")]
    Token(Box<Tokenless>),

    /// 40001, ES040, ES045, ES070: what is no one's to have here and now; see [`Withheld`].
    #[error("{0}")]
    Withheld(Box<Withheld>),

    /// ES050: an attempt to change what was recorded.
    #[error("events cannot be changed: {operation} on {table} is refused")]
    Immutable { operation: String, table: String },

    /// ES050: an attempt to write a table that says what the log is, past the functions.
    #[error("{table} is written by eventstream's own functions only: {operation} is refused")]
    Foreign { operation: String, table: String },

    /// ES051: `command` would take `object` away from a log that has events, or alter it. `events`: at least so many where `more`.
    #[error("{command} is refused: {object} belongs to a log with {}{events} {}", if *more { "more than " } else { "" }, events_noun(*events))]
    Guarded { command: String, object: String, events: i64, more: bool },

    /// ES052: the sequence handed out a position that is not above the highest one of the log.
    #[error(
        "position {position} is not above {highest}, the highest one of the log: the sequence of positions was set back"
    )]
    PositionReused { position: i64, highest: i64 },

    /// 2BP01: `object` is to go, and `users` (folds, upcasters, projections) call it, or write it (`is_table`: a state table, or a column of one).
    #[error("{command} is refused: {object} is used by {}", users.join(" and by "))]
    InUse { command: String, object: String, users: Vec<String>, is_table: bool },

    /// 42501: the role lacks `privilege` in `tenant`, or in one category of it. `any`: it would do for any one category. `is_stranger`: it has nothing in what it named, which may be no tenant.
    #[error(
        "role \"{role}\" lacks the privilege \"{privilege}\" in tenant {}{}",
        shown(tenant),
        in_category(category.as_deref())
    )]
    InsufficientPrivilege {
        role: String,
        privilege: &'static str,
        tenant: String,
        category: Option<String>,
        any: bool,
        is_stranger: bool,
    },

    /// 42501: the role lacks manage in `tenant`, and is no member of pg_monitor: either lets it look at how the tenant runs.
    #[error(
        "role \"{role}\" is not a member of pg_monitor and lacks the privilege \"manage\" in tenant {}{}",
        shown(tenant),
        in_category(category.as_deref())
    )]
    OperatorRequired { role: String, tenant: String, category: Option<String>, is_stranger: bool },

    /// 55P03: who needs a tenant's appends to be quiet could not have that within `waited_ms`; `holders`: processes that append, and since when.
    #[error("the appends of tenant {} did not come to rest within {waited_ms} ms", shown(tenant))]
    GateBusy { tenant: String, waited_ms: u64, holders: Vec<(i32, String)> },

    /// 55P03: who must not meet another act of the tenant, or batches of its projections, waited `waited_ms` for them in vain.
    #[error(
        "other acts of administration of tenant {}, or batches of its projections, did not end within {waited_ms} ms",
        shown(tenant)
    )]
    ActsBusy { tenant: String, waited_ms: u64, holders: Vec<(i32, String)> },

    /// 0A000: a use of PostgreSQL that cannot be made safe, such as PREPARE TRANSACTION after an append.
    #[error("{what}")]
    FeatureNotSupported { what: String, hint: Option<String> },

    /// XX000: what cannot happen; never a user's mistake.
    #[error("eventstream internal error: {what}")]
    Internal { what: String },
}

impl Error {
    /// The five characters of its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::VersionConflict { .. } => "ES001",
            Self::StreamNotFound { .. } => "ES002",
            Self::StreamClosed { .. } => "ES003",
            Self::InvalidStreamName { .. } => "ES004",
            Self::InvalidArgument { .. } => "ES005",
            Self::EventIdReused { .. } => "ES006",
            Self::LimitExceeded { .. } => "ES007",
            Self::PreloadRequired { .. } => "ES008",
            Self::PrimaryRequired { .. } => "ES009",
            Self::FoldNotFound { .. } => "ES010",
            Self::InvalidRules { .. } => "ES011",
            Self::SnapshotNotFound { .. } => "ES012",
            Self::FoldUnusable { .. }
            | Self::FoldFailed { .. }
            | Self::UnwrittenFailed { .. }
            | Self::StatesFailed { .. } => "ES013",
            Self::UpcastFailed { .. } => "ES014",
            Self::ConditionFailed { .. } | Self::ConditionOfAnother { .. } => "ES015",
            Self::PayloadRefused { .. } | Self::EventTypeRefused { .. } => "ES016",
            Self::RuleBroken(_) => "ES017",
            Self::PeriodClosed { .. } => "ES018",
            Self::InvariantBroken(violation) => violation.sqlstate(),
            Self::ProjectionNotFound { .. } | Self::SubscriptionNotFound { .. } => "ES020",
            Self::ProjectionStopped { .. } => "ES021",
            Self::RebuildInProgress { .. } => "ES022",
            Self::WaitTimeout { .. } => "ES023",
            Self::LeaseLost { .. } => "ES024",
            Self::PositionAhead { .. } | Self::PositionOfAnother { .. } => "ES025",
            Self::NotActivated { .. } => "ES026",
            Self::CommandKeyReused { .. } | Self::CommandKeyHidden { .. } => "ES030",
            Self::AttemptLost { .. } => "ES031",
            Self::PageRefused => "ES032",
            Self::Undecided(undecided) => undecided.sqlstate(),
            Self::NotInSnapshot { .. } | Self::MatchesNotInSnapshot => "40001",
            Self::TenantNotFound { .. } => "ES040",
            Self::TenantRequired { .. } => "ES041",
            Self::Token(tokenless) => tokenless.sqlstate(),
            Self::Withheld(withheld) => withheld.sqlstate(),
            Self::Immutable { .. } | Self::Foreign { .. } => "ES050",
            Self::Guarded { .. } => "ES051",
            Self::PositionReused { .. } => "ES052",
            Self::InUse { .. } => "2BP01",
            Self::InsufficientPrivilege { .. } | Self::OperatorRequired { .. } => "42501",
            Self::GateBusy { .. } | Self::ActsBusy { .. } => "55P03",
            Self::TableUnusable { .. } => "55000",
            Self::FeatureNotSupported { .. } => "0A000",
            Self::Internal { .. } => "XX000",
        }
    }

    /// The same facts for machines: a JSON object. `None` for an internal error, which has none to offer.
    #[must_use]
    pub fn detail(&self) -> Option<Value> {
        Some(match self {
            Self::VersionConflict { stream, expected, actual, .. } => {
                facts!(stream, expected_version = expected, actual_version = actual)
            }
            Self::StreamNotFound { stream } => facts!(stream),
            Self::StreamClosed { stream, version } | Self::NotInSnapshot { stream, version } => facts!(stream, version),
            Self::InvalidStreamName { name, reason } => facts!(stream = name, reason),
            Self::InvalidArgument { argument, reason, .. } => facts!(argument, reason),
            Self::EventIdReused { stream, event_id, version, reason } => facts!(stream, event_id, version, reason),
            Self::LimitExceeded { setting, limit, actual, what } => facts!(setting, limit, actual, what),
            Self::PreloadRequired { what } => facts!(needed_by = what, setting = "shared_preload_libraries"),
            Self::PrimaryRequired { what } => facts!(needed_by = what),
            Self::FoldNotFound { fold, category } => facts!(fold, category),
            Self::InvalidRules { pointer, reason } => facts!(pointer, reason),
            Self::SnapshotNotFound { stream, fold, version, reason } => facts!(stream, fold, version, reason),
            Self::FoldUnusable { fold, reason } => facts!(fold, reason),
            Self::FoldFailed { fold, stream, version, reason }
            | Self::UnwrittenFailed { fold, stream, version, reason } => facts!(fold, stream, version, reason),
            Self::StatesFailed { category, fold, failed, is_all, stream, state, message, .. } => facts!(
                category,
                fold,
                streams_failed = failed,
                all_counted = is_all,
                stream,
                sqlstate = state,
                error = message
            ),
            Self::UpcastFailed { stream, version, event_type, from_schema_version, reason, .. } => {
                facts!(stream, version, event_type, from_schema_version, reason)
            }
            Self::ProjectionNotFound { projection } | Self::RebuildInProgress { projection } => facts!(projection),
            Self::SubscriptionNotFound { subscription } => facts!(subscription),
            Self::ProjectionStopped { projection, position, sqlstate, message } => {
                facts!(projection, global_position = position, sqlstate, error = message)
            }
            Self::WaitTimeout { projection, up_to, position, reason, holder, .. } => {
                facts!(projection, up_to, global_position = position, reason, pid = holder)
            }
            Self::LeaseLost { lease_id, reason } => facts!(lease_id, reason),
            Self::NotActivated { log_id, .. } => facts!(log_id),
            Self::PositionAhead { argument, position, last_position } => {
                facts!(argument, global_position = position, last_position)
            }
            Self::PositionOfAnother { argument, position, given, log_id } => {
                facts!(argument, global_position = position, given_log_id = given, log_id)
            }
            Self::TenantNotFound { tenant } => facts!(tenant),
            Self::Withheld(withheld) => withheld.facts(),
            Self::TenantRequired { role, tenants } => facts!(role, setting = "eventstream.tenant", tenants),
            Self::Immutable { operation, table } | Self::Foreign { operation, table } => facts!(operation, table),
            Self::Guarded { command, object, events, more } => facts!(command, object, events, more),
            Self::PositionReused { position, highest } => facts!(global_position = position, highest),
            Self::InUse { command, object, users, .. } => facts!(command, object, used_by = users),
            Self::InsufficientPrivilege { role, privilege, tenant, category, .. } => {
                facts!(role, privilege, tenant, category)
            }
            Self::OperatorRequired { role, tenant, category, .. } => {
                facts!(role, privilege = "manage", tenant, category)
            }
            Self::GateBusy { tenant, holders, .. } | Self::ActsBusy { tenant, holders, .. } => {
                facts!(tenant, holders = holders_facts(holders))
            }
            Self::TableUnusable { projection, table, reason } => facts!(projection, table, reason),
            Self::FeatureNotSupported { what: reason, .. } | Self::ConditionOfAnother { reason } => facts!(reason),
            Self::MatchesNotInSnapshot => facts!(reason = "events that match came since the snapshot was taken"),
            _ => return self.rule_detail(),
        })
    }

    /// Of what breaks a rule of what may be recorded, or of how often; None for an internal error.
    fn rule_detail(&self) -> Option<Value> {
        Some(match self {
            Self::ConditionFailed { after, seen, matches, first } => {
                let facts = |first: &Match| {
                    facts!(global_position = first.position, event_type = first.event_type, tags = first.tags)
                };
                facts!(after, seen, matches, first = first.as_deref().map(facts))
            }
            Self::PayloadRefused { event_type, schema_version, breach, .. } => {
                breach.facts(event_type, *schema_version)
            }
            Self::EventTypeRefused { event_type, reason, .. } => facts!(event_type, reason),
            Self::RuleBroken(broken) => broken.facts(),
            Self::InvariantBroken(violation) => violation.facts(),
            Self::PeriodClosed { category, tag, closed_until, occurred_at, .. } => {
                facts!(category, tag, closed_until, occurred_at)
            }
            Self::CommandKeyReused { of, key } | Self::CommandKeyHidden { of, key } => facts!(of, command_key = key),
            Self::AttemptLost { attempt_token, reason } => facts!(attempt_token, reason),
            Self::Undecided(undecided) => undecided.facts(),
            Self::Token(tokenless) => tokenless.facts(),
            Self::PageRefused => facts!(argument = "page"),
            _ => return None,
        })
    }
}
