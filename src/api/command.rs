//! es_command, es_simulate_command, es_schedule_command, es_unschedule_command, and what deciders and their tests are written with: es_require, es_make_command, es_make_event.
use super::{asks, reason, target};
use crate::access::{authorize, authorize_tenant};
use crate::command::commanded::{Command, Given};
use crate::command::deciders::undecided;
use crate::command::scheduled::unwanted::{self, Unwanted, check_reason};
use crate::command::scheduled::wanted::Wanted;
use crate::command::{execute, rehearse};
use crate::log::acting;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned, call, sql_function};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::query::store::composite;
use crate::pg::value::datum::from_text;
use eventstream_core::command::key::check_key;
use eventstream_core::command::trial::is_sqlstate;
use eventstream_core::document;
use eventstream_core::name::{Category, StreamName, check_label};
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::Datum;
use serde_json::{Value, json};

asks!(
    Command,
    "eventstream_command",
    "text, text, jsonb, bigint, jsonb, text, timestamp with time zone, text, text",
    command
);
asks!(
    Command,
    "eventstream_simulate_command",
    "text, text, jsonb, bigint, jsonb, text, timestamp with time zone, text, text",
    simulate
);
asks!(
    Command,
    "eventstream_schedule_command",
    "text, text, jsonb, timestamp with time zone, text, jsonb, text, text",
    schedule
);
asks!(Command, "eventstream_unschedule_command", "text, text, text", unschedule);
sql_function!("eventstream_require", "boolean, text, text, jsonb", require);
sql_function!(
    "eventstream_make_command",
    "text, jsonb, text, bigint, jsonb, jsonb, text, timestamp with time zone, timestamp with time zone, text, text, text, text",
    make_command
);
sql_function!("eventstream_make_event", "text, jsonb, text, text[], text, integer", make_event);

/// What a reason of es_unschedule_command is for.
const KEPT: &str = "Say why the command is not to be executed any more: it is kept with it.";
/// The longest message of a refusal, in bytes.
const MOST_MESSAGE_BYTES: usize = 4 << 10;

fn given<'a>(args: &Args<'a>) -> Result<Given<'a>> {
    Ok(Given {
        stream: args.text(0, "stream")?,
        command_type: args.text(1, "command_type")?,
        payload: args.jsonb(2, "payload")?,
        expected_version: args.int8_opt(3),
        metadata: args.jsonb(4, "metadata")?,
        key: args.text_opt(5)?,
        occurred_at: args.timestamptz_opt(6),
        decider: args.text_opt(7)?,
        subject: args.text_opt(8)?,
    })
}

fn command(args: &Args) -> Returned {
    let given = given(args)?;
    let access = authorize(Privilege::Command, StreamName::parse_own(given.stream)?.category())?;
    let own = acting::command_key("es_command", given.key)?;
    let command = Command::check(Given { key: own.as_deref().or(given.key), ..given })?;
    Ok(Some(execute::execute(target(&access), &command)?.datum()))
}

fn simulate(args: &Args) -> Returned {
    let given = given(args)?;
    let access = authorize(Privilege::Command, StreamName::parse_own(given.stream)?.category())?;
    let command = Command::check(given)?;
    Ok(Some(rehearse::rehearse(target(&access), &command)?.datum()))
}

fn schedule(args: &Args) -> Returned {
    let given = Given {
        stream: args.text(0, "stream")?,
        command_type: args.text(1, "command_type")?,
        payload: args.jsonb(2, "payload")?,
        expected_version: None,
        metadata: args.jsonb(5, "metadata")?,
        key: args.text_opt(4)?,
        occurred_at: None,
        decider: args.text_opt(6)?,
        subject: args.text_opt(7)?,
    };
    let access = authorize(Privilege::Command, StreamName::parse_own(given.stream)?.category())?;
    server::must_not_only_read(c"es_schedule_command")?;
    let own = acting::command_key("es_schedule_command", given.key)?;
    let wanted = Wanted::check(Given { key: own.as_deref().or(given.key), ..given }, args.timestamptz(3, "run_at")?)?;
    let scheduled = wanted.schedule(target(&access))?;
    let stream = wanted.command.stream;
    let answer = json!({
        "command_key": scheduled.key, "category": stream.category(), "stream": stream.as_str(), "command_type": wanted.command.command_type,
        "run_at": server::print_time_utc(scheduled.run_at)?, "stage": scheduled.stage, "replayed": scheduled.replayed
    });
    Ok(Some(Jsonb::parse(&answer.to_string())?.datum()))
}

fn unschedule(args: &Args) -> Returned {
    let (key, reason) = (check_key(args.text(0, "command_key")?)?, check_reason(reason(args, 1, KEPT)?)?);
    let (access, category) = match args.text_opt(2)? {
        Some(category) => {
            Category::parse("category", category)?;
            (authorize(Privilege::Command, category)?, Some(category.to_owned()))
        }
        None => {
            let (access, scope) = authorize_tenant(None, Privilege::Command)?;
            let allowed = scope.narrow(None);
            let category = unwanted::category_of(target(&access), key, allowed.as_deref())?;
            (access, category)
        }
    };
    server::must_be_writable(c"es_unschedule_command")?;
    acting::refuse_in_rebuild("es_unschedule_command")?;
    let Some(category) = category else { return Ok(None) };
    let stage = Unwanted { key, category: &category, reason }.unschedule(target(&access))?;
    stage.map(|stage| from_text(&stage)).transpose()
}

fn require(args: &Args) -> Returned {
    call::refuse_in_user_code()?;
    let (code, message) = (check_label("code", args.text(1, "code")?)?, args.text(2, "message")?);
    if is_sqlstate(code) {
        // A test says by one word which error it expects.
        return Err(invalid("code", format!("must not be five of 0-9 and A-Z, as an SQLSTATE is: {}", shown(code))));
    }
    if message.trim().is_empty() || message.len() > MOST_MESSAGE_BYTES {
        let reason = format!("must have 1 to {MOST_MESSAGE_BYTES} bytes, and not only blanks");
        return Err(invalid("message", reason));
    }
    let detail = args.jsonb(3, "detail")?;
    let most = MOST_MESSAGE_BYTES as u64;
    if !detail.is_object() || detail.measure(most)?.bytes > most {
        return Err(invalid("detail", format!("must be a JSON object of at most {most} bytes")));
    }
    // NULL is no yes.
    if args.value(0).is_some_and(|holds| holds.value() & 1 == 1) {
        return Ok(Some(Datum::from(true)));
    }
    let detail = match document::read(&String::from_utf8_lossy(detail.text()?)) {
        Ok(Value::Object(detail)) => detail,
        _ => return Err(invalid("detail", "must not be nested deeper than 127 levels")),
    };
    Err(undecided(Undecided::Refused { code: code.into(), message: message.into(), detail }))
}

fn make_command(args: &Args) -> Returned {
    call::refuse_in_user_code()?;
    let command_type = args.text(0, "command_type")?;
    let stream = args.text_opt(2)?;
    let version = args.int8(3, "version")?;
    let versions = match (args.jsonb_opt(5)?, stream) {
        (Some(versions), _) => versions,
        (None, Some(stream)) => Jsonb::parse(&json!({ stream: version }).to_string())?,
        (None, None) => Jsonb::parse("{}")?,
    };
    let text = |place| args.text_opt(place)?.map(from_text).transpose();
    let moment = |place| args.timestamptz_opt(place).map(Datum::from);
    // In the order of the type's columns (sql/schema/types.sql).
    let row = [
        Some(from_text(command_type)?),
        Some(args.jsonb(1, "payload")?.datum()),
        Some(args.jsonb(4, "metadata")?.datum()),
        stream.map(from_text).transpose()?,
        Some(Datum::from(version)),
        Some(versions.datum()),
        text(6)?,
        moment(7).or(moment(8)),
        moment(8).or(moment(7)),
        text(9)?,
        text(10)?,
        text(11)?,
        text(12)?,
    ];
    composite(args, &row).map(Some)
}

fn make_event(args: &Args) -> Returned {
    call::refuse_in_user_code()?;
    let mut event = json!({ "type": args.text(0, "event_type")? });
    if let Some(stream) = args.text_opt(2)? {
        event["stream"] = json!(stream);
    }
    if let Some(tags) = args.text_array_opt(3, "tags")? {
        event["tags"] = json!(tags);
    }
    if let Some(subject) = args.text_opt(4)? {
        event["subject"] = json!(subject);
    }
    if let Some(schema_version) = args.int4_opt(5) {
        event["schema_version"] = json!(schema_version);
    }
    // A number of the payload keeps its value and scale.
    let (event, payload) = (event.to_string(), String::from_utf8_lossy(args.jsonb(1, "payload")?.text()?));
    let made = Jsonb::parse(&format!("{}, \"payload\": {payload}}}", event.strip_suffix('}').unwrap_or_default()))?;
    Ok(Some(made.datum()))
}
