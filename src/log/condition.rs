//! Conditions: which events of a tenant a decision depends on, how far they were seen, and whether that is still so. What was seen is a position up to which nothing
//! more can be committed, and beyond it what was committed by then: how many events match, and a digest over them. So what commits later at a smaller position is noticed,
//! and an append that is open elsewhere is in nobody's way.
//!
//! ```text
//! es_condition: horizon ─▶ matches above it, as they are committed by then        es_append_streams: gate ─▶ buckets of tags (buckets.rs) ─▶ … ─▶ the same matches?
//! ```
//! Promises: while the locks are held no other append that matches is open, or can begin; what is judged is what is committed then, at every isolation level, and what the
//! transaction has appended itself. SERIALIZABLE notes no dependency here: the comparison is what keeps decisions in order, and an index would note those of others' tags.
use super::filter::Filter;
use super::partition;
use super::statements::column;
use super::target::Target;
use super::{horizon, identity, tags};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::{sequence, server};
use crate::pg::query::intersect::Found;
use crate::pg::query::plan::{View, shows_what_is_committed};
use crate::pg::query::probe::{Bound, Direction};
use crate::pg::query::row::Row;
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::Whose;
use crate::shared::server_run;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::command::condition;
use eventstream_core::digest::Digest;
use eventstream_core::error::{Error, Match};
use eventstream_core::event_id::to_uuid_text;
use pgrx::pg_sys::Datum;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// The place of the position in the index (tenant_id, global_position), from 1.
const TENANT_POSITION: i16 = 2;

/// Which events: those that match one of the items.
pub struct Query {
    /// Those of the same tags are one.
    items: Vec<Item>,
    /// One of each item that has tags.
    first_tags: Vec<String>,
    is_of_any_tags: bool,
}

/// Where a condition was taken, or is used.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub log_id: String,
    pub tenant: String,
    pub timeline: i64,
    /// Server, database and run of the server: a restored copy keeps the log's id, and what was committed last may be lost with the end of a run.
    pub place: String,
}

/// What an append depends on.
pub struct Condition {
    pub query: Query,
    pub after: i64,
    /// None: nothing.
    pub seen: Option<Digest>,
    /// None: nobody knows.
    pub taken: Option<Place>,
}

/// What is to be remembered of a query's events.
pub struct Taken {
    pub after: i64,
    pub seen: Digest,
    pub place: Place,
}

/// What matches.
#[derive(Default)]
struct Matches {
    digest: Digest,
    first: Option<Match>,
}

struct Item {
    /// A set.
    tags: Vec<String>,
    /// None: any.
    types: Option<BTreeSet<String>>,
    /// Types as they are stored, with their schema versions, that upcasters turn into one of `types`.
    older: BTreeSet<(String, i32)>,
}

impl Item {
    fn of(filter: Filter) -> Self {
        let Filter { tags, event_types, older, .. } = filter;
        Self { tags, types: event_types.map(BTreeSet::from_iter), older: older.into_iter().collect() }
    }

    fn lets_through(&self, event_type: &str, schema_version: i32) -> bool {
        let Some(types) = &self.types else { return true };
        types.contains(event_type)
            || !self.older.is_empty() && self.older.contains(&(event_type.to_owned(), schema_version))
    }
}

impl Query {
    /// `following` completes a filter by what upcasters make of the types that it names.
    pub fn new(query: condition::Query, following: impl Fn(Filter) -> Result<Filter>) -> Result<Self> {
        let is_of_any_tags = query.is_of_any_tags();
        let first_tags = query.items.iter().filter_map(|item| item.first_tag.clone()).collect();
        let mut by_tags: BTreeMap<Vec<String>, Option<Vec<String>>> = BTreeMap::new();
        for item in query.items {
            match by_tags.entry(item.tags) {
                Entry::Vacant(place) => {
                    place.insert(item.event_types);
                }
                Entry::Occupied(mut place) => {
                    // Of one that is of any type, and another, any type is meant.
                    let both = place.get_mut().take().zip(item.event_types);
                    *place.get_mut() = both.map(|(mut types, others)| {
                        types.extend(others);
                        types
                    });
                }
            }
        }
        let items = by_tags
            .into_iter()
            .map(|(tags, types)| following(Filter { tags, ..Filter::of(None, types) }).map(Item::of));
        Ok(Self { items: items.collect::<Result<_>>()?, first_tags, is_of_any_tags })
    }

    /// One of each item: no event comes that matches it while this one is kept.
    pub fn locked_tags(&self) -> impl Iterator<Item = &str> {
        self.first_tags.iter().map(String::as_str)
    }

    /// The tags of each of its items; None where an event may match whatever its tags.
    pub fn tag_sets(&self) -> Option<impl Iterator<Item = &[String]>> {
        (!self.is_of_any_tags).then(|| self.items.iter().map(|item| item.tags.as_slice()))
    }

    /// Whether an event matches. Its tags are read into the current memory context.
    pub fn is_matched(&self, row: &Row) -> Result<bool> {
        is_matched(&self.items, row)
    }

    /// Gives each event of the tenant after a position that matches to `each`, once, until it wants no more (false).
    fn each(
        &self,
        db: &Db,
        catalog: &Catalog,
        view: View,
        tenant_id: i64,
        after: i64,
        each: &mut dyn FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let after = trial::after(after);
        if self.is_of_any_tags {
            return self.each_of_all(db, catalog, view, (tenant_id, after), each);
        }
        let from = after.saturating_add(1);
        let mut goes_on = true;
        // A row's tags are read into it.
        let scratch = Scratch::new()?;
        for (place, item) in self.items.iter().enumerate() {
            let tags = &item.tags;
            for partition in tags::partitions(db, catalog, view, tenant_id, tags, (from, i64::MAX))? {
                let mut look = |row: &Row| -> Result<bool> {
                    let is_new = row.int8(column::TENANT_ID)? == tenant_id
                        && item.lets_through(row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?)
                        && !scratch.step(|| is_matched(&self.items[..place], row))?;
                    goes_on = !is_new || each(row)?;
                    Ok(goes_on)
                };
                let (of, range) = ((tenant_id, tags.as_slice()), (from, i64::MAX));
                tags::positions(db, &partition, view, of, range, Direction::Forward, &mut |found| {
                    let Found::At(position) = found else { return Ok(true) };
                    let mut goes_on = true;
                    partition.positions.in_order(db, view, Datum::from(position), &[], |row| {
                        goes_on = look(row)?;
                        Ok(goes_on)
                    })?;
                    Ok(goes_on)
                })?;
                if !goes_on {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The same where an event may match whatever its tags.
    fn each_of_all(
        &self,
        db: &Db,
        catalog: &Catalog,
        view: View,
        (tenant_id, after): (i64, i64),
        each: &mut dyn FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let bounds = [Bound::at_least(TENANT_POSITION, after.saturating_add(1))];
        let mut goes_on = true;
        let scratch = Scratch::new()?;
        for partition in partition::all(db, catalog)?.iter().filter(|partition| partition.upper > after) {
            partition.tenants.in_order(db, view, Datum::from(tenant_id), &bounds, |row| {
                goes_on = !scratch.step(|| is_matched(&self.items, row))? || each(row)?;
                Ok(goes_on)
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn matches(
        &self,
        db: &Db,
        catalog: &Catalog,
        view: View,
        tenant_id: i64,
        after: i64,
        most: u64,
    ) -> Result<Matches> {
        let mut found = Matches::default();
        self.each(db, catalog, view, tenant_id, after, &mut |row| {
            let position = row.int8(column::GLOBAL_POSITION)?;
            found.digest.add_event(position, &row.hash(column::CHAIN_HASH)?);
            if found.first.as_ref().is_none_or(|first| position < first.position) {
                found.first = Some(Match {
                    position,
                    event_type: row.text(column::EVENT_TYPE)?.to_owned(),
                    tags: row.text_array_opt(column::TAGS)?.unwrap_or_default(),
                    category: row.text(column::CATEGORY)?.to_owned(),
                });
            }
            Ok(found.digest.count() < most)
        })?;
        Ok(found)
    }
}

/// Whether an event matches one of the items.
fn is_matched(items: &[Item], row: &Row) -> Result<bool> {
    if items.is_empty() {
        return Ok(false);
    }
    let (event_type, schema_version) = (row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?);
    let mut borne = None;
    for item in items {
        if !item.lets_through(event_type, schema_version) {
            continue;
        }
        if item.tags.is_empty() {
            return Ok(true);
        }
        if borne.is_none() {
            borne = Some(row.text_array_opt(column::TAGS)?.unwrap_or_default());
        }
        if borne.as_ref().is_some_and(|borne| item.tags.iter().all(|tag| borne.contains(tag))) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Place {
    fn here(db: &Db, catalog: &Catalog, tenant_id: i64) -> Result<Self> {
        Ok(Self {
            log_id: to_uuid_text(&identity::log_id(db)?),
            tenant: to_uuid_text(&identity::tenant_uuid(db, catalog, tenant_id)?),
            timeline: server::timeline()?.into(),
            place: format!(
                "{}/{}/{:016x}",
                server::system_identifier()?,
                server::database().to_u32(),
                server_run::id().unwrap_or_default()
            ),
        })
    }

    /// Errors: ES015.
    fn must_be(&self, here: &Self) -> Result<()> {
        let reason = if self.log_id != here.log_id {
            format!("it was taken of the log {}, and this one is {}", self.log_id, here.log_id)
        } else if self.tenant != here.tenant {
            format!("it was taken of the tenant with the uuid {}, and this one has {}", self.tenant, here.tenant)
        } else if self.timeline != here.timeline {
            format!("it was taken on timeline {}, and the server is on {} now", self.timeline, here.timeline)
        } else if self.place != here.place {
            format!(
                "it was taken in {} (server/database/run of the server), and this copy of the log is in {}",
                self.place, here.place
            )
        } else {
            return Ok(());
        };
        Err(Error::ConditionOfAnother { reason }.into())
    }
}

/// How far the events of a query are seen from now on: whoever reads afterwards, under a snapshot of then, sees what this has seen. Who goes on reading by the snapshot of the
/// statement that calls this may see less: then a query of tags is covered as far as that snapshot shows it. Errors: ES008, ES009; 40001 where the transaction keeps a snapshot
/// that does not show it.
pub fn take(target: Target, query: &Query) -> Result<Taken> {
    horizon::must_be_known(c"es_condition")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let after = horizon::horizon(catalog, Whose::Tenant(target.id))?.position;
        let matches = |view, after| query.matches(db, catalog, view, target.id, after, u64::MAX);
        let mut taken =
            Taken { after, seen: matches(View::Now, after)?.digest, place: Place::here(db, catalog, target.id)? };
        let keeps = server::keeps_its_snapshot();
        if (keeps || !query.is_of_any_tags) && !shows_what_is_committed()? {
            let shown = matches(View::Caller, 0)?.digest;
            if shown != matches(View::Now, 0)?.digest {
                if keeps {
                    return Err(Error::MatchesNotInSnapshot.into());
                }
                // Perhaps a statement is to follow that sees more, and decides in vain: better than on less than it has seen.
                (taken.after, taken.seen) = (0, shown);
            }
        }
        Ok(taken)
    })
}

/// Whether the condition still holds, behind its locks. Errors: ES015.
pub fn judge(db: &Db, catalog: &Catalog, tenant_id: i64, condition: &Condition) -> Result<()> {
    // Whoever held the locks may have appended to a partition that this session has not heard of.
    invalidation::take_in()?;
    if let Some(taken) = &condition.taken {
        taken.must_be(&Place::here(db, catalog, tenant_id)?)?;
    }
    let (last_position, _) = sequence::last(catalog.positions)?;
    if condition.after > last_position {
        let after = condition.after;
        let reason = format!("it was taken at position {after}, and the last position of this log is {last_position}");
        return Err(Error::ConditionOfAnother { reason }.into());
    }
    // One more than was seen is enough to tell; a plain condition fails by the first one.
    let most = condition.seen.map_or(1, |seen| seen.count().saturating_add(1));
    let found = condition.query.matches(db, catalog, View::Now, tenant_id, condition.after, most)?;
    if found.digest == condition.seen.unwrap_or_default() {
        return Ok(());
    }
    let count = |digest: Digest| i64::try_from(digest.count()).unwrap_or(i64::MAX);
    Err(Error::ConditionFailed {
        after: condition.after,
        seen: condition.seen.map(count),
        matches: count(found.digest),
        first: found.first.map(Box::new),
    }
    .into())
}
