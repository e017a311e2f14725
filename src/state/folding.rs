//! Folding: a walk over the events that count, in the order of the fold, from one state to the next. Rules fold inside the scan
//! where nothing has to be upcast; users' functions are called between pages of events, when the owner's rights are off:
//!
//! ```text
//! rules:    scan ─ event ─▶ state in memory                                  (as the owner, no code of others)
//! handlers: scan ─ page of events ─▶ upcast each ─▶ handler(state, event)    (page by page; as their registrants)
//! ```
//!
//! Promises: memory is bounded by a page, the state and the list of late events; a cancel is noticed at every event.
use super::folds::{Fold, How};
use super::source::{self, Source};
use super::walk::Walk;
use crate::log::scan::Opened;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call::{Calls, Code, Folded, Function, Position};
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::{self, Replaced, Room, Scratch};
use crate::pg::process::session::Planning;
use crate::pg::value::composite::RowType;
use crate::present::door::Door;
use crate::present::event::{Common, Event, StoredEvent};
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};
use crate::shared::failing::{self, Failing, Kind};
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::usercode::handler;
use eventstream_core::error::Error;
use eventstream_core::hint::fold_hint;
use eventstream_core::rules::{Inserted, Latest, Rank, Rules, State};
use eventstream_core::word::Order;
use std::ffi::CString;
use std::ops::ControlFlow;

/// The most events of a page, and the bytes after which it is full: so much stays in the processor's cache, and what is done for each page (rights,
/// settings, a look at the index) is little beside it.
const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 128 << 10;

/// Whether so many late ones of all events are better put into their places than gone back for.
pub fn are_many(lates: i64, events: i64) -> bool {
    lates > 64 && lates > events / 16
}

/// So many events are folded again, for late ones, before all are put into their places.
pub fn patience(events: i64) -> u64 {
    events.unsigned_abs() + 256
}

/// So much may be kept to put events into their places.
pub const MOST_BYTES: usize = 256 << 20;
/// Each time that it has grown so much, the memory for more is looked for.
const STEP_BYTES: usize = 8 << 20;

/// A fold at work, for the time of one call; it may fold many streams.
pub struct Folding<'a> {
    pub target: Target<'a>,
    pub fold: &'a Fold,
    row_type: RowType,
    /// Of a page of events; made when it is needed first.
    room: Option<Room>,
    /// What the fold sees: the upcasters that its fingerprint covers.
    door: Door<'a>,
    function: Option<Function>,
    /// Whether some of the events are not in the log: nothing follows of what fails, and of what does not.
    is_imagined: bool,
}

impl<'a> Folding<'a> {
    /// What it looks up lives in the memory context that is current now. Errors: ES013 where the handler cannot be used any more.
    pub fn new(target: Target<'a>, fold: &'a Fold) -> Result<Self> {
        let row_type = RowType::look_up(Catalog::current()?.event_type)?;
        let function = match &fold.how {
            How::Rules(_) => None,
            How::Handler(found) => {
                let broken = |reason: String| Error::FoldUnusable { fold: fold.name.clone(), reason };
                let handler = found.as_ref().map_err(|reason| broken(reason.clone()))?;
                Some(handler::callable(handler, &fold.registrant)?.map_err(broken)?)
            }
        };
        Ok(Self { target, fold, row_type, room: None, door: Door::new(&fold.upcasters)?, function, is_imagined: false })
    }

    /// Folds what is left of the walk onto `state`; the new state, and how many events were folded. `after_each`, if given, is told
    /// of the state after each event, and its version.
    pub fn run(
        &mut self,
        stream: &str,
        opened: &Opened,
        state: &Stored,
        walk: &mut Walk,
        after_each: Option<AfterEach>,
    ) -> Result<(Stored, u64)> {
        let common = Common::new(self.target, stream)?;
        let folded = match &self.fold.how {
            How::Rules(rules) if self.door.is_straight() && after_each.is_none() => {
                self.run_rules(stream, rules, &common, opened, state, walk)
            }
            _ => {
                let accumulator = Accumulator::begin(self.fold, state)?;
                self.run_pages(stream, &common, opened, accumulator, walk, after_each)
            }
        }?;
        counters::add(Counter::EventsFolded, folded.1);
        if !self.door.has_skipped() && !self.is_imagined {
            failing::folded(opened.stream.id, walk.whole_to, || self.fold.key(self.target.id));
        }
        Ok(folded)
    }

    /// From now on some of the events are imagined.
    pub fn imagine(&mut self) {
        self.is_imagined = true;
    }

    /// Examples, which are nobody's data, are given whole.
    pub fn show_examples(&mut self) -> Result<()> {
        self.door = Door::of_examples(&self.fold.upcasters)?;
        Ok(())
    }

    /// Leaves a note of an event that cannot be folded, for whoever looks after the database.
    fn note(&self, failure: &Failure, opened: &Opened, version: i64, position: i64) {
        if failure.is_of_event() && !self.is_imagined {
            let key = self.fold.key(self.target.id);
            failing::note(Kind::Fold, Failing { key, stream_id: opened.stream.id, version, position, counted: 0 });
        }
    }

    /// Whether [`Folding::run_unordered`] can be asked.
    pub fn is_unordered(&self) -> bool {
        matches!(&self.fold.how, How::Rules(rules) if rules.are_unordered())
    }

    /// Folds the walk's events, all from the first on, in whatever order it gives them: after each, the state is that of those given so far in
    /// the order of the fold.
    pub fn run_unordered(
        &mut self,
        stream: &str,
        opened: &Opened,
        walk: &mut Walk,
        after_each: AfterEach,
    ) -> Result<()> {
        let common = Common::new(self.target, stream)?;
        let state = source::state_of(self.fold.initial_state.view())?;
        let accumulator = Accumulator::Rules(state, Some(Latest::default()));
        let (_, folded) = self.run_pages(stream, &common, opened, accumulator, walk, Some(after_each))?;
        counters::add(Counter::EventsFolded, folded);
        Ok(())
    }

    /// What keeps the state of events that come out of order, each put into its place; None where the fold cannot be made so.
    pub fn inserted(&self) -> Result<Option<Inserted<'a>>> {
        let How::Rules(rules) = &self.fold.how else { return Ok(None) };
        let initial = self.fold.initial_state.view().value()?;
        Ok(Inserted::new(rules, &initial, source::limits()))
    }

    /// Puts the walk's events into their places, in whatever order it gives them. `each` is told of an event (upcast) before it is put in, and
    /// breaks where that and what comes then does not matter.
    pub fn insert(
        &mut self,
        stream: &str,
        opened: &Opened,
        walk: &mut Walk,
        inserted: &mut Inserted,
        each: &mut dyn FnMut(&Event, &mut Inserted) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let common = Common::new(self.target, stream)?;
        let (page_memory, scratch) = (Scratch::new()?, Scratch::new()?);
        let mut has_room_to = STEP_BYTES;
        while !walk.is_done() {
            let page = self.next_page(&page_memory, &common, opened, walk)?;
            counters::add(Counter::EventsFolded, page.len() as u64);
            for stored in page {
                let (version, position) = (stored.version(), stored.global_position());
                let shown = page_memory.inside(|| self.door.show(stored));
                let event = &shown.inspect_err(|failure| self.note(failure, opened, version, position))?;
                if each(event, inserted)?.is_break() {
                    return Ok(());
                }
                if inserted.bytes() > has_room_to {
                    // What is kept takes more than it is thought to.
                    memory::expect_room(4 * STEP_BYTES)?;
                    has_room_to = inserted.bytes() + STEP_BYTES;
                }
                scratch.step(|| inserted.insert(rank(self.fold.order, event), &Source::new(event)?))?;
            }
        }
        Ok(())
    }

    /// Folds events that are not in the log onto `state`, in the order given; the new state.
    pub fn run_events(&mut self, stream: &str, state: &Stored, events: Vec<StoredEvent>) -> Result<Stored> {
        let mut accumulator = Accumulator::begin(self.fold, state)?;
        counters::add(Counter::EventsFolded, events.len() as u64);
        self.fold_page(stream, events, &mut accumulator, &mut None)?;
        accumulator.end()
    }

    /// Whether a failed upcaster was skipped since this was last asked.
    pub fn take_skipped(&mut self) -> bool {
        self.door.take_skipped()
    }

    /// Its door: what was made of events so far.
    pub fn door(&self) -> &Door<'a> {
        &self.door
    }

    fn run_rules(
        &self,
        stream: &str,
        rules: &Rules,
        common: &Common,
        opened: &Opened,
        state: &Stored,
        walk: &mut Walk,
    ) -> Result<(Stored, u64)> {
        let mut value = source::state_of(state.view())?;
        let mut folded = 0;
        as_owner(Planning::ByIndex, |db, _| {
            let scratch = Scratch::new()?;
            // A straight one, as the fold's own is.
            let mut door = Door::new(&self.fold.upcasters)?;
            walk.go(db, opened, i64::MAX, &mut |row| {
                folded += 1;
                scratch.step(|| {
                    let event = door.show(StoredEvent::of_row(common, row))?;
                    let applied = self.apply_rules(stream, rules, &mut value, &event);
                    applied.inspect_err(|failure| self.note(failure, opened, event.version(), event.global_position()))
                })?;
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok((source::stored(&value)?, folded))
    }

    fn apply_rules(&self, stream: &str, rules: &Rules, state: &mut State, event: &Event) -> Result<()> {
        source::apply(rules, state, None, &Source::new(event)?, &self.fold.name, stream, event.version())
    }

    fn run_pages(
        &mut self,
        stream: &str,
        common: &Common,
        opened: &Opened,
        mut accumulator: Accumulator,
        walk: &mut Walk,
        mut after_each: Option<AfterEach>,
    ) -> Result<(Stored, u64)> {
        let page_memory = Scratch::new()?;
        let mut folded = 0;
        while !walk.is_done() {
            let page = self.next_page(&page_memory, common, opened, walk)?;
            folded += page.len() as u64;
            let Some((version, position)) = page.last().map(|last| (last.version(), last.global_position())) else {
                continue;
            };
            page_memory
                .inside(|| self.fold_page(stream, page, &mut accumulator, &mut after_each))
                .inspect_err(|failure| self.note(failure, opened, version, position))?;
        }
        Ok((accumulator.end()?, folded))
    }

    /// The walk's next events, copied; those of the page before are gone.
    fn next_page(
        &mut self,
        memory: &Scratch,
        common: &Common,
        opened: &Opened,
        walk: &mut Walk,
    ) -> Result<Vec<StoredEvent>> {
        let room = self.room.get_or_insert_with(|| Room::of_bytes(PAGE_BYTES));
        room.empty();
        memory.step(|| {
            let mut page = Vec::with_capacity(PAGE_EVENTS);
            let mut bytes = 0;
            as_owner(Planning::ByIndex, |db, _| {
                walk.go(db, opened, PAGE_EVENTS as i64, &mut |row| {
                    let event = StoredEvent::copy_of_row(common, row, room)?;
                    bytes += event.size();
                    page.push(event);
                    let is_full = page.len() == PAGE_EVENTS || bytes >= PAGE_BYTES || !room.is_for_another();
                    Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })
            })?;
            Ok(page)
        })
    }

    fn fold_page(
        &mut self,
        stream: &str,
        page: Vec<StoredEvent>,
        accumulator: &mut Accumulator,
        after_each: &mut Option<AfterEach>,
    ) -> Result<()> {
        let mut page = page.into_iter().map(|stored| self.door.show(stored)).collect::<Result<Vec<_>>>()?;
        match (&self.fold.how, &mut self.function, accumulator) {
            (How::Rules(rules), _, Accumulator::Rules(state, latest)) => {
                by_rules(self.fold, rules, stream, &page, (state, latest), after_each)
            }
            (_, Some(function), Accumulator::Handler { state, scratch }) => {
                for event in &mut page {
                    event.fetch()?;
                }
                let called = Called { row_type: &self.row_type, fold: &self.fold.name, stream };
                called.fold(function, &page, (state, scratch), after_each)
            }
            _ => Err(Error::Internal { what: "a fold without handler or rules".into() }.into()),
        }
    }
}

/// A page of events onto a state, by rules; `latest` where they come in any order.
fn by_rules(
    fold: &Fold,
    rules: &Rules,
    stream: &str,
    page: &[Event],
    (state, latest): (&mut State, &mut Option<Latest>),
    after_each: &mut Option<AfterEach>,
) -> Result<()> {
    let scratch = Scratch::new()?;
    for event in page {
        scratch.step(|| {
            let placed = latest.as_mut().map(|latest| (rank(fold.order, event), latest));
            let source = Source::new(event)?;
            source::apply(rules, state, placed, &source, &fold.name, stream, event.version())
        })?;
        if let Some(after_each) = after_each {
            let stored = scratch.step(|| source::stored(state))?;
            after_each(event, &stored)?;
        }
    }
    Ok(())
}

/// What a handler folds, for the words of its errors, and how it is shown an event.
struct Called<'a> {
    row_type: &'a RowType,
    fold: &'a str,
    stream: &'a str,
}

impl Called<'_> {
    /// A page of events, whose documents are there, onto a state, by a handler.
    fn fold(
        &self,
        function: &mut Function,
        page: &[Event],
        (state, scratch): (&mut Replaced, &Scratch),
        after_each: &mut Option<AfterEach>,
    ) -> Result<()> {
        let what = CString::new(format!("fold \"{}\" of stream \"{}\"", self.fold, self.stream)).unwrap_or_default();
        let at = Position::version(&what, 0);
        let mut rest = page;
        while !rest.is_empty() {
            let called = function.as_registrant(Code::Pure, &at, |calls| match after_each {
                None => self.step(calls, &at, rest, (state, scratch)).map(|()| (rest.len(), Vec::new())),
                Some(_) => self.step_by_step(calls, &at, rest, (state, scratch)),
            });
            let (done, states) =
                called.map_err(|failure| failure.hinting_event(|| fold_hint(self.stream, at.get())))?;
            let (folded, later) = rest.split_at(done);
            if let Some(after_each) = after_each {
                for (event, stored) in folded.iter().zip(states) {
                    after_each(event, &stored)?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// All of these events.
    fn step(
        &self,
        calls: &mut Calls,
        at: &Position,
        events: &[Event],
        (state, scratch): (&mut Replaced, &Scratch),
    ) -> Result<()> {
        let (fold, most) = (self.fold, settings::max_state_bytes());
        let mut events = events.iter();
        let folded = calls.fold(scratch, state, most, || {
            let event = events.next()?;
            at.set(event.version());
            Some(event.record(self.row_type))
        })?;
        let version = at.get();
        match folded {
            Folded::All => Ok(()),
            Folded::Null => Err(Error::FoldFailed {
                fold: fold.into(),
                stream: self.stream.into(),
                version,
                reason: "its handler returned NULL, and a state is never NULL".into(),
            }
            .into()),
            Folded::Large => Err(source::too_large(state.value().size(), most, fold, self.stream, version)),
        }
    }

    /// As many of these as the states after each of them may be kept at once; how many, and these states.
    fn step_by_step(
        &self,
        calls: &mut Calls,
        at: &Position,
        events: &[Event],
        (state, scratch): (&mut Replaced, &Scratch),
    ) -> Result<(usize, Vec<Stored>)> {
        let (mut states, mut bytes) = (Vec::new(), 0);
        while states.len() < events.len() && bytes < PAGE_BYTES {
            let next = states.len();
            self.step(calls, at, &events[next..=next], (&mut *state, scratch))?;
            let document = state.value();
            states.push(Stored::keep(document));
            bytes += document.size();
        }
        Ok((states.len(), states))
    }
}

/// What sorts events into the order.
fn rank(order: Order, event: &Event) -> Rank {
    match order {
        Order::Version => (event.version(), event.version()),
        Order::OccurredAt => (event.occurred_at(), event.version()),
    }
}

/// Told of each event (upcast, as the fold saw it) and the state after it.
pub type AfterEach<'a> = &'a mut dyn FnMut(&Event, &Stored) -> Result<()>;

/// The state while it is folded.
enum Accumulator {
    /// Where events come in any order: with which of them set what.
    Rules(State, Option<Latest>),
    Handler {
        state: Replaced,
        scratch: Scratch,
    },
}

impl Accumulator {
    fn begin(fold: &Fold, state: &Stored) -> Result<Self> {
        Ok(match &fold.how {
            How::Rules(_) => Accumulator::Rules(source::state_of(state.view())?, None),
            How::Handler(_) => Accumulator::Handler { state: Replaced::of(state.view())?, scratch: Scratch::new()? },
        })
    }

    fn end(&self) -> Result<Stored> {
        match self {
            Accumulator::Rules(value, _) => source::stored(value),
            Accumulator::Handler { state, .. } => Ok(Stored::keep(state.value())),
        }
    }
}
