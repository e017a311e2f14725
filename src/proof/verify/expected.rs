//! What should exist, asked before what is there is walked through: partitions without a hole between them, one for every stream's first
//! position and segment; a sequence that is not behind the newest event; a floor of recorded_at that the clock will reach.
use super::problem::{Problem, Report};
use super::tagged;
use crate::log::highest;
use crate::log::partition::{self, Partition};
use crate::log::statements::Statement;
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::{sequence, server};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::Nullable;
use crate::proof::verify::problem::SLACK;
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use eventstream_core::FIRST_LOWER;
use pgrx::pg_sys::{Datum, INT8OID, Oid};
use std::rc::Rc;

thread_local! {
    // The first and the last stream that begins in a range of positions.
    static STREAMS_WITHIN: Plan = const { Plan::new(
        "(select name, first_position from _eventstream.streams where first_position >= $1 and first_position < $2 order by first_position limit 1) \
         union all (select name, first_position from _eventstream.streams where first_position >= $1 and first_position < $2 \
                    order by first_position desc limit 1)",
        &[INT8OID, INT8OID],
    ) };
    static HAS_PLACE: Plan = const { Plan::new(
        "select 1::bigint from _eventstream.streams s \
         where s.id = $1 and (s.first_position >= $2 or exists (select from _eventstream.stream_segments g where g.stream_id = s.id and g.partition = $2))",
        &[INT8OID, INT8OID],
    ) };
    // Asked only where positions were handed out that no partition holds.
    static BEYOND: Plan = const { Plan::new(
        "select b.name, b.first_position, b.begins from ( \
           (select s.name, s.first_position, true as begins from _eventstream.streams s where s.first_position >= $1 order by s.first_position limit 1) union all \
           (select s.name, g.first_position, false from _eventstream.stream_segments g join _eventstream.streams s on s.id = g.stream_id \
            where g.first_position >= $1 limit 1)) b limit 1",
        &[INT8OID],
    ) };
    static REGISTERS: Plan = const { Plan::new(
        "select s.id, i.last_value, exists (select from _eventstream.tenants t where t.id = (select greatest(max(tenant_id), -min(tenant_id)) from _eventstream.streams)) \
         from (select max(id) as id from _eventstream.streams) s cross join _eventstream.stream_ids i where s.id is not null",
        &[],
    ) };
}

const RANGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
const STREAMS: &str = "select s.name, 1::bigint, s.first_position from _eventstream.streams s \
    where s.first_position >= $1 and s.first_position <= $2 and ($3 is null or s.tenant_id = $3) order by s.first_position";
const SEGMENTS: &str = "select s.name, g.first_version, g.first_position from _eventstream.stream_segments g \
    join _eventstream.streams s on s.id = g.stream_id \
    where g.partition >= $1 and g.partition <= $2 and ($3 is null or s.tenant_id = $3) order by g.first_position";

/// Positions that no partition holds.
struct Hole {
    from: i64,
    to: i64,
    /// Another partition comes after it.
    is_between: bool,
}

/// Bounds follow one another, because each partition was made where the one before it ends.
fn holes(partitions: &[Rc<Partition>]) -> Vec<Hole> {
    let mut holes = Vec::new();
    let mut next = FIRST_LOWER;
    for partition in partitions {
        if partition.lower > next {
            holes.push(Hole { from: next, to: partition.lower - 1, is_between: true });
        }
        next = next.max(partition.upper);
    }
    holes.push(Hole { from: next, to: i64::MAX, is_between: false });
    holes
}

fn of_log(problem: String) -> Problem {
    Problem { stream: None, version: None, global_position: None, problem }
}

/// The log as a whole, as far as it concerns the positions from `from` to `to`.
pub fn check(
    db: &Db,
    catalog: &Catalog,
    partitions: &[Rc<Partition>],
    (from, to): (i64, i64),
    tenant: Nullable,
    report: Report,
) -> Result<()> {
    let newest = highest::newest(db, catalog, View::Caller)?;
    let (last, _) = sequence::last(catalog.positions)?;
    for hole in holes(partitions) {
        if hole.from > to || hole.to < from {
            continue;
        }
        let missing = missing_in(&hole, (from, to), last, tenant, report)?;
        if hole.is_between || missing > 0 {
            let end = if hole.is_between { format!(" to {}", hole.to) } else { " on".into() };
            let problem = format!(
                "no partition of the log holds the positions from {}{end}: it was detached or dropped",
                hole.from
            );
            report(of_log(problem))?;
        }
    }
    for partition in partitions.iter().filter(|partition| partition.upper > from && partition.lower <= to) {
        if !partition.has_tags() {
            report(tagged::missing(partition))?;
        }
    }
    if to < newest {
        return Ok(());
    }
    if last < newest {
        let problem = format!(
            "the sequence of positions stands at {last}, behind this event: it was set back, and would hand out positions that are used"
        );
        report(Problem { global_position: Some(newest), ..of_log(problem) })?;
    }
    let (floor, _) = sequence::last(catalog.recorded_floor)?;
    if floor > server::clock().saturating_add(SLACK) {
        let problem = format!(
            "the floor of recorded_at is set to {}, more than a day ahead of the clock: everything would be recorded at that time",
            server::print_time_utc(floor)?
        );
        report(of_log(problem))?;
    }
    Ok(())
}

/// Says which events should be in a hole; how many.
fn missing_in(hole: &Hole, (from, to): (i64, i64), last: i64, tenant: Nullable, report: Report) -> Result<u64> {
    let mut missing = 0;
    let mut tell = |sql: &'static str, planning: Planning, first: i64, last: i64| {
        as_owner(planning, |db, _| {
            let plan = Plan::passing(sql.into(), RANGE);
            let args = [Some(Datum::from(first)), Some(Datum::from(last)), tenant];
            plan.for_each(db, View::Caller, &args, &mut |row| {
                let position = row.int8(2)?;
                if (from..=to).contains(&position) {
                    missing += 1;
                    report(Problem {
                        stream: Some(row.text(0)?.to_owned()),
                        version: Some(row.int8(1)?),
                        global_position: Some(position),
                        problem: "the event is missing: no partition of the log holds its position".into(),
                    })?;
                }
                Ok(())
            })
            .map(drop)
        })
    };
    tell(STREAMS, Planning::ByIndex, hole.from.max(from), hole.to.min(to))?;
    // Segments have no index by partition: all of them are looked through, where positions were handed out that no partition holds.
    if hole.is_between || last >= hole.from {
        tell(SEGMENTS, Planning::ByCost, hole.from, hole.to)?;
    }
    Ok(missing)
}

/// The same for one stream: its events that no partition holds.
pub fn check_stream(partitions: &[Rc<Partition>], stream_id: i64, report: Report) -> Result<()> {
    const PLACES: &str = "select 1::bigint, s.first_position from _eventstream.streams s where s.id = $1 \
        union all select g.first_version, g.first_position from _eventstream.stream_segments g where g.stream_id = $1 order by 1";
    as_owner(Planning::ByIndex, |db, _| {
        let plan = Plan::passing(PLACES.into(), &[INT8OID]);
        plan.for_each(db, View::Caller, &[Some(Datum::from(stream_id))], &mut |row| {
            let position = row.int8(1)?;
            if partitions.iter().any(|partition| partition.contains(position)) {
                return Ok(());
            }
            report(Problem {
                stream: None,
                version: Some(row.int8(0)?),
                global_position: Some(position),
                problem: "the event is missing: no partition of the log holds its position".into(),
            })
        })
        .map(drop)
    })
}

/// What a glance finds.
pub enum Seen {
    /// What came with a restore, or was left, is not all: why.
    Missing(String),
    /// The floor of recorded_at: where it stands.
    Floor(i64),
}

/// Partitions that a glance looks into, at each end of the log.
const GLANCES: usize = 8;

/// What is seen without reading the log, or None: a few look-ups in each of the first and the newest partitions. A dump that left tables out
/// looks like that, also after its copy has appended.
pub fn glance() -> Result<Option<Seen>> {
    as_owner(Planning::ByIndex, |db, catalog| {
        invalidation::take_in()?;
        let partitions = partition::all(db, catalog)?;
        if let Some(hole) = holes(&partitions).into_iter().find(|hole| hole.is_between) {
            return Ok(Some(Seen::Missing(format!(
                "no partition holds the positions from {} to {}",
                hole.from, hole.to
            ))));
        }
        let newest_first = partitions.len().saturating_sub(GLANCES);
        for (place, partition) in partitions.iter().enumerate() {
            if (place < GLANCES || place >= newest_first)
                && let Some(why) = missing_at_ends(db, partition)?
            {
                return Ok(Some(Seen::Missing(why)));
            }
        }
        let end = partitions.last().map_or(FIRST_LOWER, |last| last.upper);
        if sequence::last(catalog.positions)?.0 >= end {
            let args = [Some(Datum::from(end))];
            let beyond = BEYOND.with(|plan| {
                plan.first(db, View::Latest, &args, |row| Ok((row.text(0)?.to_owned(), row.int8(1)?, row.boolean(2)?)))
            })?;
            if let Some((name, position, begins)) = beyond {
                return Ok(Some(Seen::Missing(if begins {
                    format!("stream {name:?} begins at position {position}, where no event is")
                } else {
                    format!("stream {name:?} goes on at position {position}, which no partition holds")
                })));
            }
        }
        let registers = REGISTERS
            .with(|plan| plan.first(db, View::Latest, &[], |row| Ok((row.int8(0)?, row.int8(1)?, row.boolean(2)?))))?;
        match registers {
            Some((id, last, _)) if last < id => {
                return Ok(Some(Seen::Missing(format!(
                    "the sequence of stream ids stands at {last}, behind the stream with id {id}"
                ))));
            }
            Some((.., false)) => {
                return Ok(Some(Seen::Missing("there are streams of a tenant that does not exist".into())));
            }
            _ => {}
        }
        let newest = highest::newest(db, catalog, View::Latest)?;
        let (last, _) = sequence::last(catalog.positions)?;
        if last < newest {
            return Ok(Some(Seen::Missing(format!(
                "the sequence of positions stands at {last}, behind the event at {newest}"
            ))));
        }
        let (floor, _) = sequence::last(catalog.recorded_floor)?;
        Ok((floor > server::clock().saturating_add(SLACK)).then_some(Seen::Floor(floor)))
    })
}

/// Whether the streams that begin in a partition first and last have their events there, and its first and last events their streams.
fn missing_at_ends(db: &Db, partition: &Partition) -> Result<Option<String>> {
    let range = [Some(Datum::from(partition.lower)), Some(Datum::from(partition.upper))];
    let streams = STREAMS_WITHIN
        .with(|plan| plan.rows(db, View::Latest, 0, &range, |row| Ok((row.text(0)?.to_owned(), row.int8(1)?))))?;
    for (name, position) in streams {
        let at = [Some(Datum::from(position))];
        if partition.plan(Statement::Exists).first(db, View::Latest, &at, |_| Ok(()))?.is_none() {
            return Ok(Some(format!("stream {name:?} begins at position {position}, where no event is")));
        }
    }
    if !partition.has_tags() {
        return Ok(Some(format!("no table holds the tags of the events from position {} on", partition.lower)));
    }
    for end in [Statement::FirstTagLost, Statement::LastTagLost] {
        let lost = partition.plan(end).first(db, View::Latest, &range[..1], |row| row.int8(0))?;
        if let Some(position) = lost {
            return Ok(Some(format!(
                "a tag of the event at position {position} is not found where tags are looked for"
            )));
        }
    }
    for end in [Statement::Oldest, Statement::Newest] {
        let found = partition.plan(end).first(db, View::Latest, &[], |row| Ok((row.int8(0)?, row.int8(1)?)))?;
        let Some((position, stream_id)) = found else { continue };
        let place = [Some(Datum::from(stream_id)), range[0]];
        if HAS_PLACE.with(|plan| plan.first(db, View::Latest, &place, |_| Ok(())))?.is_none() {
            return Ok(Some(format!(
                "the event at position {position} belongs to no stream, or to one that never came there"
            )));
        }
    }
    Ok(None)
}
