//! Tests of decisions: what es_test is given, how what came is compared with what was expected, and how that is said, in lines of TAP (testanything.org).
//!
//! Of an object only the members that are named are compared, at every depth; arrays are compared whole, and numbers as decimals: no float holds one. `null` is met by what is not there, too.
use crate::options::{EventElement, Texts};
use serde::Deserialize;
use serde_json::Value;

/// An event that is given: an element of es_append_events, with its stream, and when it was recorded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct GivenElement<'a, D> {
    pub stream: &'a str,
    #[serde(rename = "type")]
    pub event_type: &'a str,
    pub payload: D,
    pub metadata: Option<D>,
    #[serde(borrow)]
    pub event_id: Option<&'a str>,
    #[serde(borrow)]
    pub occurred_at: Option<&'a str>,
    pub schema_version: Option<i64>,
    #[serde(borrow)]
    pub subject: Option<&'a str>,
    #[serde(borrow)]
    pub tags: Option<Texts<'a>>,
    /// None: at the time of the test.
    #[serde(borrow)]
    pub recorded_at: Option<&'a str>,
}

impl<'a, D> GivenElement<'a, D> {
    /// The stream, when it was recorded, and what of it is any event's.
    #[must_use]
    pub fn split(self) -> (&'a str, Option<&'a str>, EventElement<'a, D>) {
        let Self { event_type, payload, metadata, event_id, occurred_at, schema_version, subject, tags, .. } = self;
        let event =
            EventElement { event_type, payload, metadata, event_id, occurred_at, schema_version, subject, tags };
        (self.stream, self.recorded_at, event)
    }
}

/// The command that is tried: the arguments of es_command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct CommandElement<'a, D> {
    pub stream: &'a str,
    pub command_type: &'a str,
    pub payload: D,
    pub expected_version: Option<i64>,
    pub metadata: Option<D>,
    #[serde(borrow)]
    pub command_key: Option<&'a str>,
    #[serde(borrow)]
    pub occurred_at: Option<&'a str>,
    #[serde(borrow)]
    pub decider: Option<&'a str>,
    #[serde(borrow)]
    pub subject: Option<&'a str>,
}

/// What an expected event may name.
pub const FIELDS: [&str; 13] = [
    "category",
    "event_id",
    "metadata",
    "occurred_at",
    "payload",
    "recorded_at",
    "recorded_by",
    "schema_version",
    "stream",
    "subject",
    "tags",
    "type",
    "version",
];

/// The longest that is shown of a value, in bytes.
const MOST_SHOWN: usize = 200;
/// So many differences are told one by one.
const MOST_TOLD: usize = 20;
/// The longest place that is shown.
const MOST_PLACE: usize = 300;

/// What is not as it was expected, a line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    told: Vec<String>,
    more: usize,
}

impl Differences {
    /// Whether everything is as it was expected.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// One more, in words.
    pub fn add(&mut self, line: impl AsRef<str>) {
        if self.told.len() < MOST_TOLD {
            self.told.push(printable(line.as_ref()));
        } else {
            self.more += 1;
        }
    }

    /// Adds where `found` (None: there is nothing) is not as it was expected.
    pub fn compare(&mut self, place: &str, expected: &Value, found: Option<&Value>) {
        match (expected, found) {
            (Value::Null, None | Some(Value::Null)) => {}
            (expected, None) => self.add(format!("{place}: expected {}, and it is not there", shown(expected))),
            (Value::Object(members), Some(Value::Object(there))) => {
                for (key, expected) in members {
                    self.compare(&within(place, key), expected, there.get(key));
                }
            }
            (Value::Array(elements), Some(Value::Array(there))) => {
                if elements.len() != there.len() {
                    self.add(format!("{place}: expected {}, found {}", count(elements.len()), count(there.len())));
                }
                for (number, (expected, found)) in elements.iter().zip(there).enumerate() {
                    self.compare(&format!("{place}[{number}]"), expected, Some(found));
                }
            }
            (expected, Some(found)) => {
                if !is_same(expected, found) {
                    self.add(format!("{place}: expected {}, found {}", shown(expected), shown(found)));
                }
            }
        }
    }

    /// The same of a document that is compared as it is shown; `is_protected`: without fields that are there.
    pub fn compare_shown(&mut self, place: &str, expected: &Value, found: Option<&Value>, is_protected: bool) {
        let before = self.told.len() + self.more;
        self.compare(place, expected, found);
        if is_protected && self.told.len() + self.more > before {
            self.add(format!(
                "{place}: fields of it are protected, and null to everybody: leave them out of what is expected"
            ));
        }
    }

    /// All of them, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = self.told.join("\n");
        if self.more > 0 {
            lines.push_str(&format!("\n… and {} more", self.more));
        }
        lines
    }
}

fn count(elements: usize) -> String {
    if elements == 1 { "1 element".into() } else { format!("{elements} elements") }
}

fn within(place: &str, key: &str) -> String {
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let place = if is_plain { format!("{place}.{key}") } else { format!("{place}[{}]", Value::from(key)) };
    cut(&place, MOST_PLACE)
}

/// A value as a line shows it: not longer than a person reads.
#[must_use]
pub fn shown(value: &Value) -> String {
    cut(&value.to_string(), MOST_SHOWN)
}

/// A text, up to so many bytes of it.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(most)]) }
}

/// Numbers of the same value are the same, whatever their scale.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => is_same_number(&a.to_string(), &b.to_string()),
        _ => a == b,
    }
}

/// As PostgreSQL prints them: a sign, digits, and digits behind a point.
fn is_same_number(a: &str, b: &str) -> bool {
    fn plain(number: &str) -> (bool, &str, &str) {
        let (is_negative, number) = number.strip_prefix('-').map_or((false, number), |number| (true, number));
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
        (is_negative && !(whole.is_empty() && part.is_empty()), whole, part)
    }
    plain(a) == plain(b)
}

/// The line of a test, which its description stays on: TAP takes what comes behind a `#` as a directive.
#[must_use]
pub fn line(number: u64, is_ok: bool, description: &str) -> String {
    format!("{}ok {number} - {}", if is_ok { "" } else { "not " }, plain(description))
}

/// A description that stays one, and is no directive (`# TODO` would make a failed test a passed one).
#[must_use]
pub fn plain(description: &str) -> String {
    description.replace('\\', "\\\\").replace('#', "\\#").replace(ends_line, " ")
}

/// Whether somebody takes what comes behind it for another line, or for no text: all control characters but the tab.
fn ends_line(character: char) -> bool {
    character.is_control() && character != '\t' || matches!(character, '\u{2028}' | '\u{2029}')
}

/// A text that has no other ends of lines than `\n`.
fn printable(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && ends_line(character) {
            made.extend(character.escape_default());
        } else {
            made.push(character);
        }
    }
    made
}

/// Whether an expected error is an SQLSTATE, by its looks: five of 0-9 and A-Z. No code of a refusal looks like that.
#[must_use]
pub fn is_sqlstate(code: &str) -> bool {
    code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Event ids that are the same are the same text: small letters, hyphens, no braces. What is none stays as it is.
#[must_use]
pub fn canonical_id(text: &str) -> String {
    let digits: String = text.trim_start_matches('{').trim_end_matches('}').replace('-', "").to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return text.to_owned();
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Lines that are no tests.
#[must_use]
pub fn remark(text: &str) -> String {
    text.lines().map(|line| format!("# {line}")).collect::<Vec<_>>().join("\n")
}
