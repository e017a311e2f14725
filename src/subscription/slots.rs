//! The slots of a subscription: how far each is, and who leases it. They are read without a lock; whoever writes one has locked it first
//! (src/pg/process/lock.rs), skipping what others have locked, and only if it is still as it was read (`changes`). So nobody waits here but
//! es_seek_subscription and es_drop_subscription.
use crate::pg::error::failure::Result;
use crate::pg::process::lock::LockTag;
use crate::pg::process::server;
use crate::pg::process::session::Db;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text, from_uuid, int8_array_of};
use crate::shared::catalog::Catalog;
use eventstream_core::delivery::{SLOTS, Standing};
use pgrx::pg_sys::{Datum, INT8ARRAYOID, INT8OID, TEXTOID, TIMESTAMPTZOID, UUIDOID};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How often, and after which pauses, a slot that somebody looks at is asked for.
const MOST_TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// A slot's lease, which may have ended.
#[derive(Debug, Clone)]
pub struct Lease {
    pub id: [u8; 16],
    pub consumer: String,
    /// Microseconds since 2000-01-01 UTC.
    pub until: i64,
    pub up_to: i64,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Slot {
    pub slot: usize,
    pub standing: Standing,
    changes: i64,
    pub lease: Option<Lease>,
    /// Microseconds since 2000-01-01 UTC.
    pub served_at: i64,
}

impl Slot {
    /// Whether somebody leases it at `now`.
    pub fn is_leased(&self, now: i64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.until >= now)
    }
}

columns! {
    mod of, selected;
    SLOT = "s.slot",
    POSITION = "s.global_position",
    REDELIVERIES = "s.redeliveries",
    SUSPECT_TO = "s.suspect_to",
    CHANGES = "s.changes",
    LEASE_ID = "s.lease_id",
    CONSUMER = "s.consumer",
    LEASE_UNTIL = "s.lease_until",
    UP_TO = "s.up_to",
    SERVED_AT = "s.served_at",
}

thread_local! {
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.subscription_slots (subscription_id, slot, global_position) \
         select $1, slot, $2 from generate_series(0, $3 - 1) slot",
        &[INT8OID, INT8OID, INT8OID],
    ) };
    static READ: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from _eventstream.subscription_slots s where s.subscription_id = $1 order by s.served_at, s.slot"
        ),
        &[INT8OID],
    ) };
    static CHANGES: Plan = const { Plan::new(
        "select slot, changes from _eventstream.subscription_slots where subscription_id = $1 and slot = any ($2)",
        &[INT8OID, INT8ARRAYOID],
    ) };
    static OF_LEASE: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from _eventstream.subscription_slots s where s.subscription_id = $1 and s.lease_id = $2"
        ),
        &[INT8OID, UUIDOID],
    ) };
    static WRITE: Plan = const { Plan::new(
        "update _eventstream.subscription_slots s \
         set global_position = w.global_position, redeliveries = w.redeliveries, suspect_to = w.suspect_to, changes = s.changes + 1, \
             lease_id = null, consumer = null, lease_until = null, up_to = null \
         from unnest($2, $3, $4, $5) w (slot, global_position, redeliveries, suspect_to) \
         where s.subscription_id = $1 and s.slot = w.slot",
        &[INT8OID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID],
    ) };
    static MOVE: Plan = const { Plan::new(
        "update _eventstream.subscription_slots s \
         set global_position = w.global_position, redeliveries = w.redeliveries, suspect_to = w.suspect_to, changes = s.changes + 1 \
         from unnest($2, $3, $4, $5) w (slot, global_position, redeliveries, suspect_to) \
         where s.subscription_id = $1 and s.slot = w.slot",
        &[INT8OID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID],
    ) };
    static GIVE: Plan = const { Plan::new(
        "update _eventstream.subscription_slots s \
         set global_position = w.global_position, redeliveries = w.redeliveries, suspect_to = w.suspect_to, changes = s.changes + 1, \
             up_to = w.up_to, lease_id = $7, consumer = $8, lease_until = $9, served_at = $10 \
         from unnest($2, $3, $4, $5, $6) w (slot, global_position, redeliveries, suspect_to, up_to) \
         where s.subscription_id = $1 and s.slot = w.slot",
        &[
            INT8OID,
            INT8ARRAYOID,
            INT8ARRAYOID,
            INT8ARRAYOID,
            INT8ARRAYOID,
            INT8ARRAYOID,
            UUIDOID,
            TEXTOID,
            TIMESTAMPTZOID,
            TIMESTAMPTZOID,
        ],
    ) };
    static EXTEND: Plan = const { Plan::new(
        "update _eventstream.subscription_slots set lease_until = $3, changes = changes + 1 \
         where subscription_id = $1 and lease_id = $2",
        &[INT8OID, UUIDOID, TIMESTAMPTZOID],
    ) };
    static MOVE_ALL: Plan = const { Plan::new(
        "update _eventstream.subscription_slots \
         set global_position = $2, redeliveries = 0, suspect_to = 0, changes = changes + 1, \
             lease_id = null, consumer = null, lease_until = null, up_to = null \
         where subscription_id = $1 and (global_position <> $2 or redeliveries <> 0 or suspect_to <> 0 or lease_id is not null)",
        &[INT8OID, INT8OID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_slots where subscription_id = $1",
        &[INT8OID],
    ) };
}

fn read_slot(row: &Row) -> Result<Slot> {
    let lease = match row.get(of::LEASE_ID) {
        None => None,
        Some(_) => Some(Lease {
            id: row.uuid(of::LEASE_ID)?,
            consumer: row.text(of::CONSUMER)?.to_owned(),
            until: row.int8(of::LEASE_UNTIL)?,
            up_to: row.int8(of::UP_TO)?,
        }),
    };
    Ok(Slot {
        slot: row.int4(of::SLOT)? as usize,
        standing: Standing {
            position: row.int8(of::POSITION)?,
            redeliveries: row.int4(of::REDELIVERIES)?,
            suspect_to: row.int8(of::SUSPECT_TO)?,
        },
        changes: row.int8(of::CHANGES)?,
        lease,
        served_at: row.int8(of::SERVED_AT)?,
    })
}

pub fn create(db: &Db, subscription_id: i64, position: i64) -> Result<()> {
    let args = [Some(Datum::from(subscription_id)), Some(Datum::from(position)), Some(Datum::from(SLOTS as i64))];
    CREATE.with(|plan| plan.write(db, &args)).map(drop)
}

/// All of them as they are now, those that waited longest first; none where the subscription is gone.
pub fn read(db: &Db, subscription_id: i64) -> Result<Vec<Slot>> {
    READ.with(|plan| plan.rows(db, View::Latest, 0, &[Some(Datum::from(subscription_id))], read_slot))
}

fn tag(catalog: &Catalog, subscription_id: i64, slot: usize) -> LockTag {
    LockTag { table: catalog.events, object: subscription_id, part: slot as u16 }
}

/// Locks the first `most` of these that nobody has locked, and keeps those that are as they were read.
pub fn lock(db: &Db, catalog: &Catalog, subscription_id: i64, wanted: &[&Slot], most: usize) -> Result<Vec<usize>> {
    let mut locked: Vec<&Slot> = Vec::new();
    for slot in wanted {
        if locked.len() < most && tag(catalog, subscription_id, slot.slot).try_lock()? {
            locked.push(slot);
        }
    }
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = locked.iter().map(|slot| slot.slot as i64).collect();
    let args = [Some(Datum::from(subscription_id)), Some(int8_array_of(&numbers)?)];
    let changes: HashMap<usize, i64> = CHANGES
        .with(|plan| plan.rows(db, View::Latest, 0, &args, |row| Ok((row.int4(0)? as usize, row.int8(1)?))))?
        .into_iter()
        .collect();
    let mut kept = Vec::new();
    for slot in locked {
        if changes.get(&slot.slot) == Some(&slot.changes) {
            kept.push(slot.slot);
        } else {
            tag(catalog, subscription_id, slot.slot).unlock()?;
        }
    }
    Ok(kept)
}

/// Gives locks back that nothing was written under.
pub fn unlock(catalog: &Catalog, subscription_id: i64, slots: impl Iterator<Item = usize>) -> Result<()> {
    slots.into_iter().try_for_each(|slot| tag(catalog, subscription_id, slot).unlock())
}

/// Locks these slots, and gives those that the lease holds. Who only looks at a slot has it locked for a moment; who has it for longer has
/// taken it over.
pub fn lock_of_lease(
    db: &Db,
    catalog: &Catalog,
    subscription_id: i64,
    lease_id: &[u8; 16],
    numbers: &BTreeSet<usize>,
) -> Result<Vec<Slot>> {
    for &number in numbers {
        let mut tries = 0;
        while !tag(catalog, subscription_id, number).try_lock()? {
            tries += 1;
            if tries == MOST_TRIES {
                return Ok(Vec::new());
            }
            server::pause(PAUSE)?;
        }
    }
    let args = [Some(Datum::from(subscription_id)), Some(from_uuid(lease_id)?)];
    let mut slots = OF_LEASE.with(|plan| plan.rows(db, View::Latest, 0, &args, read_slot))?;
    slots.retain(|slot| numbers.contains(&slot.slot));
    Ok(slots)
}

/// Waits for all of them.
pub fn lock_all(catalog: &Catalog, subscription_id: i64) -> Result<()> {
    (0..SLOTS).try_for_each(|slot| tag(catalog, subscription_id, slot).lock())
}

fn standings(subscription_id: i64, slots: &[(usize, Standing)]) -> Result<[Nullable; 5]> {
    let column = |value: &dyn Fn(&(usize, Standing)) -> i64| {
        int8_array_of(&slots.iter().map(value).collect::<Vec<_>>()).map(Some)
    };
    Ok([
        Some(Datum::from(subscription_id)),
        column(&|(slot, _)| *slot as i64)?,
        column(&|(_, standing)| standing.position)?,
        column(&|(_, standing)| standing.redeliveries.into())?,
        column(&|(_, standing)| standing.suspect_to)?,
    ])
}

/// Where locked slots stand from now on, without a lease.
pub fn free(db: &Db, subscription_id: i64, slots: &[(usize, Standing)]) -> Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    let args = standings(subscription_id, slots)?;
    WRITE.with(|plan| plan.write(db, &args)).map(drop)
}

/// Where locked slots stand from now on; their lease stays.
pub fn advance(db: &Db, subscription_id: i64, slots: &[(usize, Standing)]) -> Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    let args = standings(subscription_id, slots)?;
    MOVE.with(|plan| plan.write(db, &args)).map(drop)
}

/// Leases locked slots: where each stands, and where it moves when all is acknowledged.
pub fn give(db: &Db, subscription_id: i64, slots: &[(usize, Standing, i64)], lease: &Lease, now: i64) -> Result<()> {
    let standings = standings(subscription_id, &slots.iter().map(|slot| (slot.0, slot.1)).collect::<Vec<_>>())?;
    let mut args = standings.to_vec();
    args.extend([
        Some(int8_array_of(&slots.iter().map(|slot| slot.2).collect::<Vec<_>>())?),
        Some(from_uuid(&lease.id)?),
        Some(from_text(&lease.consumer)?),
        Some(Datum::from(lease.until)),
        Some(Datum::from(now)),
    ]);
    GIVE.with(|plan| plan.write(db, &args)).map(drop)
}

/// A lease whose slots are locked ends later.
pub fn extend(db: &Db, subscription_id: i64, lease_id: &[u8; 16], until: i64) -> Result<()> {
    let args = [Some(Datum::from(subscription_id)), Some(from_uuid(lease_id)?), Some(Datum::from(until))];
    EXTEND.with(|plan| plan.write(db, &args)).map(drop)
}

/// How many of them stood elsewhere, or were leased.
pub fn move_all(db: &Db, subscription_id: i64, position: i64) -> Result<u64> {
    MOVE_ALL.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id)), Some(Datum::from(position))]))
}

pub fn drop_all(db: &Db, subscription_id: i64) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id))])).map(drop)
}
