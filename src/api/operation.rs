//! es_begin_command, es_complete_command, es_fail_command, es_extend_command, es_command_event_id.
use super::{asks, microseconds, target};
use crate::access::{Access, authorize_tenant};
use crate::command::operation::{self, Asked, Begun, End};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::value::datum::from_uuid;
use eventstream_core::command::operation::check_key;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::name::{Subject, check_label};
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;
use serde_json::json;
use std::rc::Rc;

asks!(Command, "eventstream_begin_command", "text, text, jsonb, interval, interval, interval, text", begin);
asks!(Command, "eventstream_complete_command", "uuid, jsonb", complete);
asks!(Command, "eventstream_fail_command", "uuid, jsonb, boolean", fail);
asks!(Command, "eventstream_extend_command", "uuid, interval", extend);
asks!(Command, "eventstream_command_event_id", "uuid, bigint", event_id);

/// The longest lease, and the longest wait (µs).
const LONGEST_LEASE: i64 = 86_400_000_000;
const LONGEST_WAIT: i64 = 60_000_000;
/// 1,000 years: within what a timestamp holds.
const LONGEST_KEEP: i64 = 1_000 * 366 * 86_400_000_000;

fn begin(args: &Args) -> Returned {
    let access = commander()?;
    let subject = args.text_opt(6)?;
    if let Some(subject) = subject {
        Subject::parse(subject)?;
    }
    let keep = args.interval_opt(5);
    if keep.is_some() {
        microseconds(args, 5, "keep", 1_000_000, LONGEST_KEEP, "NULL, which is for ever, or 1 second to 1,000 years")?;
    }
    let asked = Asked {
        operation: check_label("operation", args.text(0, "operation")?)?,
        key: check_key(args.text(1, "command_key")?)?,
        request: args.jsonb(2, "request")?,
        lease: microseconds(args, 3, "lease", 1_000, LONGEST_LEASE, "1 millisecond to 1 day")?,
        wait: microseconds(args, 4, "wait", 0, LONGEST_WAIT, "0 to 1 minute")?,
        keep,
        subject,
    };
    answer(&operation::begin(target(&access), &asked)?).map(Some)
}

/// The documents go in as they are printed: a number keeps its scale.
fn answer(begun: &Begun) -> Result<Datum> {
    let lease_until = begun.lease_until.map(server::print_time_utc).transpose()?;
    let (outcome, attempt) = (json!(begun.outcome), json!(begun.attempt));
    let (token, until) = (json!(begun.token.as_ref().map(to_uuid_text)), json!(lease_until));
    let (result, error) = (begun.result.as_deref().unwrap_or("null"), begun.error.as_deref().unwrap_or("null"));
    let text = format!(
        "{{\"outcome\": {outcome}, \"attempt\": {attempt}, \"attempt_token\": {token}, \"lease_until\": {until}, \"result\": {result}, \"error\": {error}}}"
    );
    Ok(Jsonb::parse(&text)?.datum())
}

/// Operations belong to no category: whoever may command in one may begin them.
fn commander() -> Result<Rc<Access>> {
    authorize_tenant(None, Privilege::Command).map(|(access, _)| access)
}

fn complete(args: &Args) -> Returned {
    let token = args.uuid(0, "attempt_token")?;
    finish(args, &token, End::Completed(args.jsonb(1, "result")?), c"es_complete_command")
}

fn fail(args: &Args) -> Returned {
    let token = args.uuid(0, "attempt_token")?;
    let error = args.jsonb(1, "error")?;
    // It is what tells a failure from a success.
    if error.text()? == b"null" {
        return Err(invalid("error", "must say what went wrong, and not be null"));
    }
    let end = End::Failed { error, is_retryable: args.boolean(2, "retryable")? };
    finish(args, &token, end, c"es_fail_command")
}

fn finish(_: &Args, token: &[u8; 16], end: End, call: &std::ffi::CStr) -> Returned {
    let access = commander()?;
    server::must_be_writable(call)?;
    Ok(Some(Datum::from(operation::finish(target(&access), token, end)?)))
}

fn extend(args: &Args) -> Returned {
    let token = args.uuid(0, "attempt_token")?;
    let by = microseconds(args, 1, "by", 1, LONGEST_LEASE, "more than 0, and at most 1 day")?;
    let access = commander()?;
    server::must_be_writable(c"es_extend_command")?;
    Ok(Some(Datum::from(operation::extend(target(&access), &token, by)?)))
}

fn event_id(args: &Args) -> Returned {
    let token = args.uuid(0, "attempt_token")?;
    let n = args.int8(1, "n")?;
    if n < 1 {
        return Err(invalid("n", format!("must be 1 or more, not {n}")));
    }
    let access = commander()?;
    from_uuid(&operation::nth_event_id(target(&access), &token, n)?).map(Some)
}
