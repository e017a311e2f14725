//! A JSON document that is to be stored: measured, and printed once, before anything is locked or written.
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::shared::settings;
use eventstream_core::error::Error;

/// A document with the text that PostgreSQL prints for it: what the content digest covers.
#[derive(Clone, Copy)]
pub struct Document<'a> {
    pub value: Jsonb<'a>,
    pub text: &'a [u8],
}

/// Measures a document, and prints it once it is known to be small enough.
pub fn print<'a>(argument: &str, value: Jsonb<'a>) -> Result<Document<'a>> {
    let most = settings::max_payload_bytes();
    let measure = value.measure(most as u64)?;
    let exceeded = |setting, limit, actual: i64, what: String| -> Failure {
        Error::LimitExceeded { setting, limit, actual: Some(actual), what: format!("{argument} {what}") }.into()
    };
    if measure.depth > settings::max_json_depth() {
        return Err(exceeded(
            "eventstream.max_json_depth",
            settings::max_json_depth(),
            measure.depth,
            format!("is nested {} levels deep", measure.depth),
        ));
    }
    if measure.digits as i64 > settings::max_number_digits() {
        return Err(exceeded(
            "eventstream.max_number_digits",
            settings::max_number_digits(),
            measure.digits as i64,
            format!("has a number of {} digits", measure.digits),
        ));
    }
    if measure.bytes as i64 > most {
        return Err(exceeded(
            "eventstream.max_payload_bytes",
            most,
            measure.bytes as i64,
            format!("has at least {} bytes as text", measure.bytes),
        ));
    }
    let text = value.text()?;
    if text.len() as i64 > most {
        let what = format!("has {} bytes as text", text.len());
        return Err(exceeded("eventstream.max_payload_bytes", most, text.len() as i64, what));
    }
    Ok(Document { value, text })
}
