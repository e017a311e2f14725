//! What a follower of the log has not seen yet, without reading it: how old the first of it is.
use super::partition;
use super::statements::Statement;
use crate::pg::catalog::Catalog;
use crate::pg::datum::{Nullable, int8_array_of, text_array_of};
use crate::pg::failure::Result;
use crate::pg::plan::View;
use crate::pg::session::Db;
use pgrx::pg_sys::Datum;

/// What a follower asks for; None: all.
#[derive(Clone, Copy)]
pub struct Followed<'a> {
    pub tenant_id: i64,
    pub categories: Option<&'a [String]>,
    pub event_types: Option<&'a [String]>,
    /// Where each of the slots is over which its streams are spread (stream id modulo their number).
    pub slots: Option<&'a [i64]>,
}

/// The most events (of each category) that are looked at: a slot that has nothing to give stays behind the others for thousands.
const MOST: i64 = 1_000;
const MOST_OF_SLOTS: i64 = 20_000;

/// An event that waits to be seen.
#[derive(Debug, Clone, Copy)]
pub struct First {
    pub position: i64,
    /// Microseconds since 2000-01-01 UTC.
    pub recorded_at: i64,
}

/// The first event after position `after`, up to `to`; None where there is none. Only so many events are looked at: where none of them
/// is asked for it is the last of these, and the first one that is asked for lies behind it, if there is one.
pub fn first(db: &Db, catalog: &Catalog, followed: Followed, (after, to): (i64, i64)) -> Result<Option<First>> {
    if after >= to {
        return Ok(None);
    }
    let mut args: Vec<Nullable> = vec![
        Some(Datum::from(followed.tenant_id)),
        Some(Datum::from(after)),
        Some(Datum::from(to)),
        followed.event_types.map(text_array_of).transpose()?,
        followed.slots.map(int8_array_of).transpose()?,
        Some(Datum::from(if followed.slots.is_some() { MOST_OF_SLOTS } else { MOST })),
    ];
    let statement = match followed.categories {
        None => Statement::FirstAfter,
        Some(categories) => {
            args.push(Some(text_array_of(categories)?));
            Statement::FirstOfCategories
        }
    };
    for partition in partition::all(db, catalog)?.iter() {
        if partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        let found = partition
            .plan(statement)
            .first(db, View::Latest, &args, |row| Ok(First { position: row.int8(0)?, recorded_at: row.int8(1)? }))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
