//! Which snapshots stay. Promises: the newest `keep` of each stream and fold stay, and with a cutoff also those taken after it;
//! those of an earlier definition of their fold, which nothing uses, go.
use super::folds::{self, Fold};
use super::snapshot;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, varlena};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID, Oid, TEXTOID, TIMESTAMPTZOID};

/// What stays.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// So many of each stream and fold, the newest ones; None: all.
    pub keep: Option<i64>,
    /// And those taken at or after this moment; None: no others.
    pub cutoff: Option<i64>,
}

/// Snapshots of the streams with `after < id <= to`.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    pub after: i64,
    pub to: i64,
}

impl Streams {
    pub const ALL: Self = Self { after: 0, to: i64::MAX };

    pub fn one(id: i64) -> Self {
        Self { after: id - 1, to: id }
    }
}

macro_rules! remove {
    () => {
        "delete from _eventstream.snapshots n \
         using (select m.stream_id, m.version, m.taken_at, coalesce(m.fingerprint = $3, true) and s.category = $8 as is_current, \
                       count(*) filter (where coalesce(m.fingerprint = $3, true)) \
                           over (partition by m.stream_id order by m.version desc) as place \
                from _eventstream.snapshots m join _eventstream.streams s on s.id = m.stream_id \
                where m.stream_id > $4 and m.stream_id <= $5 and m.fold = $2 and s.tenant_id = $1) r \
         where n.stream_id = r.stream_id and n.fold = $2 and n.version = r.version \
           and (not r.is_current or (r.place > $6 and ($7 is null or r.taken_at < $7)))"
    };
}

const PARAMETERS: &[Oid] = &[INT8OID, TEXTOID, BYTEAOID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID];

thread_local! {
    static REMOVE: Plan = const { Plan::new(remove!(), PARAMETERS) };
    // Planned by cost, because it is for all streams.
    static REMOVE_ALL: Plan = const { Plan::new(remove!(), PARAMETERS) };
    static PAGE: Plan = const { Plan::new(
        "select count(*), max(stream_id) \
         from (select stream_id from _eventstream.snapshots where stream_id > $1 order by stream_id limit $2) p",
        &[INT8OID, INT8OID],
    ) };
    static FOLDS: Plan = const { Plan::new(
        "select name from _eventstream.folds where tenant_id = $1 order by name collate \"C\"",
        &[INT8OID],
    ) };
}

fn arguments(target: Target, fold: &Fold, streams: Streams, retention: Retention) -> Result<[Nullable; 8]> {
    Ok([
        Some(Datum::from(target.id)),
        Some(from_text(&fold.name)?),
        // A fold whose function is gone, perhaps for a moment, has no definition that its snapshots could be earlier than.
        fold.is_usable().then(|| varlena(&fold.fingerprint)).transpose()?,
        Some(Datum::from(streams.after)),
        Some(Datum::from(streams.to)),
        retention.keep.map(Datum::from),
        retention.cutoff.map(Datum::from),
        Some(from_text(&fold.category)?),
    ])
}

/// Removes what does not stay of one fold, whose row the caller holds; how many.
pub fn apply(db: &Db, target: Target, fold: &Fold, streams: Streams, retention: Retention) -> Result<u64> {
    let arguments = arguments(target, fold, streams, retention)?;
    REMOVE.with(|remove| remove.write(db, &arguments))
}

/// The id of the last stream of a page of about `most` snapshots after stream `after`; None: there are no more than that.
pub fn end_of_page(db: &Db, after: i64, most: i64) -> Result<Option<i64>> {
    let args = [Some(Datum::from(after)), Some(Datum::from(most))];
    let found = PAGE.with(|page| page.first(db, View::Latest, &args, |row| Ok((row.int8(0)?, row.int8_opt(1)))))?;
    Ok(found.and_then(|(count, last)| last.filter(|_| count == most)))
}

/// Removes what does not stay of all folds of the tenant; how many.
pub fn prune(target: Target, retention: Retention) -> Result<u64> {
    let names = as_owner(Planning::ByIndex, |db, _| {
        FOLDS.with(|folds| {
            folds.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| Ok(row.text(0)?.to_owned()))
        })
    })?;
    let mut removed = 0;
    for name in names {
        if !snapshot::share(target, &name)? {
            continue; // unregistered meanwhile, and its snapshots with it
        }
        let Some(fold) = folds::named(target.id, &name)? else { continue };
        removed += as_owner(Planning::ByCost, |db, _| {
            let arguments = arguments(target, &fold, Streams::ALL, retention)?;
            REMOVE_ALL.with(|remove| remove.write(db, &arguments))
        })?;
    }
    Ok(removed)
}
