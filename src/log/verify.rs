//! Verification: recomputes chains from what is stored, and says what does not fit. Trusts no table that it checks: rows of
//! `streams` and `stream_segments` are hints that the events must bear out. Walks the log partition by partition in the order
//! of (stream, version), so memory stays flat; within a partition only the previous event is remembered.
use super::partition::{self, Partition, Partitions};
use super::statements::Statement;
use super::stream::{self, Head};
use crate::pg::catalog::Catalog;
use crate::pg::datum::Nullable;
use crate::pg::failure::Result;
use crate::pg::memory::Scratch;
use crate::pg::plan::{Plan, Row, View};
use crate::pg::session::{Db, Planning, as_owner};
use eventstream_core::error::Error;
use eventstream_core::hash::{EventFields, SALT_BYTES, chain_hash, content_digest};
use eventstream_core::name::{EventType, StreamName};
use eventstream_core::time::pg_to_unix_us;
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::HashMap;
use std::rc::Rc;

/// Something that does not fit.
#[derive(Debug)]
pub struct Problem {
    /// None: an event of no stream.
    pub stream: Option<String>,
    pub version: Option<i64>,
    pub global_position: Option<i64>,
    pub problem: String,
}

thread_local! {
    static TENANTS: Plan = const { Plan::new("select id, name from _eventstream.tenants", &[]) };
    static STREAM_BY_ID: Plan = const { Plan::new(
        "select id, first_position, newest_partition from _eventstream.streams where id = $1",
        &[INT8OID],
    ) };
}

/// What is remembered from event to event of one stream.
struct Previous {
    stream_id: i64,
    head: Option<Head>,
}

struct Walk<'a> {
    db: &'a Db,
    partitions: Partitions,
    tenants: HashMap<i64, String>,
    scratch: Scratch,
    previous: Option<Previous>,
    report: &'a mut dyn FnMut(Problem) -> Result<()>,
}

impl<'a> Walk<'a> {
    fn new(db: &'a Db, catalog: &'a Catalog, report: &'a mut dyn FnMut(Problem) -> Result<()>) -> Result<Self> {
        let tenants = TENANTS
            .with(|plan| plan.rows(db, View::Caller, 0, &[], |row| Ok((row.int8(0)?, row.text(1)?.to_owned()))))?;
        Ok(Self {
            db,
            partitions: partition::all(db, catalog)?,
            tenants: tenants.into_iter().collect(),
            scratch: Scratch::new()?,
            previous: None,
            report,
        })
    }
}

/// One stream. Errors: ES002 where there is none.
pub fn verify_stream(tenant_id: i64, name: &StreamName, report: &mut dyn FnMut(Problem) -> Result<()>) -> Result<()> {
    as_owner(Planning::ByIndex, |db, catalog| {
        let found = stream::look_up(db, View::Caller, tenant_id, name)?
            .ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() })?;
        let mut walk = Walk::new(db, catalog, report)?;
        let partitions = Rc::clone(&walk.partitions);
        for partition in partitions.iter() {
            let args = [Some(Datum::from(found.id))];
            let plan = partition.plan(Statement::VerifyStream);
            plan.for_each(db, View::Caller, &args, &mut |row| walk.event(row, partition, i64::MIN))?;
        }
        if walk.previous.is_none() {
            (walk.report)(Problem {
                stream: Some(name.as_str().into()),
                version: Some(1),
                global_position: Some(found.first_position),
                problem: "the stream has no events".into(),
            })?;
        } else {
            walk.check_newest_partition(found.id, name.as_str(), found.newest_partition)?;
        }
        Ok(())
    })
}

/// All events with from <= global_position <= to, of one tenant or of all.
pub fn verify(from: i64, to: i64, tenant_id: Option<i64>, report: &mut dyn FnMut(Problem) -> Result<()>) -> Result<()> {
    as_owner(Planning::ByCost, |db, catalog| {
        let mut walk = Walk::new(db, catalog, report)?;
        let partitions = Rc::clone(&walk.partitions);
        for partition in partitions.iter().filter(|partition| partition.upper > from && partition.lower <= to) {
            let args = [Some(Datum::from(from)), Some(Datum::from(to)), tenant_id.map(Datum::from)];
            walk.previous = None;
            let plan = partition.plan(Statement::Verify);
            plan.for_each(db, View::Caller, &args, &mut |row| walk.event(row, partition, from))?;
            walk.streams_without_first_event(partition, from, to, tenant_id)?;
        }
        Ok(())
    })
}

impl Walk<'_> {
    /// Streams whose row says that they begin here, but do not.
    fn streams_without_first_event(
        &mut self,
        partition: &Partition,
        from: i64,
        to: i64,
        tenant_id: Option<i64>,
    ) -> Result<()> {
        let (from, to) = (from.max(partition.lower), to.min(partition.upper - 1));
        let args = [Some(Datum::from(from)), Some(Datum::from(to)), tenant_id.map(Datum::from)];
        let report = &mut self.report;
        partition
            .plan(Statement::MissingFirst)
            .for_each(self.db, View::Caller, &args, &mut |row| {
                report(Problem {
                    stream: Some(row.text(0)?.to_owned()),
                    version: Some(1),
                    global_position: Some(row.int8(1)?),
                    problem: "missing: the stream's row says that its first event is here".into(),
                })
            })
            .map(drop)
    }

    /// The row says in which partition the newest event is: a tail cut off with its partition shows.
    fn check_newest_partition(&mut self, stream_id: i64, name: &str, newest_partition: i64) -> Result<()> {
        let newest = match partition::by_lower_bound(&self.partitions, newest_partition) {
            Some(partition) => stream::head_in(self.db, &partition, stream_id, View::Caller)?,
            None => None,
        };
        let version = self.previous.as_ref().and_then(|previous| previous.head.as_ref()).map(|head| head.version);
        if newest.is_none() {
            return (self.report)(Problem {
                stream: Some(name.into()),
                version: version.map(|version| version + 1),
                global_position: None,
                problem: format!(
                    "missing: the stream's row says that its newest event is in the partition from {newest_partition}"
                ),
            });
        }
        Ok(())
    }

    fn event(&mut self, row: &Row, partition: &Partition, from: i64) -> Result<()> {
        let (stream_id, version) = (row.int8(0)?, row.int8(1)?);
        let Some(name) = row.text_opt(18)? else {
            return (self.report)(Problem {
                stream: None,
                version: Some(version),
                global_position: Some(row.int8(2)?),
                problem: format!("belongs to no stream (stream id {stream_id})"),
            });
        };
        let known = self.previous.take().filter(|previous| previous.stream_id == stream_id);
        let before = match known {
            Some(Previous { head, .. }) => head,
            None => self.head_before(row, partition, stream_id, version, name, from)?,
        };
        let mut problems = Vec::new();
        let head = self.check(row, before.as_ref(), version, name, partition, &mut problems)?;
        for problem in problems {
            (self.report)(Problem {
                stream: Some(name.to_owned()),
                version: Some(version),
                global_position: Some(row.int8(2)?),
                problem,
            })?;
        }
        self.previous = Some(Previous { stream_id, head: Some(head) });
        Ok(())
    }

    /// The event that the first one of a stream met in this range builds on: in this partition below `from`, or in an
    /// earlier one.
    fn head_before(
        &mut self,
        row: &Row,
        partition: &Partition,
        stream_id: i64,
        version: i64,
        name: &str,
        from: i64,
    ) -> Result<Option<Head>> {
        if version == 1 {
            return Ok(Some(stream::genesis()));
        }
        let below = row.int8(2)?.min(from.max(partition.lower)) - 1;
        as_owner(Planning::ByIndex, |db, catalog| {
            let args: [Nullable; 1] = [Some(Datum::from(stream_id))];
            let found = STREAM_BY_ID.with(|plan| {
                plan.first(db, View::Caller, &args, |row| {
                    Ok(stream::Stream {
                        id: row.int8(0)?,
                        first_position: row.int8(1)?,
                        newest_partition: row.int8(2)?,
                    })
                })
            })?;
            let Some(found) = found else { return Ok(None) };
            let segments = stream::segments(db, catalog, &found, View::Caller)?;
            if !segments.iter().any(|segment| segment.partition.lower == partition.lower) {
                (self.report)(Problem {
                    stream: Some(name.to_owned()),
                    version: Some(version),
                    global_position: Some(row.int8(2)?),
                    problem: format!("in the partition from {}, which the stream never entered", partition.lower),
                })?;
            }
            stream::head_up_to(db, catalog, &found, below, View::Caller)
        })
    }

    /// Compares one event with its predecessor and with its own hash; gives what the next one builds on.
    fn check(
        &self,
        row: &Row,
        before: Option<&Head>,
        version: i64,
        name: &str,
        partition: &Partition,
        problems: &mut Vec<String>,
    ) -> Result<Head> {
        let (position, tenant_id) = (row.int8(2)?, row.int8(3)?);
        let (occurred_at, max_occurred_at, recorded_at) = (row.int8(9)?, row.int8(10)?, row.int8(11)?);
        let stored = row.bytes_opt(14)?.unwrap_or_default();
        let mut chained = false;
        match before {
            None => problems.push(format!("follows nothing: version {} is missing", version - 1)),
            Some(before) if version <= before.version => {
                problems.push(format!("version {version} is there twice, or again after version {}", before.version));
            }
            Some(before) if version != before.version + 1 => {
                problems.push(format!("follows version {}: a gap", before.version));
            }
            Some(before) => {
                chained = true;
                if position <= before.global_position {
                    problems.push(format!("global_position {position} is not after its predecessor's"));
                }
                if recorded_at < before.recorded_at {
                    problems.push("recorded_at is before its predecessor's".into());
                }
                if max_occurred_at != occurred_at.max(before.max_occurred_at) {
                    problems.push("max_occurred_at is not the stream's running maximum".into());
                }
            }
        }
        if row.int8_opt(17) != Some(tenant_id) {
            problems.push("is of another tenant than its stream".into());
        }
        let category = row.text(7)?;
        if row.text_opt(19)? != Some(category) || StreamName::parse(name).is_ok_and(|name| name.category() != category)
        {
            problems.push(format!("has category \"{category}\", which is not its stream's"));
        }
        if !partition.contains(position) {
            problems.push(format!("global_position {position} is outside of its partition"));
        }
        if version == 1 && row.int8_opt(20) != Some(position) {
            problems.push("is not at the position where its stream's row says that it begins".into());
        }
        if chained {
            let previous = before.map(|before| before.chain_hash).unwrap_or_default();
            let salt = row.bytes_opt(13)?.map_or(0, <[u8]>::len);
            if salt != SALT_BYTES {
                problems.push(format!("has a salt of {salt} bytes, not {SALT_BYTES}"));
            }
            let unknown = String::new();
            let tenant = self.tenants.get(&tenant_id).unwrap_or(&unknown);
            if self.recompute(row, &previous, tenant, name, version)?.as_slice() != stored {
                problems
                    .push("its content, or its predecessor's, is not what was recorded: the chain hash differs".into());
            }
        }
        let chain_hash = stored.try_into().unwrap_or_default();
        Ok(Head {
            version,
            chain_hash,
            recorded_at,
            max_occurred_at,
            global_position: position,
            closed: row.text(5)? == EventType::STREAM_CLOSED,
        })
    }

    fn recompute(&self, row: &Row, previous: &[u8; 32], tenant: &str, name: &str, version: i64) -> Result<[u8; 32]> {
        self.scratch.step(|| {
            let salt = row.bytes_opt(13)?.unwrap_or_default();
            let payload = row.jsonb_opt(15)?.map_or(Ok(&b""[..]), |payload| payload.text())?;
            let metadata = row.jsonb_opt(16)?.map_or(Ok(&b""[..]), |metadata| metadata.text())?;
            Ok(chain_hash(
                previous,
                &EventFields {
                    tenant,
                    stream: name,
                    version,
                    event_id: &row.uuid(4)?,
                    event_type: row.text(5)?,
                    schema_version: row.int4(6)?,
                    subject: row.text_opt(8)?,
                    occurred_at_unix_us: pg_to_unix_us(row.int8(9)?),
                    recorded_at_unix_us: pg_to_unix_us(row.int8(11)?),
                    recorded_by: row.text(12)?,
                    content_digest: &content_digest(salt, payload, metadata),
                },
            ))
        })
    }
}

/// The newest event of every stream at or below `up_to`, with tenant and stream.
pub fn chain_heads(
    up_to: Option<i64>,
    tenant_id: Option<i64>,
    each: &mut dyn FnMut(&str, &str, &Head) -> Result<()>,
) -> Result<()> {
    const PAGE: i64 = 1000;
    as_owner(Planning::ByIndex, |db, catalog| {
        let tenants: HashMap<i64, String> = TENANTS
            .with(|plan| plan.rows(db, View::Caller, 0, &[], |row| Ok((row.int8(0)?, row.text(1)?.to_owned()))))?
            .into_iter()
            .collect();
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
