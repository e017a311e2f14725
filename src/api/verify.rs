//! es_verify_stream, es_verify, es_chain_heads.
use super::asks_outside_of_tests;
use crate::access::{authorize_tenant, everything_or};
use crate::pg::error::failure::invalid;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::query::store::Store;
use crate::pg::value::datum::{from_text, from_uuid, varlena};
use crate::proof::verify;
use eventstream_core::audit::reserved_of;
use eventstream_core::hash;
use eventstream_core::name::{StreamName, is_reserved};
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks_outside_of_tests!("es_verify_stream", Audit, "eventstream_verify_stream", "text", verify_stream);
asks_outside_of_tests!("es_verify", Audit, "eventstream_verify", "bigint, bigint", verify_log);
sql_function!("eventstream_content_digest", "bytea, jsonb, jsonb", content_digest);
asks_outside_of_tests!("es_chain_heads", Audit, "eventstream_chain_heads", "bigint", chain_heads);

fn verify_stream(args: &Args) -> Returned {
    let name = StreamName::parse(args.text(0, "stream")?)?;
    let (access, _) = authorize_tenant(None, Privilege::Audit)?;
    let tenant_id = if is_reserved(name.category()) { reserved_of(access.tenant_id) } else { access.tenant_id };
    let store = Store::begin(args)?;
    verify::verify_stream(tenant_id, &name, &mut |found| {
        store.put(&[found.version.map(Datum::from), Some(from_text(&found.problem)?)])
    })?;
    Ok(None)
}

fn verify_log(args: &Args) -> Returned {
    let from = args.int8(0, "from_position")?;
    let to = args.int8_opt(1).unwrap_or(i64::MAX);
    if from < 0 {
        return Err(invalid("from_position", format!("must be 0 or more, not {from}")));
    }
    if to < from {
        return Err(invalid("to_position", format!("must be from_position ({from}) or more, not {to}")));
    }
    let access = everything_or(Privilege::Audit)?;
    let store = Store::begin(args)?;
    verify::verify(from, to, access.map(|access| access.tenant_id), &mut |found| {
        store.put(&[
            found.stream.as_deref().map(from_text).transpose()?,
            found.version.map(Datum::from),
            found.global_position.map(Datum::from),
            Some(from_text(&found.problem)?),
        ])
    })?;
    Ok(None)
}

fn chain_heads(args: &Args) -> Returned {
    let up_to = args.int8_opt(0);
    if let Some(up_to) = up_to.filter(|&up_to| up_to < 0) {
        return Err(invalid("up_to", format!("must be 0 or more, not {up_to}")));
    }
    let access = everything_or(Privilege::Audit)?;
    let store = Store::begin(args)?;
    // Of one tenant: its reserved streams, too.
    let tenants =
        access.map_or(vec![None], |access| [access.tenant_id, reserved_of(access.tenant_id)].map(Some).into());
    for tenant_id in tenants {
        verify::chain_heads(up_to, tenant_id, &mut |tenant, stream, head| {
            store.put(&[
                Some(from_text(&tenant.name)?),
                Some(from_uuid(&tenant.uuid)?),
                Some(from_text(stream)?),
                Some(Datum::from(head.version)),
                Some(varlena(&head.chain_hash)?),
            ])
        })?;
    }
    Ok(None)
}

/// Of an event, for whoever is not shown its content.
fn content_digest(args: &Args) -> Returned {
    let (Some(salt), Some(payload), Some(metadata)) = (args.bytes_opt(0)?, args.jsonb_opt(1)?, args.jsonb_opt(2)?)
    else {
        return Ok(None);
    };
    Ok(Some(varlena(&hash::content_digest(salt, payload.text()?, metadata.text()?))?))
}
