//! The judgement of events by what is protected of their types.
//!
//! Promises: it fails closed. Where something stands in the way of a pointer, or no rule names the schema version though one names another of the type, nothing is stored: what it protects could not be told
//! later on. Where a tenant protects nothing, that costs one comparison a call.
use crate::log::event::NewEvent;
use crate::log::request::Request;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::present::protected::Protected;
use eventstream_core::error::Error;
use eventstream_core::protect::{Cover, Mask, Stray};
use eventstream_core::{quote_literal, shown};

/// Judges the events of a request. Errors: ES016.
pub fn judge(protected: &Protected, request: &Request) -> Result<()> {
    if protected.events.is_empty() {
        return Ok(());
    }
    for (place, event) in request.events.iter().enumerate() {
        judge_event(protected, event, &|| {
            format!("event {} for stream {}", place + 1, shown(request.stream.as_str()))
        })?;
    }
    Ok(())
}

fn judge_event(protected: &Protected, event: &NewEvent, what: &dyn Fn() -> String) -> Result<()> {
    let version = event.schema_version();
    match protected.events.of(event.event_type, version) {
        Cover::Free => Ok(()),
        Cover::Missing { highest } => Err(Error::EventTypeRefused {
            event_type: event.event_type.into(),
            reason: format!(
                "fields of it are protected up to schema version {highest}, and {} has version {version}, which no rule names",
                what()
            ),
            hint: format!(
                "Say what of that version is protected first: select es_protect({}, {version}, pointers => array['/…']);",
                quote_literal(event.event_type)
            ),
        }
        .into()),
        Cover::By(protection) => {
            let documents = [("payload", &event.payload, &protection.payload), ("metadata", &event.metadata, &protection.metadata)];
            for (name, document, mask) in documents {
                if let Some(stray) = stray(document.value, mask)? {
                    return Err(in_the_way(event.event_type, name, &stray, what));
                }
            }
            Ok(())
        }
    }
}

fn stray(document: Jsonb, mask: &Mask) -> Result<Option<Stray>> {
    if mask.is_empty() { Ok(None) } else { Ok(document.residual(mask)?.1) }
}

fn in_the_way(event_type: &str, document: &str, stray: &Stray, what: &dyn Fn() -> String) -> Failure {
    let place = if stray.pointer.is_empty() { "its root".to_owned() } else { shown(&stray.pointer) };
    Error::EventTypeRefused {
        event_type: event_type.into(),
        reason: format!(
            "the {document} of {} has {} at {place}, through which a protected pointer would have to lead: what it protects could not be told",
            what(),
            stray.kind
        ),
        hint: format!(
            "Give the field where the rule expects it, or protect what stands there: select pointers, metadata_pointers from eventstream.protections where event_type = {};",
            quote_literal(event_type)
        ),
    }
    .into()
}
