//! Verification: recomputes chains from what is stored, and says what does not fit. Trusts no table that it checks: rows of
//! `streams` and `stream_segments` are hints that the events must bear out, and events are looked for where those rows say that
//! they are. Walks the log in its order; what is remembered of each stream is bounded, so memory stays flat.
mod recent;
mod walk;

use super::partition::{self, Partition};
use super::statements::Statement;
use super::stream::{self, Head};
use crate::pg::catalog::Catalog;
use crate::pg::failure::Result;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Db, Planning, as_owner};
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use pgrx::pg_sys::Datum;
use std::collections::HashMap;
use walk::Walk;

/// Something that does not fit.
#[derive(Debug)]
pub struct Problem {
    /// None: an event of no stream.
    pub stream: Option<String>,
    pub version: Option<i64>,
    pub global_position: Option<i64>,
    pub problem: String,
}

/// Takes problems as they are found.
pub type Report<'a> = &'a mut dyn FnMut(Problem) -> Result<()>;

thread_local! {
    static TENANTS: Plan = const { Plan::new("select id, name from _eventstream.tenants", &[]) };
}

fn tenants(db: &Db) -> Result<HashMap<i64, String>> {
    let tenants =
        TENANTS.with(|plan| plan.rows(db, View::Caller, 0, &[], |row| Ok((row.int8(0)?, row.text(1)?.to_owned()))))?;
    Ok(tenants.into_iter().collect())
}

/// One stream. Errors: ES002 where there is none.
pub fn verify_stream(tenant_id: i64, name: &StreamName, report: Report) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let found = stream::look_up(db, View::Caller, tenant_id, name)?
            .ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() })?;
        let mut walk = Walk::new(tenants(db)?, report)?;
        let id = Some(Datum::from(found.id));
        for partition in partition::all(db, catalog)?.iter() {
            let plan = partition.passing_plan(Statement::VerifyStream);
            plan.for_each(db, View::Caller, &[id], &mut |row| walk.event(row, partition))?;
            walk.leave(partition)?;
            let lower = Some(Datum::from(partition.lower));
            let none_of_tenants = None;
            missing(db, partition, Statement::MissingSegments, &[lower, none_of_tenants, id], walk.report())?;
            let (first, last) = (partition.lower, partition.upper - 1);
            let range = [Some(Datum::from(first)), Some(Datum::from(last)), none_of_tenants, id];
            missing(db, partition, Statement::MissingFirst, &range, walk.report())?;
        }
        Ok(())
    })
}

/// All events with from <= global_position <= to, of one tenant or of all.
pub fn verify(from: i64, to: i64, tenant_id: Option<i64>, report: Report) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let mut walk = Walk::new(tenants(db)?, report)?;
        let tenant = tenant_id.map(Datum::from);
        for partition in partition::all(db, catalog)?.iter() {
            if partition.upper <= from || partition.lower > to {
                continue;
            }
            let (first, last) = (from.max(partition.lower), to.min(partition.upper - 1));
            let range = [Some(Datum::from(first)), Some(Datum::from(last)), tenant];
            let plan = partition.passing_plan(Statement::Verify);
            plan.for_each(db, View::Caller, &range, &mut |row| walk.event(row, partition))?;
            walk.leave(partition)?;
            let [first, last, tenant] = range;
            missing(db, partition, Statement::MissingFirst, &[first, last, tenant, None], walk.report())?;
            if from <= partition.lower && to >= partition.upper - 1 {
                let lower = Some(Datum::from(partition.lower));
                missing(db, partition, Statement::MissingSegments, &[lower, tenant, None], walk.report())?;
            }
        }
        Ok(())
    })
}

/// Events that a stream's rows say are in this partition, and are not.
fn missing(db: &Db, partition: &Partition, statement: Statement, args: &[Option<Datum>], report: Report) -> Result<()> {
    partition
        .passing_plan(statement)
        .for_each(db, View::Caller, args, &mut |row| {
            report(Problem {
                stream: Some(row.text(0)?.to_owned()),
                version: Some(row.int8(1)?),
                global_position: row.int8_opt(2),
                problem: format!("the event is missing: it should be in the partition from {}", partition.lower),
            })
        })
        .map(drop)
}

/// The newest event of every stream at or below `up_to`, with tenant and stream.
pub fn chain_heads(
    up_to: Option<i64>,
    tenant_id: Option<i64>,
    each: &mut dyn FnMut(&str, &str, &Head) -> Result<()>,
) -> Result<()> {
    const PAGE: i64 = 1000;
    as_owner(Planning::ByIndex, |db, catalog: &Catalog| {
        let tenants = tenants(db)?;
        let mut after = 0;
        loop {
            let page = stream::page(db, View::Caller, after, tenant_id, PAGE)?;
            let Some((last, _, _)) = page.last() else { return Ok(()) };
            after = last.id;
            for (stream, name, tenant) in &page {
                let head = stream::head_up_to(db, catalog, stream, up_to.unwrap_or(i64::MAX), View::Caller)?;
                if let (Some(head), Some(tenant)) = (head, tenants.get(tenant)) {
                    each(tenant, name, &head)?;
                }
            }
        }
    })
}
