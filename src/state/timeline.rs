//! The states of a stream in valid time: one for each moment at which something occurred, with late events in their place.
//!
//! In the order of valid time this is one walk, and so it is where rules do not depend on the order. Else, in the order of versions, the state
//! as of a moment is the prefix of versions of which nothing occurred later, and the late events behind it that occurred by then folded on
//! top: the prefix is folded once, and what is on top anew for each moment that is asked for, so the cost grows with how long late events
//! wait for the prefix to reach them. Where they wait long, rules put each event into its place as it occurs, which costs as much as a few
//! events more; a handler cannot.
use super::answer;
use super::folding::{Folding, MOST_BYTES, are_many, patience};
use super::moment::{Moment, Selection};
use super::source;
use super::walk::Walk;
use crate::log::scan::{Late, Opened};
use crate::log::stream::Stream;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::{self, List, Scratch};
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::View;
use crate::present::event::Event;
use crate::shared::session::as_owner;
use eventstream_core::rules::Inserted;
use eventstream_core::word::Order;
use std::ops::ControlFlow;
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
    /// When the last one ends.
    until: Option<i64>,
    /// When the last one began that has ended: nothing up to there is given again.
    done: Option<i64>,
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
        let until = self.until;
        self.open.take().map_or(Ok(()), |last| self.give(&Period { to: until, ..last }))
    }

    /// Whether the state of a period matters.
    fn wants(&self, from: i64, to: Option<i64>) -> bool {
        self.range.holds(from, to) && self.done.is_none_or(|done| from > done)
    }

    fn give(&mut self, period: &Period) -> Result<()> {
        if self.wants(period.from, period.to) {
            (self.each)(period)?;
        }
        self.done = self.done.max(Some(period.from));
        Ok(())
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
    let (opened, selection, until) = as_owner(Planning::ByIndex, |db, catalog| {
        let opened = Opened::open(db, catalog, stream, View::Caller)?;
        // What occurred behind the range has no part in its states, and may be wrong.
        let as_of = range.to.map(|to| to.saturating_sub(1));
        let selection = Selection::of(db, &opened, Moment { as_of, known_at, ..Moment::NOW })?;
        let until = first_behind(db, &opened, selection)?;
        Ok((opened, selection, until))
    })?;
    let mut periods = Periods { range, open: None, until, done: None, each };
    match folding.fold.order {
        Order::Version if folding.is_unordered() => unordered(folding, name, &opened, selection, &mut periods)?,
        Order::OccurredAt => by_time(folding, name, &opened, selection, &mut periods)?,
        Order::Version => by_version(folding, name, &opened, selection, &mut periods)?,
    }
    periods.end()
}

/// When the first event occurred that is known and occurred too late to count.
fn first_behind(db: &Db, opened: &Opened, selection: Selection) -> Result<Option<i64>> {
    if selection.is_prefix() {
        return Ok(None);
    }
    // The first one behind the prefix is none that was late.
    let next = selection.prefix + 1;
    let Some(first) = opened.head_at(db, next)? else { return Err(opened.gap(db, next)) };
    let first = first.max_occurred_at;
    let lates = opened.lates(db, next + 1, selection.newest, first)?;
    let earlier = lates.iter().map(|late| late.occurred_at).filter(|&occurred_at| occurred_at > selection.as_of).min();
    Ok(Some(earlier.unwrap_or(first)))
}

/// All late events that count.
fn all_lates(opened: &Opened, selection: Selection) -> Result<List<Late>> {
    as_owner(Planning::ByIndex, |db, _| selection.lates_after(db, opened, 0))
}

/// The way that is expected to be the cheapest; it is left for the next one where it turns out not to be.
fn by_version(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    periods: &mut Periods,
) -> Result<()> {
    let newest = selection.newest;
    let Some(inserted) = folding.inserted()? else {
        return on_prefixes(folding, name, opened, selection, None, periods).map(drop);
    };
    let lates = all_lates(opened, selection)?.len() as i64;
    if !are_many(lates, newest) && on_prefixes(folding, name, opened, selection, Some(patience(newest)), periods)?
        || in_places(folding, inserted, name, opened, selection, periods)?
    {
        return Ok(());
    }
    on_prefixes(folding, name, opened, selection, None, periods).map(drop)
}

/// One walk in the order of valid time, each event put into its place in the order of the fold. Whether it came to its end.
fn in_places(
    folding: &mut Folding,
    mut inserted: Inserted,
    name: &str,
    opened: &Opened,
    selection: Selection,
    periods: &mut Periods,
) -> Result<bool> {
    let newest = selection.newest;
    let mut walk = Walk::new(Order::OccurredAt, 0, selection.prefix, all_lates(opened, selection)?);
    let mut plain = Folding::new(folding.target, folding.fold)?;
    let scratch = Scratch::new()?;
    let until = periods.until;
    let mut end = |inserted: &mut Inserted, from: i64, to: Option<i64>, version: i64| {
        if !periods.wants(from, to) {
            return Ok(());
        }
        // Rust's memory grows all at once then.
        memory::expect_room(inserted.room())?;
        let state = match inserted.state() {
            Some(state) => Rc::new(scratch.step(|| source::stored(state))?),
            None => {
                let prefix = as_owner(Planning::ByIndex, |db, _| opened.until(db, newest, from))?;
                let selection = Selection { newest, prefix, as_of: from };
                answer::of_selection(&mut plain, name, opened, selection, View::Caller)?.state
            }
        };
        periods.give(&Period { from, to, version, state })
    };
    let (mut from, mut version, mut is_large) = (None, 0, false);
    folding.insert(name, opened, &mut walk, &mut inserted, &mut |event, inserted| {
        let occurred_at = event.occurred_at();
        if let Some(from) = from.filter(|&from| from < occurred_at) {
            end(inserted, from, Some(occurred_at), version)?;
        }
        is_large = inserted.bytes() > MOST_BYTES;
        if is_large {
            return Ok(ControlFlow::Break(()));
        }
        from = Some(occurred_at);
        version = version.max(event.version());
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(from) = from.filter(|_| !is_large) {
        end(&mut inserted, from, until, version)?;
    }
    Ok(!is_large)
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
        let from = event.occurred_at();
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
    let mut walk = Walk::new(Order::OccurredAt, 0, selection.prefix, all_lates(opened, selection)?);
    let mut version = 0;
    let mut after_each = |event: &Event, state: &Stored| {
        version = version.max(event.version());
        let from = event.occurred_at();
        periods.add(Period { from, to: None, version, state: Rc::new(state.clone()) })
    };
    folding.run_unordered(name, opened, &mut walk, &mut after_each)
}

/// Whether it came to its end: not, where it has folded more events on top of prefixes than it had `patience` for.
fn on_prefixes(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    selection: Selection,
    patience: Option<u64>,
    periods: &mut Periods,
) -> Result<bool> {
    let mut lates = all_lates(opened, selection)?;
    lates.sort_unstable_by_key(|late| (late.occurred_at, late.version));
    let mut waiting = Waiting {
        folding: Folding::new(folding.target, folding.fold)?,
        name,
        opened,
        lates,
        entered: 0,
        behind: Versions { bits: List::new()? },
        patience,
    };
    let mut prefix = Prefix { version: 0, max_occurred_at: None, state: Rc::clone(&folding.fold.initial_state) };
    let mut after_each = |event: &Event, state: &Stored| {
        let occurred_at = event.occurred_at();
        if waiting.patience == Some(0) {
            return Ok(());
        }
        if prefix.max_occurred_at.is_none_or(|max| occurred_at > max) {
            waiting.periods_of(&prefix, Some(occurred_at), periods)?;
            prefix.max_occurred_at = Some(occurred_at);
        }
        prefix.version = event.version();
        prefix.state = Rc::new(state.clone());
        Ok(())
    };
    answer::from_first_event(folding, name, opened, Selection::up_to(selection.prefix), Some(&mut after_each))?;
    let until = periods.until;
    waiting.periods_of(&prefix, until, periods)?;
    if waiting.patience == Some(0) {
        periods.open = None;
        return Ok(false);
    }
    Ok(true)
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
    lates: List<Late>,
    /// So many of them have occurred.
    entered: usize,
    /// The versions of those of them that the prefix did not hold then.
    behind: Versions,
    /// So many events may still be folded; None: as many as it takes.
    patience: Option<u64>,
}

/// A set of versions of a stream.
struct Versions {
    /// One for each, the lowest of a word first.
    bits: List<u64>,
}

impl Versions {
    fn insert(&mut self, version: i64) -> Result<()> {
        let version = version.unsigned_abs() as usize;
        while self.bits.len() <= version / 64 {
            self.bits.push(0)?;
        }
        self.bits[version / 64] |= 1 << (version % 64);
        Ok(())
    }

    /// Those after one, in order.
    fn after(&self, version: i64) -> impl Iterator<Item = i64> {
        let first = version.unsigned_abs() as usize + 1;
        self.bits.iter().enumerate().skip(first / 64).flat_map(move |(word, &bits)| {
            let mut rest = if word == first / 64 { bits >> (first % 64) << (first % 64) } else { bits };
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then(|| (word * 64) as i64 + i64::from(bit))
            })
        })
    }
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
            let oldest = match moment {
                Some(moment) => self.enter(prefix.version, moment)?,
                None => None,
            };
            if oldest.is_some_and(|oldest| oldest < top.version) {
                // One belongs below what was folded on top: begin anew.
                top = Top { version: prefix.version, state: Rc::clone(&prefix.state) };
            }
            let next = self.lates.get(self.entered).map(|late| late.occurred_at);
            let next = next.filter(|&next| until.is_none_or(|until| next < until));
            if let Some(moment) = moment {
                // What begins where nobody asked ends the period before, whatever its state.
                if periods.wants(moment, next.or(until)) {
                    self.fold_on(&mut top)?;
                }
                if self.patience == Some(0) {
                    return Ok(());
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
    fn enter(&mut self, prefix: i64, moment: i64) -> Result<Option<i64>> {
        let mut oldest = None;
        while let Some(late) = self.lates.get(self.entered).filter(|late| late.occurred_at <= moment) {
            self.entered += 1;
            if late.version > prefix {
                self.behind.insert(late.version)?;
                oldest = Some(oldest.map_or(late.version, |oldest: i64| oldest.min(late.version)));
            }
        }
        Ok(oldest)
    }

    /// Folds those that wait above `top` onto it.
    fn fold_on(&mut self, top: &mut Top) -> Result<()> {
        // That they have occurred is known.
        let lates = self.behind.after(top.version).map(|version| Late { version, occurred_at: i64::MIN });
        let lates = List::of(lates)?;
        if let Some(patience) = &mut self.patience {
            *patience = patience.saturating_sub(lates.len() as u64);
            if *patience == 0 {
                return Ok(());
            }
        }
        if let Some(newest) = lates.last().map(|late| late.version) {
            // None of the order of versions: only these.
            let mut walk = Walk::new(Order::Version, top.version, top.version, lates);
            let (state, _) = self.folding.run(self.name, self.opened, &top.state, &mut walk, None)?;
            *top = Top { version: newest, state: Rc::new(state) };
        }
        Ok(())
    }
}
