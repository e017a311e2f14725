//! What to do about each error, so that it is the same wherever it is met.

use crate::error::Error;
use crate::error_hints;
use crate::error_words::{
    UNWRITTEN_HINT, conflict_hint, grant_hint, holder_hint, holders_hint, in_use_hint, no_fold_hint, operator_hint,
    period_hint, reused_hint, state_limit_hint, states_failed_hint, stopped_hint, tenant_hint,
};
use crate::hint::{EXAMPLE_HINT, MISFIT_HINT, fold_hint, schema_hint, table_hint, upcast_hint};

impl Error {
    /// What to do about it, in a sentence or a statement to paste.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::VersionConflict { expected, actual, is_closed, .. } => {
                Some(conflict_hint(*expected, *actual, *is_closed))
            }
            Self::StreamNotFound { .. } => Some(error_hints::STREAM_NOT_FOUND.into()),
            Self::StreamClosed { .. } => Some(error_hints::STREAM_CLOSED.into()),
            Self::InvalidStreamName { .. } => Some(error_hints::INVALID_STREAM_NAME.into()),
            Self::InvalidArgument { hint, .. } | Self::FeatureNotSupported { hint, .. } => hint.clone(),
            Self::EventIdReused { .. } => Some(error_hints::EVENT_ID_REUSED.into()),
            Self::LimitExceeded { setting: "eventstream.max_future_skew", .. } => Some(error_hints::FUTURE_SKEW.into()),
            Self::LimitExceeded { setting: "eventstream.max_state_bytes", limit, .. } => Some(state_limit_hint(*limit)),
            Self::LimitExceeded { setting: "work_mem", .. } => Some(error_hints::IN_CLEAR_ON_DISK.into()),
            Self::LimitExceeded { setting, limit, .. } => {
                Some(format!("Send less, or have a superuser raise {setting}, which is {limit} now."))
            }
            Self::PreloadRequired { .. } => Some(error_hints::PRELOAD_REQUIRED.into()),
            Self::PrimaryRequired { .. } => Some(error_hints::PRIMARY_REQUIRED.into()),
            Self::FoldNotFound { fold, category } => Some(no_fold_hint(fold.is_some() || category.is_some()).into()),
            Self::InvalidRules { .. } => Some(error_hints::INVALID_RULES.into()),
            Self::SnapshotNotFound { .. } => Some(error_hints::SNAPSHOT_NOT_FOUND.into()),
            Self::FoldUnusable { .. } => Some(error_hints::FOLD_UNUSABLE.into()),
            Self::FoldFailed { stream, version, .. } => Some(fold_hint(stream, *version)),
            Self::UnwrittenFailed { .. } => Some(UNWRITTEN_HINT.into()),
            Self::StatesFailed { is_misfit: true, .. } => Some(MISFIT_HINT.into()),
            Self::StatesFailed { category, fold, .. } => Some(states_failed_hint(category, fold)),
            Self::UpcastFailed { stream, version, .. } => Some(upcast_hint(stream, *version)),
            Self::ConditionFailed { .. } | Self::ConditionOfAnother { .. } => Some(error_hints::CONDITION.into()),
            Self::PayloadRefused { is_example: true, .. } => Some(EXAMPLE_HINT.into()),
            Self::PayloadRefused { event_type, schema_version, .. } => Some(schema_hint(event_type, *schema_version)),
            Self::EventTypeRefused { hint, .. } => Some(hint.clone()),
            Self::RuleBroken(broken) => Some(broken.hint.clone()),
            Self::PeriodClosed { category, .. } => Some(period_hint(category)),
            Self::InvariantBroken(violation) => Some(violation.hint()),
            Self::TableUnusable { projection, .. } => Some(table_hint(projection)),
            Self::ProjectionNotFound { .. } => Some(error_hints::PROJECTION_NOT_FOUND.into()),
            Self::SubscriptionNotFound { .. } => Some(error_hints::SUBSCRIPTION_NOT_FOUND.into()),
            Self::ProjectionStopped { projection, position, .. } => Some(stopped_hint(projection, *position)),
            Self::RebuildInProgress { .. } => Some(error_hints::REBUILD_IN_PROGRESS.into()),
            Self::WaitTimeout { holder: Some(pid), .. } => Some(holder_hint(*pid)),
            Self::WaitTimeout { .. } => Some(error_hints::WAIT_TIMEOUT.into()),
            Self::LeaseLost { .. } => Some(error_hints::LEASE_LOST.into()),
            Self::CommandKeyReused { .. } | Self::CommandKeyHidden { .. } => Some(self.key_hint().into()),
            Self::AttemptLost { .. } => Some(error_hints::ATTEMPT_LOST.into()),
            Self::PageRefused => Some(error_hints::PAGE_REFUSED.into()),
            Self::Undecided(undecided) => undecided.hint(),
            Self::NotActivated { .. } => Some(error_hints::NOT_ACTIVATED.into()),
            Self::PositionAhead { .. } => Some(error_hints::POSITION_AHEAD.into()),
            Self::PositionOfAnother { .. } => Some(error_hints::POSITION_OF_ANOTHER.into()),
            Self::NotInSnapshot { .. } => Some(error_hints::NOT_IN_SNAPSHOT.into()),
            Self::MatchesNotInSnapshot => Some(error_hints::MATCHES_NOT_IN_SNAPSHOT.into()),
            Self::TenantNotFound { .. } => Some(error_hints::TENANT_NOT_FOUND.into()),
            Self::TenantRequired { tenants, .. } => Some(tenant_hint(tenants)),
            Self::Token(tokenless) => Some(tokenless.hint().into()),
            Self::Withheld(withheld) => Some(withheld.hint()),
            Self::GateBusy { holders, .. } | Self::ActsBusy { holders, .. } => Some(self.busy_hint(holders)),
            Self::Immutable { .. } => Some(error_hints::IMMUTABLE.into()),
            Self::Foreign { .. } => Some(error_hints::FOREIGN.into()),
            Self::Guarded { .. } => Some(error_hints::GUARDED.into()),
            Self::PositionReused { highest, .. } => Some(reused_hint(*highest)),
            Self::InUse { users, is_table, .. } => Some(in_use_hint(users, *is_table)),
            Self::InsufficientPrivilege { role, privilege, tenant, category, any, is_stranger } => {
                Some(grant_hint(role, privilege, tenant, category.as_deref(), (*any, *is_stranger)))
            }
            Self::OperatorRequired { role, tenant, category, is_stranger } => {
                Some(operator_hint(role, tenant, category.as_deref(), *is_stranger))
            }
            Self::Internal { .. } => Some(error_hints::INTERNAL.into()),
        }
    }

    fn busy_hint(&self, holders: &[(i32, String)]) -> String {
        match self {
            Self::GateBusy { .. } => holders_hint(holders, "call again when fewer append"),
            _ => holders_hint(holders, "call again then"),
        }
    }

    fn key_hint(&self) -> &'static str {
        match self {
            Self::CommandKeyHidden { .. } => error_hints::COMMAND_KEY_HIDDEN,
            _ => error_hints::COMMAND_KEY_REUSED,
        }
    }
}
