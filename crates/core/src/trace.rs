//! The `traceparent` of an event's metadata, as W3C's Trace Context (level 1, section 3.2) writes it.

/// What it must be, for messages.
pub const RULE: &str = "must be a traceparent as W3C's Trace Context writes it, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Whether the text is one: a version (not ff), a trace id and a parent id (not all zeros) and flags, in lower-case hexadecimal digits. Version 00 ends
/// there; a later one may go on behind another `-`.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut hexadecimal = |length: usize| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        parts.next().filter(|part| part.len() == length && part.bytes().all(is_digit))
    };
    let is_some = |id: &str| id.bytes().any(|byte| byte != b'0');
    let (Some(version), Some(trace), Some(parent), Some(_)) =
        (hexadecimal(2), hexadecimal(32), hexadecimal(16), hexadecimal(2))
    else {
        return false;
    };
    version != "ff" && is_some(trace) && is_some(parent) && (version != "00" || parts.next().is_none())
}
