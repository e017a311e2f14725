//! Verification: recomputes chains from what is stored, and says what does not fit. Trusts no table that it checks: rows of
//! `streams` and `stream_segments` are hints that the events must bear out, and events are looked for where those rows say that
//! they are. Walks the log in its order; what is remembered of each stream is bounded, so memory stays flat.
mod expected;
pub mod problem;
mod recent;
mod tagged;
mod walk;

use crate::log::horizon;
use crate::log::partition::{self, Partition};
use crate::log::statements::Statement;
use crate::log::stream::{self, Head};
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::process::memory::Scratch;
use crate::pg::process::sequence;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::Nullable;
use crate::proof::verify::problem::Problem;
use crate::proof::verify::problem::Report;
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use crate::shared::tasks::{Kind, Task};
use eventstream_core::audit::{owner_of, reserved_of};
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
pub use expected::{Seen, glance};
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::HashMap;
use walk::{Tally, Tenant, Walk};

thread_local! {
    static TENANTS: Plan = const { Plan::new("select id, name, uuid from _eventstream.tenant_uuids()", &[]) };
    static TENANT: Plan =
        const { Plan::new("select id, name, uuid from _eventstream.tenant_uuids() where id = $1", &[INT8OID]) };
    static STREAMS_BEGUN: Plan = const { Plan::new(
        "select count(*) from _eventstream.streams \
         where first_position >= $1 and first_position <= $2 and ($3 is null or tenant_id = $3)",
        &[INT8OID, INT8OID, INT8OID],
    ) };
    static SEGMENTS_BY_PARTITION: Plan = const { Plan::new(
        "select g.partition, count(*) from _eventstream.stream_segments g \
         where $1 is null or exists (select from _eventstream.streams s where s.id = g.stream_id and s.tenant_id = $1) \
         group by g.partition",
        &[INT8OID],
    ) };
}

/// All, or the one whose streams stand under that id; also of their reserved streams.
fn tenants(db: &Db, id: Option<i64>) -> Result<HashMap<i64, Tenant>> {
    let key = id.map(|id| Some(Datum::from(owner_of(id))));
    let plan = if key.is_some() { &TENANT } else { &TENANTS };
    let tenants = plan.with(|plan| {
        plan.rows(db, View::Caller, 0, key.as_slice(), |row| {
            let (id, name, uuid) = (row.int8(0)?, row.text(1)?, row.uuid(2)?);
            let tenant = || Tenant { name: name.to_owned(), uuid, has_fitted: false };
            Ok([(reserved_of(id), tenant()), (id, tenant())])
        })
    })?;
    Ok(tenants.into_iter().flatten().collect())
}

/// One stream. Errors: ES002 where there is none.
pub fn verify_stream(tenant_id: i64, name: &StreamName, report: Report) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let found = whole::look_up(db, catalog, View::Caller, tenant_id, name)?
            .ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() })?;
        let mut walk = Walk::new(tenants(db, Some(tenant_id))?, report)?;
        let id = Some(Datum::from(found.id));
        let partitions = partition::all(db, catalog)?;
        expected::check_stream(&partitions, found.id, walk.report())?;
        for partition in partitions.iter() {
            walk_partition(&mut walk, partition, Statement::VerifyStream, &[id], &mut |_| {})?;
            let range = [Some(Datum::from(partition.lower)), Some(Datum::from(partition.upper - 1)), id];
            missing(walk.report(), partition, Statement::MissingOfStream, &range)?;
            tagged::check_stream(partition, &range, walk.report())?;
        }
        Ok(())
    })
}

/// All events with from <= global_position <= to, of one tenant or of all.
pub fn verify(from: i64, to: i64, tenant_id: Option<i64>, report: Report) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        // Where nothing can be, nothing is found wrong. From behind the last one is what a check says that goes on where it was.
        horizon::must_be_reached(catalog, "from_position", from.saturating_sub(1))?;
        whole::must_be_shown(db, catalog, tenant_id)?;
        let mut walk = Walk::new(tenants(db, None)?, report)?;
        let tenant = tenant_id.map(Datum::from);
        let partitions = partition::all(db, catalog)?;
        expected::check(db, catalog, &partitions, (from, to), tenant, walk.report())?;
        let mut segments = None;
        let task = Task::begin(Kind::Verify, (to.min(sequence::last(catalog.positions)?.0) - from).max(0));
        for partition in partitions.iter() {
            if partition.upper <= from || partition.lower > to {
                continue;
            }
            let (first, last) = (from.max(partition.lower), to.min(partition.upper - 1));
            let range = [Some(Datum::from(first)), Some(Datum::from(last)), tenant];
            walk.begin_in_order();
            let tally = walk_partition(&mut walk, partition, Statement::Verify, &range, &mut |position| {
                task.note(position - from);
            })?;
            tagged::check(partition, range, tally.tags, walk.report())?;
            if tally.problems > 0 || tally.begun != streams_begun(db, &range)? {
                missing(walk.report(), partition, Statement::MissingFirst, &range)?;
            }
            if first > partition.lower || last < partition.upper - 1 {
                continue;
            }
            if segments.is_none() {
                segments = Some(segments_by_partition(tenant)?);
            }
            let promised = segments.as_ref().and_then(|segments| segments.get(&partition.lower)).copied().unwrap_or(0);
            if tally.problems > 0 || tally.entered != promised {
                missing(
                    walk.report(),
                    partition,
                    Statement::MissingSegments,
                    &[Some(Datum::from(partition.lower)), tenant],
                )?;
            }
        }
        Ok(())
    })
}

/// In an SPI connection of its own, which the plan ends with. `reached` is told the position of each event.
fn walk_partition(
    walk: &mut Walk,
    partition: &Partition,
    statement: Statement,
    args: &[Nullable],
    reached: &mut dyn FnMut(i64),
) -> Result<Tally> {
    as_owner(Planning::ByIndex, |db, _| {
        let plan = partition.passing_plan(statement);
        let scratch = Scratch::new()?;
        plan.for_each(db, View::Caller, args, &mut |row| {
            reached(row.int8(2)?);
            scratch.step(|| walk.event(row, partition))
        })?;
        walk.leave(partition)
    })
}

/// How many streams begin in a range of the log.
fn streams_begun(db: &Db, range: &[Nullable]) -> Result<i64> {
    let count = STREAMS_BEGUN.with(|plan| plan.first(db, View::Caller, range, |row| row.int8(0)))?;
    Ok(count.unwrap_or(0))
}

/// How many streams entered each partition: one scan of all segments, which have no index by partition.
fn segments_by_partition(tenant: Nullable) -> Result<HashMap<i64, i64>> {
    let counts = as_owner(Planning::ByCost, |db, _| {
        SEGMENTS_BY_PARTITION
            .with(|plan| plan.rows(db, View::Caller, 0, &[tenant], |row| Ok((row.int8(0)?, row.int8(1)?))))
    })?;
    Ok(counts.into_iter().collect())
}

/// Events that rows of streams and stream_segments say are in this partition, and are not.
fn missing(report: Report, partition: &Partition, statement: Statement, args: &[Nullable]) -> Result<()> {
    let planning = if statement == Statement::MissingSegments { Planning::ByCost } else { Planning::ByIndex };
    as_owner(planning, |db, _| {
        let plan = partition.passing_plan(statement);
        plan.for_each(db, View::Caller, args, &mut |row| {
            report(Problem {
                stream: Some(row.text(0)?.to_owned()),
                version: Some(row.int8(1)?),
                global_position: row.int8_opt(2),
                problem: format!("the event is missing: it should be in the partition from {}", partition.lower),
            })
        })
        .map(drop)
    })
}

/// The newest event of every stream at or below `up_to`, with tenant and stream.
pub fn chain_heads(
    up_to: Option<i64>,
    tenant_id: Option<i64>,
    each: &mut dyn FnMut(&Tenant, &str, &Head) -> Result<()>,
) -> Result<()> {
    const PAGE: i64 = 1000;
    as_owner(Planning::ByIndex, |db, catalog: &Catalog| {
        whole::must_be_shown(db, catalog, tenant_id)?;
        let tenants = tenants(db, None)?;
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
