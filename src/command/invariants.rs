//! Invariants as this backend knows them, a part of what may be recorded (src/command/ruling.rs): what must hold of states after an append of each category, and which events are to be
//! noted for what is judged at the commit. Where a tenant has none, that costs one comparison an append.
use crate::log::filter::Filter;
use crate::log::last_append::LastAppend;
use crate::log::noted;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::present::upcasters;
use crate::shared::session::as_owner;
use eventstream_core::rules::Requirement;
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::HashMap;
use std::rc::Rc;

/// What must hold of a stream's state.
pub struct Required {
    pub name: String,
    event_types: Option<Vec<String>>,
    /// None: the category's default one.
    pub fold: Option<String>,
    pub requirement: Requirement,
}

/// Of a category.
#[derive(Default)]
struct OfCategory {
    required: Vec<Rc<Required>>,
    /// The event types of each that has a handler.
    judged: Vec<Option<Vec<String>>>,
}

/// The invariants of a tenant, by category.
#[derive(Default)]
pub struct Invariants(HashMap<String, OfCategory>);

columns! {
    mod of, selected;
    NAME = "name",
    CATEGORIES = "categories",
    EVENT_TYPES = "event_types",
    FOLD = "fold",
    REQUIRE = "require::text",
}

thread_local! {
    static LOAD: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.invariants where tenant_id = $1 order by name"),
        &[INT8OID],
    ) };
}

pub fn load(tenant_id: i64) -> Result<Invariants> {
    let mut invariants = Invariants::default();
    as_owner(Planning::ByIndex, |db, _| {
        LOAD.with(|plan| plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| invariants.add(row)))
    })?;
    Ok(invariants)
}

impl Invariants {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, row: &Row) -> Result<()> {
        let event_types = row.text_array_opt(of::EVENT_TYPES)?;
        let required = match row.text_opt(of::REQUIRE)? {
            Some(require) => Some(Rc::new(Required {
                name: row.text(of::NAME)?.to_owned(),
                event_types: event_types.clone(),
                fold: row.text_opt(of::FOLD)?.map(ToOwned::to_owned),
                requirement: Requirement::parse(require)?,
            })),
            None => None,
        };
        for category in row.text_array_opt(of::CATEGORIES)?.unwrap_or_default() {
            let of_category = self.0.entry(category).or_default();
            match &required {
                Some(required) => of_category.required.push(Rc::clone(required)),
                None => of_category.judged.push(event_types.clone()),
            }
        }
        Ok(())
    }

    /// What must hold of the stream's state after these events of it.
    pub fn required<'a>(&'a self, target: Target, request: &Request) -> Result<Vec<&'a Required>> {
        let Some(of_category) = self.0.get(request.stream.category()) else { return Ok(Vec::new()) };
        let mut required = Vec::new();
        for each in &of_category.required {
            if places(target, each.event_types.as_deref(), request)?.any(|is_of| is_of) {
                required.push(&**each);
            }
        }
        Ok(required)
    }

    /// Notes what was appended for the judgement at the commit. Errors: ES007, 0A000 after it.
    pub fn note(&self, target: Target, requests: &[Request], appended: &[LastAppend]) -> Result<()> {
        for (request, appended) in requests.iter().zip(appended) {
            let Some(of_category) = self.0.get(request.stream.category()) else { continue };
            if appended.replayed || appended.positions.is_empty() || of_category.judged.is_empty() {
                continue;
            }
            let mut are_noted = vec![false; request.events.len()];
            for event_types in &of_category.judged {
                let places = places(target, event_types.as_deref(), request)?;
                are_noted.iter_mut().zip(places).for_each(|(is_noted, is_of)| *is_noted |= is_of);
            }
            if are_noted.contains(&true) {
                noted::must_be_in_time(request.stream.as_str())?;
                let positions = appended.positions.iter().zip(&are_noted);
                noted::note(
                    target,
                    request.stream.as_str(),
                    positions.filter(|(_, is_noted)| **is_noted).map(|(&position, _)| position),
                )?;
            }
        }
        Ok(())
    }
}

/// Of each event, whether it is of these types (None: of any) as a reader sees it.
fn places<'a>(
    target: Target,
    event_types: Option<&[String]>,
    request: &'a Request,
) -> Result<impl Iterator<Item = bool> + use<'a>> {
    let filter = Filter::of(None, event_types.map(<[String]>::to_vec));
    let filter = upcasters::following(target.id, filter)?;
    Ok(request.events.iter().map(move |event| filter.lets_through(event.event_type, event.schema_version())))
}
