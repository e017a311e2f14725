//! What several texts have in common: under one key of an index (key, text, place), the places that each of them has, in order. The texts are read by
//! turns, a run at a time, each from where the others are: a rare one leads, and of the others only its neighbourhoods are looked at.
use super::plan::View;
use super::probe::{Bound, Direction, Probe};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use pgrx::pg_sys::Datum;
use std::collections::VecDeque;

/// What is looked for.
pub struct Intersection<'a> {
    pub key: Datum,
    pub texts: &'a [Datum],
    /// Places in the index, from 1: of the text, and of the place.
    pub columns: [i16; 2],
    /// The place, from 0, of the bigint column of the table that is the place.
    pub place: usize,
    /// The first and the last place.
    pub range: (i64, i64),
    pub direction: Direction,
}

/// How many places are read at first where one text was left behind, and at most where it goes on step by step.
const FEW: usize = 16;
const MANY: usize = 1024;

/// What is told of the places that all of the texts have, in order.
#[derive(Clone, Copy)]
pub enum Found {
    At(i64),
    /// None lies before this one.
    Passed(i64),
}

impl Found {
    pub fn place(self) -> i64 {
        match self {
            Self::At(place) | Self::Passed(place) => place,
        }
    }
}

/// What was read ahead of one text, as ranks.
#[derive(Default)]
struct Run {
    ranks: VecDeque<i64>,
    length: usize,
    /// Nothing comes after it.
    is_last: bool,
}

impl Intersection<'_> {
    /// What rises in the direction, and back.
    fn rank(&self, place: i64) -> i64 {
        if self.direction == Direction::Forward { place } else { -place }
    }

    /// The ranks to begin and to end with.
    fn ranks(&self) -> (i64, i64) {
        let (first, last) = self.range;
        if self.direction == Direction::Forward { (first, last) } else { (-last, -first) }
    }

    /// The bounds of one text, from a rank on.
    fn bounds(&self, text: Datum, rank: i64) -> [Bound; 3] {
        let (_, end) = self.ranks();
        let (first, last) = (self.rank(rank).min(self.rank(end)), self.rank(rank).max(self.rank(end)));
        let [of_text, of_place] = self.columns;
        [Bound::equal_text(of_text, text), Bound::at_least(of_place, first), Bound::at_most(of_place, last)]
    }
}

impl Probe {
    /// Gives the places that all of the texts have to `each`, in order, until it wants no more (false); and how far it has come, each time one of the texts is further than the
    /// others: texts that never meet are not walked to their end unless `each` wants that.
    pub fn intersected(
        &self,
        db: &Db,
        view: View,
        intersection: &Intersection,
        each: &mut dyn FnMut(Found) -> Result<bool>,
    ) -> Result<()> {
        let (begin, end) = intersection.ranks();
        if begin > end {
            return Ok(());
        }
        if let [only] = intersection.texts {
            let bounds = intersection.bounds(*only, begin);
            return self.within(db, view, intersection.key, &bounds, intersection.direction, |row| {
                each(Found::At(row.int8(intersection.place)?))
            });
        }
        let mut runs: Vec<Run> = intersection.texts.iter().map(|_| Run::default()).collect();
        let mut wanted = begin;
        while wanted <= end {
            let mut agreeing = 0;
            for turn in (0..runs.len()).cycle() {
                let Some(found) = self.reach(db, view, intersection, turn, &mut runs, wanted)? else { return Ok(()) };
                if found == wanted {
                    agreeing += 1;
                } else {
                    (agreeing, wanted) = (1, found);
                    if !each(Found::Passed(intersection.rank(wanted)))? {
                        return Ok(());
                    }
                }
                if agreeing == runs.len() {
                    break;
                }
            }
            if !each(Found::At(intersection.rank(wanted)))? {
                break;
            }
            wanted = wanted.saturating_add(1);
        }
        Ok(())
    }

    /// The first rank of one text that is not before `wanted`; None where there is none.
    fn reach(
        &self,
        db: &Db,
        view: View,
        intersection: &Intersection,
        turn: usize,
        runs: &mut [Run],
        wanted: i64,
    ) -> Result<Option<i64>> {
        let (Some(run), Some(&text)) = (runs.get_mut(turn), intersection.texts.get(turn)) else { return Ok(None) };
        let mut passed = 0;
        while run.ranks.front().is_some_and(|&rank| rank < wanted) {
            run.ranks.pop_front();
            passed += 1;
        }
        if run.ranks.is_empty() && !run.is_last {
            run.length = if passed > 1 { FEW } else { (run.length * 2).clamp(FEW, MANY) };
            let bounds = intersection.bounds(text, wanted);
            self.within(db, view, intersection.key, &bounds, intersection.direction, |row| {
                run.ranks.push_back(intersection.rank(row.int8(intersection.place)?));
                Ok(run.ranks.len() < run.length)
            })?;
            run.is_last = run.ranks.len() < run.length;
        }
        Ok(run.ranks.front().copied())
    }
}
