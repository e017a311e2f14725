//! The history of a stream: the state after each version, and what its event changed. Rows are given away as they come: memory is
//! bounded by a page of events, a few states and the list of late events.
//!
//! In the order of valid time, the state after a version is that of all events up to it in the order in which they occurred: an
//! event that is not late is folded onto the state before it; for a late one, the fold goes back to the newest state that does not
//! hold what occurred after it.
use super::answer;
use super::checkpoints::{Checkpoint, Checkpoints};
use super::diff;
use super::event::{Event, field};
use super::moment::Selection;
use super::registry::Order;
use super::replay::{Folding, Walk};
use crate::log::event::invalid;
use crate::log::scan::{Late, Opened};
use crate::log::stream::Stream;
use crate::pg::failure::Result;
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::memory::Scratch;
use crate::pg::plan::View;
use crate::pg::session::{Planning, as_owner};
use eventstream_core::error::Error;
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
        let row = event.row();
        Ok(Self {
            version: event.version(),
            event_type: event.event_type()?.to_owned(),
            occurred_at: row.int8(field::OCCURRED_AT)?,
            recorded_at: row.int8(field::RECORDED_AT)?,
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
    let before = answer::of_selection(folding, name, &opened, Selection::up_to(from - 1), view, None)?.state;
    let scratch = Scratch::new()?;
    let entries = Entries { before, scratch, each };
    match folding.fold.order {
        Order::Version => by_version(folding, name, &opened, from, to, entries),
        Order::OccurredAt => by_time(folding, name, &opened, from, to, entries),
    }
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
    let mut walk = Walk::new(Order::Version, from - 1, to, Vec::new());
    let mut after_each = |event: &Event, state: &Stored| entries.add(&Happened::of(event)?, Rc::new(state.clone()));
    folding.run(name, opened, &start, &mut walk, Some(&mut after_each)).map(drop)
}

fn by_time(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    from: i64,
    to: i64,
    mut entries: Entries,
) -> Result<()> {
    let (lates, mut max_occurred_at) = as_owner(Planning::ByIndex, |db, _| {
        let before = if from > 1 { opened.head_at(db, from - 1)? } else { None };
        Ok((opened.lates(db, from, to, i64::MAX)?, before.map_or(i64::MIN, |head| head.max_occurred_at)))
    })?;
    let mut checkpoints = Checkpoints::default();
    let state = Rc::clone(&entries.before);
    checkpoints.keep(Checkpoint { version: from - 1, max_occurred_at, state });
    let mut next = from;
    for place in 0..=lates.len() {
        // The events up to the next late one are folded as they come.
        let late = lates.get(place).copied();
        let last = late.map_or(to, |late| late.version - 1);
        if next <= last {
            let start = Rc::clone(&entries.before);
            let mut walk = Walk::new(Order::Version, next - 1, last, Vec::new());
            let mut after_each = |event: &Event, state: &Stored| {
                let happened = Happened::of(event)?;
                max_occurred_at = max_occurred_at.max(happened.occurred_at);
                let state = Rc::new(state.clone());
                if late.is_some() {
                    let (version, state) = (happened.version, Rc::clone(&state));
                    checkpoints.keep(Checkpoint { version, max_occurred_at, state });
                }
                entries.add(&happened, state)
            };
            folding.run(name, opened, &start, &mut walk, Some(&mut after_each))?;
        }
        let Some(late) = late else { return Ok(()) };
        let (happened, state) = with_late(folding, name, opened, &lates[..=place], late, &mut checkpoints)?;
        let version = happened.version;
        checkpoints.keep(Checkpoint { version, max_occurred_at, state: Rc::clone(&state) });
        entries.add(&happened, state)?;
        next = late.version + 1;
    }
    Ok(())
}

/// The late event, and the state of all events up to it. `lates`: those of the range up to it.
fn with_late(
    folding: &mut Folding,
    name: &str,
    opened: &Opened,
    lates: &[Late],
    late: Late,
    checkpoints: &mut Checkpoints,
) -> Result<(Happened, Rc<Stored>)> {
    let mut happened = None;
    let mut after_each = |event: &Event, _: &Stored| {
        if event.version() == late.version {
            happened = Some(Happened::of(event)?);
        }
        Ok(())
    };
    let state = match checkpoints.before(late.occurred_at) {
        Some(start) => {
            let later = lates.iter().copied().filter(|late| late.version > start.version).collect();
            let mut walk = Walk::new(Order::OccurredAt, start.version, late.version - 1, later);
            Rc::new(folding.run(name, opened, &start.state, &mut walk, Some(&mut after_each))?.0)
        }
        None => {
            // All before it, and itself.
            let before = Selection { newest: late.version, prefix: late.version - 1, as_of: i64::MAX };
            answer::of_selection(folding, name, opened, before, View::Caller, Some(&mut after_each))?.state
        }
    };
    let happened = happened
        .ok_or_else(|| Error::Internal { what: format!("version {} was not folded", late.version) })?;
    Ok((happened, state))
}
