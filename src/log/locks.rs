//! The locks of a call on its streams: rows of those that exist, names of those to be made, in the order of the names.
use super::request::Request;
use super::retry;
use super::stream::{self, Absent, Locked};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::shared::catalog::Catalog;
use eventstream_core::error::Error;

/// How many names of streams to be made a call keeps at once: the server's table of locks is not endless. Among more, two calls that make the
/// same stream within microseconds may meet at its row, the one waiting for the other with its slot taken.
const MOST_NAMES: usize = 64;

/// Locks all streams, in sorted order so that two calls never wait for each other in a circle.
pub fn lock_all(db: &Db, catalog: &Catalog, tenant_id: i64, requests: &[Request]) -> Result<Vec<Locked>> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&place| requests[place].stream.as_str());
    let mut locked: Vec<Option<Locked>> = requests.iter().map(|_| None).collect();
    let mut names = 0;
    for place in order {
        let stream = lock(db, catalog, tenant_id, &requests[place], names < MOST_NAMES)?;
        names += usize::from(matches!(stream, Locked::Free(_)));
        locked[place] = Some(stream);
    }
    locked
        .into_iter()
        .map(|locked| locked.ok_or_else(|| Error::Internal { what: "a stream was not locked".into() }.into()))
        .collect()
}

/// Locks the stream of one of them.
pub fn lock(db: &Db, catalog: &Catalog, tenant_id: i64, request: &Request, keeps_name: bool) -> Result<Locked> {
    let absent = match !request.must_exist && request.expected.accepts(0) {
        false => Absent::Leave,
        true if keeps_name => Absent::Keep,
        true => Absent::Guess,
    };
    let has_ids = request.events.iter().any(|event| event.event_id.is_some());
    let partitions = if has_ids { retry::PARTITIONS } else { 1 };
    stream::lock(db, catalog, tenant_id, &request.stream, absent, partitions)
}
