//! Judges a call behind its locks: what of it is a retry, and whether what is new may be written, and what was only checked still stands.
use super::last_append::LastAppend;
use super::request::Request;
use super::retry::{self, Residuals};
use super::stream::Locked;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use eventstream_core::command::boundary::Found;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;

/// What may be recorded, whoever has said so: asked of what is new, behind the locks.
pub trait Rules {
    /// Judges the events for a stream that was found so, and gives each the schema version that it is appended with where it names none.
    fn judge(&self, request: &mut Request, found: Found) -> Result<()>;

    /// What of payloads is compared.
    fn residuals(&self) -> &dyn Residuals;
}

/// How it is looked for, and who says what of it is not compared.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub db: &'a Db,
    pub catalog: &'a Catalog,
    pub rules: &'a dyn Rules,
}

/// What becomes of a request.
pub enum Verdict {
    /// Its events are to be written.
    New,
    /// They were written before.
    Retry(LastAppend),
    /// There are none, and the stream is at this version.
    Checked(i64),
}

/// Decides for each stream whether its events are new or a retry. A stream that is only checked takes no part in that, and where the others
/// are a retry it may have gone on since. Errors: ES001, ES002, ES003, ES006.
pub fn judge(look: Look, requests: &[Request], locked: &[Locked]) -> Result<Vec<Verdict>> {
    for request in requests {
        retry::refuse_repeated_ids(request.stream.as_str(), &request.events)?;
    }
    let mut verdicts = looked_for(look, requests, locked, false)?;
    // What was appended together is found together, however far one of the streams has gone on since.
    let is_retry = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Retry(_)));
    if is_retry {
        for ((request, locked), verdict) in requests.iter().zip(locked).zip(&mut verdicts) {
            if matches!(verdict, Verdict::New) {
                *verdict = first_time(look, request, locked, true)?;
            }
        }
    }
    for ((request, locked), verdict) in requests.iter().zip(locked).zip(&verdicts) {
        if matches!(verdict, Verdict::New) || matches!(verdict, Verdict::Checked(_)) && !is_retry {
            request.dependency().judge(locked.found())?;
        }
    }
    refuse_half_a_retry(&verdicts)?;
    Ok(verdicts)
}

/// What is otherwise to be refused may be an old retry, whose own events are what has changed since: looked for wherever the streams have events. None: it is not.
pub fn old_retry(look: Look, requests: &[Request], locked: &[Locked]) -> Result<Option<Vec<Verdict>>> {
    let verdicts = looked_for(look, requests, locked, true)?;
    let is_retry = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Retry(_)));
    if is_retry {
        refuse_half_a_retry(&verdicts)?;
    }
    Ok(is_retry.then_some(verdicts))
}

fn looked_for(look: Look, requests: &[Request], locked: &[Locked], anywhere: bool) -> Result<Vec<Verdict>> {
    requests.iter().zip(locked).map(|(request, locked)| first_time(look, request, locked, anywhere)).collect()
}

/// Whether these events were appended before; `anywhere`: looked for in all of the stream's partitions.
fn first_time(look: Look, request: &Request, locked: &Locked, anywhere: bool) -> Result<Verdict> {
    if request.is_check() {
        return Ok(Verdict::Checked(locked.found().version));
    }
    let Locked::Existing(stream, head, newest) = locked else { return Ok(Verdict::New) };
    let name = request.stream.as_str();
    let Look { db, catalog, rules } = look;
    let (expected, events) = (request.expected, &request.events);
    let batch = retry::Batch { name, stream, head, view: View::Latest, expected, events, residuals: rules.residuals() };
    let among = if anywhere { retry::Among::All } else { retry::Among::Newest(newest) };
    let first_time = retry::first_time(db, catalog, &batch, among)?;
    Ok(first_time.map_or(Verdict::New, |first_time| {
        Verdict::Retry(LastAppend {
            stream: name.into(),
            version: first_time.version,
            positions: first_time.positions,
            event_ids: request.events.iter().filter_map(|event| event.event_id).collect(),
            replayed: true,
        })
    }))
}

/// All or nothing was written the first time, so all or nothing is a retry.
fn refuse_half_a_retry(verdicts: &[Verdict]) -> Result<()> {
    let mut retries = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Retry(first_time) => Some(first_time),
        Verdict::New | Verdict::Checked(_) => None,
    });
    let new = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::New)).count();
    match retries.next() {
        Some(first) if new > 0 => {
            let replayed = 1 + retries.count();
            Err(Error::EventIdReused {
                stream: first.stream.clone(),
                event_id: first.event_ids.first().map(to_uuid_text).unwrap_or_default(),
                version: Some(first.version),
                reason: format!("but the events of only {replayed} of these {} streams are there", replayed + new),
            }
            .into())
        }
        _ => Ok(()),
    }
}
