//! The log as subscriptions read it: first the places of events, of every stream at once and in bounded pages, and then the events that
//! are delivered. Promises the order of the log, and nothing beyond the position that the caller got from a horizon.
use super::chosen::{self, Chosen};
use super::partition;
use super::read::Filter;
use super::slots;
use super::statements::{Statement, fact};
use super::stored::StoredRows;
use super::stream;
use super::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::Direction;
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text, int8_array_of};
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::Datum;

/// An event that may be delivered.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    pub position: i64,
    pub stream_id: i64,
    /// Its stream's.
    pub slot: usize,
    /// Whether the filter lets it through.
    pub is_wanted: bool,
    /// Bytes that it takes, roughly.
    pub size: i64,
}

/// What a dead letter says about an event.
#[derive(Debug, Clone)]
pub struct Facts {
    pub position: i64,
    pub stream_id: i64,
    pub slot: usize,
    pub stream: String,
    pub version: i64,
    pub event_type: String,
}

/// A page of them, and the position up to which there are no others.
pub struct Page {
    pub places: Vec<Offered>,
    pub scanned_to: i64,
}

fn read_offered(row: &Row) -> Result<Offered> {
    let (position, stream_id) = (row.int8(0)?, row.int8(1)?);
    Ok(Offered { position, stream_id, slot: 0, is_wanted: row.boolean(2)?, size: row.int4(3)?.into() })
}

/// The places in (after, to], at most `most`. The filter's categories choose what is read, its types what is wanted of it: a page is
/// bounded whatever the filter.
pub fn page(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    filter: &Filter,
    (after, to): (i64, i64),
    most: usize,
) -> Result<Page> {
    let [types, older] = filter.types()?;
    let mut places: Vec<Offered> = Vec::new();
    for partition in partition::all(db, catalog)?.iter() {
        if places.len() >= most || partition.upper <= after + 1 || partition.lower > to {
            continue;
        }
        let left = most - places.len();
        let [tenant, after_position, last, limit] =
            [tenant_id, after, to, left as i64].map(|value| Some(Datum::from(value)));
        let found = match filter.categories.as_deref() {
            None => {
                let args = [tenant, after_position, last, limit, types, older];
                partition.plan(Statement::OffersAll).rows(db, View::Latest, 0, &args, read_offered)?
            }
            Some([category]) => {
                let args = [tenant, after_position, last, limit, types, older, Some(from_text(category)?)];
                partition.plan(Statement::OffersByCategory).rows(db, View::Latest, 0, &args, read_offered)?
            }
            categories => {
                let (from, direction) = (after + 1, Direction::Forward);
                let chosen = Chosen { tenant_id, categories, subjects: None, tags: &[], from, to, direction };
                let positions = chosen::positions(db, partition, View::Latest, chosen, left, |_| Ok(true))?;
                if positions.is_empty() {
                    continue;
                }
                let args = [Some(int8_array_of(&positions)?), None, None, None, types, older];
                partition.plan(Statement::OffersAt).rows(db, View::Latest, 0, &args, read_offered)?
            }
        };
        places.extend(found);
    }
    let scanned_to = match places.last() {
        Some(last) if places.len() >= most => last.position,
        _ => to.max(after),
    };
    let wanted = || places.iter().filter(|place| place.is_wanted);
    let slots = slots::of_streams(db, catalog, wanted().map(|place| place.stream_id))?;
    places.iter_mut().filter(|place| place.is_wanted).zip(slots).for_each(|(place, slot)| place.slot = slot);
    Ok(Page { places, scanned_to })
}

/// An event of one stream.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub position: i64,
    pub version: i64,
    /// Bytes that it takes, roughly.
    pub size: i64,
}

/// The first events of a stream that the filter lets through, after a version and up to a position, at most `most`.
pub fn of_stream(
    db: &Db,
    catalog: &Catalog,
    stream_id: i64,
    filter: &Filter,
    (after_version, to): (i64, i64),
    most: usize,
) -> Result<Vec<Step>> {
    let found = stream::page(db, View::Latest, stream_id - 1, None, 1)?;
    let Some((found, ..)) = found.into_iter().find(|(found, ..)| found.id == stream_id) else { return Ok(Vec::new()) };
    let [types, older] = filter.types()?;
    let mut args: [Nullable; 6] =
        [Some(Datum::from(stream_id)), Some(Datum::from(after_version)), Some(Datum::from(to)), None, types, older];
    let mut places = Vec::new();
    for segment in stream::holding(&stream::segments(db, catalog, &found, View::Latest)?, after_version + 1, i64::MAX) {
        if places.len() < most && segment.partition.lower <= to {
            args[3] = Some(Datum::from((most - places.len()) as i64));
            let plan = segment.partition.plan(Statement::OffersOfStream);
            places.extend(plan.rows(db, View::Latest, 0, &args, |row| {
                Ok(Step { position: row.int8(0)?, version: row.int8(1)?, size: row.int4(2)?.into() })
            })?);
        }
    }
    Ok(places)
}

/// The facts of the events at these positions, which are in order.
pub fn facts(db: &Db, catalog: &Catalog, positions: &[i64]) -> Result<Vec<Facts>> {
    let mut facts = Vec::new();
    at(db, catalog, positions, |partition, positions| {
        facts.extend(partition.plan(Statement::FactsAt).rows(db, View::Latest, 0, &[Some(positions)], |row| {
            Ok(Facts {
                position: row.int8(fact::POSITION)?,
                stream_id: row.int8(fact::STREAM_ID)?,
                stream: row.text(fact::STREAM)?.to_owned(),
                version: row.int8(fact::VERSION)?,
                event_type: row.text(fact::EVENT_TYPE)?.to_owned(),
                slot: row.int4(fact::SLOT)? as usize,
            })
        })?);
        Ok(())
    })?;
    facts.sort_by_key(|fact| fact.position);
    Ok(facts)
}

/// The events at these positions, which are in order.
pub fn events(db: &Db, catalog: &Catalog, target: Target, positions: &[i64], into: &StoredRows) -> Result<()> {
    let tenant = from_text(target.name)?;
    at(db, catalog, positions, |partition, positions| {
        let args = [Some(tenant), Some(positions)];
        into.fill(partition.plan(Statement::EventsAt), db, View::Latest, &args).map(drop)
    })
}

/// Calls `each` for every partition that has some of the positions, in order.
fn at(
    db: &Db,
    catalog: &Catalog,
    positions: &[i64],
    mut each: impl FnMut(&partition::Partition, Datum) -> Result<()>,
) -> Result<()> {
    let mut rest = positions;
    for partition in partition::all(db, catalog)?.iter() {
        let before = rest.partition_point(|&position| position < partition.lower);
        let end = rest.partition_point(|&position| position < partition.upper);
        if end > before {
            each(partition, int8_array_of(&rest[before..end])?)?;
        }
        rest = &rest[end..];
    }
    Ok(())
}
