//! Several ranges of one index as one: k scans, of which the row that comes first is always the next one. It costs what is read, and a
//! descent for each range.
use super::plan::View;
use super::probe::{Bound, Direction, Probe, Scan, finish};
use super::row::Row;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::process::session::Db;
use pgrx::pg_sys::Datum;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is merged.
pub struct Merged<'a> {
    pub key: Datum,
    /// The bounds of each range. The last two say from where and to where in the order.
    pub ranges: &'a [[Bound; 3]],
    /// The place, from 0, of the bigint column of the table by which they are merged, in whose order each range comes.
    pub order: usize,
    pub direction: Direction,
}

/// So many scans stay open; of a range more each row is a descent of its own.
const MOST_OPEN: usize = 128;

impl Merged<'_> {
    /// What sorts rows into the order.
    fn rank(&self, row: &Row) -> Result<Reverse<i64>> {
        let place = row.int8(self.order)?;
        Ok(Reverse(if self.direction == Direction::Forward { place } else { -place }))
    }

    /// The bounds of a range from the row with this rank on.
    fn rest(&self, range: usize, Reverse(rank): Reverse<i64>) -> [Bound; 3] {
        let [bound, first, last] = self.ranges[range];
        match self.direction {
            Direction::Forward => [bound, first.with(rank), last],
            Direction::Backward => [bound, first, last.with(-rank)],
        }
    }
}

impl Probe {
    /// Gives the rows of all ranges to `each`, in their order, until it wants no more (false).
    pub fn merged(
        &self,
        db: &Db,
        view: View,
        merged: Merged,
        each: &mut dyn FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let mut open: Vec<Scan> = Vec::with_capacity(merged.ranges.len().min(MOST_OPEN));
        let outcome = self.merge(db, view, &merged, &mut open, each);
        if !matches!(outcome, Err(Failure::Postgres(_))) {
            catch(|| open.iter().rev().for_each(finish))?;
        }
        outcome
    }

    fn merge(
        &self,
        db: &Db,
        mut view: View,
        merged: &Merged,
        open: &mut Vec<Scan>,
        each: &mut dyn FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let mut next = BinaryHeap::with_capacity(merged.ranges.len());
        for (range, bounds) in merged.ranges.iter().enumerate() {
            if range < MOST_OPEN {
                let scan = self.opened(view, merged.key, bounds)?;
                open.push(scan);
                if open[range].fetch(merged.direction)? {
                    next.push((merged.rank(&open[range].row())?, range));
                }
                // All under the snapshot of the first.
                view = View::Caller;
            } else {
                self.within(db, view, merged.key, bounds, merged.direction, |row| {
                    next.push((merged.rank(row)?, range));
                    Ok(false)
                })?;
            }
        }
        while let Some((rank, range)) = next.pop() {
            let mut goes_on = true;
            if let Some(scan) = open.get(range) {
                goes_on = each(&scan.row())?;
                if goes_on && scan.fetch(merged.direction)? {
                    next.push((merged.rank(&scan.row())?, range));
                }
            } else {
                let mut is_first = true;
                let bounds = merged.rest(range, rank);
                self.within(db, view, merged.key, &bounds, merged.direction, |row| {
                    if std::mem::take(&mut is_first) {
                        goes_on = each(row)?;
                        return Ok(goes_on);
                    }
                    next.push((merged.rank(row)?, range));
                    Ok(false)
                })?;
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}
