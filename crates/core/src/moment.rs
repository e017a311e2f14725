//! Moments given as text, for settings: ISO 8601 with a zone, so that they mean the same in every session. A day without a time, or a
//! time without a zone, would silently mean midnight somewhere.

/// What a moment must be, for messages.
pub const RULE: &str = "must be a moment with date, time and zone, such as 2024-10-31 23:59:59.999999Z or 2024-10-31T22:00+01:00, or infinity";

/// Whether the text has the form `YYYY-MM-DD HH:MM[:SS[.ffffff]]` (or `T` between) followed by a zone: `Z`, `+HH[:MM[:SS]]`, or a
/// name such as `Europe/Vienna`; or is `infinity` or `-infinity`. Whether there is such a day, or such a zone, is not looked at.
#[must_use]
pub fn has_zone(text: &str) -> bool {
    let text = text.trim();
    if matches!(text, "infinity" | "-infinity") {
        return true;
    }
    let Some(rest) = digits(text, 4).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let Some(rest) = digits(rest, 2).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let Some(rest) = digits(rest, 2).and_then(|rest| rest.strip_prefix(['T', ' '])) else { return false };
    let Some(rest) = digits(rest, 2).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let Some(mut rest) = digits(rest, 2) else { return false };
    if let Some(seconds) = rest.strip_prefix(':') {
        let Some(after) = digits(seconds, 2) else { return false };
        rest = after;
        if let Some(fraction) = rest.strip_prefix('.') {
            let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=6).contains(&count) {
                return false;
            }
            rest = &fraction[count..];
        }
    }
    is_zone(rest.strip_prefix(' ').unwrap_or(rest))
}

fn is_zone(text: &str) -> bool {
    if let Some(offset) = text.strip_prefix(['+', '-']) {
        let parts: Vec<&str> = offset.split(':').collect();
        let is_pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        return parts.len() <= 3 && parts.iter().all(is_pair);
    }
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    begins && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte)) && !is_era(text)
}

/// PostgreSQL reads these behind a date as something else than a zone.
fn is_era(text: &str) -> bool {
    ["AD", "BC", "AM", "PM", "T"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// What follows exactly so many digits.
fn digits(text: &str, count: usize) -> Option<&str> {
    let is_there = text.len() >= count && text.as_bytes()[..count].iter().all(u8::is_ascii_digit);
    is_there.then(|| &text[count..])
}
