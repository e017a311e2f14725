//! Time zones given as text: the name of a place in the time zone database, or an offset as ISO 8601 writes it, `+02:00` east of Greenwich.
//! PostgreSQL reads an offset by POSIX, which counts west, and abbreviations by a setting; neither is a zone here.

/// A time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone<'a> {
    /// Seconds east of UTC.
    Offset(i32),
    /// To be looked up.
    Name(&'a str),
}

/// What a zone must be, for messages.
pub const RULE: &str =
    "must be the name of a time zone, such as Europe/Vienna, or an offset as ISO 8601 writes it, such as +02:00";

impl<'a> Zone<'a> {
    /// None where the text can be neither; whether there is such a name is not looked at.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with(['+', '-']) {
            return offset(text).map(Self::Offset);
        }
        if text.eq_ignore_ascii_case("Z") {
            return Some(Self::Offset(0));
        }
        is_name(text).then_some(Self::Name(text))
    }
}

/// `+HH`, `+HHMM`, `+HH:MM`, `+HH:MM:SS` and the like; less than 16 hours, as PostgreSQL has it.
fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = text.split_at_checked(1)?;
    let has_colons = rest.contains(':');
    let parts: Vec<&str> = if has_colons {
        rest.split(':').collect()
    } else {
        (0..rest.len()).step_by(2).map(|at| rest.get(at..at + 2)).collect::<Option<_>>()?
    };
    let is_number = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=3).contains(&parts.len()) || !parts.iter().all(is_number) {
        return None;
    }
    let number = |place: usize| parts.get(place).map_or(Some(0), |part| part.parse::<i32>().ok());
    let (hours, minutes, seconds) = (number(0)?, number(1)?, number(2)?);
    let east = hours * 3600 + minutes * 60 + seconds;
    (hours < 16 && minutes < 60 && seconds < 60).then_some(if sign == "-" { -east } else { east })
}

/// Names of the time zone database have digits in few places; whatever else has one would be read by POSIX.
fn is_name(text: &str) -> bool {
    let has_digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-+".contains(&byte));
    if !has_digits {
        return !text.is_empty() && is_plain;
    }
    let upper = text.to_ascii_uppercase();
    let hours = |rest: &str| {
        let digits = rest.trim_start_matches(['+', '-']);
        rest.len() <= digits.len() + 1 && (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    ["EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT", "GMT0", "GMT+0", "GMT-0"].contains(&upper.as_str())
        || upper.strip_prefix("ETC/GMT").is_some_and(hours)
}
