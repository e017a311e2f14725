//! One walk through events in the order of the log: each is compared with its predecessor in its stream and with its own
//! chain hash.
use super::problem::SLACK;
use super::problem::{Problem, Report};
use super::recent::{Known, Recent};
use crate::command::closed;
use crate::log::partition::Partition;
use crate::log::statements::verified;
use crate::log::stored::StoredContent;
use crate::log::stream::{self, Head};
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::int8_array_of;
use crate::shared::session::as_owner;
use eventstream_core::command::period::Closing;
use eventstream_core::delivery::slot_of;
use eventstream_core::digest::Digest;
use eventstream_core::hash::{EventFields, SALT_BYTES, Uuid, are_in_order, chain_hash, content_digest};
use eventstream_core::name::EventType;
use eventstream_core::time::pg_to_unix_us;
use pgrx::pg_sys::{Datum, INT8ARRAYOID, INT8OID};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Streams that entered the partition, kept until they are compared with stream_segments in one statement.
const ENTERED: usize = 10_000;

columns! {
    mod of_stream, stream_columns;
    ID = "id",
    FIRST_POSITION = "first_position",
    TENANT_ID = "tenant_id",
    NAME = "name",
    CATEGORY = "category",
    SLOT = "slot::int",
}

thread_local! {
    static STREAM_BY_ID: Plan = const { Plan::new(
        concat!("select ", stream_columns!(), " from _eventstream.streams where id = $1"),
        &[INT8OID],
    ) };
    static NEVER_ENTERED: Plan = const { Plan::new(
        "select s.name, u.version, u.position, g.first_position \
         from unnest($1, $2, $4) u (stream_id, version, position) \
         join _eventstream.streams s on s.id = u.stream_id \
         left join _eventstream.stream_segments g \
           on g.stream_id = u.stream_id and g.partition = $3 and g.first_version = u.version \
         where g.first_position is distinct from u.position",
        &[INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8ARRAYOID],
    ) };
}

/// What is known of a tenant.
pub struct Tenant {
    pub name: String,
    pub uuid: Uuid,
    /// An event's hash was right: so is the uuid.
    pub has_fitted: bool,
}

pub struct Walk<'a> {
    tenants: HashMap<i64, Tenant>,
    /// Of the tenants that were met: what was closed of each category.
    closings: HashMap<i64, HashMap<String, Vec<Closing>>>,
    recent: Recent,
    entered: Vec<Entered>,
    /// The position of the event before, in a walk through all of a partition.
    previous: Option<i64>,
    /// What is recorded later than that is ahead of the clock.
    latest: i64,
    tally: Tally,
    report: Report<'a>,
}

/// A stream's first event in a partition after its first.
struct Entered {
    stream_id: i64,
    version: i64,
    position: i64,
}

/// What was met in one partition: where nothing is wrong with it and as much is there as the rows of streams and
/// stream_segments promise, nothing is missing.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    /// Events of version 1.
    pub begun: i64,
    /// Streams that came from an earlier partition.
    pub entered: i64,
    pub problems: u64,
    /// What events bear.
    pub tags: Digest,
}

impl<'a> Walk<'a> {
    pub fn new(tenants: HashMap<i64, Tenant>, report: Report<'a>) -> Result<Self> {
        let latest = server::clock().saturating_add(SLACK);
        let (recent, entered, tally) = (Recent::default(), Vec::new(), Tally::default());
        Ok(Self { tenants, closings: HashMap::new(), recent, entered, previous: None, latest, tally, report })
    }

    /// The events of a partition come in the order of their positions.
    pub fn begin_in_order(&mut self) {
        self.previous = Some(0);
    }

    pub fn report(&mut self) -> Report<'_> {
        self.report
    }

    fn found(&mut self, problem: Problem) -> Result<()> {
        self.tally.problems += 1;
        (self.report)(problem)
    }

    /// The next event; its columns are those that verification reads.
    pub fn event(&mut self, row: &Row, partition: &Partition) -> Result<()> {
        let (stream_id, version, position) =
            (row.int8(verified::STREAM_ID)?, row.int8(verified::VERSION)?, row.int8(verified::GLOBAL_POSITION)?);
        let tenant_id = row.int8(verified::TENANT_ID)?;
        for tag in row.texts(verified::TAGS)?.iter().flatten() {
            self.tally.tags.add_tag(tenant_id, position, tag);
        }
        if let Some(correlation) = StoredContent::of_verified(row).correlation()? {
            self.tally.tags.add_tag(tenant_id, position, &correlation);
        }
        let is_used_twice = self.previous == Some(position);
        self.previous = self.previous.map(|_| position);
        if !self.recent.has(stream_id) {
            let Some(known) = first_met(row, stream_id, version, partition)? else {
                return self.found(Problem {
                    stream: None,
                    version: Some(version),
                    global_position: Some(position),
                    problem: format!("the event belongs to no stream: there is none with id {stream_id}"),
                });
            };
            self.recent.put(stream_id, known);
        }
        let Some(known) = self.recent.get(stream_id) else { return Ok(()) };
        let mut problems = Vec::new();
        let head = check(&mut self.tenants, row, known, version, position, partition, &mut problems)?;
        problems.extend(broken_closing(&mut self.closings, row, tenant_id, position)?);
        if is_used_twice {
            problems.push(format!("global_position {position} is used twice: another event has it too"));
        }
        // The stream's last one may lie there already: nothing is recorded before it.
        if head.recorded_at > self.latest && known.head.as_ref().is_none_or(|last| last.recorded_at < head.recorded_at)
        {
            problems.push("recorded_at is more than a day ahead of the clock".into());
        }
        self.tally.begun += i64::from(version == 1);
        let before = known.head.as_ref();
        let has_entered = before.is_some_and(|head| head.version > 0 && head.global_position < partition.lower);
        if before.is_none_or(|before| before.version < version) {
            known.head = Some(head);
        }
        if !problems.is_empty() {
            let stream = known.name.to_string();
            for problem in problems {
                let (version, global_position) = (Some(version), Some(position));
                self.found(Problem { stream: Some(stream.clone()), version, global_position, problem })?;
            }
        }
        if has_entered {
            self.tally.entered += 1;
            self.entered.push(Entered { stream_id, version, position });
            if self.entered.len() >= ENTERED {
                self.check_entered(partition)?;
            }
        }
        Ok(())
    }

    /// The partition's last event was met.
    pub fn leave(&mut self, partition: &Partition) -> Result<Tally> {
        self.check_entered(partition)?;
        Ok(std::mem::take(&mut self.tally))
    }

    /// Reads look for a stream only in the partitions that its segments name.
    fn check_entered(&mut self, partition: &Partition) -> Result<()> {
        if self.entered.is_empty() {
            return Ok(());
        }
        let entered = std::mem::take(&mut self.entered);
        let column = |read: fn(&Entered) -> i64| int8_array_of(&entered.iter().map(read).collect::<Vec<_>>());
        let lower = partition.lower;
        let strays = as_owner(Planning::ByCost, |db, _| {
            let args = [
                Some(column(|entered| entered.stream_id)?),
                Some(column(|entered| entered.version)?),
                Some(Datum::from(lower)),
                Some(column(|entered| entered.position)?),
            ];
            NEVER_ENTERED.with(|plan| {
                plan.rows(db, View::Caller, 0, &args, |row| {
                    Ok((row.text(0)?.to_owned(), row.int8(1)?, row.int8(2)?, row.int8_opt(3)))
                })
            })
        })?;
        for (stream, version, position, recorded) in strays {
            let problem = match recorded {
                Some(recorded) => {
                    format!("the event was moved: the stream entered the partition from {lower} at position {recorded}")
                }
                None => {
                    format!(
                        "the event is in the partition from {lower}, which the stream did not enter with this version"
                    )
                }
            };
            let (version, global_position) = (Some(version), Some(position));
            self.found(Problem { stream: Some(stream), version, global_position, problem })?;
        }
        Ok(())
    }
}

/// What is wrong with an event that was recorded while the period was closed in which it occurred.
fn broken_closing(
    closings: &mut HashMap<i64, HashMap<String, Vec<Closing>>>,
    row: &Row,
    tenant_id: i64,
    position: i64,
) -> Result<Option<String>> {
    let of_tenant = match closings.entry(tenant_id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(closed::history(tenant_id)?),
    };
    if of_tenant.is_empty() {
        return Ok(None);
    }
    let Some(closings) = of_tenant.get(row.text(verified::CATEGORY)?) else { return Ok(None) };
    let occurred_at = row.int8(verified::OCCURRED_AT)?;
    let tags: Vec<String> = row.texts(verified::TAGS)?.into_iter().flatten().collect();
    let broken = closings.iter().find(|closing| closing.is_broken_by(position, occurred_at, &tags));
    broken
        .map(|closing| {
            let until = server::print_time_utc(closing.until)?;
            let occurred_at = server::print_time_utc(occurred_at)?;
            Ok(format!(
                "it occurred at {occurred_at}, in a period that had been closed until {until} when it was recorded"
            ))
        })
        .transpose()
}

/// A stream that is not remembered: version 1 brings its stream's row along, others are looked up with what they follow.
fn first_met(row: &Row, stream_id: i64, version: i64, partition: &Partition) -> Result<Option<Known>> {
    if version == 1 {
        let Some(parts) = row.text_array_opt(verified::STREAM)? else { return Ok(None) };
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let (tenant_id, first_position) = (next().parse().unwrap_or(0), next().parse().unwrap_or(0));
        let (name, category, slot) = (next(), next(), next().parse().unwrap_or(-1));
        return Ok(Some(Known::new(tenant_id, first_position, &name, &category, slot, Some(stream::genesis()))));
    }
    as_owner(Planning::ByIndex, |db, catalog| {
        let found = STREAM_BY_ID.with(|plan| {
            plan.first(db, View::Caller, &[Some(Datum::from(stream_id))], |row| {
                let first_position = row.int8(of_stream::FIRST_POSITION)?;
                let stream = stream::Stream { id: row.int8(of_stream::ID)?, first_position };
                let (tenant_id, slot) = (row.int8(of_stream::TENANT_ID)?, row.int4(of_stream::SLOT)?);
                let (name, category) = (row.text(of_stream::NAME)?, row.text(of_stream::CATEGORY)?);
                Ok((stream, Known::new(tenant_id, stream.first_position, name, category, slot, None)))
            })
        })?;
        let Some((stream, mut known)) = found else { return Ok(None) };
        known.head = stream::head_before(db, partition, stream_id, version, View::Caller)?;
        if known.head.is_none() {
            let segments = match stream::segments(db, catalog, &stream, View::Caller) {
                Ok(segments) => segments,
                // A row names a partition that does not exist: the event follows nothing, which is reported.
                Err(Failure::Rule(_)) => Vec::new(),
                Err(failure) => return Err(failure),
            };
            for segment in segments.iter().rev().filter(|segment| segment.partition.lower < partition.lower) {
                known.head = stream::head_in(db, &segment.partition, stream_id, View::Caller)?;
                if known.head.is_some() {
                    break;
                }
            }
        }
        Ok(Some(known))
    })
}

/// Compares one event with its predecessor, its stream and its partition; gives what the next one builds on.
fn check(
    tenants: &mut HashMap<i64, Tenant>,
    row: &Row,
    known: &Known,
    version: i64,
    position: i64,
    partition: &Partition,
    problems: &mut Vec<String>,
) -> Result<Head> {
    match &known.head {
        None => problems.push(format!("version {} is missing: no event of the stream comes before", version - 1)),
        Some(before) if version <= before.version => {
            problems.push(format!("version {version} comes after version {} in the log", before.version));
        }
        Some(before) if version != before.version + 1 => {
            problems.push(missing_between(before.version, version));
        }
        Some(before) => compare(tenants.get_mut(&known.tenant_id), row, known, before, position, problems)?,
    }
    if row.int8(verified::TENANT_ID)? != known.tenant_id {
        problems.push("the event is of another tenant than its stream".into());
    }
    let category = row.text(verified::CATEGORY)?;
    if !known.has_category(category) {
        problems.push(format!("category {category:?} is not the stream's"));
    }
    if !partition.contains(position) {
        problems.push(format!("global_position {position} is outside of the partition that it is in"));
    }
    if version == 1
        && let Some(tenant) = tenants.get(&known.tenant_id)
        && tenant.has_fitted
        && slot_of(&tenant.uuid, &known.name) as i32 != known.slot
    {
        problems
            .push(format!("the stream's row names slot {}, which is not its own: subscriptions go by it", known.slot));
    }
    if version == 1 && known.first_position != position {
        problems.push("the stream begins here, and not at the position that its row names".into());
    }
    Ok(Head {
        version,
        chain_hash: row.bytes_opt(verified::CHAIN_HASH)?.unwrap_or_default().try_into().unwrap_or_default(),
        recorded_at: row.int8(verified::RECORDED_AT)?,
        max_occurred_at: row.int8(verified::MAX_OCCURRED_AT)?,
        global_position: position,
        closed: row.text(verified::EVENT_TYPE)? == EventType::STREAM_CLOSED,
    })
}

/// Compares an event with the one that it follows, and computes its hash again.
fn compare(
    tenant: Option<&mut Tenant>,
    row: &Row,
    known: &Known,
    before: &Head,
    position: i64,
    problems: &mut Vec<String>,
) -> Result<()> {
    if position <= before.global_position {
        problems.push(format!("global_position {position} is not after {}, the one before it", before.global_position));
    }
    if row.int8(verified::RECORDED_AT)? < before.recorded_at {
        problems.push("recorded_at is earlier than that of the event before it".into());
    }
    let latest = row.int8(verified::OCCURRED_AT)?.max(before.max_occurred_at);
    if row.int8(verified::MAX_OCCURRED_AT)? != latest {
        problems.push("max_occurred_at is not the latest occurred_at of the stream up to here".into());
    }
    let stored = row.bytes_opt(verified::CHAIN_HASH)?.unwrap_or_default();
    let uuid = tenant.as_ref().map_or(Uuid::default(), |tenant| tenant.uuid);
    let fits = recompute(&uuid, row, &before.chain_hash, known, before.version + 1, problems)?.as_slice() == stored;
    match tenant {
        Some(tenant) if fits => tenant.has_fitted = true,
        _ if fits => {}
        tenant => {
            let or_else = if tenant.is_some_and(|tenant| tenant.has_fitted) { "" } else { ", or the tenant's uuid" };
            problems.push(format!(
                "this event, or the one before it{or_else}, is not what was recorded: the chain hash differs"
            ));
        }
    }
    Ok(())
}

fn recompute(
    tenant_uuid: &Uuid,
    row: &Row,
    previous: &[u8; 32],
    known: &Known,
    version: i64,
    problems: &mut Vec<String>,
) -> Result<[u8; 32]> {
    let salt = row.bytes_opt(verified::SALT)?.unwrap_or_default();
    if salt.len() != SALT_BYTES {
        problems.push(format!("the salt has {} bytes, not {SALT_BYTES}", salt.len()));
    }
    let content = StoredContent::of_verified(row);
    let (payload, metadata) = (content.payload()?.unwrap_or_default(), content.metadata()?.unwrap_or_default());
    let stored = row.texts(verified::TAGS)?;
    let tags: Vec<&str> = stored.iter().flatten().map(String::as_str).collect();
    if tags.len() < stored.len() || !are_in_order(&tags) {
        problems.push("the tags are not a set in byte order".to_owned());
    }
    Ok(chain_hash(
        previous,
        &EventFields {
            tenant_uuid,
            stream: &known.name,
            version,
            event_id: &row.uuid(verified::EVENT_ID)?,
            event_type: row.text(verified::EVENT_TYPE)?,
            schema_version: row.int4(verified::SCHEMA_VERSION)?,
            subject: row.text_opt(verified::SUBJECT)?,
            tags: &tags,
            occurred_at_unix_us: pg_to_unix_us(row.int8(verified::OCCURRED_AT)?),
            recorded_at_unix_us: pg_to_unix_us(row.int8(verified::RECORDED_AT)?),
            recorded_by: row.text(verified::RECORDED_BY)?,
            content_digest: &content_digest(salt, payload, metadata),
        },
    ))
}

/// The versions strictly between two that stand next to each other.
fn missing_between(before: i64, version: i64) -> String {
    let (first, last) = (before + 1, version - 1);
    let missing = if first == last { format!("version {first} is") } else { format!("versions {first} to {last} are") };
    format!("{missing} missing: the event before this one has version {before}")
}
