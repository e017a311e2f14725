//! What a request demands of a stream: If-Match and If-None-Match (RFC 9110), and the key by which a repetition is recognised.
use crate::problem::Problem;
use axum::http::{HeaderMap, HeaderName, header};
use eventstream_client::Expected;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The only header of a name, as text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut given = headers.get_all(name).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let text = first.to_str().ok().filter(|_| given.next().is_none());
    text.map(|text| Some(text.trim()))
        .ok_or_else(|| Problem::bad_request(format!("{name} must be given once, in ASCII")))
}

/// `If-Match: "7"` is version 7, `If-Match: *` that there are events, `If-None-Match: *` that there are none yet.
pub fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let wrong = |name: HeaderName, form: &str| Problem::bad_request(format!("{name} must be {form}"));
    match (only(headers, &header::IF_MATCH)?, only(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Any),
        (Some(_), Some(_)) => Err(Problem::bad_request("give If-Match or If-None-Match, not both")),
        (Some("*"), None) => Ok(Expected::Exists),
        (None, Some("*")) => Ok(Expected::NoStream),
        (None, Some(_)) => Err(wrong(header::IF_NONE_MATCH, "* (the stream has no events yet)")),
        (Some(version), None) => version
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .and_then(|digits| digits.parse().ok())
            .filter(|version| *version > 0)
            .map(Expected::Version)
            .ok_or_else(|| wrong(header::IF_MATCH, "a version in quotes, as ETag gives it (\"7\"), or *")),
    }
}

/// The value of Idempotency-Key. The draft has it in quotes (a string of RFC 8941); many send it without.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = only(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let key = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(key);
    if key.is_empty() || key.len() > 1_024 || key.contains(['"', '\\']) {
        return Err(Problem::bad_request(
            "Idempotency-Key must be 1 to 1,024 characters without quotes and backslashes",
        ));
    }
    Ok(Some(key.to_owned()))
}

/// The id of the n-th event (from 0) of a request with a key, for a stream: the same whenever it is sent. A uuid of version 8 (RFC 9562), of SHA-256 over framed parts.
pub fn event_id(key: &str, stream: &str, n: usize) -> Uuid {
    let mut digest = Sha256::new_with_prefix("eventstream/idempotency-key/1\0");
    for part in [key.as_bytes(), stream.as_bytes(), &(n as u64).to_be_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
