//! Ways to the events of a partition: by tags, by streams, by subjects, by categories, or through all of a tenant's. Each gives its events in the order of the log, or
//! backward, from any position on, straight from an index that has them so.
use super::chosen::{self, Chosen};
use super::partition::Partition;
use super::statements::column;
use super::stream::Stream;
use super::tags;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction};
use crate::pg::query::row::Row;
use pgrx::pg_sys::Datum;
use std::collections::VecDeque;

/// The place of the version in the index (stream_id, version), from 1.
const VERSION: i16 = 2;

/// How many positions of one set are read at first, and at most, before the others of the union are asked.
const FEW: usize = 16;
const MANY: usize = 512;

/// A stream, and the lower bounds of the partitions that have events of it.
pub struct InPartitions {
    pub stream: Stream,
    pub partitions: Vec<i64>,
}

/// Which events. The first and the last position are given with each question.
pub enum Way<'a> {
    /// Those that bear all tags of one of the sets.
    Tags(Vec<&'a [String]>),
    Streams(&'a [InPartitions]),
    Subjects(&'a [String]),
    Categories(&'a [String]),
    All,
}

/// Where, and in which order.
#[derive(Clone, Copy)]
pub struct Stretch<'a> {
    pub partition: &'a Partition,
    pub tenant_id: i64,
    pub from: i64,
    pub to: i64,
    pub direction: Direction,
}

impl Stretch<'_> {
    pub fn is_empty(&self) -> bool {
        self.from > self.to
    }

    /// What comes after that position.
    pub fn beyond(self, position: i64) -> Self {
        match self.direction {
            Direction::Forward => Self { from: position.saturating_add(1), ..self },
            Direction::Backward => Self { to: position.saturating_sub(1), ..self },
        }
    }

    /// What begins there.
    pub fn starting_at(self, position: i64) -> Self {
        match self.direction {
            Direction::Forward => Self { from: position, ..self },
            Direction::Backward => Self { to: position, ..self },
        }
    }

    /// How far away another one begins that lies further on.
    pub fn distance(&self, other: &Self) -> i64 {
        match self.direction {
            Direction::Forward => other.from.saturating_sub(self.from),
            Direction::Backward => self.to.saturating_sub(other.to),
        }
    }

    /// The one of two positions that comes first.
    fn first(&self, a: i64, b: i64) -> i64 {
        if self.direction == Direction::Forward { a.min(b) } else { a.max(b) }
    }
}

impl Way<'_> {
    /// Gives the rows of events to `each` until it wants no more (false).
    pub fn each(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(&Row) -> Result<bool>) -> Result<()> {
        let (categories, subjects) = match self {
            Self::Tags(sets) => return union(db, stretch, sets, each),
            Self::Streams(streams) => {
                let lower = stretch.partition.lower;
                let here: Vec<_> = streams.iter().filter(|stream| stream.partitions.contains(&lower)).collect();
                return union(db, stretch, &here, each);
            }
            Self::Subjects(subjects) => (None, Some(*subjects)),
            Self::Categories(categories) => (Some(*categories), None),
            Self::All => (None, None),
        };
        let Stretch { partition, tenant_id, from, to, direction } = stretch;
        let chosen = Chosen { tenant_id, categories, subjects, tags: &[], from, to, direction };
        chosen::each(db, partition, View::Latest, chosen, each)
    }

    /// Where the first of its events is.
    pub fn first(&self, db: &Db, stretch: Stretch) -> Result<Option<i64>> {
        let mut first = None;
        self.each(db, stretch, &mut |row| {
            first = Some(row.int8(column::GLOBAL_POSITION)?);
            Ok(false)
        })?;
        Ok(first)
    }
}

/// A set of events that an index has in the order of the log, without their rows.
trait Set {
    /// Gives the positions to `each` until it wants no more (false).
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(i64) -> Result<bool>) -> Result<()>;
}

impl Set for &[String] {
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(i64) -> Result<bool>) -> Result<()> {
        let (of, range) = ((stretch.tenant_id, *self), (stretch.from, stretch.to));
        tags::positions(db, stretch.partition, View::Latest, of, range, stretch.direction, each)
    }
}

impl Set for &InPartitions {
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(i64) -> Result<bool>) -> Result<()> {
        let key = Datum::from(self.stream.id);
        let Some(start) = version_at(db, stretch, key)? else { return Ok(()) };
        let bound = match stretch.direction {
            Direction::Forward => Bound::at_least(VERSION, start),
            Direction::Backward => Bound::at_most(VERSION, start),
        };
        stretch.partition.versions.within(db, View::Latest, key, &[bound], stretch.direction, |row| {
            let position = row.int8(column::GLOBAL_POSITION)?;
            Ok((stretch.from..=stretch.to).contains(&position) && each(position)?)
        })
    }
}

/// The version that a stream's events in the stretch begin with: positions rise with versions. None where there are none.
fn version_at(db: &Db, stretch: Stretch, key: Datum) -> Result<Option<i64>> {
    let forward = stretch.direction == Direction::Forward;
    let at = |bounds: &[Bound], direction| -> Result<Option<(i64, i64)>> {
        let mut found = None;
        stretch.partition.versions.within(db, View::Latest, key, bounds, direction, |row| {
            found = Some((row.int8(column::VERSION)?, row.int8(column::GLOBAL_POSITION)?));
            Ok(false)
        })?;
        Ok(found)
    };
    let is_within = |position: i64| if forward { position >= stretch.from } else { position <= stretch.to };
    let Some((near, position)) = at(&[], stretch.direction)? else { return Ok(None) };
    if is_within(position) {
        return Ok(Some(near));
    }
    let opposite = if forward { Direction::Backward } else { Direction::Forward };
    let Some((far, position)) = at(&[], opposite)? else { return Ok(None) };
    if !is_within(position) {
        return Ok(None);
    }
    // `outside` lies before the stretch, and `inside` within it.
    let (mut outside, mut inside) = (near, far);
    while outside.abs_diff(inside) > 1 {
        let middle = outside.midpoint(inside);
        let bounds = [Bound::at_least(VERSION, middle), Bound::at_most(VERSION, middle)];
        // A version that is missing is not there for whoever reads either.
        match at(&bounds, Direction::Forward)? {
            Some((_, position)) if is_within(position) => inside = middle,
            _ => outside = middle,
        }
    }
    Ok(Some(inside))
}

/// What was read ahead of one set.
#[derive(Default)]
struct Run {
    ahead: VecDeque<i64>,
    length: usize,
    /// Nothing comes after it.
    is_last: bool,
}

impl Run {
    /// The first position of the set within the stretch; None where there is none.
    fn next<S: Set>(&mut self, db: &Db, stretch: Stretch, set: &S) -> Result<Option<i64>> {
        let is_passed = |position: &i64| !(stretch.from..=stretch.to).contains(position);
        while self.ahead.front().is_some_and(is_passed) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() && !self.is_last {
            self.length = (self.length * 2).clamp(FEW, MANY);
            set.positions(db, stretch, &mut |position| {
                self.ahead.push_back(position);
                Ok(self.ahead.len() < self.length)
            })?;
            self.is_last = self.ahead.len() < self.length;
        }
        Ok(self.ahead.front().copied())
    }
}

/// The events of all sets, each once.
fn union<S: Set>(db: &Db, mut stretch: Stretch, sets: &[S], each: &mut dyn FnMut(&Row) -> Result<bool>) -> Result<()> {
    let mut runs: Vec<Run> = sets.iter().map(|_| Run::default()).collect();
    while !stretch.is_empty() {
        let mut next = None;
        for (run, set) in runs.iter_mut().zip(sets) {
            let found = run.next(db, stretch, set)?;
            next = next.into_iter().chain(found).reduce(|a, b| stretch.first(a, b));
        }
        let Some(position) = next else { break };
        let mut goes_on = true;
        stretch.partition.positions.in_order(db, View::Latest, Datum::from(position), &[], |row| {
            // Nobody is led to another tenant's events, whatever stands where tags are looked for.
            goes_on = row.int8(column::TENANT_ID)? != stretch.tenant_id || each(row)?;
            Ok(goes_on)
        })?;
        if !goes_on {
            break;
        }
        stretch = stretch.beyond(position);
    }
    Ok(())
}
