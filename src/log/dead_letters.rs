//! Dead letters: events that a projection, or the consumers of a subscription, could not process, and that the others went past; scheduled commands that could
//! not be executed. The one owner of their table. When one is dead, and what trying it again is, say those rooms: src/projection/dead_letter.rs,
//! src/subscription/dead.rs and src/command/scheduled.
use super::audit;
use crate::pg::error::failure::{Result, shortened};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use eventstream_core::audit::{act, checked_reference};
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID};
use serde_json::json;
use std::thread::LocalKey;

/// Whose a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Projection(i64),
    Subscription(i64),
    /// A scheduled command.
    Scheduled(i64),
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub source: Source,
    /// Of the projection or subscription; a command's key.
    pub name: String,
    /// Of the event; 0: it is a command.
    pub position: i64,
    pub stream: String,
    /// The same.
    pub version: i64,
    attempts: i32,
    sqlstate: Option<String>,
}

/// An event that is gone past.
pub struct Dying<'a> {
    pub tenant_id: i64,
    pub source: Source,
    pub position: i64,
    pub stream: &'a str,
    pub version: i64,
    pub event_type: &'a str,
}

/// Why an event is dead.
pub struct Cause<'a> {
    pub attempts: i32,
    pub reason: &'a str,
    pub sqlstate: Option<&'a str>,
    pub detail: Option<&'a str>,
    /// What of it holds nothing of a payload, for those who may not read the event.
    pub outline: Option<&'a str>,
}

columns! {
    mod of, selected;
    PROJECTION_ID = "d.projection_id",
    SUBSCRIPTION_ID = "d.subscription_id",
    SCHEDULED_ID = "d.scheduled_id",
    POSITION = "coalesce(d.global_position, 0)",
    STREAM = "d.stream",
    VERSION = "coalesce(d.version, 0)",
    ATTEMPTS = "d.attempts",
    SQLSTATE = "d.error_sqlstate",
    NAME = "coalesce((select p.name from _eventstream.projections p where p.id = d.projection_id), \
            (select s.name from _eventstream.subscriptions s where s.id = d.subscription_id), \
            (select c.command_key from _eventstream.scheduled_commands c where c.id = d.scheduled_id), '')",
}

/// The one of an event and source is written again where there is one.
macro_rules! put_of {
    ($source:literal) => {
        Plan::new(
            concat!(
                "insert into _eventstream.dead_letters (tenant_id, ",
                $source,
                ", global_position, stream, version, event_type, attempts, reason, error_sqlstate, error_detail, outline) \
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (",
                $source,
                ", global_position) where ",
                $source,
                " is not null do update set attempts = excluded.attempts, reason = excluded.reason, \
                  error_sqlstate = excluded.error_sqlstate, error_detail = excluded.error_detail, \
                  outline = excluded.outline, died_at = excluded.died_at",
            ),
            &[INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID],
        )
    };
}

thread_local! {
    static PUT_OF_PROJECTION: Plan = const { put_of!("projection_id") };
    static PUT_OF_SUBSCRIPTION: Plan = const { put_of!("subscription_id") };
    static PUT_COMMAND: Plan = const { Plan::new(
        "insert into _eventstream.dead_letters (tenant_id, scheduled_id, stream, attempts, reason, error_sqlstate, error_detail) \
         values ($1, $2, $3, $4, $5, $6, $7)",
        &[INT8OID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static FORGET_COMMAND: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where scheduled_id = $1",
        &[INT8OID],
    ) };
    static TAKE: Plan = const { Plan::new(
        concat!("delete from _eventstream.dead_letters d where d.id = $1 and d.tenant_id = $2 returning ", selected!()),
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
    static FORGET_OF_PROJECTION: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where projection_id = $1",
        &[INT8OID],
    ) };
    static FORGET_OF_SUBSCRIPTION: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where subscription_id = $1",
        &[INT8OID],
    ) };
    static WITHHOLD: Plan = const { Plan::new(
        "update _eventstream.dead_letters set reason = $3, error_detail = null where tenant_id = $1 \
         and (subscription_id is null or event_type = any ($2))",
        &[INT8OID, TEXTARRAYOID, TEXTOID],
    ) };
    static HAS: Plan = const { Plan::new(
        "select exists (select from _eventstream.dead_letters where projection_id = $1)",
        &[INT8OID],
    ) };
    static STREAMS: Plan = const { Plan::new(
        "select distinct stream from _eventstream.dead_letters where projection_id = $1 and stream > $2 and ($3 is null or stream <= $3)",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static FORGET_STREAMS: Plan = const { Plan::new(
        "delete from _eventstream.dead_letters where projection_id = $1 and stream = any ($2) and global_position <= $3",
        &[INT8OID, TEXTARRAYOID, INT8OID],
    ) };
}

/// What was said of events of these types is not told any more, and `instead` is; nor what was said by projections and deciders of any event, or command: they are given states, too.
pub fn withhold(db: &Db, tenant_id: i64, event_types: &[String], instead: &str) -> Result<()> {
    let args = [Some(Datum::from(tenant_id)), Some(text_array_of(event_types)?), Some(from_text(instead)?)];
    WITHHOLD.with(|plan| plan.write(db, &args)).map(drop)
}

/// The event is not processed, and not tried again by itself.
pub fn put(db: &Db, event: &Dying, cause: &Cause) -> Result<()> {
    let (plan, source_id) = match event.source {
        Source::Projection(id) => (&PUT_OF_PROJECTION, id),
        Source::Subscription(id) => (&PUT_OF_SUBSCRIPTION, id),
        Source::Scheduled(id) => return put_command(db, event.tenant_id, id, event.stream, cause),
    };
    let row: [Nullable; 11] = [
        Some(Datum::from(event.tenant_id)),
        Some(Datum::from(source_id)),
        Some(Datum::from(event.position)),
        Some(from_text(event.stream)?),
        Some(Datum::from(event.version)),
        Some(from_text(event.event_type)?),
        Some(Datum::from(cause.attempts)),
        Some(from_text(cause.reason)?),
        cause.sqlstate.map(from_text).transpose()?,
        cause.detail.map(shortened).map(from_text).transpose()?,
        cause.outline.map(from_text).transpose()?,
    ];
    counters::add(Counter::DeadLetters, 1);
    plan.with(|plan| plan.write(db, &row)).map(drop)
}

/// The scheduled command with that id is not executed by itself any more.
pub fn put_command(db: &Db, tenant_id: i64, id: i64, stream: &str, cause: &Cause) -> Result<()> {
    let row: [Nullable; 7] = [
        Some(Datum::from(tenant_id)),
        Some(Datum::from(id)),
        Some(from_text(stream)?),
        Some(Datum::from(cause.attempts)),
        Some(from_text(cause.reason)?),
        cause.sqlstate.map(from_text).transpose()?,
        cause.detail.map(shortened).map(from_text).transpose()?,
    ];
    counters::add(Counter::DeadLetters, 1);
    PUT_COMMAND.with(|plan| plan.write(db, &row)).map(drop)
}

/// The scheduled command with that id is none any more, if it was one.
pub fn forget_command(db: &Db, id: i64) -> Result<()> {
    FORGET_COMMAND.with(|plan| plan.write(db, &[Some(Datum::from(id))])).map(drop)
}

/// Of the dead event; None where the tenant has none of that id.
pub fn category(tenant_id: i64, id: i64) -> Result<Option<String>> {
    let key = [Some(Datum::from(id)), Some(Datum::from(tenant_id))];
    as_owner(Planning::ByIndex, |db, _| {
        CATEGORY.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(row.text(0)?.to_owned())))
    })
}

fn one(plan: &'static LocalKey<Plan>, view: View, tenant_id: i64, id: i64) -> Result<Option<DeadLetter>> {
    as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(Datum::from(id)), Some(Datum::from(tenant_id))];
        plan.with(|plan| {
            plan.first(db, view, &key, |row| {
                let (projection, subscription) = (row.int8_opt(of::PROJECTION_ID), row.int8_opt(of::SUBSCRIPTION_ID));
                let source = match (projection, subscription) {
                    (Some(projection), _) => Source::Projection(projection),
                    (None, Some(subscription)) => Source::Subscription(subscription),
                    (None, None) => Source::Scheduled(row.int8(of::SCHEDULED_ID)?),
                };
                Ok(DeadLetter {
                    source,
                    position: row.int8(of::POSITION)?,
                    stream: row.text(of::STREAM)?.to_owned(),
                    version: row.int8(of::VERSION)?,
                    attempts: row.int4(of::ATTEMPTS)?,
                    sqlstate: row.text_opt(of::SQLSTATE)?.map(str::to_owned),
                    name: row.text(of::NAME)?.to_owned(),
                })
            })
        })
    })
}

/// Of a dead letter that is not there; `since` says what became of it, where it was there before.
fn missing(id: i64, since: &str) -> Error {
    Error::InvalidArgument {
        argument: "id".into(),
        reason: format!("must be of a dead letter, not {id}{since}"),
        hint: Some("The view eventstream.dead_letters shows what there is.".into()),
    }
}

/// The dead letter of that id. Errors: ES005.
pub fn find(tenant_id: i64, id: i64) -> Result<DeadLetter> {
    Ok(one(&FIND, View::Latest, tenant_id, id)?.ok_or_else(|| missing(id, ""))?)
}

/// It is one no more, as one that was found before. Errors: ES005 where somebody else took it since.
pub fn take(tenant_id: i64, id: i64) -> Result<()> {
    let taken = one(&TAKE, View::Write, tenant_id, id)?;
    Ok(taken.map(drop).ok_or_else(|| missing(id, ", which was processed or dropped meanwhile"))?)
}

/// The event is not processed. Errors: ES005.
pub fn forget(tenant_id: i64, id: i64, reason: &str) -> Result<DeadLetter> {
    server::must_be_writable(c"es_drop_dead_letter")?;
    checked_reference(reason)?;
    let letter = one(&TAKE, View::Write, tenant_id, id)?.ok_or_else(|| missing(id, ""))?;
    note(tenant_id, act::DEAD_LETTER_DROPPED, &letter, Some(reason))?;
    Ok(letter)
}

/// An act on a dead letter: of what, which event, and how it had died; what its error said may hold a payload.
pub fn note(tenant_id: i64, event_type: &'static str, letter: &DeadLetter, reason: Option<&str>) -> Result<()> {
    let kind = match letter.source {
        Source::Projection(_) => audit::Kind::Projection,
        Source::Subscription(_) => audit::Kind::Subscription,
        Source::Scheduled(_) => audit::Kind::ScheduledCommand,
    };
    let before = json!({"attempts": letter.attempts, "sqlstate": letter.sqlstate});
    let position = (!matches!(letter.source, Source::Scheduled(_))).then_some(letter.position);
    let particulars = json!({"global_position": position, "reason": reason, "before": before});
    audit::note_act(tenant_id, event_type, (kind, &letter.name), &particulars)
}

/// All of a source: what it went past is tried anew, or it is gone itself.
pub fn forget_all(db: &Db, source: Source) -> Result<()> {
    let (plan, id) = match source {
        Source::Projection(id) => (&FORGET_OF_PROJECTION, id),
        Source::Subscription(id) => (&FORGET_OF_SUBSCRIPTION, id),
        Source::Scheduled(id) => (&FORGET_COMMAND, id),
    };
    plan.with(|plan| plan.write(db, &[Some(Datum::from(id))])).map(drop)
}

/// Whether a projection has any.
pub fn has_any(projection_id: i64) -> Result<bool> {
    let id = [Some(Datum::from(projection_id))];
    let has =
        as_owner(Planning::ByIndex, |db, _| HAS.with(|plan| plan.first(db, View::Latest, &id, |row| row.boolean(0))))?;
    Ok(has == Some(true))
}

/// The streams behind `after`, up to `to`, of which a projection has any.
pub fn streams(projection_id: i64, after: &str, to: Option<&str>) -> Result<Vec<String>> {
    let range = [Some(Datum::from(projection_id)), Some(from_text(after)?), to.map(from_text).transpose()?];
    as_owner(Planning::ByIndex, |db, _| {
        STREAMS.with(|plan| plan.rows(db, View::Latest, 0, &range, |row| Ok(row.text(0)?.to_owned())))
    })
}

/// Those of these streams up to the position.
pub fn forget_streams(projection_id: i64, streams: &[String], position: i64) -> Result<()> {
    let args = [Some(Datum::from(projection_id)), Some(text_array_of(streams)?), Some(Datum::from(position))];
    as_owner(Planning::ByIndex, |db, _| FORGET_STREAMS.with(|plan| plan.write(db, &args))).map(drop)
}
