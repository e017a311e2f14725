//! The events that criteria ask for, as far as rows of the log tell: what their documents say is judged behind the door (src/present/query.rs). One criterion that has an
//! index leads, the one of which there are the fewest as a rule; what it leads to is compared with the others. Where that misses again and again, the others that have an
//! index are asked where theirs go on.
//!
//! Promises: what is read is what leads, or a small multiple of what the rarest of the criteria with an index has; a question that nothing answers ends when it is cancelled.
use super::condition::Query;
use super::filter::Filter;
use super::misses::{EVENT, Misses};
use super::partition::Partition;
use super::statements::{Statement, column, stream_column};
use super::stored::StoredRows;
use super::stream::{self, Stream};
use super::target::Target;
use super::ways::{InPartitions, Rows, Step, Stretch, Union, Way};
use super::{horizon, tags};
use crate::pg::error::failure::Result;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::number;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction, Probe};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{from_text, int8_array_of};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::Whose;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::query::criteria::after_prefix;
use pgrx::pg_sys::Datum;
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
const MOST_STREAMS: usize = 100;
/// So many names are remembered of streams that have the prefix, or have not.
const MOST_NAMES: usize = 10_000;

const STREAM_KEY: &[i16] = &[number(stream_column::ID)];
/// The place of the name in the index of names, from 1.
const NAME: i16 = 2;

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

/// What is sought, with what one look into the tables says of it.
pub struct Seeking<'a> {
    sought: &'a Sought,
    target: Target<'a>,
    range: Range,
    /// Those that may have any, in the order in which they are read.
    partitions: Vec<Rc<Partition>>,
    /// Those of the criteria, or those of the prefix where they are few.
    streams: Option<Vec<InPartitions>>,
    /// With that of the prefix.
    categories: Option<Vec<String>>,
    /// What names of streams begin with, where they have to be looked at.
    prefix: Option<&'a str>,
    names: Probe,
    has_prefix: RefCell<HashMap<i64, bool>>,
    /// What is read of a row, and of an index.
    memory: [Scratch; 2],
}

impl<'a> Seeking<'a> {
    /// None where nothing can be found. Lives in the current memory context.
    pub fn new(target: Target<'a>, sought: &'a Sought, range: Range) -> Result<Option<Self>> {
        let memory = [Scratch::new()?, Scratch::new()?];
        as_owner(Planning::ByIndex, |db, catalog| {
            let range = Range(trial::after(range.0 - 1) + 1, range.1);
            let prefix = sought.stream_prefix.as_deref();
            let streams = match (&sought.streams, prefix) {
                (Some(names), prefix) => Some(named(db, catalog, target.id, names, prefix.unwrap_or_default())?),
                (None, Some(prefix)) => with_prefix(db, catalog, target.id, prefix)?,
                (None, None) => None,
            };
            let category =
                prefix.filter(|_| streams.is_none()).and_then(|prefix| prefix.split_once('-')).map(|of| of.0);
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
                let partitions = segments.iter().map(|segment| segment.partition.lower).collect();
                Ok(InPartitions { stream, partitions })
            };
            let prefix = prefix.filter(|_| streams.is_none());
            let streams: Option<Vec<_>> =
                streams.map(|all| all.into_iter().map(in_partitions).collect::<Result<_>>()).transpose()?;
            let partitions = partitions(db, catalog, target.id, sought, streams.as_deref(), range)?;
            let names = Probe::by_int8(catalog.streams, STREAM_KEY);
            let has_prefix = RefCell::default();
            Ok(Some(Self { sought, target, range, partitions, streams, categories, prefix, names, has_prefix, memory }))
        })
    }

    /// The ways to what is sought in one partition, the one that leads first.
    fn ways(&self, partition: &Partition) -> Vec<Way<'_>> {
        let sought = self.sought;
        let [_, memory] = &self.memory;
        let mut ways = Vec::new();
        if !sought.tags.is_empty() {
            ways.push(Way::Tags(Union::of([sought.tags.as_slice()].into_iter(), memory)));
        }
        if let Some(streams) = &self.streams {
            let here = streams.iter().filter(|stream| stream.partitions.contains(&partition.lower));
            ways.push(Way::Streams(Union::of(here, memory)));
        }
        if let Some(subjects) = &sought.subjects {
            ways.push(Way::Rows(Rows::of_subjects(subjects)));
        }
        if let Some(sets) = sought.items.as_ref().and_then(Query::tag_sets) {
            ways.push(Way::Tags(Union::of(sets, memory)));
        }
        if let Some(categories) = &self.categories {
            ways.push(Way::Rows(Rows::of_categories(categories)));
        }
        if ways.is_empty() {
            ways.push(Way::Rows(Rows::all()));
        }
        ways
    }

    /// Whether an event of the tenant is one of those that are sought, as far as its row tells.
    fn wants(&self, db: &Db, row: &Row) -> Result<bool> {
        let sought = self.sought;
        let is_one_of = |names: &Option<Vec<String>>, name: Option<&str>| {
            names.as_ref().is_none_or(|names| name.is_some_and(|name| names.iter().any(|of| of == name)))
        };
        let is_of_tags = || -> Result<bool> {
            let Some(items) = &sought.items else { return Ok(true) };
            self.memory[0].step(|| items.is_matched(row))
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
fn with_prefix(db: &Db, catalog: &Catalog, tenant_id: i64, prefix: &str) -> Result<Option<Vec<Stream>>> {
    let mut bounds = vec![Bound::text_at_least(NAME, from_text(prefix)?)];
    if let Some(after) = after_prefix(prefix) {
        bounds.push(Bound::text_before(NAME, from_text(&after)?));
    }
    let mut found = Vec::new();
    stream::with_name_probe(catalog, |probe| {
        probe.in_order(db, View::Latest, Datum::from(tenant_id), &bounds, |row| {
            found.push(stream::read_row(row)?);
            Ok(found.len() <= MOST_STREAMS)
        })
    })?;
    Ok((found.len() <= MOST_STREAMS).then_some(found))
}

/// The partitions that may have any, in the order in which they are read.
fn partitions(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    sought: &Sought,
    streams: Option<&[InPartitions]>,
    range: Range,
) -> Result<Vec<Rc<Partition>>> {
    let within = (range.0, range.1);
    let mut all = tags::partitions(db, catalog, View::Latest, tenant_id, &sought.tags, within)?;
    if let Some(streams) = streams {
        let held: BTreeSet<i64> = streams.iter().flat_map(|of| of.partitions.iter().copied()).collect();
        all.retain(|partition| held.contains(&partition.lower));
    }
    if sought.direction == Direction::Backward {
        all.reverse();
    }
    Ok(all)
}

/// A walk through what is sought, one portion after the other: it only moves on, and what was read ahead of the portion before serves the next one.
pub struct Walk<'s> {
    seeking: &'s Seeking<'s>,
    /// How many of its partitions are over.
    over: usize,
    here: Option<Here<'s>>,
}

/// A walk through one partition.
struct Here<'s> {
    ways: Vec<Way<'s>>,
    misses: Misses,
    rest: Stretch<'s>,
}

impl<'s> Walk<'s> {
    pub fn of(seeking: &'s Seeking<'s>) -> Self {
        Self { seeking, over: 0, here: None }
    }

    pub fn is_over(&self) -> bool {
        self.over >= self.seeking.partitions.len()
    }

    /// Puts the next events into `into`, at most `most`, without the first `skip`, which it counts down.
    pub fn read(&mut self, most: usize, skip: &mut i64, into: &StoredRows) -> Result<()> {
        let seeking = self.seeking;
        as_owner(Planning::ByIndex, |db, _| {
            let tenant = Some(from_text(seeking.target.name)?);
            let mut left = most;
            while let Some(partition) = seeking.partitions.get(self.over) {
                let here = self.here.get_or_insert_with(|| Here::of(seeking, partition));
                let positions = here.positions(db, seeking, left, skip)?;
                let statement = match seeking.sought.direction {
                    Direction::Forward => Statement::EventsAt,
                    Direction::Backward => Statement::EventsAtBackward,
                };
                if !positions.is_empty() {
                    let args = [tenant, Some(int8_array_of(&positions)?)];
                    into.fill(partition.plan(statement), db, View::Latest, &args)?;
                }
                left -= positions.len();
                if left == 0 {
                    break;
                }
                (self.here, self.over) = (None, self.over + 1);
            }
            Ok(())
        })
    }
}

impl<'s> Here<'s> {
    fn of(seeking: &'s Seeking<'s>, partition: &'s Partition) -> Self {
        let rest = Stretch {
            partition,
            tenant_id: seeking.target.id,
            from: seeking.range.0.max(partition.lower),
            to: seeking.range.1.min(partition.upper - 1),
            direction: seeking.sought.direction,
        };
        Self { ways: seeking.ways(partition), misses: Misses::from(rest.start()), rest }
    }

    /// The positions of the next events that are sought; fewer than `most` only where there are no others.
    fn positions(&mut self, db: &Db, seeking: &Seeking, most: usize, skip: &mut i64) -> Result<Vec<i64>> {
        let Self { ways, misses, rest } = self;
        let (lead, others) = ways.split_first_mut().ok_or_else(|| Error::Internal { what: "nothing leads".into() })?;
        let mut positions = Vec::new();
        while !rest.is_empty() {
            let stretch = *rest;
            let mut is_left = false;
            lead.each(db, stretch, &mut |step| {
                let in_vain = match step {
                    Step::Event(row) => {
                        let position = row.int8(column::GLOBAL_POSITION)?;
                        *rest = stretch.beyond(position);
                        if seeking.wants(db, row)? {
                            misses.hit(rest.start());
                            if *skip > 0 {
                                *skip -= 1;
                            } else {
                                positions.push(position);
                            }
                            return Ok(positions.len() < most);
                        }
                        EVENT
                    }
                    Step::Passed(position, steps) => {
                        *rest = stretch.starting_at(position);
                        steps
                    }
                };
                is_left = misses.miss(in_vain) && !others.is_empty();
                Ok(!is_left)
            })?;
            if positions.len() >= most {
                break;
            }
            let next = if is_left { leap(db, *rest, others, misses)? } else { None };
            match next {
                Some(next) => *rest = next,
                None => break,
            }
        }
        Ok(positions)
    }
}

/// From where on each of the ways may have any; None where one of them has none.
fn leap<'s>(db: &Db, from: Stretch<'s>, ways: &mut [Way], misses: &mut Misses) -> Result<Option<Stretch<'s>>> {
    let asked = |ways: &[Way]| -> usize { ways.iter().map(Way::descents).sum() };
    let before = asked(ways);
    let mut to = from;
    for way in &mut *ways {
        match way.beginning(db, to)? {
            Some(position) => to = to.starting_at(position),
            None => return Ok(None),
        }
    }
    misses.leapt((from.start(), to.start()), asked(ways) - before);
    Ok(Some(to))
}
