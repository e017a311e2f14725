//! The events that criteria ask for, as far as rows of the log tell: what their documents say is judged behind the door (src/present/query.rs). One criterion that has an
//! index leads, the one of which there are the fewest as a rule; what it leads to is compared with the others. Where that misses again and again, the others that have an
//! index are asked where theirs go on.
//!
//! Promises: what is read is what leads, or a small multiple of what the rarest of the criteria with an index has; a question that nothing answers ends when it is cancelled.
use super::condition::Query;
use super::filter::Filter;
use super::partition::Partition;
use super::statements::{Statement, column, stream_column};
use super::stored::StoredRows;
use super::stream::{self, Stream};
use super::target::Target;
use super::ways::{InPartitions, Stretch, Way};
use super::{horizon, tags};
use crate::pg::error::failure::Result;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::number;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::{Direction, Probe};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{from_text, int8_array_of};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::Whose;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::query::criteria::after_prefix;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Times in microseconds since 2000-01-01 UTC: from the first one to the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span(pub i64, pub i64);

impl Span {
    pub const EVER: Self = Self(i64::MIN, i64::MAX);

    fn has(self, moment: i64) -> bool {
        (self.0..=self.1).contains(&moment)
    }
}

/// Which events. An event is one of them where it meets all of these; None, and an empty set of tags: any does.
pub struct Sought {
    /// Narrowed to what the caller may read.
    pub categories: Option<Vec<String>>,
    pub streams: Option<Vec<String>>,
    pub stream_prefix: Option<String>,
    pub subjects: Option<Vec<String>>,
    /// By the types that they have for a reader.
    pub types: Filter,
    /// Of its tags, and of its correlation id.
    pub tags: Vec<String>,
    pub items: Option<Query>,
    pub occurred: Span,
    pub recorded: Span,
    pub direction: Direction,
}

/// Positions, the first and the last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Range(pub i64, pub i64);

/// So many streams of a prefix lead to their events; of more their category does.
const MOST_STREAMS: i64 = 100;
/// So many names are remembered of streams that have the prefix, or have not.
const MOST_NAMES: usize = 10_000;

/// So many events in a row that are not wanted are looked at before the other criteria are asked where theirs go on; and at most, where that was of no use.
const FEW_MISSES: usize = 32;
const MANY_MISSES: usize = 4096;

const STREAM_KEY: &[i16] = &[number(stream_column::ID)];

thread_local! {
    // The only index in this order is that of names.
    static WITH_PREFIX: Plan = const { Plan::new(
        "select id, first_position, name from _eventstream.streams \
         where tenant_id = $1 and (tenant_id, name) >= ($1, $2) and ($3 is null or (tenant_id, name) < ($1, $3)) order by tenant_id, name limit $4",
        &[INT8OID, TEXTOID, TEXTOID, INT8OID],
    ) };
}

/// What the first page of an answer covers: what is settled by now, beyond `after`. On a standby, where nobody knows that, what is there by now. Errors: ES008; ES025 where
/// `after` lies beyond the log.
pub fn range(target: Target, after: Option<i64>, direction: Direction) -> Result<Range> {
    if !server::is_standby() {
        horizon::must_be_known(c"es_query")?;
    }
    as_owner(Planning::ByIndex, |_, catalog| {
        let (last_position, end) = if server::is_standby() {
            let last_position = horizon::last_position(catalog)?;
            (last_position, last_position)
        } else {
            let horizon = horizon::horizon(catalog, Whose::Tenant(target.id))?;
            (horizon.last_position, horizon.position)
        };
        let Some(after) = after else { return Ok(Range(1, end)) };
        if after > last_position {
            return Err(Error::PositionAhead { argument: "page".into(), position: after, last_position }.into());
        }
        Ok(match direction {
            Direction::Forward => Range(after + 1, end),
            Direction::Backward => Range(1, end.min(after - 1)),
        })
    })
}

/// Puts the next events of a range into `into`, at most `most`, without the first `skip`, which it counts down. The rest of the range; None where it is over.
pub fn read(
    target: Target,
    sought: &Sought,
    range: Range,
    most: usize,
    skip: &mut i64,
    into: &StoredRows,
) -> Result<Option<Range>> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let Some(seeking) = Seeking::new(db, catalog, target.id, sought)? else { return Ok(None) };
        let range = Range(trial::after(range.0 - 1) + 1, range.1);
        let tenant = Some(from_text(target.name)?);
        let mut count = 0;
        for partition in seeking.partitions(db, catalog, range)? {
            let stretch = Stretch {
                partition: &partition,
                tenant_id: target.id,
                from: range.0.max(partition.lower),
                to: range.1.min(partition.upper - 1),
                direction: sought.direction,
            };
            let positions = seeking.positions(db, stretch, most - count, skip)?;
            let Some(&last) = positions.last() else { continue };
            let statement = match sought.direction {
                Direction::Forward => Statement::EventsAt,
                Direction::Backward => Statement::EventsAtBackward,
            };
            let args = [tenant, Some(int8_array_of(&positions)?)];
            partition.plan(statement).fill(db, View::Latest, &args, into.store())?;
            count += positions.len();
            if count >= most {
                let rest = Stretch { from: range.0, to: range.1, ..stretch }.beyond(last);
                return Ok((!rest.is_empty()).then_some(Range(rest.from, rest.to)));
            }
        }
        Ok(None)
    })
}

/// What is sought, with what one look into the tables says of it.
struct Seeking<'a> {
    sought: &'a Sought,
    tenant_id: i64,
    /// Those of the criteria, or those of the prefix where they are few.
    streams: Option<Vec<InPartitions>>,
    /// With that of the prefix.
    categories: Option<Vec<String>>,
    /// What names of streams begin with, where they have to be looked at.
    prefix: Option<&'a str>,
    names: Probe,
    has_prefix: RefCell<HashMap<i64, bool>>,
    scratch: Scratch,
}

impl<'a> Seeking<'a> {
    /// None where nothing can be found.
    fn new(db: &Db, catalog: &Catalog, tenant_id: i64, sought: &'a Sought) -> Result<Option<Self>> {
        let prefix = sought.stream_prefix.as_deref();
        let streams = match (&sought.streams, prefix) {
            (Some(names), prefix) => Some(named(db, catalog, tenant_id, names, prefix.unwrap_or_default())?),
            (None, Some(prefix)) => with_prefix(db, tenant_id, prefix)?,
            (None, None) => None,
        };
        let category = prefix.filter(|_| streams.is_none()).and_then(|prefix| prefix.split_once('-')).map(|of| of.0);
        let categories = match (&sought.categories, category) {
            (Some(wanted), Some(category)) => {
                Some(wanted.iter().filter(|wanted| *wanted == category).cloned().collect())
            }
            (None, Some(category)) => Some(vec![category.to_owned()]),
            (categories, None) => categories.clone(),
        };
        if streams.as_ref().is_some_and(Vec::is_empty) || categories.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let in_partitions = |stream: Stream| -> Result<InPartitions> {
            let segments = stream::segments(db, catalog, &stream, View::Latest)?;
            Ok(InPartitions { stream, partitions: segments.iter().map(|segment| segment.partition.lower).collect() })
        };
        Ok(Some(Self {
            sought,
            tenant_id,
            prefix: prefix.filter(|_| streams.is_none()),
            streams: streams.map(|all| all.into_iter().map(in_partitions).collect()).transpose()?,
            categories,
            names: Probe::by_int8(catalog.streams, STREAM_KEY),
            has_prefix: RefCell::default(),
            scratch: Scratch::new()?,
        }))
    }

    /// The partitions that may have any, in the order in which they are read.
    fn partitions(&self, db: &Db, catalog: &Catalog, range: Range) -> Result<Vec<Rc<Partition>>> {
        let within = (range.0, range.1);
        let mut all = tags::partitions(db, catalog, View::Latest, self.tenant_id, &self.sought.tags, within)?;
        if let Some(streams) = &self.streams {
            let held: BTreeSet<i64> = streams.iter().flat_map(|of| of.partitions.iter().copied()).collect();
            all.retain(|partition| held.contains(&partition.lower));
        }
        if self.sought.direction == Direction::Backward {
            all.reverse();
        }
        Ok(all)
    }

    /// The ways to what is sought, the one that leads first.
    fn ways(&self) -> Vec<Way<'_>> {
        let sought = self.sought;
        let mut ways = Vec::new();
        if !sought.tags.is_empty() {
            ways.push(Way::Tags(vec![&sought.tags]));
        }
        if let Some(streams) = &self.streams {
            ways.push(Way::Streams(streams));
        }
        if let Some(subjects) = &sought.subjects {
            ways.push(Way::Subjects(subjects));
        }
        if let Some(sets) = sought.items.as_ref().and_then(Query::tag_sets) {
            ways.push(Way::Tags(sets.collect()));
        }
        if let Some(categories) = &self.categories {
            ways.push(Way::Categories(categories));
        }
        if ways.is_empty() {
            ways.push(Way::All);
        }
        ways
    }

    /// The positions of at most `most` events that are sought.
    fn positions(&self, db: &Db, mut stretch: Stretch, most: usize, skip: &mut i64) -> Result<Vec<i64>> {
        let ways = self.ways();
        let (lead, others) = ways.split_first().ok_or_else(|| Error::Internal { what: "nothing leads".into() })?;
        let mut positions = Vec::new();
        let mut enough_misses = FEW_MISSES;
        while !stretch.is_empty() && positions.len() < most {
            let (mut misses, mut missed_to) = (0, None);
            lead.each(db, stretch, &mut |row| {
                let position = row.int8(column::GLOBAL_POSITION)?;
                if self.wants(db, row)? {
                    misses = 0;
                    if *skip > 0 {
                        *skip -= 1;
                    } else {
                        positions.push(position);
                    }
                    return Ok(positions.len() < most);
                }
                misses += 1;
                if misses >= enough_misses && !others.is_empty() {
                    missed_to = Some(position);
                }
                Ok(missed_to.is_none())
            })?;
            let Some(position) = missed_to else { break };
            let passed = stretch.beyond(position);
            let Some(next) = self.beginning(db, passed, others)? else { break };
            let is_useful = usize::try_from(passed.distance(&next)).is_ok_and(|distance| distance > enough_misses);
            enough_misses = if is_useful { FEW_MISSES } else { (enough_misses * 2).min(MANY_MISSES) };
            stretch = next;
        }
        Ok(positions)
    }

    /// From where on each of the ways may have any; None where one of them has none.
    fn beginning<'s>(&self, db: &Db, mut stretch: Stretch<'s>, ways: &[Way]) -> Result<Option<Stretch<'s>>> {
        for way in ways {
            match way.first(db, stretch)? {
                Some(position) => stretch = stretch.starting_at(position),
                None => return Ok(None),
            }
        }
        Ok(Some(stretch))
    }

    /// Whether an event of the tenant is one of those that are sought, as far as its row tells.
    fn wants(&self, db: &Db, row: &Row) -> Result<bool> {
        let sought = self.sought;
        let is_one_of = |names: &Option<Vec<String>>, name: Option<&str>| {
            names.as_ref().is_none_or(|names| name.is_some_and(|name| names.iter().any(|of| of == name)))
        };
        let is_of_tags = || -> Result<bool> {
            let Some(items) = &sought.items else { return Ok(true) };
            self.scratch.step(|| items.is_matched(row))
        };
        Ok(sought.occurred.has(row.int8(column::OCCURRED_AT)?)
            && sought.recorded.has(row.int8(column::RECORDED_AT)?)
            && is_one_of(&self.categories, Some(row.text(column::CATEGORY)?))
            && is_one_of(&sought.subjects, row.text_opt(column::SUBJECT)?)
            && sought.types.wants(row)?
            && self.is_of_streams(db, row)?
            && is_of_tags()?)
    }

    fn is_of_streams(&self, db: &Db, row: &Row) -> Result<bool> {
        let id = row.int8(column::STREAM_ID)?;
        if let Some(streams) = &self.streams {
            return Ok(streams.iter().any(|of| of.stream.id == id));
        }
        let Some(prefix) = self.prefix else { return Ok(true) };
        if !prefix.contains('-') {
            return Ok(row.text(column::CATEGORY)?.starts_with(prefix));
        }
        if let Some(&known) = self.has_prefix.borrow().get(&id) {
            return Ok(known);
        }
        let mut has_it = false;
        self.names.in_order(db, View::Latest, Datum::from(id), &[], |row| {
            has_it = row.text(stream_column::NAME)?.starts_with(prefix);
            Ok(false)
        })?;
        let mut known = self.has_prefix.borrow_mut();
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        known.insert(id, has_it);
        Ok(has_it)
    }
}

/// The streams of these names that there are, and that begin with the prefix.
fn named(db: &Db, catalog: &Catalog, tenant_id: i64, names: &[String], prefix: &str) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(prefix)) {
        streams.extend(stream::probe_name(db, catalog, View::Latest, tenant_id, &StreamName::parse(name)?)?);
    }
    Ok(streams)
}

/// The streams whose names begin so; None where they are many.
fn with_prefix(db: &Db, tenant_id: i64, prefix: &str) -> Result<Option<Vec<Stream>>> {
    let args = [
        Some(Datum::from(tenant_id)),
        Some(from_text(prefix)?),
        after_prefix(prefix).map(|after| from_text(&after)).transpose()?,
        Some(Datum::from(MOST_STREAMS + 1)),
    ];
    let found = WITH_PREFIX.with(|plan| {
        plan.rows(db, View::Latest, 0, &args, |row| Ok(Stream { id: row.int8(0)?, first_position: row.int8(1)? }))
    })?;
    Ok((found.len() as i64 <= MOST_STREAMS).then_some(found))
}
