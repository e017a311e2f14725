//! The upcasters of the current database, as this backend knows them, and whose code they are.
use super::protected::{self, Protected};
use super::upcast::{Step, Upcasters};
use crate::log::filter::Filter;
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog;
use crate::shared::known::Known;
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Purpose};
use crate::usercode::registrant_of;
use pgrx::pg_sys::{Datum, INT8OID};
use std::cell::RefCell;
use std::rc::Rc;

columns! {
    mod of_upcaster, selected;
    EVENT_TYPE = "u.event_type",
    FROM_SCHEMA_VERSION = "u.from_schema_version",
    TO_EVENT_TYPE = "u.to_event_type",
    HANDLER = "u.handler",
    REGISTRANT = "coalesce(r.rolname::text, u.registrant)",
    SEARCH_PATH = "u.search_path",
    REGISTRANT_OID = "r.oid",
}

thread_local! {
    static UPCASTERS_OF: RefCell<Known<i64, Rc<Upcasters>>> = RefCell::default();
    static UPCASTERS: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from _eventstream.upcasters u",
            registrant_of!("u"),
            "where u.tenant_id = $1 order by u.event_type collate \"C\", u.from_schema_version"
        ),
        &[INT8OID],
    ) };
}

/// The upcasters of a tenant.
pub fn of(tenant_id: i64) -> Result<Rc<Upcasters>> {
    let generation = catalog::folds_generation();
    let found = Known::of(&UPCASTERS_OF, catalog::folds_generation, tenant_id, || {
        let protected = protected::of(tenant_id)?;
        as_owner(Planning::ByIndex, |db, _| load_upcasters(db, tenant_id, protected).map(Rc::new))
    })?;
    found.protected.note_shown(generation, tenant_id);
    Ok(found)
}

/// The filter, with what upcasters turn into the event types that it names.
pub fn following(tenant_id: i64, mut filter: Filter) -> Result<Filter> {
    if let Some(event_types) = &filter.event_types {
        filter.older = of(tenant_id)?.older(event_types);
    }
    Ok(filter)
}

fn load_upcasters(db: &Db, tenant_id: i64, protected: Rc<Protected>) -> Result<Upcasters> {
    let rows = UPCASTERS.with(|plan| {
        plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
            let key = (row.text(of_upcaster::EVENT_TYPE)?.to_owned(), row.int4(of_upcaster::FROM_SCHEMA_VERSION)?);
            let (to_event_type, name) =
                (row.text(of_upcaster::TO_EVENT_TYPE)?.to_owned(), row.text(of_upcaster::HANDLER)?.to_owned());
            let registrant = handler::registrant(
                row,
                [of_upcaster::REGISTRANT, of_upcaster::SEARCH_PATH, of_upcaster::REGISTRANT_OID],
            )?;
            Ok((key, to_event_type, name, registrant))
        })
    })?;
    let mut upcasters = Upcasters::of(tenant_id, protected);
    for (key, to_event_type, name, registrant) in rows {
        let handler = handler::registered(db, Purpose::Upcaster, &name)?;
        upcasters.add(key.0, key.1, Step { to_event_type, name, handler, registrant });
    }
    Ok(upcasters)
}
