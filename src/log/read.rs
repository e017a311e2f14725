//! Reading: a stream from the partitions that hold it, the log partition by partition. Rows flow from the index scan into
//! the result without a copy in between.
use super::chosen::{self, Chosen};
pub use super::filter::Filter;
use super::partition::Partition;
use super::statements::{Statement, column, size};
use super::stored::StoredRows;
use super::target::Target;
use super::{horizon, identity, partition, stream, tags, whole};
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::pages::{Cursor, PAGE};
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::Direction;
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text, from_uuid, int8_array_of, text_array_of};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::Whose;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::name::{StreamName, Subject};
use pgrx::pg_sys::Datum;
use std::ops::ControlFlow;

/// The most events that one read of the log may ask for.
const MOST: i64 = 100_000;

/// A range of one stream.
pub struct StreamRange {
    /// None: from the first event, or from the newest where `backward`.
    pub from_version: Option<i64>,
    pub max_count: Option<i64>,
    pub backward: bool,
    pub until: Option<i64>,
    /// The last version of all; the smallest where `backward`.
    pub to_version: Option<i64>,
    /// Of its event types.
    pub filter: Filter,
}

/// A range of the log.
pub struct LogRange {
    pub after_position: i64,
    pub up_to: Option<i64>,
    pub max_count: i64,
    /// Id of the log that `after_position` comes from, and its timeline, where the caller says so.
    pub known_log: Option<[u8; 16]>,
    pub known_timeline: Option<i32>,
}

impl StreamRange {
    /// Errors: ES005.
    pub fn check(&self) -> Result<()> {
        if let Some(from) = self.from_version.filter(|&from| from < 1) {
            return Err(invalid("from_version", format!("must be 1 or more, not {from}")));
        }
        if let Some(count) = self.max_count.filter(|&count| count < 0) {
            return Err(invalid("max_count", format!("must be 0 or more, not {count}")));
        }
        if let Some(to) = self.to_version.filter(|&to| to < 0) {
            return Err(invalid("to_version", format!("must be 0 or more, not {to}")));
        }
        self.filter.check()
    }

    /// The last version to be read.
    fn end(&self) -> i64 {
        self.to_version.unwrap_or(if self.backward { 1 } else { i64::MAX })
    }

    /// Where the next page starts, after one of `read` events up to version `last`; None where that was not a whole page.
    pub fn next(&self, [_, left]: Cursor, last: Option<i64>, read: i64) -> Option<Cursor> {
        let step = if self.backward { -1 } else { 1 };
        last.filter(|_| read == PAGE).map(|last| [last + step, left - read])
    }

    /// The first version to be read, and how many events at most.
    pub fn start(&self) -> Cursor {
        let from = self.from_version.unwrap_or(if self.backward { i64::MAX } else { 1 });
        [from, self.max_count.unwrap_or(i64::MAX)]
    }
}

/// The events of one stream, all at once. A stream that does not exist gives none.
pub fn read_stream(target: Target, name: &StreamName, range: &StreamRange, into: &StoredRows) -> Result<()> {
    read_segments(target, name, range, range.start(), i64::MAX, |db, plan, args| {
        into.fill(plan, db, View::Caller, args)
    })
    .map(drop)
}

/// A page of them; how many there were.
pub fn page(target: Target, name: &StreamName, range: &StreamRange, cursor: Cursor, into: &StoredRows) -> Result<i64> {
    read_segments(target, name, range, cursor, PAGE, |db, plan, args| into.fill(plan, db, View::Caller, args))
}

/// The same, from the index scan to `each`.
pub fn each_of_page(
    target: Target,
    name: &StreamName,
    range: &StreamRange,
    cursor: Cursor,
    each: &mut dyn FnMut(&Row) -> Result<()>,
) -> Result<i64> {
    read_segments(target, name, range, cursor, PAGE, |db, plan, args| {
        plan.rows(db, View::Caller, 0, args, &mut *each).map(|rows| rows.len() as u64)
    })
}

/// Reads at most `most` events from a cursor on, segment by segment; how many there were.
fn read_segments(
    target: Target,
    name: &StreamName,
    range: &StreamRange,
    [from, left]: Cursor,
    most: i64,
    mut read: impl FnMut(&Db, &Plan, &[Nullable]) -> Result<u64>,
) -> Result<i64> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let Some(found) = whole::look_up(db, catalog, View::Caller, target.id, name)? else { return Ok(0) };
        let segments = stream::segments(db, catalog, &found, View::Caller)?;
        let [types, older] = range.filter.types()?;
        let mut args = [
            Some(from_text(target.name)?),
            Some(from_text(name.as_str())?),
            Some(Datum::from(found.id)),
            Some(Datum::from(from)),
            range.until.map(Datum::from),
            None,
            Some(Datum::from(range.end())),
            types,
            older,
        ];
        let wanted = left.min(most);
        let mut count = 0;
        let mut read_segment = |segment: &stream::Segment, statement| -> Result<()> {
            if count < wanted {
                args[5] = Some(Datum::from(wanted - count));
                count += read(db, segment.partition.plan(statement), &args)? as i64;
            }
            Ok(())
        };
        if range.backward {
            stream::holding(&segments, range.end(), from)
                .rev()
                .try_for_each(|segment| read_segment(segment, Statement::ReadBackward))?;
        } else {
            stream::holding(&segments, from, range.end())
                .try_for_each(|segment| read_segment(segment, Statement::ReadForward))?;
        }
        Ok(count)
    })
}

/// It must be 1 to [`MOST`].
fn checked_count(count: i64) -> Result<i64> {
    if (1..=MOST).contains(&count) {
        Ok(count)
    } else {
        Err(invalid("max_count", format!("must be 1 to {MOST}, not {count}")))
    }
}

fn checked_after(argument: &str, after_position: i64) -> Result<()> {
    if after_position < 0 {
        return Err(invalid(argument, format!("must be 0 or more, not {after_position}")));
    }
    Ok(())
}

/// The log in order, up to the horizon. The horizon comes first and the snapshot after it: never the other way round.
pub fn read_all(target: Target, range: &LogRange, filter: &Filter, into: &StoredRows) -> Result<()> {
    let LogRange { after_position, up_to, max_count, known_log, known_timeline } = *range;
    horizon::must_be_known(c"es_read_all")?;
    checked_after("after_position", after_position)?;
    checked_after("up_to", up_to.unwrap_or(0))?;
    let count = checked_count(max_count)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        if let Some(given) = known_log {
            identity::must_be_of_this_log(db, "after_position", after_position, &given)?;
        }
        let horizon = horizon::horizon(catalog, Whose::Tenant(target.id))?;
        let after_position = trial::after(after_position);
        if after_position > horizon.last_position {
            if known_log.is_some() && known_timeline.map_or(Ok(false), |of| server::timeline().map(|now| of == now))? {
                return Ok(());
            }
            return Err(Error::PositionAhead {
                argument: "after_position".into(),
                position: after_position,
                last_position: horizon.last_position,
            }
            .into());
        }
        let last = up_to.map_or(horizon.position, |up_to| up_to.min(horizon.position));
        read_log(db, catalog, target, (after_position, last), count, filter, &mut |plan, args| {
            into.fill(plan, db, View::Latest, args).map(|read| (read as i64, ControlFlow::Continue(())))
        })
    })
}

/// Gives the events of (after, last] to `each` until it breaks, at most `count`. `last` must come from a horizon that was learnt before, or be
/// a position of this transaction's own.
pub fn each_of_log(
    db: &Db,
    catalog: &Catalog,
    target: Target,
    range: (i64, i64),
    count: i64,
    filter: &Filter,
    each: &mut dyn FnMut(&Row) -> Result<ControlFlow<()>>,
) -> Result<()> {
    read_log(db, catalog, target, range, count, filter, &mut |plan, args| {
        let mut flow = ControlFlow::Continue(());
        let read = plan.for_each_until(db, View::Latest, args, &mut |row| {
            flow = each(row)?;
            Ok(flow)
        })?;
        Ok((read as i64, flow))
    })
}

/// Runs a statement with its arguments; how many rows there were, and whether others are wanted.
type Run<'a> = &'a mut dyn FnMut(&Plan, &[Nullable]) -> Result<(i64, ControlFlow<()>)>;

/// Reads (after, last] under snapshots that `run` takes, each newer than the horizon that `last` comes from.
fn read_log(
    db: &Db,
    catalog: &Catalog,
    target: Target,
    (after, last): (i64, i64),
    count: i64,
    filter: &Filter,
    run: Run,
) -> Result<()> {
    let after = trial::after(after);
    let tenant = Some(from_text(target.name)?);
    let mut left = count;
    for partition in &tags::partitions(db, catalog, View::Latest, target.id, &filter.tags, (after + 1, last))? {
        if left <= 0 {
            break;
        }
        let (read, flow) = match filter.categories.as_deref() {
            categories if categories.is_some_and(|categories| categories.len() != 1) || !filter.tags.is_empty() => {
                let chosen = Chosen {
                    tenant_id: target.id,
                    categories,
                    subjects: None,
                    tags: &filter.tags,
                    from: after + 1,
                    to: last,
                    direction: Direction::Forward,
                };
                read_chosen(db, partition, tenant, View::Latest, chosen, left, &|row| filter.wants(row), run)?
            }
            categories => {
                let [types, older] = filter.types()?;
                let [tenant_id, after, last, most] =
                    [target.id, after, last, left].map(|value| Some(Datum::from(value)));
                let mut args = vec![tenant, tenant_id, after, last, most, types, older];
                let mut statement = Statement::LogAll;
                if let Some([category]) = categories {
                    args.push(Some(from_text(category)?));
                    statement = Statement::LogByCategory;
                }
                run(partition.plan(statement), &args)?
            }
        };
        left -= read;
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// The events of a partition that are chosen and that `wants`, at most so many: first their places, and then, page by page, what lies there.
#[allow(clippy::too_many_arguments)]
fn read_chosen(
    db: &Db,
    partition: &Partition,
    tenant: Nullable,
    view: View,
    mut chosen: Chosen,
    most: i64,
    wants: &dyn Fn(&Row) -> Result<bool>,
    run: Run,
) -> Result<(i64, ControlFlow<()>)> {
    let mut count = 0;
    loop {
        let page = (most - count).min(PAGE);
        let positions = chosen::positions(db, partition, view, chosen, page as usize, wants)?;
        let Some(&last) = positions.last() else { return Ok((count, ControlFlow::Continue(()))) };
        let statement = match chosen.direction {
            Direction::Forward => Statement::EventsAt,
            Direction::Backward => Statement::EventsAtBackward,
        };
        let (read, flow) = run(partition.plan(statement), &[tenant, Some(int8_array_of(&positions)?)])?;
        count += read;
        if flow.is_break() || count >= most || positions.len() < page as usize {
            return Ok((count, flow));
        }
        match chosen.direction {
            Direction::Forward => chosen.from = last + 1,
            Direction::Backward => chosen.to = last - 1,
        }
    }
}

/// The log newest first.
pub fn read_backward(
    target: Target,
    before_position: Option<i64>,
    max_count: i64,
    filter: &Filter,
    into: &StoredRows,
) -> Result<()> {
    if let Some(before) = before_position {
        checked_after("before_position", before)?;
    }
    let mut left = checked_count(max_count)?;
    let before = before_position.unwrap_or(i64::MAX);
    as_owner(Planning::ByIndex, |db, catalog| {
        whole::must_be_shown(db, catalog, Some(target.id))?;
        let tenant = Some(from_text(target.name)?);
        let [types, older] = filter.types()?;
        let from = trial::after(-1) + 1;
        let partitions = tags::partitions(db, catalog, View::Caller, target.id, &filter.tags, (from, before - 1))?;
        for partition in partitions.iter().rev() {
            if left <= 0 {
                break;
            }
            left -= if filter.categories.is_some() || !filter.tags.is_empty() || trial::is_on() {
                let chosen = Chosen {
                    tenant_id: target.id,
                    categories: filter.categories.as_deref(),
                    subjects: None,
                    tags: &filter.tags,
                    from,
                    to: before - 1,
                    direction: Direction::Backward,
                };
                let mut fill = |plan: &Plan, args: &[Nullable]| {
                    into.fill(plan, db, View::Caller, args).map(|read| (read as i64, ControlFlow::Continue(())))
                };
                read_chosen(db, partition, tenant, View::Caller, chosen, left, &|row| filter.wants(row), &mut fill)?.0
            } else {
                let [tenant_id, before, most] = [target.id, before, left].map(|value| Some(Datum::from(value)));
                let args = [tenant, tenant_id, before, most, types, older];
                into.fill(partition.plan(Statement::LogBackward), db, View::Caller, &args)? as i64
            };
        }
        Ok(())
    })
}

/// Everything about one person, in the order of the log.
pub fn read_subject(
    target: Target,
    subject: &str,
    after_position: i64,
    max_count: i64,
    categories: Option<&[String]>,
    into: &StoredRows,
) -> Result<()> {
    Subject::parse(subject)?;
    checked_after("after_position", after_position)?;
    let mut left = checked_count(max_count)?;
    let subjects = [subject.to_owned()];
    as_owner(Planning::ByIndex, |db, catalog| {
        horizon::must_be_reached(catalog, "after_position", after_position)?;
        whole::must_be_shown(db, catalog, Some(target.id))?;
        let (tenant, after_position) = (Some(from_text(target.name)?), trial::after(after_position));
        for partition in partition::all(db, catalog)?.iter() {
            if left <= 0 || partition.upper <= after_position + 1 {
                continue;
            }
            let chosen = Chosen {
                tenant_id: target.id,
                categories: None,
                subjects: Some(&subjects),
                tags: &[],
                from: after_position + 1,
                to: i64::MAX,
                direction: Direction::Forward,
            };
            let mut fill = |plan: &Plan, args: &[Nullable]| {
                into.fill(plan, db, View::Caller, args).map(|read| (read as i64, ControlFlow::Continue(())))
            };
            let wants = |row: &Row| {
                let Some(categories) = categories else { return Ok(true) };
                let category = row.text(column::CATEGORY)?;
                Ok(categories.iter().any(|wanted| wanted == category))
            };
            left -= read_chosen(db, partition, tenant, View::Caller, chosen, left, &wants, &mut fill)?.0;
        }
        Ok(())
    })
}

/// The event with an id; newest partitions first, because that is where it is asked for.
pub fn read_event(target: Target, event_id: &[u8; 16], categories: Option<&[String]>, into: &StoredRows) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        whole::must_be_shown(db, catalog, Some(target.id))?;
        let args = [
            Some(from_text(target.name)?),
            Some(Datum::from(target.id)),
            Some(from_uuid(event_id)?),
            categories.map(text_array_of).transpose()?,
            Some(Datum::from(trial::after(0))),
        ];
        for partition in partition::all(db, catalog)?.iter().rev() {
            into.fill(partition.plan(Statement::ByEventId), db, View::Caller, &args)?;
        }
        Ok(())
    })
}

/// The stream's version; 0 where there is none.
pub fn stream_version(target: Target, name: &StreamName) -> Result<i64> {
    as_owner(Planning::ByIndex, |db, catalog| match whole::look_up(db, catalog, View::Caller, target.id, name)? {
        Some(found) => stream::newest(db, catalog, &found, View::Caller).map(|head| head.version),
        None => Ok(0),
    })
}

/// One stream at a glance; times in microseconds since 2000-01-01 UTC.
pub struct StreamInfo {
    pub id: i64,
    pub version: i64,
    pub closed: bool,
    pub events: i64,
    pub bytes: i64,
    pub first_position: i64,
    pub last_position: i64,
    pub first_occurred_at: i64,
    pub last_occurred_at: i64,
    pub first_recorded_at: i64,
    pub last_recorded_at: i64,
}

/// Errors: ES002 where there is no such stream.
pub fn stream_info(target: Target, name: &StreamName) -> Result<StreamInfo> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let found = whole::look_up(db, catalog, View::Caller, target.id, name)?
            .ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() })?;
        let head = stream::newest(db, catalog, &found, View::Caller)?;
        let mut info: Option<StreamInfo> = None;
        for segment in stream::segments(db, catalog, &found, View::Caller)? {
            let args = [Some(Datum::from(found.id))];
            let part = segment.partition.plan(Statement::Size).first(db, View::Caller, &args, |row| {
                Ok(StreamInfo {
                    id: found.id,
                    version: head.version,
                    closed: head.closed,
                    events: row.int8(size::EVENTS)?,
                    bytes: row.int8(size::BYTES)?,
                    first_occurred_at: row.int8(size::FIRST_OCCURRED_AT)?,
                    last_occurred_at: row.int8(size::LAST_OCCURRED_AT)?,
                    first_recorded_at: row.int8(size::FIRST_RECORDED_AT)?,
                    last_recorded_at: row.int8(size::LAST_RECORDED_AT)?,
                    first_position: row.int8(size::FIRST_POSITION)?,
                    last_position: row.int8(size::LAST_POSITION)?,
                })
            })?;
            info = match (info, part) {
                (Some(before), Some(part)) => Some(StreamInfo {
                    events: before.events + part.events,
                    bytes: before.bytes + part.bytes,
                    first_position: before.first_position,
                    first_occurred_at: before.first_occurred_at,
                    first_recorded_at: before.first_recorded_at,
                    ..part
                }),
                (before, part) => part.or(before),
            };
        }
        info.ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() }.into())
    })
}
