//! es_verify_audit, and what the triggers of the registers ask.
use super::asks_outside_of_tests;
use crate::access::everything_or;
use crate::log::audit::{self, Kind};
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::jsonb::Jsonb;
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::proof;
use crate::shared::transaction;
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::word::Word as _;
use pgrx::pg_sys::Datum;

asks_outside_of_tests!("es_verify_audit", Audit, "eventstream_verify_audit", "", verify);
sql_function!("eventstream_note_act", "text, bigint, jsonb, jsonb", note);

fn verify(args: &Args) -> Returned {
    let access = everything_or(Privilege::Audit)?;
    // Their rows are there, and what they are compared with comes at the commit.
    if transaction::has_due() {
        return Err(Error::FeatureNotSupported {
            what: "es_verify_audit() after an act of administration in the same transaction is not supported".into(),
            hint: Some("Commit first: the act becomes an event at the commit, with which it can be compared.".into()),
        }
        .into());
    }
    let store = Store::begin(args)?;
    proof::audit::verify(access.as_ref().map(|access| access.tenant_id), &mut |tenant, found| {
        store.put(&[
            tenant.map(from_text).transpose()?,
            Some(from_text(&found.kind)?),
            Some(Jsonb::parse(&found.key)?.datum()),
            found.global_position.map(Datum::from),
            Some(from_text(&found.problem)?),
        ])
    })?;
    Ok(None)
}

fn note(args: &Args) -> Returned {
    let kind = args.text(0, "kind")?;
    let kind = Kind::named(kind).ok_or_else(|| Error::Internal { what: format!("{kind} is no kind of definition") })?;
    let text = |place| -> Result<Option<String>> {
        let Some(document) = args.jsonb_opt(place)? else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(document.text()?).into_owned()))
    };
    audit::note_definition(kind, args.int8(1, "tenant_id")?, text(2)?.as_deref(), text(3)?.as_deref())?;
    Ok(None)
}
