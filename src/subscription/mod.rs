//! Subscriptions: places in the log for consumers outside of the database. Owns their tables. A stream lies in one of 64 slots, a slot in
//! one lease: order within a stream, one consumer at a time. docs/internals/subscriptions.md has the design.
//!
//! | file | |
//! | --- | --- |
//! | `slots` | the rows that say how far each slot is and who leases it |
//! | `parked` | streams and single events that wait for themselves |
//! | `consumers` | who shares the slots |
//! | `look` | what the free slots have to give, found without a lock |
//! | `fetch` | es_fetch: take over leases that ended, look, lock, lease |
//! | `lease` | es_ack, es_nack, es_extend_lease |
//! | `dead` | dead letters |
//! | `known` | the subscriptions by name or id |
mod consumers;
pub mod dead;
pub mod fetch;
pub mod lease;
mod look;
pub mod lookup;
pub mod parked;
mod slots;

use crate::log::audit;
use crate::log::dead_letters::{self, Source};
use crate::log::horizon;
use crate::log::read::Filter;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::error::report;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::shared::board;
use crate::shared::session::as_owner;
use eventstream_core::audit::act;
use eventstream_core::definition::{Part, same};
use eventstream_core::error::Error;
use eventstream_core::name::check_label;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID, TEXTARRAYOID, TEXTOID};
use serde_json::json;

/// The most deliveries that can be asked for.
const MOST_DELIVERIES: i64 = 1_000_000;

/// What a new one is to be.
pub struct Definition<'a> {
    pub name: &'a str,
    pub filter: Filter,
    pub after_position: i64,
    pub max_deliveries: i64,
    /// One that is there already is left alone, if it is of the same definition.
    pub if_not_exists: bool,
}

thread_local! {
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.subscriptions (tenant_id, name, categories, event_types, max_deliveries, created_by, \
                                                  created_at) \
         select $1, $2, $3, $4, $5, $6, greatest(clock_timestamp(), min(created_at)) from _eventstream.log_identities \
         on conflict (tenant_id, name) do nothing returning id",
        &[INT8OID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8OID, TEXTOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.subscriptions where tenant_id = $1 and name = $2 returning id",
        &[INT8OID, TEXTOID],
    ) };
    static LOCK: Plan = const { Plan::new(
        "select id from _eventstream.subscriptions where tenant_id = $1 and name = $2 for update",
        &[INT8OID, TEXTOID],
    ) };
}

/// Errors: ES005, ES025.
pub fn create(tenant_id: i64, definition: &Definition) -> Result<()> {
    server::must_be_writable(c"es_create_subscription")?;
    check_label("name", definition.name)?;
    definition.filter.check()?;
    for (argument, values) in
        [("categories", &definition.filter.categories), ("event_types", &definition.filter.event_types)]
    {
        if values.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid(argument, "must name one at least, or be NULL for all"));
        }
    }
    if !(1..=MOST_DELIVERIES).contains(&definition.max_deliveries) {
        let reason = format!("must be 1 to {MOST_DELIVERIES}, not {}", definition.max_deliveries);
        return Err(invalid("max_deliveries", reason));
    }
    let creator = server::role_name(server::current_role())?;
    as_owner(Planning::ByIndex, |db, catalog| {
        check_position(definition.after_position, horizon::last_position(catalog)?)?;
        let args: [Nullable; 6] = [
            Some(Datum::from(tenant_id)),
            Some(from_text(definition.name)?),
            definition.filter.categories.as_deref().map(text_array_of).transpose()?,
            definition.filter.event_types.as_deref().map(text_array_of).transpose()?,
            Some(Datum::from(definition.max_deliveries)),
            Some(from_text(&creator)?),
        ];
        match CREATE.with(|plan| plan.first(db, View::Write, &args, |row| row.int8(0)))? {
            Some(id) => slots::create(db, id, definition.after_position),
            None => is_there(db, tenant_id, definition),
        }
    })?;
    board::wake_at_commit();
    Ok(())
}

/// What mends a name that is taken.
fn hint(name: &str) -> String {
    let name = quote_literal(name);
    format!(
        "Its consumers go on where it stands; to make it otherwise, note where that is and drop it: select global_position from \
         eventstream.subscriptions where name = {name}; select es_drop_subscription({name});"
    )
}

/// Of a subscription whose name is taken. Errors: ES005 unless it is asked for again as it is; where it stands has moved since.
fn is_there(db: &Db, tenant_id: i64, definition: &Definition) -> Result<()> {
    let name = definition.name;
    let existing = lookup::stored(db, tenant_id, name)?;
    let (Some(existing), true) = (existing, definition.if_not_exists) else {
        return Err(Error::InvalidArgument {
            argument: "name".into(),
            reason: format!("must be a new name: there is a subscription {} already", shown(name)),
            hint: Some(hint(name)),
        }
        .into());
    };
    let (there, asked) = (&existing.filter, &definition.filter);
    let parts = [
        Part::set("categories", there.categories.as_deref(), asked.categories.as_deref()),
        Part::set("event_types", there.event_types.as_deref(), asked.event_types.as_deref()),
        Part::new("max_deliveries", existing.max_deliveries, definition.max_deliveries),
    ];
    same("name", "subscription", name, &parts, Some(hint(name)))?;
    report::is_there("subscription", name)
}

fn check_position(after_position: i64, last_position: i64) -> Result<()> {
    if after_position < 0 {
        return Err(invalid("after_position", format!("must be 0 or more, not {after_position}")));
    }
    if after_position > last_position {
        let argument = "after_position".into();
        return Err(Error::PositionAhead { argument, position: after_position, last_position }.into());
    }
    Ok(())
}

/// Waits for the open transactions of its consumers. Errors: ES020.
pub fn drop(tenant_id: i64, name: &str) -> Result<()> {
    server::must_be_writable(c"es_drop_subscription")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
        let id = DROP
            .with(|plan| plan.first(db, View::Write, &key, |row| row.int8(0)))?
            .ok_or_else(|| Error::SubscriptionNotFound { subscription: name.into() })?;
        slots::lock_all(catalog, id)?;
        slots::drop_all(db, id)?;
        lease::drop_all(db, id)?;
        // First the dead letters: es_retry_dead_letter takes one, which this waits for, and then parks its event.
        dead_letters::forget_all(db, Source::Subscription(id))?;
        parked::drop_all(db, id)?;
        consumers::drop_left(db)
    })
}

/// Upkeep: what subscriptions that are gone have left.
pub fn drop_left(db: &Db) -> Result<()> {
    consumers::drop_left(db)
}

/// Waits for the open transactions of its consumers. Errors: ES005, ES020, ES025.
pub fn seek(tenant_id: i64, name: &str, after_position: i64) -> Result<()> {
    server::must_be_writable(c"es_seek_subscription")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
        let id = LOCK
            .with(|plan| plan.first(db, View::Write, &key, |row| row.int8(0)))?
            .ok_or_else(|| Error::SubscriptionNotFound { subscription: name.into() })?;
        check_position(after_position, horizon::last_position(catalog)?)?;
        slots::lock_all(catalog, id)?;
        let places: Vec<i64> = slots::read(db, id)?.iter().map(|slot| slot.standing.position).collect();
        let moved = slots::move_all(db, id, after_position)?;
        let parked = parked::drop_all(db, id)?;
        let reason = format!("it ended when the subscription was moved to position {after_position}");
        let leases = lease::end_all(db, id, &reason)?;
        // One that stands there already, with nothing leased and nothing parked, is not moved.
        if moved + parked + leases == 0 {
            return Ok(());
        }
        let (lowest, highest) = (places.iter().min(), places.iter().max());
        let before =
            json!({"lowest_position": lowest, "highest_position": highest, "parked": parked, "leases": leases});
        let particulars = json!({"after_position": after_position, "before": before});
        audit::note_act(tenant_id, act::SUBSCRIPTION_MOVED, (audit::Kind::Subscription, name), &particulars)
    })?;
    board::wake_at_commit();
    Ok(())
}
