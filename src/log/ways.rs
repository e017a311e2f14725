//! Ways to the events of a partition: by tags, by streams, by subjects, by categories, or through all of a tenant's. Each gives its events in the order of the log, or
//! backward, from any position on, straight from an index that has them so.
use super::chosen::{self, Chosen};
use super::partition::Partition;
use super::statements::column;
use super::stream::Stream;
use super::tags;
use crate::pg::error::failure::Result;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Db;
use crate::pg::query::intersect::Found;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Direction};
use crate::pg::query::row::Row;
use pgrx::pg_sys::Datum;
use std::collections::VecDeque;

/// The place of the version in the index (stream_id, version), from 1.
const VERSION: i16 = 2;

/// How many steps of one set are made at first, and at most, before the others of the union are asked; and how many positions of it are kept.
const FEW: usize = 16;
const MANY: usize = 4096;
const MOST_AHEAD: usize = 512;

/// A stream, and the lower bounds of the partitions that have events of it.
pub struct InPartitions {
    pub stream: Stream,
    pub partitions: Vec<i64>,
}

/// What is told of a way, in the order of the log.
pub enum Step<'a> {
    Event(&'a Row<'a>),
    /// It has none before this position, which so many steps have told.
    Passed(i64, usize),
}

/// Which events. The first and the last position are given with each question: they only move on, within one partition.
pub enum Way<'a> {
    /// Those that bear all tags of one of the sets.
    Tags(Union<'a, &'a [String]>),
    Streams(Union<'a, &'a InPartitions>),
    /// Those of the categories, of the subjects, or all.
    Rows(Rows<'a>),
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

    /// Where it begins.
    pub fn start(&self) -> i64 {
        if self.direction == Direction::Forward { self.from } else { self.to }
    }

    fn holds(&self, position: i64) -> bool {
        (self.from..=self.to).contains(&position)
    }

    /// What sorts positions into its order.
    fn rank(&self, position: i64) -> i64 {
        if self.direction == Direction::Forward { position } else { -position }
    }
}

impl Way<'_> {
    /// Gives its steps to `each` until it wants no more (false).
    pub fn each(&mut self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(Step) -> Result<bool>) -> Result<()> {
        match self {
            Self::Tags(union) => union.each(db, stretch, each),
            Self::Streams(union) => union.each(db, stretch, each),
            Self::Rows(rows) => rows.each(db, stretch, each),
        }
    }

    /// From where on it may have any; None where it has none.
    pub fn beginning(&mut self, db: &Db, stretch: Stretch) -> Result<Option<i64>> {
        match self {
            Self::Tags(union) => Ok(union.next(db, stretch)?.map(Found::place)),
            Self::Streams(union) => Ok(union.next(db, stretch)?.map(Found::place)),
            Self::Rows(rows) => rows.beginning(db, stretch),
        }
    }

    /// How many descents of an index it has cost so far.
    pub fn descents(&self) -> usize {
        match self {
            Self::Tags(union) => union.cost.descents,
            Self::Streams(union) => union.cost.descents,
            Self::Rows(rows) => rows.descents,
        }
    }
}

/// Events that an index gives with their rows.
pub struct Rows<'a> {
    categories: Option<&'a [String]>,
    subjects: Option<&'a [String]>,
    /// Where they began when that was asked last.
    beginning: Option<i64>,
    descents: usize,
}

impl<'a> Rows<'a> {
    pub fn of_categories(categories: &'a [String]) -> Self {
        Self { categories: Some(categories), ..Self::all() }
    }

    pub fn of_subjects(subjects: &'a [String]) -> Self {
        Self { subjects: Some(subjects), ..Self::all() }
    }

    pub fn all() -> Self {
        Self { categories: None, subjects: None, beginning: None, descents: 0 }
    }

    fn each(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(Step) -> Result<bool>) -> Result<()> {
        let Stretch { partition, tenant_id, from, to, direction } = stretch;
        let Self { categories, subjects, .. } = *self;
        let chosen = Chosen { tenant_id, categories, subjects, tags: &[], from, to, direction };
        chosen::each(db, partition, View::Latest, chosen, |row| each(Step::Event(row)))
    }

    fn beginning(&mut self, db: &Db, stretch: Stretch) -> Result<Option<i64>> {
        if self.beginning.is_none_or(|position| !stretch.holds(position)) {
            let mut first = None;
            self.each(db, stretch, &mut |step| {
                if let Step::Event(row) = step {
                    first = Some(row.int8(column::GLOBAL_POSITION)?);
                }
                Ok(false)
            })?;
            self.beginning = first;
            self.descents += self.categories.or(self.subjects).map_or(1, <[String]>::len);
        }
        Ok(self.beginning)
    }
}

/// A set of events that an index has in the order of the log, without their rows.
pub trait Set {
    /// Gives the positions, and how far it has come between them, to `each` until it wants no more (false). How many descents of an index that took.
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<usize>;
}

impl Set for &[String] {
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<usize> {
        let (of, range) = ((stretch.tenant_id, *self), (stretch.from, stretch.to));
        tags::positions(db, stretch.partition, View::Latest, of, range, stretch.direction, each)?;
        Ok(self.len())
    }
}

impl Set for &InPartitions {
    fn positions(&self, db: &Db, stretch: Stretch, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<usize> {
        let key = Datum::from(self.stream.id);
        let mut descents = 0;
        let Some(start) = version_at(db, stretch, key, &mut descents)? else { return Ok(descents) };
        let bound = match stretch.direction {
            Direction::Forward => Bound::at_least(VERSION, start),
            Direction::Backward => Bound::at_most(VERSION, start),
        };
        stretch.partition.versions.within(db, View::Latest, key, &[bound], stretch.direction, |row| {
            let position = row.int8(column::GLOBAL_POSITION)?;
            Ok(stretch.holds(position) && each(Found::At(position))?)
        })?;
        Ok(descents + 1)
    }
}

/// The version that a stream's events in the stretch begin with: positions rise with versions. None where there are none.
fn version_at(db: &Db, stretch: Stretch, key: Datum, descents: &mut usize) -> Result<Option<i64>> {
    let forward = stretch.direction == Direction::Forward;
    let mut at = |bounds: &[Bound], direction| -> Result<Option<(i64, i64)>> {
        *descents += 1;
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
    /// What begins before this position is known.
    read_to: Option<i64>,
    /// Nothing comes after it.
    is_last: bool,
}

/// What reading sets has cost.
#[derive(Default)]
struct Cost {
    descents: usize,
    /// Steps to no event.
    passed: usize,
}

impl Run {
    /// The set's first position within the stretch, or from where on it may have one; None where it has none.
    fn next<S: Set>(
        &mut self,
        db: &Db,
        stretch: Stretch,
        set: &S,
        memory: &Scratch,
        cost: &mut Cost,
    ) -> Result<Option<Found>> {
        while self.ahead.front().is_some_and(|&position| !stretch.holds(position)) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() && !self.is_last {
            let is_further = |&place: &i64| stretch.holds(place) && place != stretch.start();
            if let Some(place) = self.read_to.filter(is_further) {
                return Ok(Some(Found::Passed(place)));
            }
            // After a leap as few as at first.
            let goes_on = self.read_to == Some(stretch.start());
            self.length = if goes_on { (self.length * 2).min(MANY) } else { FEW };
            let mut steps = 0;
            self.is_last = true;
            cost.descents += memory.step(|| {
                set.positions(db, stretch, &mut |found| {
                    match found {
                        Found::At(position) => {
                            self.ahead.push_back(position);
                            self.read_to = Some(stretch.beyond(position).start());
                        }
                        Found::Passed(position) => {
                            self.read_to = Some(position);
                            cost.passed += 1;
                        }
                    }
                    steps += 1;
                    self.is_last = steps < self.length && self.ahead.len() < MOST_AHEAD;
                    Ok(self.is_last)
                })
            })?;
        }
        Ok(match self.ahead.front() {
            Some(&position) => Some(Found::At(position)),
            None if self.is_last => None,
            None => self.read_to.map(Found::Passed),
        })
    }
}

/// The events of several sets, each once. What was read ahead of each is kept for the next question.
pub struct Union<'a, S> {
    sets: Vec<(S, Run)>,
    /// What one read of a set leaves behind.
    memory: &'a Scratch,
    cost: Cost,
}

impl<'a, S: Set> Union<'a, S> {
    pub fn of(sets: impl Iterator<Item = S>, memory: &'a Scratch) -> Self {
        Self { sets: sets.map(|set| (set, Run::default())).collect(), memory, cost: Cost::default() }
    }

    /// The first position of all of them, or from where on they may have one; None where they have none.
    fn next(&mut self, db: &Db, stretch: Stretch) -> Result<Option<Found>> {
        let mut next: Option<Found> = None;
        for (set, run) in &mut self.sets {
            let found = run.next(db, stretch, set, self.memory, &mut self.cost)?;
            // At one place an event that is there comes before one that may be.
            let order = |found: &Found| (stretch.rank(found.place()), matches!(found, Found::Passed(_)));
            next = next.into_iter().chain(found).min_by_key(order);
        }
        Ok(next)
    }

    fn each(&mut self, db: &Db, mut stretch: Stretch, each: &mut dyn FnMut(Step) -> Result<bool>) -> Result<()> {
        while !stretch.is_empty() {
            let Some(next) = self.next(db, stretch)? else { break };
            let mut goes_on = true;
            if let Found::At(position) = next {
                stretch.partition.positions.in_order(db, View::Latest, Datum::from(position), &[], |row| {
                    // Nobody is led to another tenant's events, whatever stands where tags are looked for.
                    goes_on = row.int8(column::TENANT_ID)? != stretch.tenant_id || each(Step::Event(row))?;
                    Ok(goes_on)
                })?;
                stretch = stretch.beyond(position);
            } else {
                goes_on = each(Step::Passed(next.place(), std::mem::take(&mut self.cost.passed)))?;
                stretch = stretch.starting_at(next.place());
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}
