//! Events that no consumer of a subscription could process, and that their streams went past: put among the dead letters (src/log/dead_letters.rs), and
//! given to a consumer once more.
use super::parked;
use crate::log::dead_letters::{self, Cause, Dying, Source};
use crate::log::delivery::{self, Facts};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::shortened;
use crate::pg::process::session::{Db, Planning};
use crate::pg::{error::report, process::server};
use crate::shared::session::as_owner;
use eventstream_core::error::Error;

/// The event is not delivered any more, and the server's log says why.
pub fn put(db: &Db, tenant_id: i64, subscription_id: i64, event: &Facts, attempts: i32, reason: &str) -> Result<()> {
    let Facts { stream, version, position, event_type, .. } = event;
    report::failure(
        "P0001",
        &format!(
            "eventstream: subscription {subscription_id} gives up the event on stream \"{stream}\" at version {version}, global position \
             {position}, after {attempts} attempts: {}",
            shortened(reason)
        ),
        &serde_json::json!({
            "subscription_id": subscription_id, "stream": stream, "version": version, "global_position": position,
            "attempts": attempts, "sqlstate": null,
        }),
    )?;
    let dying = Dying {
        tenant_id,
        source: Source::Subscription(subscription_id),
        position: *position,
        stream,
        version: *version,
        event_type,
    };
    let cause = Cause { attempts, reason, sqlstate: None, detail: None, outline: None };
    dead_letters::put(db, &dying, &cause)
}

/// The next consumer of the subscription gets the event at a position once more. Errors: ES005 where somebody else has taken its dead letter.
pub fn retry(tenant_id: i64, id: i64, subscription_id: i64, position: i64) -> Result<()> {
    dead_letters::take(tenant_id, id)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let facts = delivery::facts(db, catalog, &[position])?;
        let event = facts
            .first()
            .ok_or_else(|| Error::Internal { what: format!("there is no event at position {position}") })?;
        parked::add_single(db, subscription_id, event, server::clock())
    })
}
