//! Event ids: ULIDs (github.com/ulid/spec) held as 16 bytes. Owns their making and their text form; promises that
//! one source never makes an id that is not greater than its last, whatever the clock does.

use ulid::Ulid;

use crate::error::{Error, Result};
use crate::quote::shortened;

/// The last millisecond a source starts at, one before the last that 48 bits hold (in the year 10889): the carry
/// always finds room.
const LAST_START_MS: u64 = (1 << Ulid::TIME_BITS) - 2;

/// A source of ids, one a backend: each id is strictly greater than the one before ("monotonic" in the ULID spec).
#[derive(Debug, Clone, Default)]
pub struct EventIds {
    last: Option<Ulid>,
}

impl EventIds {
    /// A source that has made no id yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// The next id. `now_unix_ms` is the clock, milliseconds since 1970-01-01 UTC; `random` is 16 fresh random bytes,
    /// of which 10 are used when the clock has moved on.
    ///
    /// Where the clock stands still or went back, the id is the last one plus one; a random part that overflows
    /// carries into the next millisecond, where the spec would fail.
    // Not an Iterator: it needs the clock and randomness of its caller.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, now_unix_ms: u64, random: [u8; 16]) -> [u8; 16] {
        let now = now_unix_ms.min(LAST_START_MS);
        let next = match self.last {
            Some(last) if now <= last.timestamp_ms() => Ulid(last.0.saturating_add(1)),
            _ => Ulid::from_parts(now, u128::from_be_bytes(random)),
        };
        self.last = Some(next);
        next.to_bytes()
    }
}

/// The 26 characters (Crockford's base 32, upper case) of an id.
#[must_use]
pub fn to_ulid_text(id: [u8; 16]) -> String {
    Ulid::from_bytes(id).to_string()
}

/// The 36 characters of an id as PostgreSQL prints a uuid.
#[must_use]
pub fn to_uuid_text(id: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*id));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Reads an id from its 26 characters, in upper or lower case.
///
/// # Errors
/// [`Error::InvalidArgument`] for the argument `ulid`: another length, a character that is not in Crockford's
/// alphabet, or a first character above 7 (26 characters hold 130 bits, an id has 128).
pub fn from_ulid_text(text: &str) -> Result<[u8; 16]> {
    let invalid = |rule: &str| Error::InvalidArgument {
        argument: "ulid".to_owned(),
        reason: format!("must be {rule}, not {:?}", shortened(text)),
        hint: None,
    };
    if text.len() != ulid::ULID_LEN {
        return Err(invalid("26 characters"));
    }
    if text.as_bytes()[0] > b'7' {
        return Err(invalid("at most 7ZZZZZZZZZZZZZZZZZZZZZZZZZ"));
    }
    let id = Ulid::from_string(text).map_err(|_| invalid("26 characters of Crockford's base 32 (no I, L, O, U)"))?;
    Ok(id.to_bytes())
}
