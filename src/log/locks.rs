//! The locks of a call on its streams: rows of those that exist, names of those to be made or to be found absent, in the order of the names. A
//! stream that is only checked is shared with others who check it; who appends to it, or makes it, waits for their ends.
use super::names;
use super::request::Request;
use super::retry;
use super::stream::{self, Absent, Hold, Locked};
use crate::pg::error::failure::Result;
use crate::pg::process::lock::LockTag;
use crate::pg::process::session::Db;
use crate::pg::query::probe::RowStrength;
use crate::shared::catalog::Catalog;
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;

/// How many names of streams to be made a call keeps at once: the server's table of locks is not endless. Among more, two calls that make the
/// same stream within microseconds may meet at its row, the one waiting for the other with its entry taken. A call checks no more of them, beside those that it
/// makes.
pub const MOST_NAMES: usize = 64;

/// What a call has locked.
pub struct Locks {
    /// One for each request, in the order given.
    pub streams: Vec<Locked>,
    /// What a call with too many names to keep has instead of them.
    unnamed: Option<LockTag>,
}

impl Locks {
    /// The streams that were to be made are there: whoever looks for one of them meets its row.
    pub fn let_names_go(&mut self) -> Result<()> {
        self.unnamed.take().map_or(Ok(()), LockTag::end_opposing)
    }
}

/// Locks all streams, in sorted order so that two calls never wait for each other in a circle.
pub fn lock_all(db: &Db, catalog: &Catalog, tenant_id: i64, requests: &[Request]) -> Result<Locks> {
    let unnamed = lock_unnamed(catalog, tenant_id, requests)?;
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&place| requests[place].stream.as_str());
    let mut locked: Vec<Option<Locked>> = requests.iter().map(|_| None).collect();
    let (mut checked, mut made) = (0, 0);
    for place in order {
        let is_check = requests[place].is_check();
        let names = if is_check { &mut checked } else { &mut made };
        let stream = lock(db, catalog, tenant_id, &requests[place], *names < MOST_NAMES)?;
        *names += usize::from(is_check || matches!(stream, Locked::Free(_)));
        locked[place] = Some(stream);
    }
    let streams = locked
        .into_iter()
        .map(|locked| locked.ok_or_else(|| Error::Internal { what: "a stream was not locked".into() }.into()))
        .collect::<Result<_>>()?;
    Ok(Locks { streams, unnamed })
}

/// Those who may make more streams than they can keep the names of stay apart from those who found a stream absent: the latter, whose names
/// are few, would not be met by name. Neither keeps its own kind out.
fn lock_unnamed(catalog: &Catalog, tenant_id: i64, requests: &[Request]) -> Result<Option<LockTag>> {
    let forbids = requests.iter().any(Request::forbids);
    let is_unnamed =
        requests.len() > MOST_NAMES && requests.iter().filter(|request| request.may_make()).count() > MOST_NAMES;
    let tag = names::tag_of_unnamed(catalog, tenant_id);
    match (forbids, is_unnamed) {
        (false, false) => Ok(None),
        (true, false) => tag.share().map(|()| None),
        (false, true) => tag.oppose().map(|()| Some(tag)),
        // Until the end: it is both.
        (true, true) => tag.lock().map(|()| None),
    }
}

/// Locks the stream of one of them.
pub fn lock(db: &Db, catalog: &Catalog, tenant_id: i64, request: &Request, keeps_name: bool) -> Result<Locked> {
    let absent = match request.may_make() {
        true if keeps_name => Absent::Keep,
        true => Absent::Guess,
        false if request.forbids() => Absent::Forbid,
        false => Absent::Leave,
    };
    let strength = if request.is_check() { RowStrength::Check } else { RowStrength::Append };
    // A check that is not in line with writers still keeps them out.
    let shares_name = request.forbids() || request.is_check() && keeps_name;
    let has_ids = request.events.iter().any(|event| event.event_id.is_some());
    if let Some(held) = request.held.as_ref().filter(|_| !has_ids) {
        return Ok(Locked::Existing(held.stream, held.head.clone(), Vec::new()));
    }
    let partitions = if has_ids { retry::PARTITIONS } else { 1 };
    let expected = match request.expected {
        ExpectedVersion::Exact(version) => version,
        ExpectedVersion::Any | ExpectedVersion::NoStream => 0,
    };
    let hold = Hold { strength, absent, shares_name, partitions, expected };
    stream::lock(db, catalog, tenant_id, &request.stream, &hold)
}
