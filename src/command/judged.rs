//! The judgement of a transaction's events by handlers, at its commit (src/log/noted.rs says of which): each is given all that its categories and event types let through, through the
//! door out, and answers NULL, or why not.
//!
//! ```text
//! BEFORE COMMIT ─▶ events read back by their positions ─▶ shown at the door ─┬─▶ handler A, in a subtransaction that is rolled back ─▶ NULL
//!                                                                            └─▶ handler B … ─▶ a text ─▶ ES019, nothing is committed
//! ```
//! Promises: a handler runs as its registrant, security-restricted, in the tenant of the events, under a snapshot of then; it may read, nothing that it does stays, it writes nothing by ours, and
//! it ends within eventstream.handler_timeout. One that cannot be asked lets nothing pass.
use crate::access::authorize_tenant;
use crate::log::filter::Filter;
use crate::log::noted::{self, ByTenant, Noted};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call::{Code, Position, Registrant};
use crate::pg::process::deadline;
use crate::pg::process::memory::{self, Room, Scratch};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::subtransaction::undone;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::query::snapshot;
use crate::pg::value::composite::RowType;
use crate::pg::value::datum::{self, Nullable};
use crate::present::door::Door;
use crate::present::event::{Common, Event, StoredEvent, field};
use crate::present::upcasters;
use crate::shared::catalog::{self, Catalog};
use crate::shared::counters::{self, Counter};
use crate::shared::known::Known;
use crate::shared::live_settings;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::shared::within;
use crate::usercode::handler::{self, Handler, Purpose};
use crate::usercode::registrant_of;
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::violation::{Fault, Violation};
use pgrx::pg_sys::{Datum, INT8OID};
use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

/// An invariant with a handler.
struct Judge {
    name: String,
    categories: Vec<String>,
    event_types: Option<Vec<String>>,
    /// The reason where it cannot be used any more.
    handler: std::result::Result<Handler, String>,
    registrant: Registrant,
}

/// An event as it is stored, which judges choose by, and as it is shown.
struct Judged {
    stored_type: String,
    stored_version: i32,
    event: Event,
}

/// The most bytes of events: they are in memory all at once.
const MOST_BYTES: usize = 256 << 20;
/// So much of it is asked for at a time: 16 of the largest rows.
const ROOM_BYTES: usize = 128 << 10;
/// The longest reason that is told, in bytes.
const MOST_REASON: usize = 4096;

columns! {
    mod of, selected;
    NAME = "i.name",
    CATEGORIES = "i.categories",
    EVENT_TYPES = "i.event_types",
    HANDLER = "i.handler",
    REGISTRANT = "coalesce(r.rolname::text, i.registrant)",
    SEARCH_PATH = "i.search_path",
    REGISTRANT_OID = "r.oid",
}

thread_local! {
    static JUDGES: RefCell<Known<i64, Rc<Vec<Judge>>>> = RefCell::default();
    static LOAD: Plan = const { Plan::new(
        concat!(
            "select ",
            selected!(),
            " from _eventstream.invariants i",
            registrant_of!("i"),
            "where i.tenant_id = $1 and i.handler is not null order by i.name"
        ),
        &[INT8OID],
    ) };
}

/// Judges what was noted. Errors: ES019, 57014 of a handler that runs on, 42501 where its registrant may not read what it is given; whatever a handler, or an upcaster, raises.
pub fn judge(due: &ByTenant) -> Result<()> {
    for (&tenant_id, noted) in due {
        let judges = Known::of(&JUDGES, catalog::deciders_generation, tenant_id, || {
            as_owner(Planning::ByIndex, |db, _| {
                let key = [Some(Datum::from(tenant_id))];
                LOAD.with(|plan| plan.rows(db, View::Latest, 0, &key, |row| read(db, row))).map(Rc::new)
            })
        })?;
        if judges.is_empty() {
            continue;
        }
        let scratch = Scratch::new()?;
        scratch.inside(|| {
            let target = Target { id: tenant_id, name: &noted.tenant };
            let Stored { events, rooms: _rooms, .. } = stored(target, noted)?;
            let events = shown(target, events)?;
            let row_type = RowType::look_up(Catalog::current()?.event_type)?;
            judges.iter().try_for_each(|judge| judge.judge(target, &events, &row_type))
        })?;
    }
    Ok(())
}

fn read(db: &Db, row: &Row) -> Result<Judge> {
    Ok(Judge {
        name: row.text(of::NAME)?.to_owned(),
        categories: row.text_array_opt(of::CATEGORIES)?.unwrap_or_default(),
        event_types: row.text_array_opt(of::EVENT_TYPES)?,
        handler: handler::registered(db, Purpose::Invariant, row.text(of::HANDLER)?)?,
        registrant: handler::registrant(row, [of::REGISTRANT, of::SEARCH_PATH, of::REGISTRANT_OID])?,
    })
}

/// Events as they are stored: with the memory that they lie in, so many bytes at a time.
#[derive(Default)]
struct Stored {
    events: Vec<StoredEvent>,
    rooms: Vec<Room>,
    bytes: usize,
}

impl Stored {
    fn add(&mut self, common: &Common, row: &Row) -> Result<()> {
        if !self.rooms.last().is_some_and(Room::is_for_another) {
            // The first is for the one event that most transactions have.
            let bytes = if self.rooms.is_empty() { ROOM_BYTES / 16 } else { ROOM_BYTES };
            memory::expect_room(bytes)?;
            self.rooms.push(Room::of_bytes(bytes));
        }
        let Some(room) = self.rooms.last_mut() else { return Ok(()) };
        let event = StoredEvent::copy_of_row(common, row, room)?;
        self.bytes += event.size();
        self.events.push(event);
        if self.bytes > MOST_BYTES {
            return Err(Error::LimitExceeded {
                setting: "eventstream.max_invariant_events",
                limit: settings::max_invariant_events(),
                actual: None,
                what: format!(
                    "this transaction's events that are judged at its commit have more than {MOST_BYTES} bytes"
                ),
            }
            .into());
        }
        Ok(())
    }
}

/// What was noted, as it is stored. Errors: ES007 where it is too large.
fn stored(target: Target, noted: &Noted) -> Result<Stored> {
    let common = noted.streams.iter().map(|stream| Common::new(target, stream)).collect::<Result<Vec<_>>>()?;
    let mut stored = Stored::default();
    as_owner(Planning::ByIndex, |db, catalog| {
        noted::read(db, catalog, noted, &mut |stream, row| stored.add(&common[stream], row))
    })?;
    if stored.events.len() != noted.places.len() {
        let (found, all) = (stored.events.len(), noted.places.len());
        let what = format!("{found} of {all} events that a transaction appended are there");
        return Err(Error::Internal { what }.into());
    }
    Ok(stored)
}

/// As readers see it.
fn shown(target: Target, stored: Vec<StoredEvent>) -> Result<Vec<Judged>> {
    let upcasters = upcasters::of(target.id)?;
    let mut door = Door::new(&upcasters)?;
    let shown = stored.into_iter().map(|stored| {
        let (stored_type, stored_version) = (stored.event_type()?.to_owned(), stored.schema_version());
        Ok(Judged { stored_type, stored_version, event: door.show(stored)? })
    });
    shown.collect()
}

impl Judge {
    fn judge(&self, target: Target, events: &[Judged], row_type: &RowType) -> Result<()> {
        let filter = upcasters::following(target.id, Filter::of(None, self.event_types.clone()))?;
        let mut mine = Vec::new();
        for judged in events {
            let category = judged.event.row().text(field::CATEGORY)?;
            if self.categories.iter().any(|of| of == category)
                && filter.lets_through(&judged.stored_type, judged.stored_version)
            {
                mine.push(&judged.event);
            }
        }
        let Some(first) = mine.first() else { return Ok(()) };
        server::check_for_interrupts()?;
        let mut elements = mine.iter().map(|event| event.record(row_type).flat()).collect::<Result<Vec<_>>>()?;
        let array = Some(datum::array(&mut elements, row_type.oid, -1, b'd')?);
        let time = live_settings::handler_timeout();
        let position = first.global_position();
        let (answer, ran_out) = deadline::within(time, || undone(|| self.ask(target, array, position)))?;
        if ran_out {
            let most = time.map_or(0, |time| time.as_millis() as u64);
            return Err(self.violation(&mine, "it runs on".into(), Fault::Late(most))?);
        }
        match answer? {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => {
                counters::add(Counter::InvariantsBroken, 1);
                Err(self.violation(&mine, reason, Fault::Broken)?)
            }
            Err(reason) => Err(self.violation(&mine, reason, Fault::Unusable)?),
        }
    }

    /// Asks the handler; the reason where it cannot be asked.
    fn ask(
        &self,
        target: Target,
        events: Nullable,
        position: i64,
    ) -> Result<std::result::Result<Option<String>, String>> {
        let found = match &self.handler {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason.clone())),
        };
        let mut function = match handler::callable(found, &self.registrant)? {
            Ok(function) => function,
            Err(reason) => return Ok(Err(reason)),
        };
        let what = CString::new(format!("invariant \"{}\"", self.name)).unwrap_or_default();
        let at = Position::global(&what);
        at.set(position);
        snapshot::of_now(|| {
            function.as_registrant(Code::Invariant, &at, |calls| {
                within::during(target.id, target.name, || {
                    self.must_read(target)?;
                    calls.text(&[events]).map(Ok)
                })
            })
        })
    }

    /// What the handler is given its registrant must be allowed to read. Runs with the registrant's rights.
    fn must_read(&self, target: Target) -> Result<()> {
        let (_, scope) = authorize_tenant(Some(target.name), Privilege::Read)?;
        if scope.covers(Some(&self.categories)) {
            return Ok(());
        }
        Err(Error::InsufficientPrivilege {
            role: self.registrant.role.clone(),
            privilege: Privilege::Read.as_str(),
            tenant: target.name.into(),
            category: scope.first_missing(Some(&self.categories)).map(Into::into),
            any: false,
            is_stranger: false,
        }
        .into())
    }

    fn violation(&self, events: &[&Event], mut reason: String, fault: Fault) -> Result<Failure> {
        let mut streams: Vec<String> = Vec::new();
        for event in events {
            let stream = event.stream()?;
            if !streams.iter().any(|known| known == stream) {
                streams.push(stream.to_owned());
            }
        }
        if reason.len() > MOST_REASON {
            reason.truncate(reason.floor_char_boundary(MOST_REASON));
            reason.push('…');
        }
        let invariant = self.name.clone();
        Ok(Error::InvariantBroken(Box::new(Violation { invariant, streams, reason, fault })).into())
    }
}
