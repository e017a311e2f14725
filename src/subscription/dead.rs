//! Dead letters of subscriptions: events that no consumer could process, and that their streams went past. Of projections: only what
//! concerns both.
use super::parked;
use crate::log::audit;
use crate::log::delivery::{self, Facts};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::shortened;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::pg::{error::report, process::server};
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use eventstream_core::audit::{act, checked_reference};
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID};
use serde_json::json;

/// Whose a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Projection(i64),
    Subscription(i64),
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub source: Source,
    /// Of the projection or subscription.
    pub name: String,
    pub position: i64,
    pub stream: String,
    pub version: i64,
}

columns! {
    mod of, selected;
    PROJECTION_ID = "d.projection_id",
    SUBSCRIPTION_ID = "d.subscription_id",
    POSITION = "d.global_position",
    STREAM = "d.stream",
    VERSION = "d.version",
    NAME = "coalesce((select p.name from _eventstream.projections p where p.id = d.projection_id), \
            (select s.name from _eventstream.subscriptions s where s.id = d.subscription_id), '')",
}

thread_local! {
    static PUT: Plan = const { Plan::new(
        "insert into _eventstream.dead_letters (tenant_id, subscription_id, global_position, stream, version, event_type, \
                                                attempts, reason, error_sqlstate) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (subscription_id, global_position) where subscription_id is not null \
         do update set attempts = excluded.attempts, reason = excluded.reason, error_sqlstate = excluded.error_sqlstate, \
                       died_at = excluded.died_at",
        &[INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID],
    ) };
    static TAKE: Plan = const { Plan::new(
        concat!(
            "delete from _eventstream.dead_letters d where d.id = $1 and d.tenant_id = $2 returning ",
            selected!()
        ),
        &[INT8OID, INT8OID],
    ) };
    static FIND: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.dead_letters d where d.id = $1 and d.tenant_id = $2"),
        &[INT8OID, INT8OID],
    ) };
    static CATEGORY: Plan = const { Plan::new(
        "select split_part(stream, '-', 1) from _eventstream.dead_letters where id = $1 and tenant_id = $2",
        &[INT8OID, INT8OID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where subscription_id = $1",
        &[INT8OID],
    ) };
}

/// Of the dead event; None where the tenant has none of that id.
pub fn category(tenant_id: i64, id: i64) -> Result<Option<String>> {
    let key = [Some(Datum::from(id)), Some(Datum::from(tenant_id))];
    as_owner(Planning::ByIndex, |db, _| {
        CATEGORY.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(row.text(0)?.to_owned())))
    })
}

/// Why an event is dead.
pub struct Cause<'a> {
    pub attempts: i32,
    pub reason: &'a str,
    pub sqlstate: Option<&'a str>,
}

pub fn put(db: &Db, tenant_id: i64, subscription_id: i64, event: &Facts, cause: &Cause) -> Result<()> {
    let sqlstate = cause.sqlstate.unwrap_or("P0001");
    let Facts { stream, version, position, .. } = event;
    report::failure(
        sqlstate,
        &format!(
            "eventstream: subscription {subscription_id} gives up the event on stream \"{stream}\" at version {version}, global position \
             {position}, after {} attempts: {}",
            cause.attempts,
            shortened(cause.reason)
        ),
        &serde_json::json!({
            "subscription_id": subscription_id, "stream": stream, "version": version, "global_position": position,
            "attempts": cause.attempts, "sqlstate": cause.sqlstate,
        }),
    )?;
    let row: [Nullable; 9] = [
        Some(Datum::from(tenant_id)),
        Some(Datum::from(subscription_id)),
        Some(Datum::from(event.position)),
        Some(from_text(&event.stream)?),
        Some(Datum::from(event.version)),
        Some(from_text(&event.event_type)?),
        Some(Datum::from(cause.attempts)),
        Some(from_text(cause.reason)?),
        cause.sqlstate.map(from_text).transpose()?,
    ];
    counters::add(Counter::DeadLetters, 1);
    PUT.with(|plan| plan.write(db, &row)).map(drop)
}

fn one(plan: &'static std::thread::LocalKey<Plan>, view: View, tenant_id: i64, id: i64) -> Result<DeadLetter> {
    let found = as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(Datum::from(id)), Some(Datum::from(tenant_id))];
        plan.with(|plan| {
            plan.first(db, view, &key, |row| {
                let source = match (row.int8_opt(of::PROJECTION_ID), row.int8_opt(of::SUBSCRIPTION_ID)) {
                    (Some(projection), _) => Source::Projection(projection),
                    (None, subscription) => Source::Subscription(subscription.unwrap_or_default()),
                };
                Ok(DeadLetter {
                    source,
                    position: row.int8(of::POSITION)?,
                    stream: row.text(of::STREAM)?.to_owned(),
                    version: row.int8(of::VERSION)?,
                    name: row.text(of::NAME)?.to_owned(),
                })
            })
        })
    })?;
    found.ok_or_else(|| {
        let hint = Some("The view eventstream.dead_letters shows what there is.".into());
        Error::InvalidArgument { argument: "id".into(), reason: format!("must be of a dead letter, not {id}"), hint }
            .into()
    })
}

/// The event is not processed. Errors: ES005.
pub fn forget(tenant_id: i64, id: i64, reason: &str) -> Result<DeadLetter> {
    server::must_be_writable(c"es_drop_dead_letter")?;
    checked_reference(reason)?;
    let letter = one(&TAKE, View::Write, tenant_id, id)?;
    note(tenant_id, act::DEAD_LETTER_DROPPED, &letter, Some(reason))?;
    Ok(letter)
}

/// An act on a dead letter: of what, and which event.
pub fn note(tenant_id: i64, event_type: &'static str, letter: &DeadLetter, reason: Option<&str>) -> Result<()> {
    let kind = match letter.source {
        Source::Projection(_) => audit::Kind::Projection,
        Source::Subscription(_) => audit::Kind::Subscription,
    };
    let particulars = json!({"global_position": letter.position, "reason": reason});
    audit::note_act(tenant_id, event_type, (kind, &letter.name), &particulars)
}

pub fn drop_all(db: &Db, subscription_id: i64) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id))])).map(drop)
}

/// The dead letter of that id. Errors: ES005.
pub fn find(tenant_id: i64, id: i64) -> Result<DeadLetter> {
    one(&FIND, View::Latest, tenant_id, id)
}

/// The next consumer of the subscription gets the event once more. Errors: ES005.
pub fn retry(tenant_id: i64, id: i64, letter: &DeadLetter, subscription_id: i64) -> Result<()> {
    one(&TAKE, View::Write, tenant_id, id)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let facts = delivery::facts(db, catalog, &[letter.position])?;
        let event = facts
            .first()
            .ok_or_else(|| Error::Internal { what: format!("there is no event at position {}", letter.position) })?;
        parked::add_single(db, subscription_id, event, server::clock())
    })
}
