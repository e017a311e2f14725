//! A state table's batch: the states of the streams that the events belong to, after the last of these, written by one statement as
//! the registrant. A state is a function of stream and version, so writing it again changes nothing.
//!
//! A stream's state comes from the one before, where this backend keeps it and the events follow it without a gap; else from
//! `state::answer`.
use super::applier;
use super::registry::{Mode, Projection, Table};
use crate::log::known;
use crate::log::stream::{self, Stream};
use crate::pg::call::{self, Code, Position};
use crate::pg::datum::{array, int8_array_of, text_array_of};
use crate::pg::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Planning, as_current, as_owner};
use crate::state::answer;
use crate::state::cache;
use crate::state::event::{Event, field};
use crate::state::moment::Moment;
use crate::state::registry::{self, Fold, Order};
use crate::state::replay::Folding;
use eventstream_core::error::Error;
use eventstream_core::hash::Hash;
use eventstream_core::name::StreamName;
use pgrx::pg_sys::{Datum, INT8ARRAYOID, JSONBARRAYOID, JSONBOID, Oid, TEXTARRAYOID, TEXTOID};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

pub struct StateTable<'a> {
    projection: &'a Projection,
    table: &'a Table,
    fold: Rc<Fold>,
}

/// A row to be written.
pub struct StateRow {
    pub stream: String,
    pub version: i64,
    pub state: Rc<Stored>,
}

const UPSERT: &[Oid] = &[TEXTARRAYOID, INT8ARRAYOID, JSONBARRAYOID];
const PRUNE: &[Oid] = &[TEXTOID, TEXTOID, TEXTARRAYOID];

thread_local! {
    /// The statements of the state tables this backend has written to, by their text.
    static PLANS: RefCell<HashMap<CString, Rc<Plan>>> = RefCell::default();
}

/// The kept plan for a statement of a projection's own.
fn plan(sql: &CStr, types: &'static [Oid]) -> Rc<Plan> {
    PLANS.with_borrow_mut(|plans| {
        if let Some(known) = plans.get(sql) {
            return Rc::clone(known);
        }
        let made = Rc::new(Plan::made(sql.to_string_lossy().into_owned(), types));
        plans.insert(sql.to_owned(), Rc::clone(&made));
        made
    })
}

/// A stream's events within a batch.
struct Group<'e> {
    stream: &'e str,
    events: Vec<&'e Event>,
}

impl Group<'_> {
    fn first(&self) -> i64 {
        self.events.first().map_or(0, |event| event.version())
    }

    fn last(&self) -> i64 {
        self.events.last().map_or(0, |event| event.version())
    }

    fn is_without_gaps(&self) -> bool {
        self.last() - self.first() + 1 == self.events.len() as i64
    }
}

fn groups(events: &[Event]) -> Result<Vec<Group<'_>>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = HashMap::new();
    for event in events {
        let stream = event.stream()?;
        let place = *places.entry(stream).or_insert_with(|| {
            groups.push(Group { stream, events: Vec::new() });
            groups.len() - 1
        });
        groups[place].events.push(event);
    }
    Ok(groups)
}

impl<'a> StateTable<'a> {
    /// Errors: ES010.
    pub fn new(projection: &'a Projection, table: &'a Table) -> Result<Self> {
        let fold = registry::fold(projection.tenant_id, &table.category, table.fold.as_deref())?;
        Ok(Self { projection, table, fold })
    }

    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    pub fn apply(&self, events: &[Event]) -> Result<()> {
        let groups = groups(events)?;
        let target = self.projection.target();
        let mut folding = Folding::new(target, &self.fold)?;
        let streams = as_owner(Planning::ByIndex, |db, catalog| {
            groups
                .iter()
                .map(|group| {
                    let found = if self.is_settled() {
                        known::settled(db, catalog, target.id, group.stream)?
                    } else {
                        stream::look_up(db, catalog, View::Latest, target.id, &StreamName::parse(group.stream)?)?
                    };
                    Ok(found.ok_or_else(|| Error::StreamNotFound { stream: group.stream.into() })?)
                })
                .collect::<Result<Vec<Stream>>>()
        })?;
        let mut rows = Vec::with_capacity(groups.len());
        for (group, stream) in groups.iter().zip(streams) {
            let state = self.state(&mut folding, group, stream)?;
            rows.push(StateRow { stream: group.stream.to_owned(), version: group.last(), state });
        }
        self.write(&rows)
    }

    /// Of an inline projection the events are not settled: the transaction may still be rolled back.
    fn is_settled(&self) -> bool {
        self.projection.mode == Mode::Async
    }

    /// The stream's state after the last of the group's events.
    fn state(&self, folding: &mut Folding, group: &Group, stream: Stream) -> Result<Rc<Stored>> {
        let is_settled = self.is_settled();
        let before = if is_settled { self.before(group, &stream) } else { None };
        let (state, may_be_kept) = match before {
            Some(before) => {
                let events = group.events.iter().map(|&event| event.clone()).collect();
                folding.take_skipped();
                let state = folding.run_events(group.stream, &before, events)?;
                (Rc::new(state), !folding.take_skipped())
            }
            None => {
                let moment = Moment { version: Some(group.last()), ..Moment::NOW };
                let answer = answer::of_stream(folding, group.stream, stream.clone(), moment, View::Latest)?;
                (answer.state, answer.may_be_kept)
            }
        };
        if let Some(last) = group.events.last()
            && is_settled
            && may_be_kept
        {
            let chain_hash: Hash = last.row().hash(field::CHAIN_HASH)?;
            let (version, fingerprint) = (group.last(), self.fold.fingerprint);
            let entry = cache::Entry { version, chain_hash, fingerprint, state: Rc::clone(&state), is_settled };
            cache::put(stream.id, &self.fold.name, entry);
        }
        Ok(state)
    }

    /// The state that the group's events follow, if it is known and they can simply be folded onto it.
    fn before(&self, group: &Group, stream: &Stream) -> Option<Rc<Stored>> {
        if self.fold.order != Order::Version || !group.is_without_gaps() {
            return None;
        }
        if group.first() == 1 {
            return Some(Rc::clone(&self.fold.initial_state));
        }
        cache::get(stream.id, &self.fold.name, &self.fold.fingerprint)
            .filter(|entry| entry.is_settled && entry.version == group.first() - 1)
            .map(|entry| entry.state)
    }

    /// Writes rows, as the registrant.
    pub fn write(&self, rows: &[StateRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let streams: Vec<String> = rows.iter().map(|row| row.stream.clone()).collect();
        let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        let mut states: Vec<Datum> = rows.iter().map(|row| row.state.view().datum()).collect();
        let args = [
            Some(text_array_of(&streams)?),
            Some(int8_array_of(&versions)?),
            Some(array(&mut states, JSONBOID, -1, b'i')?),
        ];
        self.run(&plan(&self.table.upsert, UPSERT), &args)
    }

    /// Removes the rows of the streams after `after`, up to `to` (None: to the end), that are not among `streams`.
    pub fn prune(&self, after: &str, to: Option<&str>, streams: &[String]) -> Result<()> {
        let args = [
            Some(crate::pg::datum::from_text(after)?),
            to.map(crate::pg::datum::from_text).transpose()?,
            Some(text_array_of(streams)?),
        ];
        self.run(&plan(&self.table.prune, PRUNE), &args)
    }

    fn run(&self, plan: &Plan, args: &[Option<Datum>]) -> Result<()> {
        let registrant = &self.projection.registrant;
        let role = call::role(&registrant.role)?.ok_or_else(|| Error::FoldUnusable {
            fold: self.fold.name.clone(),
            reason: format!("the role {} that created the table does not exist any more", registrant.role),
        })?;
        let what = applier::what(self.projection);
        let at = Position::global(&what);
        call::as_registrant(role, &registrant.search_path, Code::Handler, &at, || {
            as_current(|db| plan.write(db, args).map(drop))
        })
    }
}
