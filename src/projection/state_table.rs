//! A state table's batch: the states of the streams that the events belong to, after the last of these, written by one statement as
//! the registrant. A state is a function of stream and version, so writing it again changes nothing.
//!
//! A stream's state comes from the one before, where this backend keeps it and the events follow it without a gap; else from
//! `state::answer`.
use super::passed::{Fault, Passed};
use super::projections::{Projection, Table};
use crate::log::known;
use crate::log::stream::Stream;
use crate::log::whole;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::function::call::{self, Code, Position};
use crate::pg::jsonb::Stored;
use crate::pg::pinned;
use crate::pg::process::life;
use crate::pg::process::lock;
use crate::pg::process::session::{Db, Planning, as_current, by_index};
use crate::pg::process::subtransaction::attempt;
use crate::pg::process::test_point::test_point;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, array, from_text, int8_array_of, text_array_of};
use crate::present::event::StoredEvent;
use crate::projection::behalf;
use crate::shared::catalog;
use crate::shared::session::as_owner;
use crate::state::answer;
use crate::state::cache;
use crate::state::folding::Folding;
use crate::state::folds::{self, Fold};
use crate::state::moment::Moment;
use eventstream_core::error::Error;
use eventstream_core::hash::Hash;
use eventstream_core::hint::table_hint;
use eventstream_core::name::StreamName;
use eventstream_core::word::{Mode, Order};
use pgrx::pg_sys::{Datum, INT8ARRAYOID, JSONBARRAYOID, JSONBOID, OIDOID, Oid, TEXTARRAYOID, TEXTOID};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

pub struct StateTable<'a> {
    pub(super) projection: &'a Projection,
    pub(super) table: &'a Table,
    fold: Rc<Fold>,
}

/// A row to be written.
pub struct StateRow {
    pub stream: String,
    pub version: i64,
    pub state: Rc<Stored>,
}

impl StateRow {
    /// The streams, versions and states of rows, as arrays.
    pub fn columns(rows: &[Self]) -> Result<[Nullable; 3]> {
        let streams: Vec<String> = rows.iter().map(|row| row.stream.clone()).collect();
        let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        let mut states: Vec<Datum> = rows.iter().map(|row| row.state.view().datum()).collect();
        Ok([
            Some(text_array_of(&streams)?),
            Some(int8_array_of(&versions)?),
            Some(array(&mut states, JSONBOID, -1, b'i')?),
        ])
    }
}

/// Rows are written once their states take so many bytes, however few they are: a state may be as large as eventstream.max_state_bytes.
pub const MOST_BYTES: usize = 16 << 20;

const UPSERT: &[Oid] = &[TEXTARRAYOID, INT8ARRAYOID, JSONBARRAYOID];
const PRUNE: &[Oid] = &[TEXTOID, TEXTOID, TEXTARRAYOID];
const PRUNE_REST: &[Oid] = &[TEXTOID, TEXTARRAYOID];

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
    // Whoever owns a table runs code as those that write to it: a superuser, who may do everything, writes to tables of superusers only.
    static FIND: Plan = const { Plan::new(
        "select format('%I.%I', n.nspname, c.relname), o.rolname::text, pg_has_role(r.oid, o.oid, 'USAGE'), \
                c.relkind in ('r', 'p') and c.relpersistence <> 't' and (o.oid = r.oid or o.rolsuper or not r.rolsuper and pg_has_role(o.oid, r.oid, 'USAGE')), \
                c.oid \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles o on o.oid = c.relowner \
         join pg_roles r on r.oid = $2 where c.oid = to_regclass($1)",
        &[TEXTOID, OIDOID],
    ) };
    static STATEMENTS: Plan = const { Plan::new(
        "select upsert, prune, prune_rest, remove from _eventstream.state_table_statements($1, $2::jsonb)",
        &[TEXTOID, TEXTOID],
    ) };
    /// What writes each state table, by the projection and the table's name; until a projection changes.
    static WRITTEN_BY: RefCell<(u64, Known)> = RefCell::default();
}

/// Of a projection and its table's name.
type Known = HashMap<(i64, String), Rc<Statements>>;

/// The statements that write a state table: made of its name and columns whenever they are needed, and kept nowhere but in memory.
pub(super) struct Statements {
    upsert: CString,
    prune: CString,
    prune_rest: CString,
    pub(super) remove: CString,
}

/// One of them.
type Which = fn(&Statements) -> &CStr;

/// Errors: ES005 where a column's type is gone.
fn statements(projection: &Projection, table: &Table, relation: &Relation) -> Result<Rc<Statements>> {
    let generation = catalog::projections_generation();
    let key = (projection.id, relation.name.clone());
    let known = WRITTEN_BY.with_borrow_mut(|(at, known)| {
        if *at != generation {
            known.clear();
            *at = generation;
        }
        known.get(&key).cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let args = [Some(from_text(&relation.name)?), Some(from_text(&table.columns)?)];
    let made = as_owner(Planning::ByIndex, |db, _| {
        STATEMENTS.with(|plan| {
            plan.first(db, View::Latest, &args, |row| {
                let text = |column| -> Result<CString> {
                    let broken = |_| Error::Internal { what: "a statement holds a zero byte".into() };
                    Ok(CString::new(row.text(column)?).map_err(broken)?)
                };
                Ok(Statements { upsert: text(0)?, prune: text(1)?, prune_rest: text(2)?, remove: text(3)? })
            })
        })
    })?;
    let made = Rc::new(made.ok_or_else(|| Error::Internal { what: "a state table has no statements".into() })?);
    WRITTEN_BY.with_borrow_mut(|(_, known)| known.insert(key, Rc::clone(&made)));
    Ok(made)
}

/// A relation that a state table's projection names.
pub struct Relation {
    oid: Oid,
    /// Schema-qualified and quoted.
    pub name: String,
    pub owner: String,
    /// The registrant has its owner's rights.
    pub is_theirs: bool,
    /// A table that the registrant may write to without running code of others than itself, superusers, and those who have its rights.
    pub is_safe: bool,
}

impl Relation {
    /// None where there is none of that name, or no such role.
    pub fn find(db: &Db, name: &str, registrant: Oid) -> Result<Option<Self>> {
        let args = [Some(from_text(name)?), Some(Datum::from(registrant))];
        FIND.with(|plan| {
            plan.first(db, View::Latest, &args, |row| {
                let (name, owner) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
                Ok(Self { name, owner, is_theirs: row.boolean(2)?, is_safe: row.boolean(3)?, oid: row.oid(4)? })
            })
        })
    }

    /// The same, locked as a statement that writes rows locks it, until the end of the transaction: another one cannot take its place
    /// between this and that statement.
    fn find_locked(db: &Db, name: &str, registrant: Oid) -> Result<Option<Self>> {
        // It is mostly what it was, so that one look will do.
        let mut locked = KEPT.with_borrow(|kept| kept.tables.get(name).copied());
        locked.map(lock::for_writing).transpose()?;
        loop {
            let found = Self::find(db, name, registrant)?;
            let Some(oid) = found.as_ref().map(|found| found.oid).filter(|oid| locked != Some(*oid)) else {
                return Ok(found);
            };
            lock::for_writing(oid)?;
            KEPT.with_borrow_mut(|kept| kept.tables.insert(name.to_owned(), oid));
            locked = Some(oid);
        }
    }
}

/// What this backend keeps of the state tables that it has written to, until projections come or go: a plan takes as much memory as many
/// states.
#[derive(Default)]
struct Kept {
    generation: u64,
    /// Their statements, by the role that they run as and their text.
    plans: HashMap<(Oid, CString), Rc<Plan>>,
    /// What their names meant the last time.
    tables: HashMap<String, Oid>,
}

/// The kept plan for a statement of a projection's own.
pub(super) fn plan(role: Oid, sql: &CStr, types: &'static [Oid]) -> Result<Rc<Plan>> {
    KEPT.with_borrow_mut(|kept| {
        let generation = catalog::projections_generation();
        if kept.generation != generation {
            // One that is at work (a table's trigger may append, and so write to others) ends with its use.
            kept.plans.clear();
            kept.tables.clear();
            kept.generation = generation;
        }
        let made = || Rc::new(Plan::made(sql.to_string_lossy().into_owned(), types));
        Ok(Rc::clone(kept.plans.entry((role, sql.to_owned())).or_insert_with(made)))
    })
}

/// A stream's events within a batch.
struct Group<'e> {
    stream: &'e str,
    events: Vec<&'e StoredEvent>,
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

fn groups(events: &[StoredEvent]) -> Result<Vec<Group<'_>>> {
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
        let fold = folds::of(projection.tenant_id, &table.category, table.fold.as_deref())?;
        Ok(Self { projection, table, fold })
    }

    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    pub fn apply(&self, events: &[StoredEvent]) -> Result<()> {
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
                        whole::look_up(db, catalog, View::Latest, target.id, &StreamName::parse(group.stream)?)?
                    };
                    Ok(found.ok_or_else(|| Error::StreamNotFound { stream: group.stream.into() })?)
                })
                .collect::<Result<Vec<Stream>>>()
        })?;
        let (mut rows, mut bytes) = (Vec::with_capacity(groups.len()), 0);
        for (group, stream) in groups.iter().zip(streams) {
            life::breathe();
            let state = self.state(&mut folding, group, stream)?;
            bytes += state.size();
            if bytes > MOST_BYTES {
                self.write(&rows)?;
                rows.clear();
                bytes = state.size();
            }
            rows.push(StateRow { stream: group.stream.to_owned(), version: group.last(), state });
        }
        self.write(&rows)
    }

    /// Applies the events of an asynchronous projection around the streams that cannot be folded, or whose rows cannot be written: these.
    /// The error where it is not the fault of a stream's events.
    pub fn apply_around(&self, events: &[StoredEvent]) -> Result<Result<Vec<Passed>, Caught>> {
        let target = self.projection.target();
        let mut folding = Folding::new(target, &self.fold)?;
        let (mut rows, mut newest, mut bytes, mut passed) = (Vec::new(), Vec::new(), 0, Vec::new());
        let write = |rows: &[StateRow], newest: &[StoredEvent], passed: &mut Vec<Passed>| -> Result<()> {
            for (place, caught) in self.write_around(rows, &|| ())? {
                let fault = Fault::Row(self.outline(&rows[place], &caught)?);
                passed.push(Passed { event: newest[place].clone(), caught, fault });
            }
            Ok(())
        };
        for group in groups(events)? {
            life::breathe();
            let found =
                as_owner(Planning::ByIndex, |db, catalog| known::settled(db, catalog, target.id, group.stream))?;
            let found = found.ok_or_else(|| Error::StreamNotFound { stream: group.stream.into() })?;
            match attempt(|| self.state(&mut folding, &group, found))? {
                Ok(state) => {
                    bytes += state.size();
                    if bytes > MOST_BYTES {
                        write(&rows, &newest, &mut passed)?;
                        rows.clear();
                        newest.clear();
                        bytes = state.size();
                    }
                    rows.push(StateRow { stream: group.stream.to_owned(), version: group.last(), state });
                    newest.extend(group.events.last().map(|&event| event.clone()));
                }
                Err(caught) if caught.is_of_event => {
                    let event = group.events.last().map(|&event| event.clone());
                    passed.extend(event.map(|event| Passed { event, caught, fault: Fault::Fold }));
                }
                Err(caught) => return Ok(Err(caught)),
            }
        }
        write(&rows, &newest, &mut passed)?;
        Ok(Ok(passed))
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
                let answer = answer::of_stream(folding, group.stream, stream, moment, View::Latest)?;
                (answer.state, answer.may_be_kept)
            }
        };
        if let Some(last) = group.events.last()
            && is_settled
            && may_be_kept
        {
            let chain_hash: Hash = last.chain_hash()?;
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
        self.run(|made| &made.upsert, UPSERT, &StateRow::columns(rows)?).map(drop)
    }

    /// Removes the rows of the streams after `after`, up to `to` (None: to the end), that are not among `streams`.
    pub fn prune(&self, after: &str, to: Option<&str>, streams: &[String]) -> Result<()> {
        let (after, streams) = (Some(from_text(after)?), Some(text_array_of(streams)?));
        // By the primary key: a plan that was made while the table was empty would read all of it for each page.
        by_index(|| match to {
            Some(to) => self.run(|made| &made.prune, PRUNE, &[after, Some(from_text(to)?), streams]),
            None => self.run(|made| &made.prune_rest, PRUNE_REST, &[after, streams]),
        })
        .map(drop)
    }

    /// How many rows it wrote or removed.
    pub(super) fn run(&self, which: Which, types: &'static [Oid], args: &[Option<Datum>]) -> Result<u64> {
        run((self.projection, self.table), which, types, args)
    }

    /// Whether the upsert can be made at all. Errors: ES005, ES018 and what else is the fault of the definition and not of a row.
    pub(super) fn check(&self) -> Result<()> {
        prepared((self.projection, self.table), |made| &made.upsert, UPSERT).map(drop)
    }
}

/// Removes all rows, whatever fills the table.
pub fn empty(projection: &Projection, table: &Table) -> Result<()> {
    let (after, streams) = (Some(from_text("")?), Some(text_array_of::<String>(&[])?));
    run((projection, table), |made| &made.prune_rest, PRUNE_REST, &[after, streams]).map(drop)
}

/// How many rows a statement of a table's wrote or removed.
fn run(of: (&Projection, &Table), which: Which, types: &'static [Oid], args: &[Option<Datum>]) -> Result<u64> {
    let (role, plan) = prepared(of, which, types)?;
    let projection = of.0;
    let what = behalf::what(projection);
    let at = Position::global(&what);
    // Triggers and functions of the table's are the registrant's code, too.
    pinned::refuse_other_strings()?;
    let acting = behalf::acting(projection);
    call::as_registrant(role, &projection.registrant.search_path, Code::Handler, &at, || {
        // A row that was changed since the transaction's snapshot would stand there twice for it, as it was and as it is now.
        behalf::on_behalf(projection, &acting, || as_current(|db| plan.write_as(db, View::Lock, args)))
    })
    // Its columns, types or key have changed; a trigger that is broken says so in its CONTEXT.
    .map_err(|failure| failure.hinting("42", || table_hint(&projection.name)))
}

/// The role that writes, and the statement's plan; the table is locked as for a write.
fn prepared(
    (projection, table): (&Projection, &Table),
    which: Which,
    types: &'static [Oid],
) -> Result<(Oid, Rc<Plan>)> {
    let registrant = &projection.registrant;
    let unusable = |reason: String| Error::TableUnusable {
        projection: projection.name.clone(),
        table: table.name.clone(),
        reason,
    };
    let role = registrant
        .existing()?
        .ok_or_else(|| unusable(format!("the role {} that registered it does not exist any more", registrant.role)))?;
    test_point("writing rows");
    let found = as_owner(Planning::ByIndex, |db, _| Relation::find_locked(db, &table.name, role))?;
    let relation = found.ok_or_else(|| unusable("it does not exist any more".into()))?;
    if !relation.is_safe {
        let (owner, role) = (&relation.owner, &registrant.role);
        let whose = if owner == role {
            String::new()
        } else {
            format!("; it belongs to role {owner}, whose code would run with the rights of {role}")
        };
        let reason = format!("it is not a table of role {role} any more{whose}");
        return Err(unusable(reason).into());
    }
    let made = statements(projection, table, &relation)?;
    Ok((role, plan(role, which(&made), types)?))
}
