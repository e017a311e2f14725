//! es_protect, es_unprotect.
use super::{asks, target};
use crate::access::authorize_tenant;
use crate::command::protect::{self, Definition};
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned};
use crate::pg::value::datum::from_text;
use crate::present::protected;
use crate::subscription::parked;
use eventstream_core::argument::Argument;
use eventstream_core::privilege::Privilege;
use eventstream_core::protect::Given;
use eventstream_core::word::Protects;
use pgrx::pg_sys::Datum;

asks!(Admin, "eventstream_protect", "text, integer, text[], text[], text[], text", protect_fields);
asks!(Admin, "eventstream_unprotect", "text, text", unprotect);

fn protect_fields(args: &Args) -> Returned {
    let definition = Definition {
        event_type: args.text(0, "event_type")?,
        schema_version: args.int4(1, "schema_version")?,
        given: Given {
            pointers: args.text_array_opt(2, "pointers")?,
            clear_pointers: args.text_array_opt(3, "clear_pointers")?,
            metadata_pointers: args.text_array_opt(4, "metadata_pointers")?.unwrap_or_default(),
        },
        kind: kind(args, 5)?,
    };
    let (access, _) = authorize_tenant(None, Privilege::Admin)?;
    if protect::protect(target(&access), &definition)? && definition.kind == Protects::Event {
        parked::withhold(access.tenant_id, protected::WITHHELD)?;
    }
    from_text(definition.event_type).map(Some)
}

fn unprotect(args: &Args) -> Returned {
    let (event_type, kind) = (args.text(0, "event_type")?, kind(args, 1)?);
    let (access, _) = authorize_tenant(None, Privilege::Admin)?;
    protect::unprotect(target(&access), kind, event_type).map(|gone| Some(Datum::from(gone)))
}

fn kind(args: &Args, place: usize) -> Result<Protects> {
    Ok(Protects::parse("kind", args.text(place, "kind")?)?)
}
