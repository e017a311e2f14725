//! Judges a call behind its locks: what of it is a retry, and whether what is new may be written.
use super::last_append::LastAppend;
use super::request::Request;
use super::retry;
use super::stream::Locked;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;

/// Decides for each stream whether its events are new or a retry. Errors: ES001, ES002, ES003, ES006.
pub fn judge(db: &Db, catalog: &Catalog, requests: &[Request], locked: &[Locked]) -> Result<Vec<Option<LastAppend>>> {
    for request in requests {
        retry::refuse_repeated_ids(request.stream.as_str(), &request.events)?;
    }
    let mut first_times = requests
        .iter()
        .zip(locked)
        .map(|(request, locked)| first_time(db, catalog, request, locked, false))
        .collect::<Result<Vec<_>>>()?;
    // What was appended together is found together, however far one of the streams has gone on since.
    if first_times.iter().any(Option::is_some) {
        for ((request, locked), known) in requests.iter().zip(locked).zip(&mut first_times) {
            if known.is_none() {
                *known = first_time(db, catalog, request, locked, true)?;
            }
        }
    }
    for ((request, locked), known) in requests.iter().zip(locked).zip(&first_times) {
        if known.is_none() {
            request.dependency().judge(locked.found())?;
        }
    }
    refuse_half_a_retry(requests, &first_times)?;
    Ok(first_times)
}

/// What these events came to when they were first appended, None where they are new; `anywhere`: looked for in all of the stream's partitions.
fn first_time(
    db: &Db,
    catalog: &Catalog,
    request: &Request,
    locked: &Locked,
    anywhere: bool,
) -> Result<Option<LastAppend>> {
    let Locked::Existing(stream, head, newest) = locked else { return Ok(None) };
    let name = request.stream.as_str();
    let batch =
        retry::Batch { name, stream, head, view: View::Latest, expected: request.expected, events: &request.events };
    let among = if anywhere { retry::Among::All } else { retry::Among::Newest(newest) };
    let first_time = retry::first_time(db, catalog, &batch, among)?;
    Ok(first_time.map(|first_time| LastAppend {
        stream: name.into(),
        version: first_time.version,
        positions: first_time.positions,
        event_ids: request.events.iter().filter_map(|event| event.event_id).collect(),
        replayed: true,
    }))
}

/// All or nothing was written the first time, so all or nothing is a retry.
fn refuse_half_a_retry(requests: &[Request], first_times: &[Option<LastAppend>]) -> Result<()> {
    let replayed = first_times.iter().flatten().count();
    match first_times.iter().flatten().next() {
        Some(first) if replayed < requests.len() => Err(Error::EventIdReused {
            stream: first.stream.clone(),
            event_id: first.event_ids.first().map(to_uuid_text).unwrap_or_default(),
            version: Some(first.version),
            reason: format!("but the events of only {replayed} of these {} streams are there", requests.len()),
        }
        .into()),
        _ => Ok(()),
    }
}
