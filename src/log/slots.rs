//! In which slot each stream is, by its id: its row says so from the beginning and for ever, so what this backend has met stays true.
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::int8_array_of;
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::{INT8ARRAYOID, Oid};
use std::cell::RefCell;
use std::collections::HashMap;

/// So many are remembered at most: 1 MB. Ids are handed out in turn, so those that lie close to one another have places of their own.
const PLACES: usize = 65_536;

struct Known {
    /// Of which table: an extension that was made anew has other streams.
    table: Oid,
    /// The id in each place, 0 where there is none, and its slot.
    places: Vec<(i64, usize)>,
}

impl Known {
    const fn place(id: i64) -> usize {
        id as usize % PLACES
    }
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
    static SLOTS: Plan =
        const { Plan::new("select id, slot::int from _eventstream.streams where id = any ($1)", &[INT8ARRAYOID]) };
}

fn with_known<T>(catalog: &Catalog, ask: impl FnOnce(&mut Known) -> T) -> T {
    KNOWN.with_borrow_mut(|known| {
        let fresh = || Known { table: catalog.streams, places: vec![(0, 0); PLACES] };
        let known = known.get_or_insert_with(fresh);
        if known.table != catalog.streams {
            *known = fresh();
        }
        ask(known)
    })
}

/// The slots of these streams, one for each in turn. Of a stream whose row somebody forced away: the first.
pub fn of_streams(db: &Db, catalog: &Catalog, stream_ids: impl Iterator<Item = i64> + Clone) -> Result<Vec<usize>> {
    let mut unknown = Vec::new();
    let mut slots: Vec<usize> = with_known(catalog, |known| {
        let slot = |id| match known.places[Known::place(id)] {
            (known, slot) if known == id => slot,
            _ => {
                unknown.push(id);
                0
            }
        };
        stream_ids.clone().map(slot).collect()
    });
    if unknown.is_empty() {
        return Ok(slots);
    }
    unknown.sort_unstable();
    unknown.dedup();
    let args = [Some(int8_array_of(&unknown)?)];
    let found: HashMap<i64, usize> = SLOTS
        .with(|plan| plan.rows(db, View::Latest, 0, &args, |row| Ok((row.int8(0)?, row.int4(1)? as usize))))?
        .into_iter()
        .collect();
    for (slot, id) in slots.iter_mut().zip(stream_ids) {
        *slot = found.get(&id).copied().unwrap_or(*slot);
    }
    with_known(catalog, |known| found.iter().for_each(|(&id, &slot)| known.places[Known::place(id)] = (id, slot)));
    Ok(slots)
}
