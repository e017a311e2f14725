//! Who shares a subscription: each consumer has a row of its own, which nobody else writes. Promises that nobody waits here, not even two
//! sessions that go by one name.
use crate::pg::datum::from_text;
use crate::pg::failure::Result;
use crate::pg::plan::{Plan, View};
use crate::pg::session::Db;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID, TIMESTAMPTZOID};
use std::collections::BTreeSet;

/// A row is written again only when it says so much less than it could (µs): a busy consumer writes about once a second.
const PRECISION: i64 = 1_000_000;
/// Consumers that were not there for so long (µs) are forgotten, so many whenever a new one comes: more than come.
const FORGOTTEN_AFTER: i64 = 600_000_000;
const MOST_FORGOTTEN: i64 = 100;

thread_local! {
    static SEEN: Plan = const { Plan::new(
        "select consumer, max(seen_until) \
         from (select consumer, seen_until from _eventstream.subscription_consumers where subscription_id = $1 and seen_until > $2 \
               union all \
               select consumer, seen_until from _eventstream.subscription_consumers where subscription_id = $1 and consumer = $3) c \
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
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_consumers c \
         where not exists (select from _eventstream.subscriptions s where s.id = c.subscription_id)",
        &[],
    ) };
}

/// Notes that the consumer is there until `until`, and returns all that are, this one among them.
pub fn note(db: &Db, subscription_id: i64, consumer: &str, now: i64, until: i64) -> Result<BTreeSet<String>> {
    let id = Some(Datum::from(subscription_id));
    let name = Some(from_text(consumer)?);
    let mut own = None;
    let mut seen = BTreeSet::from([consumer.to_owned()]);
    SEEN.with(|plan| {
        plan.rows(db, View::Latest, 0, &[id, Some(Datum::from(now)), name], |row| {
            let (who, seen_until) = (row.text(0)?, row.int8(1)?);
            if who == consumer {
                own = Some(seen_until);
            } else {
                seen.insert(who.to_owned());
            }
            Ok(())
        })
    })?;
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
    Ok(seen)
}

/// Those of subscriptions that are gone: also what an es_fetch left that was under way when one went.
pub fn drop_left(db: &Db) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[])).map(drop)
}
