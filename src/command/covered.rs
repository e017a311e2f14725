//! The judgement of events by what is protected of their types, and what of commands and of what comes of them is kept to be compared, and shown.
//!
//! Promises: it fails closed. Where something stands in the way of a pointer, or no rule names the schema version though one names another of the type, nothing is stored: what it protects could not be told
//! later on. Where a tenant protects nothing, that costs one comparison a call.
use crate::log::document::Document;
use crate::log::event::NewEvent;
use crate::log::request::Request;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::jsonb::{Jsonb, Shape};
use crate::present::protected::{self, Protected};
use crate::shared::counters::{self, Counter};
use eventstream_core::error::Error;
use eventstream_core::protect::{Cover, Mask, Stray};
use eventstream_core::{quote_literal, shown};

/// What is refused with it.
pub const IN_THE_WAY: &str = "ES016";

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
                    return Err(in_the_way(event.event_type, &format!("the {name} of {}", what()), &stray));
                }
            }
            Ok(())
        }
    }
}

fn stray(document: Jsonb, mask: &Mask) -> Result<Option<Stray>> {
    if mask.is_empty() { Ok(None) } else { Ok(document.residual(mask)?.1.filter(|_| mask.refuses_strays())) }
}

fn in_the_way(name: &str, document: &str, stray: &Stray) -> Failure {
    let place = if stray.pointer.is_empty() { "its root".to_owned() } else { shown(&stray.pointer) };
    Error::EventTypeRefused {
        event_type: name.into(),
        reason: format!(
            "{document} has {} at {place}, through which a protected pointer would have to lead: what it protects could not be told",
            stray.kind
        ),
        hint: format!(
            "Give the field where the rule expects it, or protect what stands there: select pointers, metadata_pointers from eventstream.protections where event_type = {};",
            quote_literal(name)
        ),
    }
    .into()
}

/// What a repetition of a command, or of an operation outside, must have in common with it: its request, without what is protected. Errors: ES016 where something stands in the way of that.
pub fn compared<'a>(what: &str, tenant_id: i64, name: &str, request: &Document<'a>) -> Result<&'a [u8]> {
    let protected = protected::of(tenant_id)?;
    let Some(mask) = protected.of_command(name) else { return Ok(request.text) };
    match request.value.residual(mask)? {
        (_, Some(stray)) if mask.refuses_strays() => Err(in_the_way(name, &format!("the {what}"), &stray)),
        (Some(shown), _) => shown.text(),
        (None, _) => Ok(request.text),
    }
}

/// That a key was used for something else. `of`: what it is a key of. `kept_at`: when, where what was kept differs in nothing but what is compared with a digest: by a rule that came since, or
/// took another's place, that could be of the same request.
pub fn reused(tenant_id: i64, name: &str, of: String, key: &str, kept_at: Option<i64>) -> Result<Error> {
    counters::add(Counter::CommandMismatches, 1);
    let key = key.to_owned();
    let protected = protected::of(tenant_id)?;
    let is_hidden = kept_at.is_some_and(|kept_at| protected.is_of_commands_since(name, kept_at));
    Ok(if is_hidden { Error::CommandKeyHidden { of, key } } else { Error::CommandKeyReused { of, key } })
}

/// What came of a command, or of an operation outside, as it is told.
pub fn result<'a>(tenant_id: i64, name: &str, result: Option<Jsonb<'a>>) -> Result<Option<Jsonb<'a>>> {
    let protected = protected::of(tenant_id)?;
    match (protected.told_of_command(name), result) {
        (Some(mask), Some(result)) => Ok(Some(result.residual(mask)?.0.unwrap_or(result))),
        (_, result) => Ok(result),
    }
}

/// An event of an answer as it is told, without what is protected of it.
pub fn decided<'a>(tenant_id: i64, event: &NewEvent<'a>, answered: Jsonb<'a>) -> Result<Jsonb<'a>> {
    let protected = protected::of(tenant_id)?;
    let payload = event.payload.value;
    match protected.events.of(event.event_type, event.schema_version()) {
        Cover::Free => Ok(answered),
        Cover::Missing { .. } => told(answered, None, true),
        Cover::By(protection) => {
            let shown = payload.residual(&protection.payload)?.0.unwrap_or(payload);
            told(answered, Some(shown), !protection.metadata.is_empty())
        }
    }
}

/// A command of an answer that is to be scheduled, as it is told.
pub fn scheduled<'a>(tenant_id: i64, command_type: &str, answered: Jsonb<'a>) -> Result<Jsonb<'a>> {
    let mut object = ObjectBuilder::begin()?;
    answered.each(|key, value| {
        let document = value.document()?;
        let shown = match key {
            "payload" => result(tenant_id, command_type, Some(document))?.unwrap_or(document),
            "metadata" => metadata(tenant_id, document)?,
            _ => document,
        };
        object.put(key, Part::all_of(shown)?)
    })?;
    object.finish()
}

/// The metadata of a command as they are told: those of its events, whichever these will be.
pub fn metadata(tenant_id: i64, metadata: Jsonb) -> Result<Jsonb> {
    let protected = protected::of(tenant_id)?;
    let mut masks = protected.all().flat_map(|protected| protected.events.of_metadata());
    masks.try_fold(metadata, |metadata, mask| Ok(metadata.residual(mask)?.0.unwrap_or(metadata)))
}

/// Why a command, or an operation outside, came to nothing, as it is told. Whoever says so may repeat what was asked, wherever he likes: where pointers list what is protected, all of it is withheld,
/// and a failure stays one.
pub fn error<'a>(tenant_id: i64, name: &str, error: Jsonb<'a>) -> Result<Jsonb<'a>> {
    let protected = protected::of(tenant_id)?;
    match protected.told_of_command(name) {
        None => Ok(error),
        Some(Mask::Listed(_)) => withheld(),
        // What is all protected is null, which would be no failure.
        Some(mask) => match error.residual(mask)?.0 {
            None => Ok(error),
            Some(shown) if shown.shape() == Shape::Scalar => withheld(),
            Some(shown) => Ok(shown),
        },
    }
}

fn withheld<'a>() -> Result<Jsonb<'a>> {
    let mut object = ObjectBuilder::begin()?;
    object.put("message", Part::text(WITHHELD))?;
    object.finish()
}

/// With that payload, and perhaps without metadata.
fn told<'a>(answered: Jsonb<'a>, payload: Option<Jsonb<'a>>, without_metadata: bool) -> Result<Jsonb<'a>> {
    let mut object = ObjectBuilder::begin()?;
    let mut members = Part::all_of(answered)?.members()?;
    while let Some((key, part)) = members.next()? {
        let part = match key {
            "payload" => payload.map_or(Ok(Part::null()), Part::all_of)?,
            "metadata" if without_metadata => Part::null(),
            _ => part,
        };
        object.put(key, part)?;
    }
    object.finish()
}

/// An answer that was kept then, as it is told: a decider's result may repeat what was protected of events since.
pub fn answered<'a>(tenant_id: i64, command_type: &str, answer: Jsonb<'a>, executed_at: i64) -> Result<Jsonb<'a>> {
    let protected = protected::of(tenant_id)?;
    let mask = protected.told_of_command(command_type);
    let is_old = protected.events_since.is_some_and(|since| executed_at <= since);
    if mask.is_none() && !is_old {
        return Ok(answer);
    }
    let mut object = ObjectBuilder::begin()?;
    answer.each(|key, value| {
        let document = value.document()?;
        object.put(
            key,
            match mask {
                _ if key != "result" => Part::all_of(document)?,
                _ if is_old => Part::null(),
                Some(mask) => Part::all_of(document.residual(mask)?.0.unwrap_or(document))?,
                None => Part::all_of(document)?,
            },
        )
    })?;
    object.finish()
}

/// Whether texts that a failed command left are not told: they may repeat what is protected of it.
pub fn has_secrets(tenant_id: i64, command_type: &str) -> Result<bool> {
    Ok(protected::of(tenant_id)?.told_of_command(command_type).is_some())
}

/// Whether what its decider says is kept out of the server's log: also where events are protected, which it may make of what the command says.
pub fn is_hushed(tenant_id: i64, command_type: &str) -> Result<bool> {
    let protected = protected::of(tenant_id)?;
    Ok(!protected.shows_all_events() || protected.told_of_command(command_type).is_some())
}

/// What is said instead of them.
pub const WITHHELD: &str = "not told: fields of the command are protected";
