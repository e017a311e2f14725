//! Every error of the product, one variant a condition. Owns SQLSTATE, message, DETAIL and HINT of each
//! ("Errors" in the SQL API), so that they are the same wherever the condition is met.
//! `src/pg` carries them to the client and adds nothing.

use serde_json::{Value, json};

use crate::error_words::{
    UNWRITTEN_HINT, already, at_event, at_version, because, conflict_hint, events_noun, fold_not_found, gate_hint,
    grant_hint, in_category, operator_hint, some_streams, stopped_hint, tenant_hint,
};
use crate::hint::{MISFIT_HINT, fold_hint, table_hint, upcast_hint};
use crate::quote::{quote_literal, shown};

/// A result whose error is [`enum@Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. `to_string()` is the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what their names say; the variants say what they mean
pub enum Error {
    /// ES001: `expected_version` is not the stream's (0 = it has no events).
    #[error("version conflict on stream \"{stream}\": expected version {expected}, actual version {actual}")]
    VersionConflict { stream: String, expected: i64, actual: i64 },

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

    /// ES010: no fold of that name (None: no default one) for the category (None: in the tenant).
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

    /// ES040: no such tenant, or none that the role may know of.
    #[error("tenant {} does not exist", shown(tenant))]
    TenantNotFound { tenant: String },

    /// ES041: the role may use several tenants (`tenants`) and has not said which, or may use none.
    #[error("role \"{role}\" must say which tenant it means")]
    TenantRequired { role: String, tenants: Vec<String> },

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

    /// 42501: the role lacks `privilege` in `tenant`, or in one category of it.
    #[error(
        "role \"{role}\" lacks the privilege \"{privilege}\" in tenant {}{}",
        shown(tenant),
        in_category(category.as_deref())
    )]
    InsufficientPrivilege { role: String, privilege: &'static str, tenant: String, category: Option<String> },

    /// 42501: the role lacks manage in `tenant`, and is no member of pg_monitor: either lets it look at how the tenant runs.
    #[error(
        "role \"{role}\" is not a member of pg_monitor and lacks the privilege \"manage\" in tenant {}{}",
        shown(tenant),
        in_category(category.as_deref())
    )]
    OperatorRequired { role: String, tenant: String, category: Option<String> },

    /// 55P03: who needs a tenant's appends to be quiet could not have that within `waited_ms`; `holders`: processes that append, and since when.
    #[error("the appends of tenant {} did not come to rest within {waited_ms} ms", shown(tenant))]
    GateBusy { tenant: String, waited_ms: u64, holders: Vec<(i32, String)> },

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
            Self::ProjectionNotFound { .. } | Self::SubscriptionNotFound { .. } => "ES020",
            Self::ProjectionStopped { .. } => "ES021",
            Self::RebuildInProgress { .. } => "ES022",
            Self::WaitTimeout { .. } => "ES023",
            Self::LeaseLost { .. } => "ES024",
            Self::PositionAhead { .. } | Self::PositionOfAnother { .. } => "ES025",
            Self::NotActivated { .. } => "ES026",
            Self::NotInSnapshot { .. } => "40001",
            Self::TenantNotFound { .. } => "ES040",
            Self::TenantRequired { .. } => "ES041",
            Self::Immutable { .. } | Self::Foreign { .. } => "ES050",
            Self::Guarded { .. } => "ES051",
            Self::PositionReused { .. } => "ES052",
            Self::InUse { .. } => "2BP01",
            Self::InsufficientPrivilege { .. } | Self::OperatorRequired { .. } => "42501",
            Self::GateBusy { .. } => "55P03",
            Self::TableUnusable { .. } => "55000",
            Self::FeatureNotSupported { .. } => "0A000",
            Self::Internal { .. } => "XX000",
        }
    }

    /// The same facts for machines: a JSON object. `None` for an internal error, which has none to offer.
    #[must_use]
    pub fn detail(&self) -> Option<Value> {
        Some(match self {
            Self::VersionConflict { stream, expected, actual } => {
                json!({"stream": stream, "expected_version": expected, "actual_version": actual})
            }
            Self::StreamNotFound { stream } => json!({"stream": stream}),
            Self::StreamClosed { stream, version } => json!({"stream": stream, "version": version}),
            Self::InvalidStreamName { name, reason } => json!({"stream": name, "reason": reason}),
            Self::InvalidArgument { argument, reason, .. } => json!({"argument": argument, "reason": reason}),
            Self::EventIdReused { stream, event_id, version, reason } => {
                json!({"stream": stream, "event_id": event_id, "version": version, "reason": reason})
            }
            Self::LimitExceeded { setting, limit, actual, what } => {
                json!({"setting": setting, "limit": limit, "actual": actual, "what": what})
            }
            Self::PreloadRequired { what } => {
                json!({"needed_by": what, "setting": "shared_preload_libraries"})
            }
            Self::PrimaryRequired { what } => json!({"needed_by": what}),
            Self::FoldNotFound { fold, category } => json!({"fold": fold, "category": category}),
            Self::InvalidRules { pointer, reason } => json!({"pointer": pointer, "reason": reason}),
            Self::SnapshotNotFound { stream, fold, version, reason } => {
                json!({"stream": stream, "fold": fold, "version": version, "reason": reason})
            }
            Self::FoldUnusable { fold, reason } => json!({"fold": fold, "reason": reason}),
            Self::FoldFailed { fold, stream, version, reason }
            | Self::UnwrittenFailed { fold, stream, version, reason } => {
                json!({"fold": fold, "stream": stream, "version": version, "reason": reason})
            }
            Self::StatesFailed { category, fold, failed, is_all, stream, state, message, .. } => {
                json!({"category": category, "fold": fold, "streams_failed": failed, "all_counted": is_all, "stream": stream,
                       "sqlstate": state, "error": message})
            }
            Self::UpcastFailed { stream, version, event_type, from_schema_version, reason, .. } => {
                json!({"stream": stream, "version": version, "event_type": event_type,
                       "from_schema_version": from_schema_version, "reason": reason})
            }
            Self::ProjectionNotFound { projection } | Self::RebuildInProgress { projection } => {
                json!({"projection": projection})
            }
            Self::SubscriptionNotFound { subscription } => json!({"subscription": subscription}),
            Self::ProjectionStopped { projection, position, sqlstate, message } => {
                json!({"projection": projection, "global_position": position, "sqlstate": sqlstate, "error": message})
            }
            Self::WaitTimeout { projection, up_to, position, reason, holder, .. } => {
                json!({"projection": projection, "up_to": up_to, "global_position": position, "reason": reason, "pid": holder})
            }
            Self::LeaseLost { lease_id, reason } => json!({"lease_id": lease_id, "reason": reason}),
            Self::NotActivated { log_id, .. } => json!({"log_id": log_id}),
            Self::PositionAhead { argument, position, last_position } => {
                json!({"argument": argument, "global_position": position, "last_position": last_position})
            }
            Self::PositionOfAnother { argument, position, given, log_id } => {
                json!({"argument": argument, "global_position": position, "given_log_id": given, "log_id": log_id})
            }
            Self::NotInSnapshot { stream, version } => json!({"stream": stream, "version": version}),
            Self::TenantNotFound { tenant } => json!({"tenant": tenant}),
            Self::TenantRequired { role, tenants } => {
                json!({"role": role, "setting": "eventstream.tenant", "tenants": tenants})
            }
            Self::Immutable { operation, table } | Self::Foreign { operation, table } => {
                json!({"operation": operation, "table": table})
            }
            Self::Guarded { command, object, events, more } => {
                json!({"command": command, "object": object, "events": events, "more": more})
            }
            Self::PositionReused { position, highest } => json!({"global_position": position, "highest": highest}),
            Self::InUse { command, object, users, .. } => {
                json!({"command": command, "object": object, "used_by": users})
            }
            Self::InsufficientPrivilege { role, privilege, tenant, category } => {
                json!({"role": role, "privilege": privilege, "tenant": tenant, "category": category})
            }
            Self::OperatorRequired { role, tenant, category } => {
                json!({"role": role, "privilege": "manage", "tenant": tenant, "category": category})
            }
            Self::GateBusy { tenant, holders, .. } => {
                let holders: Vec<_> = holders.iter().map(|(pid, since)| json!({"pid": pid, "since": since})).collect();
                json!({"tenant": tenant, "holders": holders})
            }
            Self::TableUnusable { projection, table, reason } => {
                json!({"projection": projection, "table": table, "reason": reason})
            }
            Self::FeatureNotSupported { what, .. } => json!({"reason": what}),
            Self::Internal { .. } => return None,
        })
    }

    /// What to do about it, in a sentence or a statement to paste.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::VersionConflict { expected, actual, .. } => Some(conflict_hint(*expected, *actual)),
            Self::StreamNotFound { .. } => Some(
                "A stream exists from its first event on, within its tenant: check the name and eventstream.tenant.".into(),
            ),
            Self::StreamClosed { .. } => {
                Some("A closed stream can be read but takes no more events: append to another stream.".into())
            }
            Self::InvalidStreamName { .. } => {
                Some("A stream name is category-id, for example account-1000; es_stream_name(category, id) makes one.".into())
            }
            Self::InvalidArgument { hint, .. } | Self::FeatureNotSupported { hint, .. } => hint.clone(),
            Self::EventIdReused { .. } => Some(
                "Retry with exactly the events of the first attempt, or give other events new ids (es_new_event_id()).".into(),
            ),
            Self::LimitExceeded { setting: "eventstream.max_future_skew", .. } => Some(
                "The limit keeps wrong clocks out of valid time. Where value dates lie further ahead, a superuser says how far: alter database … set \
                 eventstream.max_future_skew = '400d'; or record the event when it happens, with the day from which it counts in its payload."
                    .into(),
            ),
            Self::LimitExceeded { setting: "eventstream.max_state_bytes", limit, .. } => Some(format!(
                "Ways out: a fold that keeps less of its events, registered again (rules, or another handler), an upcaster that makes less of them \
                 (es_register_upcaster), or have a superuser raise eventstream.max_state_bytes, which is {limit} now."
            )),
            Self::LimitExceeded { setting, limit, .. } => {
                Some(format!("Send less, or have a superuser raise {setting}, which is {limit} now."))
            }
            Self::PreloadRequired { .. } => Some(
                "Put this line into postgresql.conf (append eventstream to the list if it names other libraries) and \
                 restart the server: shared_preload_libraries = 'eventstream'"
                    .into(),
            ),
            Self::PrimaryRequired { .. } => {
                Some("Connect to the primary; reading streams (es_read) works here as well.".into())
            }
            Self::FoldNotFound { .. } => Some(
                "The view eventstream.folds shows what is registered; es_register_fold() registers a fold for a category.".into(),
            ),
            Self::InvalidRules { .. } => {
                Some("docs/rules.md has the language, with an example of each operation and condition.".into())
            }
            Self::SnapshotNotFound { .. } => Some(
                "The view eventstream.snapshots shows what there is; es_snapshot() takes one now.".into(),
            ),
            Self::FoldUnusable { .. } => {
                Some("Mend what is named, or register the fold again with es_register_fold().".into())
            }
            Self::FoldFailed { stream, version, .. } => Some(fold_hint(stream, *version)),
            Self::UnwrittenFailed { .. } => Some(UNWRITTEN_HINT.into()),
            Self::StatesFailed { is_misfit: true, .. } => Some(MISFIT_HINT.into()),
            Self::StatesFailed { category, fold, .. } => Some(format!(
                "select stream, problem from es_category_state({}, fold => {}, on_error => 'report') where problem is not null; shows them all. Ways \
                 out: an upcaster that mends such events as they are read (es_register_upcaster), or a fold that takes them, \
                 registered again (rules with a default, or a handler).",
                quote_literal(category),
                quote_literal(fold)
            )),
            Self::UpcastFailed { stream, version, .. } => Some(upcast_hint(stream, *version)),
            Self::TableUnusable { projection, .. } => Some(table_hint(projection)),
            Self::ProjectionNotFound { .. } => Some("The view eventstream.projections shows what there is.".into()),
            Self::SubscriptionNotFound { .. } => Some("The view eventstream.subscriptions shows what there is.".into()),
            Self::ProjectionStopped { projection, position, .. } => Some(stopped_hint(projection, *position)),
            Self::RebuildInProgress { .. } => {
                Some("The view eventstream.progress shows how far it is.".into())
            }
            Self::WaitTimeout { holder: Some(pid), .. } => Some(format!(
                "That transaction has appended and is still open: the view eventstream.horizon_holders shows it; \
                 select pg_terminate_backend({pid}) would end its session."
            )),
            Self::WaitTimeout { .. } => Some(
                "The views eventstream.projections and eventstream.health show what it does; es_run_projection() advances it \
                 where no workers run."
                    .into(),
            ),
            Self::LeaseLost { .. } => Some(
                "Fetch again: what this lease held is delivered again, to whoever fetches it; make its processing idempotent, and \
                 leases longer where it takes longer: a consumer that has acknowledged nothing lately gets a minute at most, and \
                 makes it longer with es_extend_lease."
                    .into(),
            ),
            Self::NotActivated { .. } => Some(
                "If the original is no longer in use, make this one the original: select es_activate();".into(),
            ),
            Self::PositionAhead { .. } => Some(
                "The database may have been restored to an earlier point, or this is another one: compare es_log_info() \
                 with what was stored beside the position."
                    .into(),
            ),
            Self::PositionOfAnother { .. } => Some(
                "Connect to the database that the position was stored for; for this one begin at 0, or where its own consumers are: \
                 what lies between would be skipped without a word."
                    .into(),
            ),
            Self::NotInSnapshot { .. } => Some(
                "Others appended to it since the snapshot was taken, and this transaction after them. Roll back and run the transaction \
                 again; in READ COMMITTED this does not happen, and es_load() reads what is committed by now at every level."
                    .into(),
            ),
            Self::TenantNotFound { tenant } => {
                Some(format!("Check the name, or create it: select es_create_tenant({});", quote_literal(tenant)))
            }
            Self::TenantRequired { tenants, .. } => Some(tenant_hint(tenants)),
            Self::GateBusy { holders, .. } => Some(gate_hint(holders)),
            Self::Immutable { .. } => {
                Some("Append an event that corrects the earlier one; what was recorded stays.".into())
            }
            Self::Foreign { .. } => Some(
                "Call the es_* function that does it. A dump is restored into a database without a log: one that has never \
                 appended."
                    .into(),
            ),
            Self::Guarded { .. } => Some(
                "If that is what you want, and there is a dump: set eventstream.allow_drop = on; (superusers) and say it again."
                    .into(),
            ),
            Self::PositionReused { highest, .. } => Some(format!(
                "Find out who set it, and run es_verify(); then a superuser sets it right: \
                 select setval('_eventstream.positions', {highest});"
            )),
            Self::InUse { is_table: true, .. } => Some(
                "select es_drop_projection(name, drop_table => true); drops a state table with its projection, es_drop_projection(name) leaves it to \
                 you; to move one, do that, and create it anew under its new name. Columns that the projection does not write are yours."
                    .into(),
            ),
            Self::InUse { .. } => Some(
                "Register another function there, or unregister first: es_unregister_fold(), es_unregister_upcaster(), \
                 es_alter_projection(), es_drop_projection()."
                    .into(),
            ),
            Self::InsufficientPrivilege { role, privilege, tenant, category } => {
                Some(grant_hint(role, privilege, tenant, category.as_deref()))
            }
            Self::OperatorRequired { role, tenant, category } => Some(operator_hint(role, tenant, category.as_deref())),
            Self::Internal { .. } => Some("This is a mistake in eventstream: please report it with the server's log.".into()),
        }
    }
}
