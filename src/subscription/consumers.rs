//! Who shares a subscription: each consumer has a row of its own, which nobody else writes. Promises that nobody waits here, not even two
//! sessions that go by one name.
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{from_text, from_uuid};
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID, TIMESTAMPTZOID, UUIDOID};
use std::collections::BTreeMap;

/// A row is written again only when it says so much less than it could (µs): a busy consumer writes about once a second.
const PRECISION: i64 = 1_000_000;
/// Consumers that were not there for so long (µs) are forgotten, so many whenever a new one comes: more than come.
const FORGOTTEN_AFTER: i64 = 600_000_000;
const MOST_FORGOTTEN: i64 = 100;
/// The longest lease (µs) of a consumer that has acknowledged nothing lately: names that come first and do nothing hold nothing for long.
const LONGEST_OF_IDLE: i64 = 60_000_000;

thread_local! {
    static SEEN: Plan = const { Plan::new(
        "select consumer, max(seen_until), coalesce(bool_or(progressed_at > $2 - interval '10 minutes'), false) \
         from (select consumer, seen_until, progressed_at from _eventstream.subscription_consumers \
               where subscription_id = $1 and seen_until > $2 \
               union all \
               select consumer, seen_until, progressed_at from _eventstream.subscription_consumers where subscription_id = $1 and consumer = $3) c \
         group by consumer",
        &[INT8OID, TIMESTAMPTZOID, TEXTOID],
    ) };
    static NOTE: Plan = const { Plan::new(
        "update _eventstream.subscription_consumers set seen_until = $3 \
         where ctid = (select ctid from _eventstream.subscription_consumers \
                       where subscription_id = $1 and consumer = $2 limit 1 for update skip locked)",
        &[INT8OID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static ADD: Plan = const { Plan::new(
        "insert into _eventstream.subscription_consumers (subscription_id, consumer, seen_until) values ($1, $2, $3)",
        &[INT8OID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static FORGET: Plan = const { Plan::new(
        "delete from _eventstream.subscription_consumers \
         where ctid = any (array(select ctid from _eventstream.subscription_consumers \
                                 where subscription_id = $1 and seen_until < $2 \
                                 order by seen_until limit $3 for update skip locked))",
        &[INT8OID, TIMESTAMPTZOID, INT8OID],
    ) };
    // Nobody waits for a row that somebody else is writing.
    static PROGRESS: Plan = const { Plan::new(
        "update _eventstream.subscription_consumers set progressed_at = clock_timestamp() \
         where ctid = (select c.ctid from _eventstream.subscription_consumers c \
                       join _eventstream.subscription_leases l on l.lease_id = $2 and l.consumer = c.consumer \
                       where c.subscription_id = $1 \
                         and (c.progressed_at is null or c.progressed_at < clock_timestamp() - interval '1 second') \
                       limit 1 for update of c skip locked)",
        &[INT8OID, UUIDOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_consumers c \
         where not exists (select from _eventstream.subscriptions s where s.id = c.subscription_id)",
        &[],
    ) };
}

/// Who is there, and whether each has got on with what it was given lately: acknowledged, given back or extended something.
pub type There = BTreeMap<String, bool>;

/// Notes that the consumer is there until `end` and for a lease after it; all that are, this one among them, and how long (µs) its lease may be.
pub fn note(db: &Db, subscription_id: i64, consumer: &str, now: i64, (end, lease): (i64, i64)) -> Result<(There, i64)> {
    let id = Some(Datum::from(subscription_id));
    let name = Some(from_text(consumer)?);
    let mut own = None;
    let mut seen = There::from([(consumer.to_owned(), false)]);
    SEEN.with(|plan| {
        plan.rows(db, View::Latest, 0, &[id, Some(Datum::from(now)), name], |row| {
            let (who, seen_until) = (row.text(0)?, row.int8(1)?);
            if who == consumer {
                own = Some(seen_until);
            }
            seen.insert(who.to_owned(), row.boolean(2)?);
            Ok(())
        })
    })?;
    let lease = if seen.get(consumer) == Some(&true) { lease } else { lease.min(LONGEST_OF_IDLE) };
    let until = end + lease;
    let row = [id, name, Some(Datum::from(until))];
    match own {
        None => {
            let old = [id, Some(Datum::from(now - FORGOTTEN_AFTER)), Some(Datum::from(MOST_FORGOTTEN))];
            FORGET.with(|plan| plan.write(db, &old))?;
            ADD.with(|plan| plan.write(db, &row))?;
        }
        Some(own) if until - own > PRECISION.min((until - now) / 4) || own - until > PRECISION => {
            NOTE.with(|plan| plan.write(db, &row))?;
        }
        Some(_) => {}
    }
    Ok((seen, lease))
}

/// Notes that the consumer of a lease got on with it.
pub fn progress(db: &Db, subscription_id: i64, lease_id: &[u8; 16]) -> Result<()> {
    let args = [Some(Datum::from(subscription_id)), Some(from_uuid(lease_id)?)];
    PROGRESS.with(|plan| plan.write(db, &args)).map(drop)
}

/// Those of subscriptions that are gone: also what an es_fetch left that was under way when one went.
pub fn drop_left(db: &Db) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[])).map(drop)
}
