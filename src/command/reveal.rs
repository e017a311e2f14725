//! es_reveal: events in clear, for who may see them, and on record before they are seen.
//!
//! ```text
//! rights, reason ─▶ a page is read ─▶ a worker's own transaction: an event of $access-<tenant's uuid>, committed and flushed ─▶ the page goes out
//!                                       └─ no worker, or none that comes through: again, for 10 s ─▶ ES070, and nothing goes out
//! ```
//! Promises: nothing is shown without a record, whatever dies when, and a record without a showing does no harm; the record is of another transaction: the reader's may be read only, and
//! its rollback takes nothing back; where standbys are synchronous they have it, too; it says who, of what, why, and no value; whoever stops waiting leaves nothing behind (src/shared/requests.rs).
use super::write::write;
use crate::log::event::NewEvent;
use crate::log::first_append;
use crate::log::identity;
use crate::log::read::StreamRange;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::log::{acting, metadata};
use crate::pg::error::failure::{Result, catch, invalid};
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::life::{self, worker_function};
use crate::pg::process::server;
use crate::pg::process::worker::{self, Arguments, Kind};
use crate::pg::query::plan::View;
use crate::present::door::{self, Leaving};
use crate::shared::requests;
use crate::shared::token;
use eventstream_core::audit::{access_stream_of, act, reserved_of};
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::withheld::Withheld;
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::time::{Duration, Instant};

const SCRIBE: Kind = Kind { name: c"eventstream scribe", entry: c"eventstream_record_access" };
/// After so long nothing is shown.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker may take.
const SCRIBES_PATIENCE: Duration = Duration::from_secs(5);
/// How soon a worker is asked for again, and the longest sleep of who waits for one.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a worker waits for the next page: less than a client needs to begin a statement anew is enough.
const ATTENDANCE: Duration = Duration::from_millis(100);
const NO_WORKER: &str = "no worker process was to be had";
const UNSEEN: &str = "its tenant, or the log's first event, is not committed yet";
const NOT_THROUGH: &str = "no worker came through with it";
/// The most of the session's metadata that fits beside the rest.
const MOST_METADATA_BYTES: usize = 2048;
/// Between the parts of a request: no text has it.
const BETWEEN: char = '\0';

/// Errors: 0A000 in code that runs for others, which shows them what its caller sees.
pub fn refuse_to_others() -> Result<()> {
    if server::is_restricted() {
        let what = "es_reveal cannot be called by code that runs for others: a fold, a handler, a decider, a materialized view".into();
        let hint = Some("What is derived from events does not depend on what is protected.".into());
        return Err(Error::FeatureNotSupported { what, hint }.into());
    }
    Ok(())
}

/// The next row of the stream's events.
pub fn reveal(target: Target, name: &StreamName, reason: &str, range: &StreamRange, args: &Args) -> Returned {
    if server::is_standby() {
        return Err(Error::PrimaryRequired { what: "es_reveal".into() }.into());
    }
    door::reveal(target, name, range, args, &mut |leaving| record(target, name, reason, leaving))
}

/// Returns when it is on record for ever that these are shown. Errors: ES070, ES008.
fn record(target: Target, name: &StreamName, reason: &str, leaving: &Leaving) -> Result<()> {
    let request = request(target, name, reason, leaving)?;
    let mut asked = requests::ask(&request).ok_or_else(|| Error::PreloadRequired { what: "es_reveal".into() })?;
    let (began, mut found) = (Instant::now(), NO_WORKER);
    // Whoever has served the page before this one.
    if let Some(attendant) = asked.wake_attendant() {
        let patience = || if asked.is_taken() { SCRIBES_PATIENCE } else { PAUSE };
        while !asked.is_over() && asked.is_there(attendant) && began.elapsed() < patience() {
            sleep()?;
        }
        if asked.is_answered() {
            return Ok(());
        }
        asked.again();
    }
    while began.elapsed() < PATIENCE {
        if let Some(started) = worker::start(SCRIBE, server::database(), asked.arguments())? {
            found = NOT_THROUGH;
            while !asked.is_over() && !started.is_over()? && began.elapsed() < PATIENCE {
                sleep()?;
            }
            if asked.is_answered() {
                return Ok(());
            }
            if asked.is_refused() {
                found = UNSEEN;
                break;
            }
            asked.again();
        }
        sleep()?;
    }
    let (stream, waited_ms) = (name.as_str().to_owned(), began.elapsed().as_millis() as u64);
    Err(Error::Withheld(Box::new(Withheld::Unrecorded { stream, waited_ms, reason: found })).into())
}

/// Until something happens to the worker, or for a while; a cancel ends it.
fn sleep() -> Result<()> {
    catch(|| {
        life::sleep(Some(PAUSE));
        life::check_for_interrupts();
    })
}

/// What the worker is to write: whose it is, who did it, and the event.
fn request(target: Target, name: &StreamName, reason: &str, leaving: &Leaving) -> Result<String> {
    let metadata = metadata::of_now()?;
    if metadata.len() > MOST_METADATA_BYTES {
        let rule =
            format!("must have at most {MOST_METADATA_BYTES} bytes where events are revealed, not {}", metadata.len());
        return Err(invalid("eventstream.metadata", rule));
    }
    let mut payload = json!({
        "function": "es_reveal",
        "stream": name.as_str(),
        "from_version": leaving.from_version,
        "to_version": leaving.to_version,
        "events": leaving.events,
        "reason": reason,
        "role": server::role_name(server::current_role())?,
    });
    if let Some(token) = token::in_use() {
        payload["token_id"] = token.claims.token_id.as_str().into();
    }
    let parts = [target.id.to_string(), acting::recorded_by()?, metadata, payload.to_string()];
    let request = parts.join(&BETWEEN.to_string());
    if request.len() > requests::MOST_BYTES {
        return Err(Error::Internal { what: format!("a record of access has {} bytes", request.len()) }.into());
    }
    Ok(request)
}

worker_function!("eventstream_record_access", serve serve);

/// One request, in one transaction, and what the same session asks right after it. What fails is in the server's log, and whoever waits asks again.
fn serve(database: Oid, mut arguments: Arguments) -> Result<()> {
    life::connect(Some(database))?;
    while let Some(request) = requests::take(arguments) {
        let done = life::bounded("eventstream scribe", SCRIBES_PATIENCE, || {
            let is_written = write_down(&request)?;
            life::let_cancels_end_it()?;
            Ok(is_written)
        })?;
        match done {
            // What was cut short after the commit was the wait for standbys.
            _ if life::must_stop() => break,
            Ok(true) => requests::answer(arguments),
            Ok(false) => requests::refuse(arguments),
            Err(_) => break,
        }
        let Some(next) = requests::next(arguments, database, ATTENDANCE)? else { break };
        arguments = next;
        life::reload()?;
    }
    Ok(())
}

/// False where there is nothing that it could be of, as others see the log: the reader himself has made it.
fn write_down(request: &str) -> Result<bool> {
    if !first_append::is_there()? {
        return Ok(false);
    }
    // Whatever eventstream.durability leaves to the session.
    server::set_locally(c"synchronous_commit", "on")?;
    let lost = || Error::Internal { what: "a request to record access is none".into() };
    let [tenant_id, recorded_by, metadata, payload] =
        request.split(BETWEEN).collect::<Vec<_>>().try_into().map_err(|_| lost())?;
    let tenant_id: i64 = tenant_id.parse().map_err(|_| lost())?;
    let Some(tenant) = identity::tenants(Some(tenant_id), View::Latest)?.pop() else { return Ok(false) };
    let event = NewEvent::of_act(act::EVENTS_REVEALED, Jsonb::parse(payload)?, Jsonb::parse(metadata)?, recorded_by)?;
    let stream = access_stream_of(&tenant.uuid);
    let stream = StreamName::parse(&stream)?;
    let request =
        Request { stream, expected: ExpectedVersion::Any, events: vec![event], must_exist: false, held: None };
    write(Target { id: reserved_of(tenant_id), name: &tenant.name }, &mut [request])?;
    Ok(true)
}
