//! The states of a stream in valid time: one for each moment at which something occurred, with late events in their place.
//!
//! In the order of valid time this is one walk, and so it is where rules do not depend on the order. Else, in the order of versions, the state
//! as of a moment is the prefix of versions of which nothing occurred later, and the late events behind it that occurred by then folded on
//! top: the prefix is folded once, and what is on top anew for each moment that is asked for, so the cost grows with how long late events
//! wait for the prefix to reach them.
use super::answer;
use super::event::{Event, field};
use super::moment::{Moment, Selection};
use super::registry::Order;
use super::replay::{Folding, Walk};
use crate::log::scan::{Late, Opened};
use crate::log::stream::Stream;
use crate::pg::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::plan::View;
use crate::pg::session::{Planning, as_owner};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A state, from a moment on until the next one's.
pub struct Period {
    /// Microseconds since 2000-01-01 UTC.
    pub from: i64,
    /// None: until further notice.
    pub to: Option<i64>,
    /// The newest version that counts.
    pub version: i64,
    pub state: Rc<Stored>,
}

/// Which periods: those that hold some moment in `from..to`. Microseconds since 2000-01-01 UTC; None: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl Range {
    /// Whether a period that begins and ends then is wanted.
    fn holds(&self, from: i64, to: Option<i64>) -> bool {
        self.to.is_none_or(|last| from < last) && self.from.is_none_or(|first| to.is_none_or(|to| to > first))
    }
}

/// Gives periods away, once it is known when they end.
struct Periods<'a> {
    range: Range,
    open: Option<Period>,
    each: &'a mut dyn FnMut(&Period) -> Result<()>,
}

impl Periods<'_> {
    /// What follows the open period: either it lasts until `period` begins, or it is replaced because both begin together.
    fn add(&mut self, period: Period) -> Result<()> {
        if let Some(mut open) = self.open.take()
            && open.from < period.from
        {
            open.to = Some(period.from);
            self.give(&open)?;
        }
        self.open = Some(period);
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |last| self.give(&last))
    }

    fn give(&mut self, period: &Period) -> Result<()> {
        if self.range.holds(period.from, period.to) { (self.each)(period) } else { Ok(()) }
    }
}

/// Gives the periods of a stream that are in the range to `each`, in order, as known at a moment (None = now).
pub fn of_stream(
    folding: &mut Folding,
    name: &str,
    stream: Stream,
    known_at: Option<i64>,
    range: Range,
    each: &mut dyn FnMut(&Period) -> Result<()>,
) -> Result<()> {
    let (opened, selection) = as_owner(Planning::ByIndex, |db, catalog| {
        let opened = Opened::open(db, catalog, stream, View::Caller)?;
        let selection = Selection::of(db, &opened, Moment { known_at, ..Moment::NOW })?;
        Ok((opened, selection))
    })?;
    let mut periods = Periods { range, open: None, each };
    match folding.fold.order {
        Order::Version if folding.is_unordered() => unordered(folding, name, &opened, selection, &mut periods)?,
        Order::OccurredAt => by_time(folding, name, &opened, selection, &mut periods)?,
        Order::Version => by_version(folding, name, &opened, selection, &mut periods)?,
    }
    periods.end()
}

fn by_time(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    periods: &mut Periods,
) -> Result<()> {
    let mut version = 0;
    let mut after_each = |event: &Event, state: &Stored| {
        version = version.max(event.version());
        let from = event.row().int8(field::OCCURRED_AT)?;
        periods.add(Period { from, to: None, version, state: Rc::new(state.clone()) })
    };
    answer::from_first_event(folding, name, opened, selection, Some(&mut after_each)).map(drop)
}

/// One walk in the order of valid time, whatever the order of the fold.
fn unordered(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    periods: &mut Periods,
) -> Result<()> {
    let lates = as_owner(Planning::ByIndex, |db, _| opened.lates(db, 1, selection.newest, i64::MAX))?;
    let mut walk = Walk::new(Order::OccurredAt, 0, selection.newest, lates);
    let mut version = 0;
    let mut after_each = |event: &Event, state: &Stored| {
        version = version.max(event.version());
        let from = event.row().int8(field::OCCURRED_AT)?;
        periods.add(Period { from, to: None, version, state: Rc::new(state.clone()) })
    };
    folding.run_unordered(name, opened, &mut walk, &mut after_each)
}

fn by_version(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    periods: &mut Periods,
) -> Result<()> {
    let mut lates = as_owner(Planning::ByIndex, |db, _| opened.lates(db, 1, selection.newest, i64::MAX))?;
    lates.sort_by_key(|late| late.occurred_at);
    let mut waiting = Waiting {
        folding: Folding::new(folding.target, folding.fold)?,
        name,
        opened,
        lates,
        entered: 0,
        behind: BTreeMap::new(),
    };
    let mut prefix = Prefix { version: 0, max_occurred_at: None, state: Rc::clone(&folding.fold.initial_state) };
    let mut after_each = |event: &Event, state: &Stored| {
        let occurred_at = event.row().int8(field::OCCURRED_AT)?;
        if prefix.max_occurred_at.is_none_or(|max| occurred_at > max) {
            waiting.periods_of(&prefix, Some(occurred_at), periods)?;
            prefix.max_occurred_at = Some(occurred_at);
        }
        prefix.version = event.version();
        prefix.state = Rc::new(state.clone());
        Ok(())
    };
    answer::from_first_event(folding, name, opened, selection, Some(&mut after_each))?;
    waiting.periods_of(&prefix, None, periods)
}

/// All versions up to one, and their state.
struct Prefix {
    version: i64,
    /// None: there are none.
    max_occurred_at: Option<i64>,
    state: Rc<Stored>,
}

/// Late events that the prefix has not reached yet.
struct Waiting<'a> {
    folding: Folding<'a>,
    name: &'a str,
    opened: &'a Opened,
    /// All of the stream's, by occurred_at.
    lates: Vec<Late>,
    /// So many of them have occurred.
    entered: usize,
    /// Those of them that the prefix did not hold then, with when they occurred, by version.
    behind: BTreeMap<i64, i64>,
}

/// What was folded on top of a prefix, up to which version.
struct Top {
    version: i64,
    state: Rc<Stored>,
}

impl Waiting<'_> {
    /// The periods that begin while `prefix` is what it is: from the moment it is reached until something occurs at `until` that
    /// comes next in it.
    fn periods_of(&mut self, prefix: &Prefix, until: Option<i64>, periods: &mut Periods) -> Result<()> {
        let mut top = Top { version: prefix.version, state: Rc::clone(&prefix.state) };
        let mut moment = prefix.max_occurred_at;
        loop {
            let oldest = moment.and_then(|moment| self.enter(prefix.version, moment));
            if oldest.is_some_and(|oldest| oldest < top.version) {
                // One belongs below what was folded on top: begin anew.
                top = Top { version: prefix.version, state: Rc::clone(&prefix.state) };
            }
            let next = self.lates.get(self.entered).map(|late| late.occurred_at);
            let next = next.filter(|&next| until.is_none_or(|until| next < until));
            if let Some(moment) = moment {
                // What begins where nobody asked ends the period before, whatever its state.
                if periods.range.holds(moment, next.or(until)) {
                    self.fold_on(&mut top)?;
                }
                let (version, state) = (top.version, Rc::clone(&top.state));
                periods.add(Period { from: moment, to: None, version, state })?;
            }
            if next.is_none() {
                return Ok(());
            }
            moment = next;
        }
    }

    /// Those that occurred by `moment` wait from now on, if the prefix does not hold them; the oldest version of them.
    fn enter(&mut self, prefix: i64, moment: i64) -> Option<i64> {
        let mut oldest = None;
        while let Some(late) = self.lates.get(self.entered).filter(|late| late.occurred_at <= moment) {
            self.entered += 1;
            if late.version > prefix {
                self.behind.insert(late.version, late.occurred_at);
                oldest = Some(oldest.map_or(late.version, |oldest: i64| oldest.min(late.version)));
            }
        }
        oldest
    }

    /// Folds those that wait above `top` onto it.
    fn fold_on(&mut self, top: &mut Top) -> Result<()> {
        let lates: Vec<Late> = self
            .behind
            .range(top.version + 1..)
            .map(|(&version, &occurred_at)| Late { version, occurred_at })
            .collect();
        if let Some(newest) = lates.last().map(|late| late.version) {
            // None of the order of versions: only these.
            let mut walk = Walk::new(Order::Version, top.version, top.version, lates);
            let (state, _) = self.folding.run(self.name, self.opened, &top.state, &mut walk, None)?;
            *top = Top { version: newest, state: Rc::new(state) };
        }
        Ok(())
    }
}
