//! Tags: each that an event bears, which its chain hash covers, is found where tags are looked for, and nothing else is. The walk adds up what the events
//! bear; only where the rows of event_tags add up to something else is it said which differ.
use super::problem::{Problem, Report};
use crate::log::partition::Partition;
use crate::log::statements::Statement;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::pg::value::datum::Nullable;
use crate::shared::session::as_owner;
use eventstream_core::digest::Digest;
use pgrx::pg_sys::Datum;

const LOST: &str = "not found where tags are looked for: es_read_all(tags) and conditions miss the event";
const STRAY: &str = "looked for at this position, where no event bears them";
const UNLISTED: &str = "not found in this partition, where this event and perhaps later ones bear it";

/// Compares the tags in a range of one partition with what its events bear, `borne`.
pub fn check(partition: &Partition, [first, last, tenant]: [Nullable; 3], borne: Digest, report: Report) -> Result<()> {
    if !partition.has_tags() {
        // Said already.
        return Ok(());
    }
    let mut found = Digest::default();
    as_owner(Planning::ByCost, |db, _| {
        let plan = partition.passing_plan(Statement::TagsWithin);
        plan.for_each(db, View::Caller, &[first, last, tenant], &mut |row| {
            found.add_tag(row.int8(0)?, row.int8(1)?, row.text(2)?);
            Ok(())
        })
    })?;
    if found != borne {
        tell(partition, Statement::LostTags, &[first, last, tenant], LOST, report)?;
        tell(partition, Statement::StrayTags, &[first, last, tenant], STRAY, report)?;
    }
    if found == Digest::default() {
        return Ok(());
    }
    let lower = Some(Datum::from(partition.lower));
    tell(partition, Statement::UnlistedTags, &[first, last, tenant, lower], UNLISTED, report)
}

/// The tags of one stream's events.
pub fn check_stream(partition: &Partition, range: &[Nullable; 3], report: Report) -> Result<()> {
    if !partition.has_tags() {
        return Ok(());
    }
    tell(partition, Statement::LostTagsOfStream, range, LOST, report)
}

/// That nobody can look for the tags of a partition.
pub fn missing(partition: &Partition) -> Problem {
    let problem = format!(
        "no table holds the tags of the positions from {} to {}: it was detached or dropped",
        partition.lower,
        partition.upper - 1
    );
    Problem { stream: None, version: None, global_position: None, problem }
}

/// What the statement finds. What the tags say is not told: who verifies need not be who reads.
fn tell(partition: &Partition, statement: Statement, args: &[Nullable], what: &str, report: Report) -> Result<()> {
    let planning = if statement == Statement::LostTagsOfStream { Planning::ByIndex } else { Planning::ByCost };
    as_owner(planning, |db, _| {
        let plan = partition.passing_plan(statement);
        plan.for_each(db, View::Caller, args, &mut |row| {
            let problem = match (statement, row.int8(3)?) {
                (Statement::UnlistedTags, _) => format!("a tag is {what}"),
                (_, 1) => format!("1 tag is {what}"),
                (_, tags) => format!("{tags} tags are {what}"),
            };
            let stream = row.text_opt(0)?.map(ToOwned::to_owned);
            report(Problem { stream, version: row.int8_opt(1), global_position: row.int8_opt(2), problem })
        })
        .map(drop)
    })
}
