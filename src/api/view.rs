//! What the views ask: of the role that reads them, and of open appends.
use super::listed;
use crate::access::{authorize_one_of, must_not_be_held};
use crate::command::covered;
use crate::log::{horizon, whole};
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::Planning;
use crate::pg::query::store::{Store, composite};
use crate::pg::value::datum::{Nullable, from_text};
use crate::present::door::{self, Document};
use crate::present::protected;
use crate::shared::open_appends::{self, Whose};
use crate::shared::session::as_owner;
use eventstream_core::argument::Argument;
use eventstream_core::audit::reserved_of;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

sql_function!("eventstream_readable", "text", readable);
sql_function!("eventstream_shown_payload", "bigint, text, integer, jsonb", shown_payload);
sql_function!("eventstream_shown_metadata", "bigint, text, integer, jsonb", shown_metadata);
sql_function!("eventstream_shown_salt", "bigint, text, integer, jsonb, jsonb, bytea", shown_salt);
sql_function!("eventstream_shown_command", "bigint, text, jsonb", shown_command);
sql_function!("eventstream_shown_command_metadata", "bigint, jsonb", shown_command_metadata);
sql_function!("eventstream_shown_error", "bigint, text, jsonb", shown_error);
sql_function!("eventstream_shown_answer", "bigint, text, jsonb, timestamp with time zone", shown_answer);
sql_function!("eventstream_shown_command_text", "bigint, text, text", shown_command_text);
sql_function!("eventstream_shown_text", "bigint, text", shown_text);
sql_function!("eventstream_horizon_holders", "", horizon_holders);

fn readable(args: &Args) -> Returned {
    let named = args.text(0, "privilege")?.split(" or ");
    let privileges = named.map(|name| Privilege::parse("privilege", name)).collect::<Result<Vec<_>, _>>()?;
    let (access, scope) = authorize_one_of(&privileges)?;
    let administered_id = (privileges == [Privilege::Audit]).then(|| reserved_of(access.tenant_id));
    as_owner(Planning::ByIndex, |db, catalog| {
        let mut read = [Some(access.tenant_id), administered_id].into_iter().flatten();
        read.try_for_each(|tenant_id| whole::must_be_shown(db, catalog, Some(tenant_id)))
    })?;
    let tenant = from_text(&access.tenant)?;
    let row = [Some(Datum::from(access.tenant_id)), listed(scope)?, administered_id.map(Datum::from), Some(tenant)];
    composite(args, &row).map(Some)
}

fn shown_payload(args: &Args) -> Returned {
    shown_document(args, Document::Payload)
}

fn shown_metadata(args: &Args) -> Returned {
    shown_document(args, Document::Metadata)
}

fn shown_document(args: &Args, of: Document) -> Returned {
    match door::hidden_in_views(args.int8(0, "tenant_id")?)? {
        None => Ok(args.value(3)),
        Some(hidden) => hidden.document(event(args)?, of, args.value(3)),
    }
}

fn shown_salt(args: &Args) -> Returned {
    let documents = [(Document::Payload, args.value(3)), (Document::Metadata, args.value(4))];
    match door::hidden_in_views(args.int8(0, "tenant_id")?)? {
        None => Ok(args.value(5)),
        Some(hidden) => hidden.salt(event(args)?, documents, args.value(5)),
    }
}

fn shown_command(args: &Args) -> Returned {
    let (Some(document), tenant_id) = (args.jsonb_opt(2)?, args.int8(0, "tenant_id")?) else { return Ok(None) };
    let shown = covered::result(tenant_id, args.text(1, "command_type")?, Some(document))?;
    Ok(shown.map(Jsonb::datum))
}

fn shown_command_metadata(args: &Args) -> Returned {
    let (Some(metadata), tenant_id) = (args.jsonb_opt(1)?, args.int8(0, "tenant_id")?) else { return Ok(None) };
    covered::metadata(tenant_id, metadata).map(|shown| Some(shown.datum()))
}

fn shown_error(args: &Args) -> Returned {
    let (Some(error), tenant_id) = (args.jsonb_opt(2)?, args.int8(0, "tenant_id")?) else { return Ok(None) };
    covered::error(tenant_id, args.text(1, "operation")?, error).map(|shown| Some(shown.datum()))
}

fn shown_answer(args: &Args) -> Returned {
    let (Some(answer), tenant_id) = (args.jsonb_opt(2)?, args.int8(0, "tenant_id")?) else { return Ok(None) };
    let command_type = args.text(1, "command_type")?;
    covered::answered(tenant_id, command_type, answer, args.int8(3, "executed_at")?).map(|answer| Some(answer.datum()))
}

fn shown_command_text(args: &Args) -> Returned {
    let (tenant_id, said) = (args.int8(0, "tenant_id")?, args.value(2));
    if said.is_none() || covered::has_secrets(tenant_id, args.text(1, "command_type")?)? {
        return Ok(None);
    }
    text(tenant_id, said)
}

fn shown_text(args: &Args) -> Returned {
    text(args.int8(0, "tenant_id")?, args.value(1))
}

/// What a failure said; it is withheld in the table since a rule came that the reader's snapshot does not see.
fn text(tenant_id: i64, said: Nullable) -> Returned {
    if said.is_some() && protected::is_newer_than_snapshot(tenant_id)? {
        return from_text(protected::WITHHELD).map(Some);
    }
    Ok(said)
}

/// Which event type and schema version a view asks for.
fn event<'a>(args: &Args<'a>) -> Result<(&'a str, i32)> {
    Ok((args.text(1, "event_type")?, args.int4(2, "schema_version")?))
}

fn horizon_holders(args: &Args) -> Returned {
    must_not_be_held("eventstream.horizon_holders")?;
    // Without entries, no row would not mean that nobody holds it.
    horizon::must_be_known(c"eventstream.horizon_holders")?;
    let store = Store::begin(args)?;
    for held in open_appends::scan(Whose::Log) {
        store.put(&[
            Some(Datum::from(held.pid)),
            Some(Datum::from(held.since)),
            held.position.map(Datum::from),
            held.tenant_id.map(Datum::from),
        ])?;
    }
    Ok(None)
}
