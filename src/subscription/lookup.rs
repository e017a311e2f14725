//! The subscriptions, as they stand in their table.
use crate::log::filter::Filter;
use crate::pg::error::failure::Result;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::present::upcasters;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};

/// A subscription.
#[derive(Clone)]
pub struct Subscription {
    pub id: i64,
    pub name: String,
    pub filter: Filter,
    pub max_deliveries: i32,
}

thread_local! {
    static BY_NAME: Plan = const { Plan::new(
        "select id, name, categories, event_types, max_deliveries from _eventstream.subscriptions \
         where tenant_id = $1 and name = $2",
        &[INT8OID, TEXTOID],
    ) };
    static BY_ID: Plan = const { Plan::new(
        "select id, name, categories, event_types, max_deliveries from _eventstream.subscriptions \
         where tenant_id = $1 and id = $2",
        &[INT8OID, INT8OID],
    ) };
}

fn read(row: &Row) -> Result<Subscription> {
    Ok(Subscription {
        id: row.int8(0)?,
        name: row.text(1)?.to_owned(),
        filter: Filter::of(row.text_array_opt(2)?, row.text_array_opt(3)?),
        max_deliveries: i32::try_from(row.int8(4)?).unwrap_or(i32::MAX),
    })
}

/// Errors: ES020.
pub fn by_name(tenant_id: i64, name: &str) -> Result<Subscription> {
    let found = as_owner(Planning::ByIndex, |db, _| stored(db, tenant_id, name))?;
    let found = found.ok_or_else(|| Error::SubscriptionNotFound { subscription: name.into() })?;
    following(tenant_id, found)
}

/// As it stands there; None where the tenant has none of that name.
pub fn stored(db: &Db, tenant_id: i64, name: &str) -> Result<Option<Subscription>> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
    BY_NAME.with(|plan| plan.first(db, View::Latest, &key, read))
}

/// None where the tenant has none with this id.
pub fn by_id(db: &Db, tenant_id: i64, id: i64) -> Result<Option<Subscription>> {
    let key = [Some(Datum::from(tenant_id)), Some(Datum::from(id))];
    let found = BY_ID.with(|plan| plan.first(db, View::Latest, &key, read))?;
    found.map(|found| following(tenant_id, found)).transpose()
}

/// Its filter knows the older names of its event types.
pub fn following(tenant_id: i64, subscription: Subscription) -> Result<Subscription> {
    let filter = upcasters::following(tenant_id, subscription.filter)?;
    Ok(Subscription { filter, ..subscription })
}
