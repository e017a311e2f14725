//! The events of one stream for folding: ranges of versions, single events, the late ones, and the prefix of versions that a
//! moment in time cuts off. Everything goes by index probes to the partitions that hold the versions asked for.
use super::behind_lock::Known;
use super::statements::column;
use super::stream::{self, Head, Segment, Stream};
use super::whole;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::memory::List;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::Bound;
use crate::pg::query::row::Row;
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::Datum;
use std::ops::ControlFlow;

/// A stream that is open for reading, as one view shows it.
pub struct Opened {
    pub stream: Stream,
    /// Its newest event in that view.
    pub head: Head,
    segments: Vec<Segment>,
    view: View,
}

/// An event that came after one with a later occurred_at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    pub version: i64,
    pub occurred_at: i64,
}

/// Places in the versions index and in that of late events, from 1.
const VERSION: i16 = 2;
const OCCURRED_AT: i16 = 3;

impl Opened {
    pub fn open(db: &Db, catalog: &Catalog, stream: Stream, view: View) -> Result<Self> {
        let head = stream::newest(db, catalog, &stream, view)?;
        Self::at(db, catalog, stream, head, view)
    }

    /// Behind the stream's lock, whose head this transaction has found or written.
    pub fn locked(db: &Db, catalog: &Catalog, locked: &Known) -> Result<Self> {
        Self::at(db, catalog, locked.stream, locked.head.clone(), View::Latest)
    }

    fn at(db: &Db, catalog: &Catalog, stream: Stream, head: Head, view: View) -> Result<Self> {
        let segments = stream::segments(db, catalog, &stream, view)?;
        Ok(Self { stream, head, segments, view })
    }

    /// Gives the events `from..=to` to `each`, in order, until it breaks.
    pub fn versions(
        &self,
        db: &Db,
        from: i64,
        to: i64,
        mut each: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let bounds = [Bound::at_least(VERSION, from), Bound::at_most(VERSION, to)];
        let key = Datum::from(self.stream.id);
        let mut goes_on = true;
        for segment in stream::holding(&self.segments, from, to) {
            segment.partition.versions.in_order(db, self.view, key, &bounds, |row| {
                goes_on = each(row)?.is_continue();
                Ok(goes_on)
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// What `read` finds in one event; None where there is no such version.
    pub fn event<T>(&self, db: &Db, version: i64, read: impl FnOnce(&Row) -> Result<T>) -> Result<Option<T>> {
        let mut read = Some(read);
        let mut found = None;
        self.versions(db, version, version, |row| {
            if let Some(read) = read.take() {
                found = Some(read(row)?);
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The event at a version as far as states build on it.
    pub fn head_at(&self, db: &Db, version: i64) -> Result<Option<Head>> {
        if version == self.head.version {
            return Ok(Some(self.head.clone()));
        }
        self.event(db, version, stream::read_head)
    }

    /// What to say where there is no event at a version that lies below others.
    pub fn gap(&self, db: &Db, version: i64) -> Failure {
        whole::gap(db, &self.stream, version)
    }

    /// The late events of versions `from..=to` with occurred_at <= `until`, in the order of versions.
    pub fn lates(&self, db: &Db, from: i64, to: i64, until: i64) -> Result<List<Late>> {
        let bounds = [Bound::at_least(VERSION, from), Bound::at_most(VERSION, to), Bound::until(OCCURRED_AT, until)];
        let key = Datum::from(self.stream.id);
        let mut lates = List::new()?;
        for segment in stream::holding(&self.segments, from, to) {
            segment.partition.lates.in_order(db, self.view, key, &bounds, |row| {
                lates
                    .push(Late { version: row.int8(column::VERSION)?, occurred_at: row.int8(column::OCCURRED_AT)? })?;
                Ok(true)
            })?;
        }
        Ok(lates)
    }

    /// How many there are of versions `from..=to`.
    pub fn count_lates(&self, db: &Db, from: i64, to: i64) -> Result<i64> {
        let bounds = [Bound::at_least(VERSION, from), Bound::at_most(VERSION, to)];
        let mut count = 0;
        for segment in stream::holding(&self.segments, from, to) {
            segment.partition.lates.in_order(db, self.view, Datum::from(self.stream.id), &bounds, |_| {
                count += 1;
                Ok(true)
            })?;
        }
        Ok(count)
    }

    /// The newest version, at most `to`, with recorded_at <= `known_at`; 0 where there is none.
    pub fn known_at(&self, db: &Db, to: i64, known_at: i64) -> Result<i64> {
        self.prefix(db, to, |head| head.recorded_at <= known_at)
    }

    /// The newest version at or below a global position; 0 where there is none.
    pub fn at_position(&self, db: &Db, position: i64) -> Result<i64> {
        self.prefix(db, self.head.version, |head| head.global_position <= position)
    }

    /// The newest version, at most `to`, up to which no event has an occurred_at after `as_of`; 0 where there is none.
    pub fn until(&self, db: &Db, to: i64, as_of: i64) -> Result<i64> {
        self.prefix(db, to, |head| head.max_occurred_at <= as_of)
    }

    /// The last of the versions 1..=to for which `holds`, which must be true up to some version and false from then on.
    fn prefix(&self, db: &Db, to: i64, holds: impl Fn(&Head) -> bool) -> Result<i64> {
        if self.head.version <= to && holds(&self.head) {
            return Ok(self.head.version);
        }
        let (mut last_true, mut first_false) = (0, to.min(self.head.version) + 1);
        while first_false - last_true > 1 {
            let middle = last_true + (first_false - last_true) / 2;
            match self.head_at(db, middle)? {
                Some(head) if holds(&head) => last_true = middle,
                Some(_) => first_false = middle,
                None => return Err(self.gap(db, middle)),
            }
        }
        Ok(last_true)
    }
}
