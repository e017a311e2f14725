//! The history of a stream: the state after each version, and what its event changed. Rows are given away as they come: memory is
//! bounded by a page of events, a few states and the list of late events.
//!
//! In the order of valid time, the state after a version is that of all events up to it in the order in which they occurred: an
//! event that is not late is folded onto the state before it; for a late one, the fold goes back to the newest state that is kept of
//! what occurred no later than it did. Where that is often far, rules put each event into its place as it comes instead; a handler cannot.
use super::answer;
use super::checkpoints::{Checkpoint, Checkpoints};
use super::diff;
use super::folding::{Folding, MOST_BYTES, are_many, patience};
use super::moment::Selection;
use super::source;
use super::walk::Walk;
use crate::log::scan::{Late, Opened};
use crate::log::stream::Stream;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::process::memory::{self, List, Scratch};
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::present::event::Event;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::rules::Inserted;
use eventstream_core::rules::Rank;
use eventstream_core::word::Order;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Versions `from_version..`, at most `max_count` of them.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub from_version: i64,
    pub max_count: Option<i64>,
}

impl Range {
    /// Errors: ES005.
    pub fn check(&self) -> Result<()> {
        if self.from_version < 1 {
            return Err(invalid("from_version", format!("must be 1 or more, not {}", self.from_version)));
        }
        if let Some(count) = self.max_count.filter(|&count| count < 0) {
            return Err(invalid("max_count", format!("must be 0 or more, not {count}")));
        }
        Ok(())
    }

    fn last(&self, head: i64) -> i64 {
        self.max_count.map_or(head, |count| head.min((self.from_version - 1).saturating_add(count)))
    }
}

/// An event as the fold saw it (upcast).
struct Happened {
    version: i64,
    event_type: String,
    occurred_at: i64,
    recorded_at: i64,
}

impl Happened {
    fn of(event: &Event) -> Result<Self> {
        Ok(Self {
            version: event.version(),
            event_type: event.event_type()?.to_owned(),
            occurred_at: event.occurred_at(),
            recorded_at: event.recorded_at(),
        })
    }
}

/// A version of a stream.
pub struct Entry<'a> {
    pub version: i64,
    pub event_type: &'a str,
    /// Microseconds since 2000-01-01 UTC.
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub state: &'a Stored,
    pub changes: Jsonb<'a>,
}

/// Gives entries away, each with what changed since the one before.
struct Entries<'a> {
    before: Rc<Stored>,
    scratch: Scratch,
    each: &'a mut dyn FnMut(&Entry) -> Result<()>,
}

impl Entries<'_> {
    fn add(&mut self, happened: &Happened, state: Rc<Stored>) -> Result<()> {
        let (before, each) = (&self.before, &mut self.each);
        self.scratch.step(|| {
            each(&Entry {
                version: happened.version,
                event_type: &happened.event_type,
                occurred_at: happened.occurred_at,
                recorded_at: happened.recorded_at,
                state: &state,
                changes: diff::changes(before.view(), state.view())?,
            })
        })?;
        self.before = state;
        Ok(())
    }
}

/// Gives the versions of the range to `each`, in order.
pub fn of_stream(
    folding: &mut Folding,
    name: &str,
    stream: Stream,
    range: Range,
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let view = View::Caller;
    let opened = as_owner(Planning::ByIndex, |db, catalog| Opened::open(db, catalog, stream, view))?;
    let (from, to) = (range.from_version, range.last(opened.head.version));
    if from > to {
        return Ok(());
    }
    let before = answer::of_selection(folding, name, &opened, Selection::up_to(from - 1), view)?.state;
    let scratch = Scratch::new()?;
    let entries = Entries { before, scratch, each };
    match folding.fold.order {
        Order::Version => by_version(folding, name, &opened, from, to, entries),
        Order::OccurredAt => by_time(folding, name, &opened, from, to, entries),
    }
}

/// The way that is expected to be the cheapest; it is left for the next one where it turns out not to be.
fn by_time(folding: &mut Folding, name: &str, opened: &Opened, from: i64, to: i64, mut entries: Entries) -> Result<()> {
    let lates = as_owner(Planning::ByIndex, |db, _| opened.count_lates(db, from, to))?;
    if lates > 0 && folding.is_unordered() {
        // Each event is one step, in the order in which they came, late or not.
        let mut walk = Walk::new(Order::Version, 0, to, List::new()?);
        let mut after_each = |event: &Event, state: &Stored| {
            if event.version() < from { Ok(()) } else { entries.add(&Happened::of(event)?, Rc::new(state.clone())) }
        };
        return folding.run_unordered(name, opened, &mut walk, &mut after_each);
    }
    let mut next = from;
    if let Some(inserted) = folding.inserted()? {
        if !are_many(lates, to) {
            next = go_back(folding, name, opened, (next, to), Some(patience(to)), &mut entries)?;
        }
        if next <= to {
            next = in_places(folding, inserted, name, opened, (next, to), &mut entries)?;
        }
    }
    if next <= to {
        go_back(folding, name, opened, (next, to), None, &mut entries)?;
    }
    Ok(())
}

/// One walk in the order of versions, each event put into its place in the order of the fold. The version that is to be given next.
fn in_places(
    folding: &mut Folding,
    mut inserted: Inserted,
    name: &str,
    opened: &Opened,
    (from, to): (i64, i64),
    entries: &mut Entries,
) -> Result<i64> {
    let mut walk = Walk::new(Order::Version, 0, to, List::new()?);
    let mut plain = Folding::new(folding.target, folding.fold)?;
    let scratch = Scratch::new()?;
    let mut give = |inserted: &mut Inserted, happened: &Happened| {
        memory::expect_room(inserted.room())?;
        let state = match inserted.state() {
            Some(state) => Rc::new(scratch.step(|| source::stored(state))?),
            None => {
                let selection = Selection::up_to(happened.version);
                answer::of_selection(&mut plain, name, opened, selection, View::Caller)?.state
            }
        };
        entries.add(happened, state)
    };
    let (mut put_in, mut next) = (None, from);
    folding.insert(name, opened, &mut walk, &mut inserted, &mut |event, inserted| {
        if let Some(happened) = put_in.take() {
            give(inserted, &happened)?;
            next = happened.version + 1;
        }
        if inserted.bytes() > MOST_BYTES {
            return Ok(ControlFlow::Break(()));
        }
        if event.version() >= from {
            put_in = Some(Happened::of(event)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(happened) = put_in.take() {
        give(&mut inserted, &happened)?;
        next = happened.version + 1;
    }
    Ok(next)
}

fn by_version(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    from: i64,
    to: i64,
    mut entries: Entries,
) -> Result<()> {
    let start = Rc::clone(&entries.before);
    let mut walk = Walk::new(Order::Version, from - 1, to, List::new()?);
    let mut after_each = |event: &Event, state: &Stored| entries.add(&Happened::of(event)?, Rc::new(state.clone()));
    folding.run(name, opened, &start, &mut walk, Some(&mut after_each)).map(drop)
}

/// The version that is to be given next: behind the last one, or where more events were folded again than it had `patience` for.
fn go_back(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    (from, to): (i64, i64),
    patience: Option<u64>,
    entries: &mut Entries,
) -> Result<i64> {
    let (lates, mut by_time, head) = as_owner(Planning::ByIndex, |db, _| {
        let lates = opened.lates(db, from, to, i64::MAX)?;
        if lates.is_empty() {
            Ok((lates, List::new()?, None))
        } else {
            Ok((lates, opened.lates(db, 1, to, i64::MAX)?, opened.head_at(db, from - 1)?))
        }
    })?;
    by_time.sort_unstable_by_key(rank);
    let latest = head.map_or(i64::MIN, |head| head.max_occurred_at);
    let mut back = GoneBack {
        name,
        opened,
        on_time: from - 1,
        latest,
        lates: by_time,
        checkpoints: Checkpoints::default(),
        happened: None,
        folded: 0,
    };
    back.checkpoints.keep(Checkpoint {
        folded: from - 1,
        prefix: from - 1,
        last: (latest, from - 1),
        state: Rc::clone(&entries.before),
    });
    let mut next = from;
    for at in 0..=lates.len() {
        // The events up to the next late one are folded as they come.
        let late = lates.get(at);
        let last = late.map_or(to, |late| late.version - 1);
        if next <= last {
            back.on_time = last;
            let start = Rc::clone(&entries.before);
            let mut walk = Walk::new(Order::Version, next - 1, last, List::new()?);
            let mut after_each = |event: &Event, state: &Stored| {
                let happened = Happened::of(event)?;
                back.latest = happened.occurred_at;
                let (version, state) = (happened.version, Rc::new(state.clone()));
                if late.is_some() {
                    let (last, state) = ((happened.occurred_at, version), Rc::clone(&state));
                    back.checkpoints.keep(Checkpoint { folded: version, prefix: version, last, state });
                }
                entries.add(&happened, state)
            };
            folding.run(name, opened, &start, &mut walk, Some(&mut after_each))?;
        }
        let Some(late) = late else { break };
        if patience.is_some_and(|most| back.folded > most) {
            return Ok(late.version);
        }
        let state = back.with(folding, late)?;
        let happened = back.happened.take();
        let missing = || Error::Internal { what: format!("version {} was not folded", late.version) };
        entries.add(&happened.ok_or_else(missing)?, state)?;
        next = late.version + 1;
    }
    Ok(to + 1)
}

fn rank(late: &Late) -> Rank {
    (late.occurred_at, late.version)
}

/// Goes back for late events.
struct GoneBack<'a> {
    name: &'a str,
    opened: &'a Opened,
    /// The newest version so far that was not late.
    on_time: i64,
    /// When that occurred: nothing so far occurred later.
    latest: i64,
    /// The late ones, in the order of valid time, with those that are still to come.
    lates: List<Late>,
    checkpoints: Checkpoints,
    /// The late event, once it was folded.
    happened: Option<Happened>,
    /// So many events were folded again.
    folded: u64,
}

impl GoneBack<'_> {
    /// The state of all events up to a late one.
    fn with(&mut self, folding: &mut Folding, late: &Late) -> Result<Rc<Stored>> {
        let start = match self.checkpoints.before(late.occurred_at) {
            Some(start) => start,
            None => self.before(folding, late)?,
        };
        let first = self.lates.partition_point(|other| rank(other) <= start.last);
        let last = self.lates.partition_point(|other| other.occurred_at <= self.latest);
        let behind = self.lates.get(first..last).unwrap_or_default().iter().copied();
        let behind = List::of(behind.filter(|other| other.version <= late.version))?;
        let mut walk = Walk::new(Order::OccurredAt, start.prefix, self.on_time, behind);
        let (mut folded, mut prefix) = (start.folded, start.prefix);
        let mut after_each = |event: &Event, state: &Stored| {
            let happened = Happened::of(event)?;
            let last = (happened.occurred_at, happened.version);
            folded += 1;
            if self.lates.binary_search_by_key(&last, rank).is_err() {
                prefix = happened.version;
            }
            self.checkpoints.keep(Checkpoint { folded, prefix, last, state: Rc::new(state.clone()) });
            if happened.version == late.version {
                self.happened = Some(happened);
            }
            Ok(())
        };
        let (state, again) = folding.run(self.name, self.opened, &start.state, &mut walk, Some(&mut after_each))?;
        self.folded += again;
        Ok(Rc::new(state))
    }

    /// Where a late event belongs: the state of what came before it and did not occur later.
    fn before(&mut self, folding: &mut Folding, late: &Late) -> Result<Checkpoint> {
        let newest = late.version - 1;
        let prefix = as_owner(Planning::ByIndex, |db, _| self.opened.until(db, newest, late.occurred_at))?;
        let selection = Selection { newest, prefix, as_of: late.occurred_at };
        let answer = answer::of_selection(folding, self.name, self.opened, selection, View::Caller)?;
        self.folded += answer.folded;
        let behind = answer.lates.iter().filter(|late| late.version > prefix).count() as i64;
        Ok(Checkpoint { folded: prefix + behind, prefix, last: (late.occurred_at, newest), state: answer.state })
    }
}
