//! How far a projection is: its row of projection_progress. Whoever advances it holds the row's lock until the end of the transaction,
//! and so is alone; the checkpoint commits with the effects.
use crate::pg::error::failure::shortened;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::error::report;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::board;
use crate::shared::session::as_owner;
use eventstream_core::hash::Hash;
use eventstream_core::word::{Status, Word};
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID};

/// Whether to wait for a projection that somebody else advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    Skip,
    Wait,
    /// As Wait; in a transaction that keeps its snapshot also one that was made, or advanced, since.
    Latest,
}

/// A locked row.
#[derive(Debug, Clone)]
pub struct Progress {
    pub status: Status,
    /// The checkpoint.
    pub position: i64,
    pub attempts: i32,
    pub next_batch: Option<i64>,
    pub failed_position: Option<i64>,
    /// Microseconds since 2000-01-01 UTC.
    pub retry_at: Option<i64>,
    pub error: Option<(String, String)>,
    pub error_detail: Option<String>,
    pub fingerprint: Option<Hash>,
    pub rebuild_to: Option<i64>,
    pub rebuild_stream: Option<i64>,
    /// Events applied in its life, dead letters included.
    pub applied: i64,
}

columns! {
    mod of, selected;
    STATUS = "status",
    POSITION = "global_position",
    ATTEMPTS = "attempts",
    NEXT_BATCH = "next_batch",
    FAILED_POSITION = "failed_position",
    RETRY_AT = "retry_at",
    SQLSTATE = "error_sqlstate",
    MESSAGE = "error_message",
    DETAIL = "error_detail",
    FINGERPRINT = "fingerprint",
    REBUILD_TO = "rebuild_to",
    REBUILD_STREAM = "rebuild_stream",
    APPLIED = "applied",
}

macro_rules! select {
    () => {
        concat!("select ", selected!(), " from _eventstream.projection_progress where projection_id = $1")
    };
}

/// What stands for the message of an error, in which a payload may be said, where the role may not read that.
pub const HIDDEN: &str = "its message is shown to roles that may read what it is shown, by eventstream.projections";

/// Runs what calls users' code. Where the role may not read what that is shown, it is told the SQLSTATE of its errors only, and none of its
/// NOTICEs: payloads stand in them.
pub fn veiled<T>(is_shown: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if is_shown {
        return work();
    }
    match report::silently(work) {
        Err(failure) => Err(failure.in_other_words(&format!("users' code failed: {HIDDEN}"))?),
        done => done,
    }
}

thread_local! {
    static SKIP: Plan = const { Plan::new(concat!(select!(), " for update skip locked"), &[INT8OID]) };
    static WAIT: Plan = const { Plan::new(concat!(select!(), " for update"), &[INT8OID]) };
    static LOOK: Plan = const { Plan::new(select!(), &[INT8OID]) };
    static ADVANCE: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set global_position = $2, moved_at = clock_timestamp(), applied = applied + $3, attempts = 0, next_batch = $4, \
             failed_position = null, retry_at = null, \
             rebuild_began = case when status = 'rebuilding' and $2 < rebuild_to then rebuild_began end, \
             rebuild_to = case when status = 'rebuilding' and $2 < rebuild_to then rebuild_to end, \
             status = case when status = 'rebuilding' and $2 >= rebuild_to then 'running' else status end, \
             rate = case when clock_timestamp() > window_began + interval '5s' \
                         then (applied + $3 - window_applied) / extract(epoch from clock_timestamp() - window_began) \
                         else rate end, \
             window_applied = case when clock_timestamp() > window_began + interval '5s' then applied + $3 else window_applied end, \
             window_began = case when clock_timestamp() > window_began + interval '5s' then clock_timestamp() else window_began end \
         where projection_id = $1",
        &[INT8OID, INT8OID, INT8OID, INT4OID],
    ) };
    static WITHHOLD: Plan = const { Plan::new(
        "update _eventstream.projection_progress g set error_message = $2, error_detail = null from _eventstream.projections p \
         where p.tenant_id = $1 and g.projection_id = p.id and g.error_message is not null",
        &[INT8OID, TEXTOID],
    ) };
    static FORGET_FINGERPRINT: Plan = const { Plan::new(
        "update _eventstream.projection_progress set fingerprint = null where projection_id = $1",
        &[INT8OID],
    ) };
    static FAIL: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set attempts = $2, next_batch = $3, failed_position = $4, failed_at = clock_timestamp(), retry_at = $5, \
             error_sqlstate = $6, error_message = $7, status = coalesce($8, status), error_detail = $9 where projection_id = $1",
        &[INT8OID, INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID],
    ) };
    static ATTACH: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set status = 'running', global_position = $2, attempts = 0, next_batch = null, failed_position = null, retry_at = null, \
             rebuild_to = null, rebuild_stream = null, rebuild_done = null, rebuild_total = null, rebuild_began = null \
         where projection_id = $1",
        &[INT8OID, INT8OID],
    ) };
    static SET_STATUS: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set status = $2, global_position = coalesce($3, global_position), attempts = 0, next_batch = null, failed_position = null, \
             retry_at = null where projection_id = $1",
        &[INT8OID, TEXTOID, INT8OID],
    ) };
}

/// What was said of the last failures of a tenant's projections is not told any more, and `instead` is.
pub fn withhold(db: &Db, tenant_id: i64, instead: &str) -> Result<()> {
    WITHHOLD.with(|plan| plan.write(db, &[Some(Datum::from(tenant_id)), Some(from_text(instead)?)])).map(drop)
}

/// The rows of a state table are from now on those of more than one fold: whatever fold comes, they are others.
pub fn forget_fingerprint(id: i64) -> Result<()> {
    let key = [Some(Datum::from(id))];
    as_owner(Planning::ByIndex, |db, _| FORGET_FINGERPRINT.with(|plan| plan.write(db, &key)).map(drop))
}

fn read(row: &Row) -> Result<Progress> {
    let error = match (row.text_opt(of::SQLSTATE)?, row.text_opt(of::MESSAGE)?) {
        (Some(sqlstate), Some(message)) => Some((sqlstate.to_owned(), message.to_owned())),
        _ => None,
    };
    Ok(Progress {
        // What nobody knows is not moved.
        status: Status::named(row.text(of::STATUS)?).unwrap_or(Status::Stopped),
        position: row.int8(of::POSITION)?,
        attempts: row.int4(of::ATTEMPTS)?,
        next_batch: row.get(of::NEXT_BATCH).map(|value| (value.value() as i32).into()),
        failed_position: row.int8_opt(of::FAILED_POSITION),
        retry_at: row.int8_opt(of::RETRY_AT),
        error,
        fingerprint: row.bytes_opt(of::FINGERPRINT)?.and_then(|bytes| Hash::try_from(bytes).ok()),
        rebuild_to: row.int8_opt(of::REBUILD_TO),
        rebuild_stream: row.int8_opt(of::REBUILD_STREAM),
        applied: row.int8(of::APPLIED)?,
        error_detail: row.text_opt(of::DETAIL)?.map(ToOwned::to_owned),
    })
}

/// In a transaction that keeps its snapshot a projection that was advanced since is a serialization failure (40001): its handler would
/// not see what was written. None where somebody else holds the lock ([`Lock::Skip`]), or there is no such row.
pub fn lock(id: i64, lock: Lock) -> Result<Option<Progress>> {
    let plan = if lock == Lock::Skip { &SKIP } else { &WAIT };
    let view = if lock == Lock::Latest { View::Write } else { View::Lock };
    as_owner(Planning::ByIndex, |db, _| plan.with(|plan| plan.first(db, view, &[Some(Datum::from(id))], read)))
}

/// As committed by now, without a lock.
pub fn look(id: i64) -> Result<Option<Progress>> {
    as_owner(Planning::ByIndex, |db, _| LOOK.with(|plan| plan.first(db, View::Latest, &[Some(Datum::from(id))], read)))
}

/// The checkpoint moves to `position`, with so many events applied; what failed before has succeeded.
pub fn advance(db: &Db, id: i64, position: i64, events: i64, next_batch: Option<i64>) -> Result<()> {
    let row = [
        Some(Datum::from(id)),
        Some(Datum::from(position)),
        Some(Datum::from(events)),
        next_batch.map(|size| Datum::from(size as i32)),
    ];
    board::note_passed_at_commit(id, position);
    ADVANCE.with(|plan| plan.write(db, &row)).map(drop)
}

/// A failure, and what comes next.
pub struct Failed<'a> {
    pub attempts: i32,
    pub next_batch: Option<i64>,
    /// Of the event, where it is known.
    pub position: Option<i64>,
    pub retry_at: Option<i64>,
    pub caught: &'a Caught,
    /// Where it changes.
    pub status: Option<Status>,
}

pub fn fail(db: &Db, id: i64, failed: &Failed) -> Result<()> {
    let row: [Nullable; 9] = [
        Some(Datum::from(id)),
        Some(Datum::from(failed.attempts)),
        failed.next_batch.map(|size| Datum::from(size as i32)),
        failed.position.map(Datum::from),
        failed.retry_at.map(Datum::from),
        Some(from_text(&failed.caught.sqlstate)?),
        Some(from_text(shortened(&failed.caught.message))?),
        failed.status.map(|status| from_text(status.as_str())).transpose()?,
        failed.caught.detail.as_deref().map(shortened).map(from_text).transpose()?,
    ];
    FAIL.with(|plan| plan.write(db, &row)).map(drop)
}

/// An inline projection runs, and has seen everything up to `position`; its rebuild, if that was one, is over.
pub fn attach(db: &Db, id: i64, position: i64) -> Result<()> {
    ATTACH.with(|plan| plan.write(db, &[Some(Datum::from(id)), Some(Datum::from(position))])).map(drop)
}

/// A new status, and where `position` is given a new checkpoint; failed attempts are forgotten.
pub fn set_status(db: &Db, id: i64, status: Status, position: Option<i64>) -> Result<()> {
    let row = [Some(Datum::from(id)), Some(from_text(status.as_str())?), position.map(Datum::from)];
    SET_STATUS.with(|plan| plan.write(db, &row)).map(drop)
}
