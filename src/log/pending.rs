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

/// When the first event after position `after`, up to `to`, was recorded (microseconds since 2000-01-01 UTC); None where there is none. At
/// most a thousand events (of each category) are looked at: where none of them is asked for it is the last of these, and the
/// first one that is asked for was recorded later, if there is one.
pub fn first(db: &Db, catalog: &Catalog, followed: Followed, (after, to): (i64, i64)) -> Result<Option<i64>> {
    if after >= to {
        return Ok(None);
    }
    let mut args: Vec<Nullable> = vec![
        Some(Datum::from(followed.tenant_id)),
        Some(Datum::from(after)),
        Some(Datum::from(to)),
        followed.event_types.map(text_array_of).transpose()?,
        followed.slots.map(int8_array_of).transpose()?,
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
        let found = partition.plan(statement).first(db, View::Latest, &args, |row| row.int8(0))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
