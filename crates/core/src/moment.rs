//! Moments given as text, for settings: ISO 8601 with a zone, so that they mean the same in every session. A day without a time, or a
//! time without a zone, would silently mean midnight somewhere.

use std::borrow::Cow;

/// As many as PostgreSQL keeps, and as many as anybody prints.
const MICROSECOND_DIGITS: usize = 6;
const MOST_FRACTION_DIGITS: usize = 9;

/// What a moment must be, for messages.
pub const RULE: &str = "must be a moment with date, time and zone, such as 2024-10-31 23:59:59.999999Z or 2024-10-31T22:00+01:00, or infinity";

/// What an event's moment must be: something happened then.
pub const FINITE_RULE: &str =
    "must be a moment with date, time and zone, such as 2024-10-31 23:59:59.999999Z or 2024-10-31T22:00+01:00";

/// The text, cut to microseconds, if it has the form `YYYY-MM-DD HH:MM[:SS[.fff]]` (or `T` between), of a day and a time that there are, followed by a
/// zone: `Z`, `UTC`, `+HH[:MM[:SS]]`, or a name such as `Europe/Vienna`; or is `infinity` or `-infinity`. Whether there is such a place is
/// not looked at. Some programs print nanoseconds; rounded, the last of a day would be the next day's first.
#[must_use]
pub fn read(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim();
    if matches!(text, "infinity" | "-infinity") {
        return Some(text.into());
    }
    let (digits, zone) = after_time(text)?;
    if !is_zone(zone.strip_prefix(' ').unwrap_or(zone)) {
        return None;
    }
    let kept = text.len() - zone.len() - digits.saturating_sub(MICROSECOND_DIGITS);
    let is_whole = digits <= MICROSECOND_DIGITS;
    Some(if is_whole { text.into() } else { format!("{}{zone}", &text[..kept]).into() })
}

/// How many digits follow the seconds' point, and what follows the date and the time.
fn after_time(text: &str) -> Option<(usize, &str)> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = number(rest.strip_prefix(['T', ' '])?, 2)?;
    let (minute, mut rest) = number(rest.strip_prefix(':')?, 2)?;
    let mut digits = 0;
    if let Some(seconds) = rest.strip_prefix(':') {
        let (second, after) = number(seconds, 2)?;
        rest = after;
        if let Some(fraction) = rest.strip_prefix('.') {
            digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=MOST_FRACTION_DIGITS).contains(&digits) {
                return None;
            }
            rest = &fraction[digits..];
        }
        if second > 59 {
            return None;
        }
    }
    let is_there = year > 0 && (1..=days(year, month)).contains(&day) && hour < 24 && minute < 60;
    is_there.then_some((digits, rest))
}

/// Days of a month; 0 where there is no such month.
const fn days(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

fn is_zone(text: &str) -> bool {
    if let Some(offset) = text.strip_prefix(['+', '-']) {
        let mut parts = offset.split(':');
        let least = |part: &str, below| number(part, 2).is_some_and(|(value, rest)| value < below && rest.is_empty());
        return parts.next().is_some_and(|hours| least(hours, 16))
            && parts.clone().count() <= 2
            && parts.all(|part| least(part, 60));
    }
    ["Z", "UTC"].iter().any(|name| name.eq_ignore_ascii_case(text)) || is_place(text)
}

/// Area/Place as the time zone database writes it. PostgreSQL reads much else behind a time: words (`monday`, `at`) that leave the zone to
/// the session, abbreviations (`IST`) that are a matter of settings, and `UTC+2` or `Europe/Vienna+2`, which lie to the west.
fn is_place(text: &str) -> bool {
    if let Some(offset) = text.strip_prefix("Etc/GMT") {
        let digits = offset.strip_prefix(['+', '-']).unwrap_or("");
        return offset.is_empty()
            || ((1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()));
    }
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    text.contains('/') && text.split(['/', '_', '-']).all(is_word)
}

/// The number that exactly so many digits make, and what follows them.
fn number(text: &str, count: usize) -> Option<(u32, &str)> {
    let is_there = text.len() >= count && text.as_bytes()[..count].iter().all(u8::is_ascii_digit);
    let digits = is_there.then(|| text.split_at(count))?;
    Some((digits.0.parse().ok()?, digits.1))
}
