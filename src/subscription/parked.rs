//! What waits by itself: streams of which an event was nacked, and single dead letters that are tried again. A parked stream has a
//! place of its own (the last version that is done); its slot gives none of its events from `from_position` on, and the row gives them only
//! as far as the slot has come. When there is none left in between, the row goes, and the slot gives the stream's events again. Whoever
//! writes a row has locked its slot; only es_retry_dead_letter adds single events without.
use crate::log::delivery::Facts;
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text, int8_array_of};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT4OID, INT8ARRAYOID, INT8OID, TEXTOID, TIMESTAMPTZOID};
use std::collections::HashMap;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub stream_id: i64,
    pub slot: usize,
    pub from_position: i64,
    /// Every event up to here is done, as far as this row goes, and those of `skipped`.
    pub version: i64,
    pub skipped: Vec<i64>,
    pub is_single: bool,
    /// The event that failed, and how often it was delivered.
    pub failed_version: Option<i64>,
    pub attempts: i32,
}

impl Parked {
    /// Everything up to `version` is done.
    pub fn advance(&mut self, version: i64) {
        self.version = self.version.max(version);
        self.skipped.retain(|&skipped| skipped > version);
        if self.failed_version.is_some_and(|failed| failed <= version) {
            self.failed_version = None;
            self.attempts = 0;
        }
    }

    /// The event is done, or dead; whether those before it are depends on `is_first`.
    pub fn leave_out(&mut self, version: i64, is_first: bool) {
        if is_first {
            return self.advance(version);
        }
        if version > self.version && !self.skipped.contains(&version) {
            self.skipped.push(version);
        }
        if self.failed_version == Some(version) {
            self.failed_version = None;
            self.attempts = 0;
        }
    }
}

columns! {
    mod of, selected;
    STREAM_ID = "stream_id",
    FROM_POSITION = "from_position",
    VERSION = "version",
    SKIPPED = "skipped",
    IS_SINGLE = "is_single",
    FAILED_VERSION = "failed_version",
    ATTEMPTS = "attempts",
    SLOT = "slot::int",
}

thread_local! {
    static NEXT: Plan = const { Plan::new(
        "select retry_at from _eventstream.subscription_parked where subscription_id = $1 order by retry_at limit 1",
        &[INT8OID],
    ) };
    static LATER: Plan = const { Plan::new(
        "select retry_at from _eventstream.subscription_parked where subscription_id = $1 and retry_at > $2 \
         order by retry_at limit 1",
        &[INT8OID, TIMESTAMPTZOID],
    ) };
    // A stream waits until its slot has done all that comes before it: $3 has the slots' positions, -1 where one is not free.
    static DUE: Plan = const { Plan::new(
        concat!(
            "select ",
            selected!(),
            " from _eventstream.subscription_parked where subscription_id = $1 and retry_at <= $2 and $3[slot + 1] >= case when is_single then 0 else from_position - 1 end \
             order by retry_at limit $4"
        ),
        &[INT8OID, TIMESTAMPTZOID, INT8ARRAYOID, INT8OID],
    ) };
    static OF_STREAMS: Plan = const { Plan::new(
        concat!(
            "select ",
            selected!(),
            " from _eventstream.subscription_parked where subscription_id = $1 and stream_id = any ($2) and not is_single"
        ),
        &[INT8OID, INT8ARRAYOID],
    ) };
    static SINGLES: Plan = const { Plan::new(
        concat!(
            "select ",
            selected!(),
            " from _eventstream.subscription_parked where subscription_id = $1 and from_position = any ($2) and is_single"
        ),
        &[INT8OID, INT8ARRAYOID],
    ) };
    static PARK: Plan = const { Plan::new(
        "insert into _eventstream.subscription_parked as p \
         (subscription_id, slot, stream_id, from_position, version, skipped, is_single, failed_version, attempts, retry_at, reason) \
         values ($1, $2, $3, $4, $5, $6, false, $7, $8, $9, $10) on conflict (subscription_id, stream_id) where not is_single \
         do update set from_position = excluded.from_position, version = excluded.version, skipped = excluded.skipped, \
                       failed_version = excluded.failed_version, attempts = excluded.attempts, \
                       retry_at = excluded.retry_at, reason = excluded.reason",
        &[INT8OID, INT4OID, INT8OID, INT8OID, INT8OID, INT8ARRAYOID, INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID],
    ) };
    static ADD_SINGLE: Plan = const { Plan::new(
        "insert into _eventstream.subscription_parked \
         (subscription_id, slot, stream_id, from_position, version, is_single, attempts, retry_at) \
         values ($1, $2, $3, $4, $5, true, 0, $6) on conflict (subscription_id, from_position) where is_single do nothing",
        &[INT8OID, INT4OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID],
    ) };
    static SET_SINGLE: Plan = const { Plan::new(
        "update _eventstream.subscription_parked set attempts = $3, retry_at = $4, reason = $5 \
         where subscription_id = $1 and from_position = $2 and is_single",
        &[INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID],
    ) };
    static ADVANCE: Plan = const { Plan::new(
        "update _eventstream.subscription_parked set version = $3, skipped = $4, failed_version = $5, attempts = $6, \
             retry_at = case when $5 is null then pg_catalog.clock_timestamp() else retry_at end, \
             reason = case when $5 is null then null else reason end \
         where subscription_id = $1 and stream_id = $2 and not is_single",
        &[INT8OID, INT8OID, INT8OID, INT8ARRAYOID, INT8OID, INT4OID],
    ) };
    static DROP_SINGLES: Plan = const { Plan::new(
        "delete from _eventstream.subscription_parked where subscription_id = $1 and from_position = any ($2) and is_single",
        &[INT8OID, INT8ARRAYOID],
    ) };
    static DROP_STREAMS: Plan = const { Plan::new(
        "delete from _eventstream.subscription_parked where subscription_id = $1 and stream_id = any ($2) and not is_single",
        &[INT8OID, INT8ARRAYOID],
    ) };
    static WITHHOLD: Plan = const { Plan::new(
        "update _eventstream.subscription_parked g set reason = $2 from _eventstream.subscriptions s \
         where s.tenant_id = $1 and g.subscription_id = s.id and g.reason is not null",
        &[INT8OID, TEXTOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_parked where subscription_id = $1",
        &[INT8OID],
    ) };
}

/// What consumers of a tenant's subscriptions said of events that wait is not told any more, and `instead` is.
pub fn withhold(tenant_id: i64, instead: &str) -> Result<()> {
    as_owner(Planning::ByCost, |db, _| {
        WITHHOLD.with(|plan| plan.write(db, &[Some(Datum::from(tenant_id)), Some(from_text(instead)?)])).map(drop)
    })
}

fn read(row: &Row) -> Result<Parked> {
    Ok(Parked {
        stream_id: row.int8(of::STREAM_ID)?,
        from_position: row.int8(of::FROM_POSITION)?,
        version: row.int8(of::VERSION)?,
        skipped: row.int8_array(of::SKIPPED)?,
        is_single: row.boolean(of::IS_SINGLE)?,
        failed_version: row.int8_opt(of::FAILED_VERSION),
        attempts: row.int4(of::ATTEMPTS)?,
        slot: row.int4(of::SLOT)? as usize,
    })
}

fn key(subscription_id: i64, list: &[i64]) -> Result<[Nullable; 2]> {
    Ok([Some(Datum::from(subscription_id)), Some(int8_array_of(list)?)])
}

/// When the first is due, which may have been; None where nothing is parked.
pub fn first_retry(db: &Db, subscription_id: i64) -> Result<Option<i64>> {
    NEXT.with(|plan| plan.first(db, View::Latest, &[Some(Datum::from(subscription_id))], |row| row.int8(0)))
}

/// When the next one will be due.
pub fn next_retry(db: &Db, subscription_id: i64, now: i64) -> Result<Option<i64>> {
    let args = [Some(Datum::from(subscription_id)), Some(Datum::from(now))];
    LATER.with(|plan| plan.first(db, View::Latest, &args, |row| row.int8(0)))
}

/// Those that are due and may be delivered, given the positions of all slots (-1: not free).
pub fn due(db: &Db, subscription_id: i64, now: i64, positions: &[i64], most: usize) -> Result<Vec<Parked>> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(Datum::from(now)),
        Some(int8_array_of(positions)?),
        Some(Datum::from(most as i64)),
    ];
    DUE.with(|plan| plan.rows(db, View::Latest, 0, &args, read))
}

/// Which of these streams are parked.
pub fn of_streams(db: &Db, subscription_id: i64, stream_ids: &[i64]) -> Result<HashMap<i64, Parked>> {
    if stream_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = OF_STREAMS.with(|plan| plan.rows(db, View::Latest, 0, &key(subscription_id, stream_ids)?, read))?;
    Ok(rows.into_iter().map(|row| (row.stream_id, row)).collect())
}

/// Which of these positions are single events that are tried again.
pub fn singles(db: &Db, subscription_id: i64, positions: &[i64]) -> Result<HashMap<i64, Parked>> {
    if positions.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = SINGLES.with(|plan| plan.rows(db, View::Latest, 0, &key(subscription_id, positions)?, read))?;
    Ok(rows.into_iter().map(|row| (row.from_position, row)).collect())
}

/// Parks a stream, or the same stream again.
pub fn park(db: &Db, subscription_id: i64, row: &Parked, retry_at: i64, reason: &str) -> Result<()> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(Datum::from(row.slot as i32)),
        Some(Datum::from(row.stream_id)),
        Some(Datum::from(row.from_position)),
        Some(Datum::from(row.version)),
        Some(int8_array_of(&row.skipped)?),
        row.failed_version.map(Datum::from),
        Some(Datum::from(row.attempts)),
        Some(Datum::from(retry_at)),
        Some(from_text(reason)?),
    ];
    PARK.with(|plan| plan.write(db, &args)).map(drop)
}

/// One event is to be delivered once more, now.
pub fn add_single(db: &Db, subscription_id: i64, event: &Facts, now: i64) -> Result<()> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(Datum::from(event.slot as i32)),
        Some(Datum::from(event.stream_id)),
        Some(Datum::from(event.position)),
        Some(Datum::from(event.version - 1)),
        Some(Datum::from(now)),
    ];
    ADD_SINGLE.with(|plan| plan.write(db, &args)).map(drop)
}

/// A single event has failed again.
pub fn set_single(db: &Db, subscription_id: i64, row: &Parked, retry_at: i64, reason: &str) -> Result<()> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(Datum::from(row.from_position)),
        Some(Datum::from(row.attempts)),
        Some(Datum::from(retry_at)),
        Some(from_text(reason)?),
    ];
    SET_SINGLE.with(|plan| plan.write(db, &args)).map(drop)
}

/// Writes how far a stream's row is; it is due at once, unless an event that failed comes next.
pub fn advance(db: &Db, subscription_id: i64, row: &Parked) -> Result<()> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(Datum::from(row.stream_id)),
        Some(Datum::from(row.version)),
        Some(int8_array_of(&row.skipped)?),
        row.failed_version.map(Datum::from),
        Some(Datum::from(row.attempts)),
    ];
    ADVANCE.with(|plan| plan.write(db, &args)).map(drop)
}

/// Single events that are done.
pub fn drop_singles(db: &Db, subscription_id: i64, positions: &[i64]) -> Result<()> {
    if positions.is_empty() {
        return Ok(());
    }
    DROP_SINGLES.with(|plan| plan.write(db, &key(subscription_id, positions)?)).map(drop)
}

/// Streams that have caught up with their slots.
pub fn drop_streams(db: &Db, subscription_id: i64, stream_ids: &[i64]) -> Result<()> {
    if stream_ids.is_empty() {
        return Ok(());
    }
    DROP_STREAMS.with(|plan| plan.write(db, &key(subscription_id, stream_ids)?)).map(drop)
}

/// How many there were.
pub fn drop_all(db: &Db, subscription_id: i64) -> Result<u64> {
    DROP.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id))]))
}
