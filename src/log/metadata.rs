//! The metadata that an event is stored with: what the caller gave, and the session's defaults for what it left out
//! (`eventstream.metadata`, for proxies and pools that know who acts when the statement does not say).
use super::acting;
use super::document::print;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::jsonb::{Jsonb, Value};
use crate::shared::settings;
use eventstream_core::error::Error;
use eventstream_core::{shown, trace};

/// What an event without metadata of its own has now, a handler's included, printed and checked. Errors: ES005, ES007.
pub fn of_now() -> Result<String> {
    let metadata = with_defaults(acting::complete(Jsonb::parse("{}")?)?)?;
    check(metadata, false)?;
    Ok(String::from_utf8_lossy(print("metadata", metadata)?.text).into_owned())
}

/// The metadata with the session's defaults; the caller's own members win. Errors: ES005 where the setting is no JSON object: not every way to
/// set it is checked (src/shared/settings.rs).
pub fn with_defaults(given: Jsonb<'_>) -> Result<Jsonb<'_>> {
    let Some(defaults) = settings::metadata() else { return Ok(given) };
    if !settings::is_metadata(&defaults) {
        return Err(Error::InvalidArgument {
            argument: "eventstream.metadata".into(),
            reason: format!("{}, not {}", settings::METADATA_RULE, shown(&defaults)),
            hint: Some(settings::METADATA_HINT.into()),
        }
        .into());
    }
    Jsonb::parse(&defaults)?.under(given)
}

/// What only es_command writes: who decided, and on what.
pub const COMMAND: &str = "command";

/// The session's default for one member, where it is a text.
pub fn default_of(member: &str) -> Result<Option<String>> {
    let mut found = None;
    if settings::metadata().is_some() {
        with_defaults(Jsonb::parse("{}")?)?.each(|key, value| {
            if let (true, Value::Text(text)) = (key == member, value) {
                found = Some(text.to_owned());
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Refuses a traceparent that no tracer could follow, and what says of an event that it was decided upon where it was not. Errors: ES005.
pub fn check(metadata: Jsonb<'_>, is_decided: bool) -> Result<()> {
    metadata.each(|key, value| {
        if key == COMMAND && !is_decided {
            let reason =
                format!("must not have the key {COMMAND}, which says what was decided on, and is es_command's");
            return Err(invalid("metadata", reason));
        }
        if key != "traceparent" {
            return Ok(());
        }
        let found = match value {
            Value::Text(text) if trace::is_traceparent(text) => return Ok(()),
            Value::Text(text) => shown(text),
            other => other.kind().into(),
        };
        Err(invalid("metadata.traceparent", format!("{}, not {found}", trace::RULE)))
    })
}
