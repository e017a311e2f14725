//! Names that people give: streams, categories, event types, tenants, subjects. Owns the rules of "What may be
//! appended"; a value of these types has passed them, borrows its text, and is never checked again.
//! Control characters are Unicode's category Cc, blanks are Unicode's White_Space, and what is not seen is Unicode's Default_Ignorable_Code_Point, line
//! and paragraph separators and annotation marks: two names that look the same are the same.

use crate::error::{Error, Result};
use crate::quote::shortened;
use unicode_normalization::is_nfc;

/// What a category begins with that is no user's.
pub const RESERVED: char = '$';
/// Longest stream name, in bytes.
pub const STREAM_MAX_BYTES: usize = 512;
/// Longest category, in bytes: a stream name needs a `-` and an id too.
pub const CATEGORY_MAX_BYTES: usize = STREAM_MAX_BYTES - 2;
/// Longest event type, tenant name or subject, in bytes.
pub const LABEL_MAX_BYTES: usize = 255;

/// What stands for every tenant, and is no name of one.
pub const EVERY_TENANT: &str = "*";

/// Whether a category is no user's.
#[must_use]
pub fn is_reserved(category: &str) -> bool {
    category.starts_with(RESERVED)
}

macro_rules! text_type {
    ($type:ident) => {
        impl<'a> $type<'a> {
            /// The text, as it was given.
            #[must_use]
            pub const fn as_str(self) -> &'a str {
                self.0
            }
        }

        impl std::fmt::Display for $type<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
    };
}

/// A stream's name, `category-id`, such as `account-1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName<'a>(&'a str);
text_type!(StreamName);

impl<'a> StreamName<'a> {
    /// Checks a name: 1 to 512 bytes, `category-id` with both parts non-empty and without a leading or trailing blank, no control or unseen
    /// characters, in Unicode's form NFC. The id may contain further `-`.
    ///
    /// # Errors
    /// [`Error::InvalidStreamName`], with the rule it breaks.
    pub fn parse(name: &'a str) -> Result<Self> {
        match stream_fault(name) {
            None => Ok(Self(name)),
            Some(reason) => Err(Error::InvalidStreamName { name: shortened(name), reason }),
        }
    }

    /// The same of a stream that users may append to.
    ///
    /// # Errors
    /// [`Error::InvalidStreamName`], also for one of a reserved category.
    pub fn parse_own(name: &'a str) -> Result<Self> {
        let parsed = Self::parse(name)?;
        if is_reserved(parsed.category()) {
            let reason = format!(
                "must not begin with {RESERVED}: such streams are written by eventstream's own acts of administration"
            );
            return Err(Error::InvalidStreamName { name: shortened(name), reason });
        }
        Ok(parsed)
    }

    /// The text before the first `-`.
    #[must_use]
    pub fn category(self) -> &'a str {
        self.parts().0
    }

    /// The text after the first `-`.
    #[must_use]
    pub fn id(self) -> &'a str {
        self.parts().1
    }

    fn parts(self) -> (&'a str, &'a str) {
        // parse() let no name without a '-' through.
        self.0.split_once('-').unwrap_or((self.0, ""))
    }

    /// Builds the name of the stream `id` in `category` (`es_stream_name`), and checks it.
    ///
    /// # Errors
    /// [`Error::InvalidStreamName`], which names the argument (`category` or `id`) and the rule it breaks.
    pub fn join(category: &str, id: &str) -> Result<String> {
        let name = format!("{category}-{id}");
        let fault = if category.contains('-') {
            Some("category must not contain '-', which ends it in a stream name".to_owned())
        } else {
            part_fault(category)
                .map(|fault| format!("category {fault}"))
                .or_else(|| part_fault(id).map(|fault| format!("id {fault}")))
                .or_else(|| stream_fault(&name))
        };
        match fault {
            None => Ok(name),
            Some(reason) => Err(Error::InvalidStreamName { name: shortened(&name), reason }),
        }
    }
}

/// A category: what a stream's name has before its first `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category<'a>(&'a str);
text_type!(Category);

impl<'a> Category<'a> {
    /// Checks a category given as the argument `argument`: 1 to 510 bytes, no `-`, not reserved, no control or unseen characters, no leading or
    /// trailing blank, in Unicode's form NFC. It accepts exactly what [`StreamName::category`] can return of users' streams, so that each can be asked for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names `argument`.
    pub fn parse(argument: &str, category: &'a str) -> Result<Self> {
        checked(argument, category, CATEGORY_MAX_BYTES, |category| {
            if category.contains('-') {
                Some("must not contain '-', which ends the category in a stream name".to_owned())
            } else if is_reserved(category) {
                Some(format!("must not begin with {RESERVED}, which is eventstream's own"))
            } else {
                part_fault(category)
            }
        })
        .map(Self)
    }
}

/// What kind of event it is, such as `AccountCredited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType<'a>(&'a str);
text_type!(EventType);

impl<'a> EventType<'a> {
    /// The type of the last event of a closed stream, which `es_close_stream` appends.
    pub const STREAM_CLOSED: &'static str = "StreamClosed";

    /// Checks an event type: 1 to 255 bytes, no control or unseen characters, no leading or trailing blank, in Unicode's form NFC.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `event_type`.
    pub fn parse(event_type: &'a str) -> Result<Self> {
        Self::parse_as("event_type", event_type)
    }

    /// The same for another argument's name: `event_types` of a filter.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for that argument.
    pub fn parse_as(argument: &str, event_type: &'a str) -> Result<Self> {
        checked(argument, event_type, LABEL_MAX_BYTES, edge_fault).map(Self)
    }
}

/// A tenant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName<'a>(&'a str);
text_type!(TenantName);

impl<'a> TenantName<'a> {
    /// Checks a tenant's name: 1 to 255 bytes, no control or unseen characters, no leading or trailing blank, in NFC, and not `*`, which means every
    /// tenant where grants are made.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `tenant`.
    pub fn parse(tenant: &'a str) -> Result<Self> {
        Self::parse_as("tenant", tenant)
    }

    /// The same for another argument's name: `new_name`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for that argument.
    pub fn parse_as(argument: &str, tenant: &'a str) -> Result<Self> {
        checked(argument, tenant, LABEL_MAX_BYTES, |tenant| {
            if tenant == EVERY_TENANT { Some("must be the name of one tenant".to_owned()) } else { edge_fault(tenant) }
        })
        .map(Self)
    }
}

/// The name of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FoldName<'a>(&'a str);
text_type!(FoldName);

impl<'a> FoldName<'a> {
    /// Checks a fold's name: 1 to 255 bytes, no control or unseen characters, no leading or trailing blank, in NFC.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `name`.
    pub fn parse(name: &'a str) -> Result<Self> {
        checked("name", name, LABEL_MAX_BYTES, edge_fault).map(Self)
    }
}

/// The pseudonym of the person an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject<'a>(&'a str);
text_type!(Subject);

impl<'a> Subject<'a> {
    /// Checks a subject: 1 to 255 bytes, no control or unseen characters, no leading or trailing blank, in NFC.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the argument `subject`.
    pub fn parse(subject: &'a str) -> Result<Self> {
        checked("subject", subject, LABEL_MAX_BYTES, edge_fault).map(Self)
    }
}

/// Checks a name of the caller's, given as `argument`: 1 to 255 bytes, no control or unseen characters, no leading or trailing blank, in NFC.
///
/// # Errors
/// [`Error::InvalidArgument`] for that argument.
pub fn check_label<'a>(argument: &str, label: &'a str) -> Result<&'a str> {
    checked(argument, label, LABEL_MAX_BYTES, edge_fault)
}

/// As [`check_label`], of at most so many bytes.
///
/// # Errors
/// [`Error::InvalidArgument`] for that argument.
pub fn check_text<'a>(argument: &str, text: &'a str, max_bytes: usize) -> Result<&'a str> {
    checked(argument, text, max_bytes, edge_fault)
}

/// `value` if it has 1 to `max_bytes` bytes and `fault` finds nothing; the error repeats it unless its length is at fault.
fn checked<'a>(
    argument: &str,
    value: &'a str,
    max_bytes: usize,
    fault: impl FnOnce(&str) -> Option<String>,
) -> Result<&'a str> {
    let reason = length_fault(value, max_bytes).or_else(|| {
        fault(value).map(|rule| {
            format!("{rule}{} {:?}", if rule.starts_with("must not") { ":" } else { ", not" }, shortened(value))
        })
    });
    match reason {
        None => Ok(value),
        Some(reason) => Err(Error::InvalidArgument { argument: argument.to_owned(), reason, hint: None }),
    }
}

fn stream_fault(name: &str) -> Option<String> {
    let Some((category, id)) = name.split_once('-') else {
        return length_fault(name, STREAM_MAX_BYTES).or(Some("must be category-id, with a '-'".to_owned()));
    };
    length_fault(name, STREAM_MAX_BYTES)
        .or_else(|| category.is_empty().then(|| "must have a category before the first '-'".to_owned()))
        .or_else(|| id.is_empty().then(|| "must have an id after the first '-'".to_owned()))
        .or_else(|| edge_fault(name))
        .or_else(|| edge_fault(category).or_else(|| edge_fault(id)).map(|_| inner_blank_rule()))
}

/// One side of a stream name.
fn part_fault(part: &str) -> Option<String> {
    if part.is_empty() {
        return Some("must not be empty".to_owned());
    }
    edge_fault(part)
}

fn length_fault(value: &str, max_bytes: usize) -> Option<String> {
    if value.is_empty() {
        Some("must not be empty".to_owned())
    } else if value.len() > max_bytes {
        Some(format!("must have at most {max_bytes} bytes, not {}", value.len()))
    } else {
        None
    }
}

/// What a name must not contain anywhere.
fn character_fault(value: &str) -> Option<String> {
    if let Some(control) = value.chars().find(|c| c.is_control()) {
        return Some(format!("must not contain control characters (it has U+{:04X})", u32::from(control)));
    }
    if value.is_ascii() {
        return None;
    }
    if let Some(unseen) = value.chars().find(|c| is_unseen(*c)) {
        return Some(format!("must not contain characters that are not seen (it has U+{:04X})", u32::from(unseen)));
    }
    (!is_nfc(value)).then(|| "must be in Unicode's form NFC (composed: é is one character)".to_owned())
}

/// Zero-width and bidirectional characters, joiners, variation selectors, fillers, the empty pattern of Braille, tags, separators of lines and paragraphs,
/// annotations; and noncharacters, which are no text. Private use and what Unicode has not assigned yet is let through: it may be seen one day.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}' | '\u{FDD0}'..='\u{FDEF}')
        || matches!(u32::from(character) & 0xFFFF, 0xFFFE | 0xFFFF)
}

/// What no name may have: control and unseen characters, another form than NFC, a blank at an end.
pub(crate) fn edge_fault(value: &str) -> Option<String> {
    let outer_blank = value.starts_with(char::is_whitespace) || value.ends_with(char::is_whitespace);
    character_fault(value).or_else(|| outer_blank.then(outer_blank_rule))
}

fn inner_blank_rule() -> String {
    "must not have a blank beside the first '-'".to_owned()
}

fn outer_blank_rule() -> String {
    "must not start or end with a blank".to_owned()
}
