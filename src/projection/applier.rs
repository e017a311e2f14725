//! Applying events to a read model: a handler for one event or a batch, or a state table. Users' code runs as the registrant, never
//! while the owner's rights are on.
use super::behalf::{acting, on_behalf, what};
use super::projections::{Kind, Projection};
use super::state_table::StateTable;
use crate::access::authorize_tenant;
use crate::log::acting::Acting;
use crate::log::read::Filter;
use crate::pg::error::failure::Result;
use crate::pg::function::call::{self, Code, Function, Position};
use crate::pg::process::life;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Planning;
use crate::pg::process::test_point::test_point;
use crate::pg::value::composite::RowType;
use crate::pg::{process::server, value::datum};
use crate::present::door::Door;
use crate::present::event::{Event, StoredEvent};
use crate::present::upcasters;
use crate::shared::catalog::{self, Catalog};
use crate::shared::session::as_owner;
use crate::shared::within;
use crate::usercode::handler::{self, Handler, Purpose};
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

/// A projection at work, for the time of one batch; what it looks up lives in the memory context that is current when it is made.
pub struct Applier<'a> {
    projection: &'a Projection,
    how: How<'a>,
    acting: Rc<Acting>,
    what: CString,
    row_type: RowType,
    /// The event that was being handled when the last call failed.
    failed_at: Cell<Option<usize>>,
}

enum How<'a> {
    Event(Function),
    Batch(Function),
    Table(StateTable<'a>),
}

type Resolved = HashMap<(Purpose, String), Rc<Handler>>;

thread_local! {
    /// The functions behind names, until any function changes.
    static RESOLVED: RefCell<(u64, Resolved)> = RefCell::default();
}

/// The function, ready to be called as the projection's registrant; the reason where it cannot be.
pub fn function(projection: &Projection, purpose: Purpose, name: &str) -> Result<Result<Function, String>> {
    let generation = catalog::folds_generation();
    let key = (purpose, name.to_owned());
    let known = RESOLVED.with_borrow_mut(|(at, resolved)| {
        if *at != generation {
            resolved.clear();
            *at = generation;
        }
        resolved.get(&key).cloned()
    });
    let handler = match known {
        Some(known) => known,
        None => match as_owner(Planning::ByIndex, |db, _| handler::registered(db, purpose, name))? {
            Err(reason) => return Ok(Err(reason)),
            Ok(found) => {
                let found = Rc::new(found);
                RESOLVED.with_borrow_mut(|(_, resolved)| resolved.insert(key, Rc::clone(&found)));
                found
            }
        },
    };
    handler::callable(&handler, &projection.registrant)
}

/// The events that the projection is shown: what its filters say. Where it names categories, the registrant must be allowed to read
/// each of them; where it does not, it is shown what the registrant may read. Errors: 42501, and the reason where the registrant is gone.
pub fn filter(projection: &Projection) -> Result<Result<Filter, String>> {
    let role = &projection.registrant.role;
    let Some(oid) = projection.registrant.existing()? else {
        return Ok(Err(format!("the role {role} that registered it does not exist any more")));
    };
    let what = what(projection);
    let at = Position::global(&what);
    let path = &projection.registrant.search_path;
    let (_, scope) = call::as_registrant(oid, path, Code::Handler, &at, || {
        within::during(projection.tenant_id, &projection.tenant, || {
            authorize_tenant(Some(&projection.tenant), Privilege::Read)
        })
    })?;
    if let Some(category) = scope.first_missing(projection.categories.as_deref()) {
        return Err(unreadable(projection, category).into());
    }
    let categories = scope.narrow(projection.categories.clone());
    upcasters::following(projection.tenant_id, Filter::of(categories, projection.event_types.clone())).map(Ok)
}

/// That the registrant may not read a category.
pub fn unreadable(projection: &Projection, category: &str) -> Error {
    Error::InsufficientPrivilege {
        role: projection.registrant.role.clone(),
        privilege: Privilege::Read.as_str(),
        tenant: projection.tenant.clone(),
        category: Some(category.into()),
        any: false,
        is_stranger: false,
    }
}

impl<'a> Applier<'a> {
    /// The reason where what the projection calls cannot be used any more.
    pub fn new(projection: &'a Projection) -> Result<Result<Self, String>> {
        let how = match &projection.kind {
            Kind::Event(name) => function(projection, Purpose::Event, name)?.map(How::Event),
            Kind::Batch(name) => function(projection, Purpose::Batch, name)?.map(How::Batch),
            Kind::Table(table) => Ok(How::Table(StateTable::new(projection, table)?)),
        };
        let how = match how {
            Ok(how) => how,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(Ok(Self {
            projection,
            how,
            acting: acting(projection),
            what: what(projection),
            row_type: RowType::look_up(Catalog::current()?.event_type)?,
            failed_at: Cell::new(None),
        }))
    }

    /// Which of the events the last call of [`Applier::apply`] failed on, where that is known.
    pub fn failed_at(&self) -> Option<usize> {
        self.failed_at.get()
    }

    /// Applies the events, all of them or, with the failure, whatever the caller takes back.
    pub fn apply(&mut self, events: &[StoredEvent]) -> Result<()> {
        self.failed_at.set(None);
        let at = Position::global(&self.what);
        let (projection, row_type, acting, failed_at) =
            (self.projection, &self.row_type, &self.acting, &self.failed_at);
        let upcasters = upcasters::of(self.projection.tenant_id)?;
        let mut door = Door::new(&upcasters)?;
        match &mut self.how {
            How::Table(table) => table.apply(events),
            How::Event(function) => {
                let scratch = Scratch::new()?;
                // Between users' functions the registrant's rights may differ: an upcaster has its own.
                let mut call_all = |events: &mut dyn Iterator<Item = (usize, Result<Event>)>| {
                    function.as_registrant(Code::Handler, &at, |calls| {
                        on_behalf(projection, acting, || {
                            for (place, event) in events {
                                life::breathe();
                                failed_at.set(Some(place));
                                let mut event = event?;
                                at.set(event.global_position());
                                acting.handles(Some((event.event_id()?, event.metadata_value())), at.get());
                                test_point("applying");
                                event.fetch()?;
                                calls.handle(&scratch, &event.record(row_type))?;
                            }
                            Ok(())
                        })
                    })
                };
                if door.is_straight() {
                    call_all(&mut events.iter().map(|event| door.show(event.clone())).enumerate())?;
                } else {
                    let memory = Scratch::new()?;
                    for (place, event) in events.iter().enumerate() {
                        failed_at.set(Some(place));
                        memory.step(|| {
                            let event = door.show(event.clone())?;
                            call_all(&mut std::iter::once((place, Ok(event))))
                        })?;
                    }
                }
                failed_at.set(None);
                Ok(())
            }
            How::Batch(function) => {
                let memory = Scratch::new()?;
                memory.inside(|| {
                    let mut elements = Vec::with_capacity(events.len());
                    let mut alone = None;
                    for (place, event) in events.iter().enumerate() {
                        failed_at.set(Some(place));
                        let event = door.show(event.clone())?;
                        life::breathe();
                        elements.push(event.record(row_type).flat()?);
                        alone = (events.len() == 1).then_some((event.event_id()?, event.metadata_value()));
                    }
                    failed_at.set(None);
                    let batch = datum::array(&mut elements, row_type.oid, -1, b'd')?;
                    if let Some(first) = events.first() {
                        at.set(first.global_position());
                        acting.handles(alone, first.global_position());
                    }
                    function.as_registrant(Code::Handler, &at, |calls| {
                        test_point("applying");
                        on_behalf(projection, acting, || calls.call(&[Some(batch)]).map(drop))
                    })
                })
            }
        }
    }
}

/// Empties a handler's read model, by its reset function.
pub fn reset(projection: &Projection, name: &str) -> Result<Result<(), String>> {
    let mut function = match function(projection, Purpose::Reset, name)? {
        Ok(function) => function,
        Err(reason) => return Ok(Err(reason)),
    };
    let what = what(projection);
    let at = Position::global(&what);
    server::check_for_interrupts()?;
    let acting = acting(projection);
    function
        .as_registrant(Code::Handler, &at, |calls| on_behalf(projection, &acting, || calls.call(&[]).map(drop)))
        .map(Ok)
}
