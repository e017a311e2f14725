//! The door out. Whatever anybody is told of what an event says passes here, as a reader, a consumer, a fold, a handler or a simulation: there is no
//! other way from a [`StoredEvent`] to an [`Event`]. The views of events show each document by [`as_stored`].
//!
//! ```text
//! stored row ─▶ without what is protected of its stored schema version ─┬▶ its newest schema version (upcasters) ─▶ caller
//!                                                                       └▶ as it is stored ─▶ view, raw read
//! ```
//!
//! Promises: what is protected passes for nobody, and the salt does not where a protected value lies in clear (with salt and hash a short one is found by trying); an event that no upcaster is
//! registered for, and that nothing is protected of, goes out as it lies there, without a copy or a call; users' functions never run while the owner's rights are on.
use super::event::{Event, StoredEvent, field};
use super::protected::{self, Protected};
use super::upcast::{Step, Upcasters, Upcasting};
use crate::log::read::{self, StreamRange};
use crate::log::stored::StoredRows;
use crate::log::target::Target;
use crate::pg::error::failure::{Caught, Failure, Result};
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::memory::Scratch;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::pages::{self, Cursor};
use crate::pg::query::row::Row;
use crate::pg::query::store::{Room, Store};
use crate::pg::value::datum::Nullable;
use crate::shared::catalog::Catalog;
use crate::shared::settings;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::protect::{Cover, Mask, Protection};
use eventstream_core::withheld::Withheld;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

/// What one caller is shown, for the time of one call.
pub struct Door<'a> {
    /// None: every event goes out in the schema version that it is stored in.
    upcasting: Option<Upcasting<'a>>,
    /// None: nothing is.
    protected: Option<&'a Protected>,
}

/// Why an event cannot be shown, and what it had become when a step failed.
pub struct Unshown {
    pub caught: Caught,
    pub event: StoredEvent,
}

impl<'a> Door<'a> {
    /// Of those who are shown events at their newest schema versions.
    pub fn new(upcasters: &'a Upcasters) -> Result<Self> {
        let upcasting = if upcasters.is_empty() { None } else { Some(Upcasting::new(upcasters)?) };
        Ok(Self { upcasting, ..Self::raw(upcasters) })
    }

    /// Of those who ask for events in the schema versions that they were stored in.
    pub fn raw(upcasters: &'a Upcasters) -> Self {
        let protected = &*upcasters.protected;
        Self { upcasting: None, protected: (!protected.shows_all_events()).then_some(protected) }
    }

    /// Of examples, which are nobody's data, on their way through the upcasters: all of each is shown.
    pub fn of_examples(upcasters: &'a Upcasters) -> Result<Self> {
        Ok(Self { protected: None, ..Self::new(upcasters)? })
    }

    /// Whether events go out as they are stored.
    pub fn is_straight(&self) -> bool {
        self.upcasting.is_none() && self.protected.is_none()
    }

    /// Whether users' functions have no part in it: then events may be shown while the owner's rights are on.
    pub fn is_own_work(&self) -> bool {
        self.upcasting.is_none()
    }

    /// The event as it may be seen; new values are made in the current memory context. Errors: ES014, and whatever a user's function raises.
    #[inline]
    pub fn show(&mut self, mut stored: StoredEvent) -> Result<Event> {
        self.bring(&mut stored)?;
        Ok(stored.shown())
    }

    /// Takes out what is protected; whether something stood in its way, and all of that is hidden.
    #[inline]
    fn hide(&self, stored: &mut StoredEvent) -> Result<bool> {
        self.protected.map_or(Ok(false), |protected| hide(protected, stored))
    }

    /// Without what is protected of it, and of what it becomes. Where something stood in the way of that, an upcaster is given null where it expects an array or an object: what such an event makes it
    /// fail with is no reason to show nobody any events.
    fn bring(&mut self, stored: &mut StoredEvent) -> Result<()> {
        let mut is_odd = self.hide(stored)?;
        let Some(upcasting) = &mut self.upcasting else { return Ok(()) };
        while upcasting.step(stored, is_odd || settings::are_failed_upcasts_skipped())? {
            is_odd |= self.protected.map_or(Ok(false), |protected| hide_named(protected, stored))?;
        }
        Ok(())
    }

    /// As [`Door::show`], and `each` is shown the event after every step. A step that fails is an error, whatever the session would skip.
    pub fn show_steps(&mut self, mut stored: StoredEvent, each: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        self.hide(&mut stored)?;
        if let Some(upcasting) = &mut self.upcasting {
            while upcasting.step(&mut stored, false)? {
                self.protected.map_or(Ok(false), |protected| hide_named(protected, &mut stored))?;
                each(&stored.clone().shown())?;
            }
        }
        Ok(())
    }

    /// The same, where what a user's function raises costs this event only.
    pub fn try_to_show(&mut self, mut stored: StoredEvent) -> Result<std::result::Result<Event, Unshown>> {
        let brought = if self.upcasting.is_some() {
            attempt(|| self.bring(&mut stored))?
        } else {
            self.hide(&mut stored).map(|_| Ok(()))?
        };
        Ok(match brought {
            Ok(()) => Ok(stored.shown()),
            Err(caught) => Err(Unshown { caught, event: stored }),
        })
    }

    /// Puts the events that `read` finds into `into`.
    pub fn fill(&mut self, into: &Store, read: impl FnOnce(&StoredRows) -> Result<()>) -> Result<()> {
        if self.is_straight() {
            return read(&StoredRows::of_door(into));
        }
        if self.is_own_work() {
            let scratch = Scratch::new()?;
            return read(&StoredRows::through_door(&mut |row| {
                scratch.step(|| into.put_row(&self.show(StoredEvent::of_composite(row))?.row()))
            }));
        }
        let aside = Aside::begin()?;
        read(&aside.rows())?;
        self.pass(aside, &mut |row| into.put_row(row))
    }

    /// The next row of a stream's events that are returned a page at a time.
    pub fn next_of_stream(&mut self, target: Target, name: &StreamName, range: &StreamRange, args: &Args) -> Returned {
        pages::next(
            args,
            (target.id, || another(target)),
            || Ok(range.start()),
            |cursor, page| {
                let mut last = None;
                let mut put = |row: &Row| {
                    last = Some(row.int8(field::VERSION)?);
                    page.put(row)
                };
                let read = if self.is_straight() {
                    read::each_of_page(target, name, range, cursor, &mut put)?
                } else if self.is_own_work() {
                    let scratch = Scratch::new()?;
                    let mut shown = |row: &Row| scratch.step(|| put(&self.show(StoredEvent::of_composite(row))?.row()));
                    read::each_of_page(target, name, range, cursor, &mut shown)?
                } else {
                    let aside = Aside::begin()?;
                    let read = read::page(target, name, range, cursor, &aside.rows())?;
                    self.pass(aside, &mut put)?;
                    read
                };
                Ok(range.next(cursor, last, read))
            },
        )
    }

    /// Gives what was kept aside to `put`, event by event.
    fn pass(&mut self, aside: Aside, put: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
        let scratch = Scratch::new()?;
        aside.take(|stored| scratch.step(|| put(&self.show(stored)?.row())))
    }

    /// Whether a failed upcaster was skipped since this was last asked: a state that was folded so is no function of the chain.
    pub fn take_skipped(&mut self) -> bool {
        self.upcasting.as_mut().is_some_and(Upcasting::take_skipped)
    }

    /// Whether [`Door::take_skipped`] would say so.
    pub fn has_skipped(&self) -> bool {
        self.upcasting.as_ref().is_some_and(Upcasting::has_skipped)
    }

    /// The upcasters' steps that were made so far: the event type, the schema version it came from, the step, and how often.
    pub fn made(&self) -> impl Iterator<Item = (&'a str, i32, &'a Step, u64)> {
        self.upcasting.iter().flat_map(Upcasting::made)
    }
}

/// A cursor's next page would be of that tenant: the session has chosen it meanwhile.
fn another(target: Target) -> Failure {
    Error::Withheld(Box::new(Withheld::TenantChanged { tenant: target.name.into(), what: "result" })).into()
}

/// Takes out of an event what is protected of it in the schema version that it is stored in; whether something stood in its way.
fn hide(protected: &Protected, stored: &mut StoredEvent) -> Result<bool> {
    let mut is_odd = false;
    for protected in protected.all() {
        match protected.events.of(stored.event_type()?, stored.schema_version()) {
            Cover::Free => {}
            Cover::Missing { .. } => {
                for place in [field::PAYLOAD, field::METADATA, field::SALT] {
                    stored.unset(place);
                }
            }
            Cover::By(protection) => is_odd |= take_out(protection, stored)?,
        }
    }
    Ok(is_odd)
}

/// The same of what the rule of its version names: of an event on its way to newer versions, which was hidden where no rule named what it was.
fn hide_named(protected: &Protected, stored: &mut StoredEvent) -> Result<bool> {
    let mut is_odd = false;
    for protected in protected.all() {
        if let Cover::By(protection) = protected.events.of(stored.event_type()?, stored.schema_version()) {
            is_odd |= take_out(protection, stored)?;
        }
    }
    Ok(is_odd)
}

fn take_out(protection: &Protection, stored: &mut StoredEvent) -> Result<bool> {
    let mut is_odd = false;
    for (place, of) in [(field::PAYLOAD, Document::Payload), (field::METADATA, Document::Metadata)] {
        let Some(document) = stored.get(place) else { continue };
        let (shown, stood) = residual(document, of.mask(protection))?;
        is_odd |= stood;
        if let Some(shown) = shown {
            stored.set(place, shown);
            stored.unset(field::SALT);
        }
    }
    Ok(is_odd)
}

/// A document without what is protected of it, None where nothing of that is there; whether something stood in its way.
fn residual(document: Datum, mask: &Mask) -> Result<(Option<Datum>, bool)> {
    if mask.is_empty() {
        return Ok((None, false));
    }
    let (shown, stray) = Jsonb::of_datum(document)?.residual(mask)?;
    Ok((shown.map(Jsonb::datum), stray.is_some()))
}

/// A document of an event.
#[derive(Clone, Copy)]
pub enum Document {
    Payload,
    Metadata,
}

impl Document {
    fn mask(self, protection: &Protection) -> &Mask {
        match self {
            Self::Payload => &protection.payload,
            Self::Metadata => &protection.metadata,
        }
    }
}

/// What views of a tenant's events hide (sql/log/views.sql), which show them as they are stored, without what is protected: no upcaster runs, as behind [`Door::raw`]. None: nothing.
pub fn hidden_in_views(tenant_id: i64) -> Result<Option<Hidden>> {
    if protected::is_known_to_be_none(tenant_id)? {
        return Ok(None);
    }
    let protected = protected::of(tenant_id)?;
    Ok((!protected.shows_all_events()).then_some(Hidden(protected)))
}

/// What views hide.
pub struct Hidden(Rc<Protected>);

impl Hidden {
    /// A document of an event of that type and schema version.
    pub fn document(&self, event: (&str, i32), of: Document, mut document: Nullable) -> Result<Nullable> {
        for protected in self.0.all() {
            match protected.events.of(event.0, event.1) {
                Cover::Free => {}
                Cover::Missing { .. } => return Ok(None),
                Cover::By(protection) => {
                    let shown = document.map(|document| residual(document, of.mask(protection))).transpose()?;
                    document = shown.and_then(|(shown, _)| shown).or(document);
                }
            }
        }
        Ok(document)
    }

    /// Its salt, where nothing of these documents is hidden.
    pub fn salt(&self, event: (&str, i32), documents: [(Document, Nullable); 2], salt: Nullable) -> Result<Nullable> {
        for (of, document) in documents {
            let hidden = |shown: Nullable| document.map(Datum::value) != shown.map(Datum::value);
            if hidden(self.document(event, of, document)?) || self.is_missing(event) {
                return Ok(None);
            }
        }
        Ok(salt)
    }

    fn is_missing(&self, event: (&str, i32)) -> bool {
        self.0.all().any(|protected| matches!(protected.events.of(event.0, event.1), Cover::Missing { .. }))
    }
}

/// Which events of a stream are about to be shown in clear.
pub struct Leaving {
    pub from_version: i64,
    pub to_version: i64,
    pub events: i64,
}

/// The next row of a stream's events as they are stored, with what is protected in clear: for es_reveal alone (src/command/reveal.rs). Of each page `record` is told
/// before any of it goes out. What a caller takes whole stays in memory. Errors: ES007 where it cannot.
pub fn reveal(
    target: Target,
    name: &StreamName,
    range: &StreamRange,
    args: &Args,
    record: &mut dyn FnMut(&Leaving) -> Result<()>,
) -> Returned {
    let read = |cursor: Cursor,
                leaving: &mut Option<Leaving>,
                put: &mut dyn FnMut(&Row) -> Result<()>|
     -> Result<Option<Cursor>> {
        let mut last = None;
        let read = read::each_of_page(target, name, range, cursor, &mut |row| {
            let version = row.int8(field::VERSION)?;
            last = Some(version);
            let all = leaving.get_or_insert(Leaving { from_version: version, to_version: version, events: 0 });
            (all.to_version, all.events) = (version, all.events + 1);
            put(row)
        })?;
        Ok(range.next(cursor, last, read))
    };
    let mut leaving = None;
    if pages::has_begun(args) || pages::are_wanted(args) {
        return pages::next(
            args,
            (target.id, || another(target)),
            || Ok(range.start()),
            |cursor, page| {
                let next = read(cursor, &mut leaving, &mut |row| page.put(row))?;
                leaving.iter().try_for_each(&mut *record)?;
                Ok(next)
            },
        );
    }
    let (store, mut room) = (Store::begin(args)?, Room::whole());
    let mut next = Some(range.start());
    while let Some(cursor) = next {
        next = read(cursor, &mut leaving, &mut |row| store.put_row_in(&mut room, row))?;
    }
    leaving.iter().try_for_each(record)?;
    Ok(None)
}

/// Events as they are stored, kept aside until the owner's rights are off.
pub struct Aside(Store);

impl Aside {
    fn begin() -> Result<Self> {
        Store::aside(Catalog::current()?.event_type).map(Self)
    }

    fn rows(&self) -> StoredRows<'_> {
        StoredRows::of_door(&self.0)
    }

    /// What `read` finds.
    pub fn read(read: impl FnOnce(&StoredRows) -> Result<()>) -> Result<Self> {
        let aside = Self::begin()?;
        read(&aside.rows())?;
        Ok(aside)
    }

    /// Gives each event to `each`, in the order in which they came.
    pub fn take(self, mut each: impl FnMut(StoredEvent) -> Result<()>) -> Result<()> {
        self.0.take(|row| each(StoredEvent::of_composite(row)))
    }
}
