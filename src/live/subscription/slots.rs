//! The slots of a subscription: how far each is, and who leases it. They are read without a lock; whoever writes one has locked it first,
//! skipping what others have locked, and only if it is still as it was read (`changes`). So no session ever waits for another here.
use crate::pg::datum::{Nullable, from_text, from_uuid, int8_array_of};
use crate::pg::failure::Result;
use crate::pg::plan::{Plan, Row, View};
use crate::pg::session::Db;
use eventstream_core::delivery::{SLOTS, Standing};
use pgrx::pg_sys::{Datum, INT8ARRAYOID, INT8OID, TEXTOID, TIMESTAMPTZOID, UUIDOID};

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

macro_rules! columns {
    () => {
        "s.slot, s.global_position, s.redeliveries, s.suspect_to, s.changes, s.lease_id, s.consumer, s.lease_until, s.up_to, \
         s.served_at "
    };
}

thread_local! {
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.subscription_slots (subscription_id, slot, global_position) \
         select $1, slot, $2 from generate_series(0, $3 - 1) slot",
        &[INT8OID, INT8OID, INT8OID],
    ) };
    static READ: Plan = const { Plan::new(
        concat!(
            "select ", columns!(),
            "from _eventstream.subscription_slots s where s.subscription_id = $1 order by s.served_at, s.slot"
        ),
        &[INT8OID],
    ) };
    static LOCK: Plan = const { Plan::new(
        concat!(
            "select ", columns!(),
            "from unnest($2, $3) with ordinality w (slot, changes, place) \
             join _eventstream.subscription_slots s on s.subscription_id = $1 and s.slot = w.slot and s.changes = w.changes \
             order by w.place limit $4 for update of s skip locked"
        ),
        &[INT8OID, INT8ARRAYOID, INT8ARRAYOID, INT8OID],
    ) };
    static LOCK_OF_LEASE: Plan = const { Plan::new(
        concat!(
            "select ", columns!(),
            "from _eventstream.subscription_slots s where s.subscription_id = $1 and s.lease_id = $2 for update skip locked"
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
         set up_to = w.up_to, lease_id = $4, consumer = $5, lease_until = $6, served_at = $7, changes = s.changes + 1 \
         from unnest($2, $3) w (slot, up_to) where s.subscription_id = $1 and s.slot = w.slot",
        &[INT8OID, INT8ARRAYOID, INT8ARRAYOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID],
    ) };
    static EXTEND: Plan = const { Plan::new(
        "update _eventstream.subscription_slots set lease_until = $3, changes = changes + 1 \
         where subscription_id = $1 and lease_id = $2",
        &[INT8OID, UUIDOID, TIMESTAMPTZOID],
    ) };
    static MOVE_ALL: Plan = const { Plan::new(
        "update _eventstream.subscription_slots \
         set global_position = $2, redeliveries = 0, suspect_to = 0, changes = changes + 1, \
             lease_id = null, consumer = null, lease_until = null, up_to = null where subscription_id = $1",
        &[INT8OID, INT8OID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscription_slots where subscription_id = $1",
        &[INT8OID],
    ) };
}

fn read_slot(row: &Row) -> Result<Slot> {
    let lease = match row.get(5) {
        None => None,
        Some(_) => Some(Lease {
            id: row.uuid(5)?,
            consumer: row.text(6)?.to_owned(),
            until: row.int8(7)?,
            up_to: row.int8(8)?,
        }),
    };
    Ok(Slot {
        slot: row.int4(0)? as usize,
        standing: Standing { position: row.int8(1)?, redeliveries: row.int4(2)?, suspect_to: row.int8(3)? },
        changes: row.int8(4)?,
        lease,
        served_at: row.int8(9)?,
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

/// Locks the first `most` of these that are as they were read and that nobody has locked.
pub fn lock(db: &Db, subscription_id: i64, wanted: &[&Slot], most: usize) -> Result<Vec<usize>> {
    if wanted.is_empty() || most == 0 {
        return Ok(Vec::new());
    }
    let slots: Vec<i64> = wanted.iter().map(|slot| slot.slot as i64).collect();
    let changes: Vec<i64> = wanted.iter().map(|slot| slot.changes).collect();
    let args = [
        Some(Datum::from(subscription_id)),
        Some(int8_array_of(&slots)?),
        Some(int8_array_of(&changes)?),
        Some(Datum::from(most as i64)),
    ];
    LOCK.with(|plan| plan.rows(db, View::Write, 0, &args, |row| Ok(row.int4(0)? as usize)))
}

/// Locks those that a lease holds and that nobody has locked.
pub fn lock_of_lease(db: &Db, subscription_id: i64, lease_id: &[u8; 16]) -> Result<Vec<Slot>> {
    let args = [Some(Datum::from(subscription_id)), Some(from_uuid(lease_id)?)];
    LOCK_OF_LEASE.with(|plan| plan.rows(db, View::Write, 0, &args, read_slot))
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

/// Leases locked slots, each with where it moves when all is acknowledged.
pub fn give(db: &Db, subscription_id: i64, slots: &[(usize, i64)], lease: &Lease, now: i64) -> Result<()> {
    let args = [
        Some(Datum::from(subscription_id)),
        Some(int8_array_of(&slots.iter().map(|slot| slot.0 as i64).collect::<Vec<_>>())?),
        Some(int8_array_of(&slots.iter().map(|slot| slot.1).collect::<Vec<_>>())?),
        Some(from_uuid(&lease.id)?),
        Some(from_text(&lease.consumer)?),
        Some(Datum::from(lease.until)),
        Some(Datum::from(now)),
    ];
    GIVE.with(|plan| plan.write(db, &args)).map(drop)
}

/// A lease whose slots are locked ends later.
pub fn extend(db: &Db, subscription_id: i64, lease_id: &[u8; 16], until: i64) -> Result<()> {
    let args = [Some(Datum::from(subscription_id)), Some(from_uuid(lease_id)?), Some(Datum::from(until))];
    EXTEND.with(|plan| plan.write(db, &args)).map(drop)
}

pub fn move_all(db: &Db, subscription_id: i64, position: i64) -> Result<()> {
    MOVE_ALL.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id)), Some(Datum::from(position))])).map(drop)
}

pub fn drop_all(db: &Db, subscription_id: i64) -> Result<()> {
    DROP.with(|plan| plan.write(db, &[Some(Datum::from(subscription_id))])).map(drop)
}
