//! Closed periods, and the judgement of events by them.
use crate::log::horizon;
use crate::log::request::Request;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use eventstream_core::command::period::{Closing, Periods};
use eventstream_core::error::Error;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::HashMap;

columns! {
    mod of, selected;
    CATEGORY = "category",
    TAG = "tag",
    CLOSED_UNTIL = "closed_until",
}

columns! {
    mod of_history, columns_of_history;
    CATEGORY = "category",
    TAG = "tag",
    CLOSED_UNTIL = "closed_until",
    CLOSED_POSITION = "closed_position",
    REOPENED_POSITION = "reopened_position",
}

thread_local! {
    static HISTORY: Plan = const { Plan::new(
        concat!("select ", columns_of_history!(), " from _eventstream.periods where tenant_id = $1"),
        &[INT8OID],
    ) };
    static LOAD: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.periods where tenant_id = $1 and reopened_at is null"),
        &[INT8OID],
    ) };
}

/// All closings that a tenant ever made, by category: those that stand, and those that were taken back.
pub fn history(tenant_id: i64) -> Result<HashMap<String, Vec<Closing>>> {
    let mut closings: HashMap<String, Vec<Closing>> = HashMap::new();
    as_owner(Planning::ByIndex, |db, _| {
        HISTORY.with(|plan| {
            plan.rows(db, View::Caller, 0, &[Some(Datum::from(tenant_id))], |row| {
                let closing = Closing {
                    tag: row.text_opt(of_history::TAG)?.map(ToOwned::to_owned),
                    until: row.int8(of_history::CLOSED_UNTIL)?,
                    after_position: row.int8(of_history::CLOSED_POSITION)?,
                    to_position: row.int8_opt(of_history::REOPENED_POSITION),
                };
                closings.entry(row.text(of_history::CATEGORY)?.to_owned()).or_default().push(closing);
                Ok(())
            })
        })
    })?;
    Ok(closings)
}

pub fn load(tenant_id: i64) -> Result<Periods> {
    let mut periods = Periods::default();
    as_owner(Planning::ByIndex, |db, _| {
        LOAD.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
                periods.close(row.text(of::CATEGORY)?, row.text_opt(of::TAG)?, row.int8(of::CLOSED_UNTIL)?);
                Ok(())
            })
        })
    })?;
    Ok(periods)
}

/// An event that does not say when it occurred does so when it is recorded. That is after whatever is closed, unless the floor of recorded_at was set back
/// by hand, and the clock. Errors: ES018.
pub fn judge(periods: &Periods, request: &Request) -> Result<()> {
    if periods.is_empty() {
        return Ok(());
    }
    let category = request.stream.category();
    let soonest = horizon::recorded_from(&Catalog::current()?)?;
    for (place, event) in request.events.iter().enumerate() {
        let occurred_at = event.occurred_at.unwrap_or(soonest);
        if let Some(closed) = periods.closed(category, &event.tags, occurred_at) {
            return Err(Error::PeriodClosed {
                what: format!("event {} for stream {}", place + 1, shown(request.stream.as_str())),
                category: category.into(),
                tag: closed.tag.map(Into::into),
                closed_until: server::print_time_utc(closed.until)?.into(),
                occurred_at: server::print_time_utc(occurred_at)?.into(),
            }
            .into());
        }
    }
    Ok(())
}
