//! JSON objects that functions take: which keys each may have, and which it must. serde reads them where they lie; a document within them stays
//! what it is (`D`), and no number passes through a float.
//!
//! Errors are those of an argument, named by its place within the object; [`Error::within`] puts before it where the object stands.
use crate::error::Error;
use crate::quote::shown;
use serde::de::{self, Deserialize, Deserializer, Expected, SeqAccess, Unexpected, Visitor};
use std::fmt;

/// An element of es_append_events. A key that may be absent may be null, which is the same.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct EventElement<'a, D> {
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
}

/// An element of es_append_streams.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct StreamElement<'a, D> {
    pub stream: &'a str,
    pub expected_version: Option<i64>,
    pub events: D,
}

/// An element of the columns of es_create_state_table and es_create_temporal_view.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct ColumnElement<'a> {
    pub name: &'a str,
    #[serde(rename = "type")]
    pub type_name: &'a str,
    pub path: &'a str,
}

/// The settings of es_alter_projection: None is left as it is. None of them can be null.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct ProjectionSettings<'a> {
    #[serde(default, deserialize_with = "given")]
    pub batch_size: Option<i64>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub on_error: Option<&'a str>,
    #[serde(default, deserialize_with = "given")]
    pub max_retries: Option<i64>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub handler: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub reset: Option<&'a str>,
}

/// The settings of es_alter_event_type: None is left as it is, and null is none.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct EventTypeSettings<'a, D> {
    #[serde(default = "Option::default", deserialize_with = "given")]
    pub json_schema: Option<Option<D>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub description: Option<Option<&'a str>>,
    #[serde(default = "Option::default", deserialize_with = "given")]
    pub example: Option<Option<D>>,
    #[serde(default, deserialize_with = "given")]
    pub appendable: Option<bool>,
}

/// A query: which events.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct QueryElement<'a> {
    #[serde(borrow)]
    pub items: Option<Items<'a>>,
    pub all: Option<bool>,
}

/// An item of a query.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct ItemElement<'a> {
    #[serde(borrow)]
    pub event_types: Option<Texts<'a>>,
    #[serde(borrow)]
    pub tags: Option<Texts<'a>>,
}

/// The criteria of es_query.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
#[allow(missing_docs)] // the fields are what their names say
pub struct CriteriaElement<'a, D> {
    #[serde(borrow)]
    pub streams: Option<Texts<'a>>,
    #[serde(borrow)]
    pub stream_prefix: Option<&'a str>,
    #[serde(borrow)]
    pub categories: Option<Texts<'a>>,
    #[serde(borrow)]
    pub event_types: Option<Texts<'a>>,
    #[serde(borrow)]
    pub items: Option<Items<'a>>,
    #[serde(borrow)]
    pub tags: Option<Texts<'a>>,
    #[serde(borrow)]
    pub subjects: Option<Texts<'a>>,
    #[serde(borrow)]
    pub occurred: Option<SpanElement<'a>>,
    #[serde(borrow)]
    pub recorded: Option<SpanElement<'a>>,
    pub metadata: Option<D>,
    #[serde(borrow)]
    pub correlation_id: Option<&'a str>,
    pub payload: Option<D>,
    #[serde(borrow)]
    pub order: Option<&'a str>,
}

/// A range of times: from the first on, to the second, or before the third.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct SpanElement<'a> {
    #[serde(borrow)]
    pub from: Option<&'a str>,
    #[serde(borrow)]
    pub until: Option<&'a str>,
    #[serde(borrow)]
    pub before: Option<&'a str>,
}

/// The condition of es_append_streams.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct ConditionElement<'a> {
    #[serde(borrow)]
    pub query: QueryElement<'a>,
    pub after: i64,
    #[serde(borrow)]
    pub seen: Option<SeenElement<'a>>,
    #[serde(borrow)]
    pub log: Option<LogElement<'a>>,
}

/// What a condition had seen.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct SeenElement<'a> {
    pub count: i64,
    #[serde(borrow)]
    pub digest: &'a str,
}

/// Where a condition was taken.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct LogElement<'a> {
    #[serde(borrow)]
    pub id: &'a str,
    #[serde(borrow)]
    pub tenant: &'a str,
    pub timeline: i64,
    #[serde(borrow)]
    pub place: &'a str,
}

/// The settings of es_alter_category, and of its row: None is left as it is, and null is back at the default.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are what their names say
pub struct CategorySettings<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    pub event_types: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub expected_version: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub actor: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub event_id: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub id_pattern: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub foldable: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub max_future: Option<Option<&'a str>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub personal_data: Option<Option<&'a str>>,
}

/// What is there: null is a value like others.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// An array of strings; not so many that it matters are copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts<'a>(pub Vec<&'a str>);

impl Texts<'_> {
    /// More than a set of a few can need, each named several times.
    const MOST: usize = 1000;
}

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Texts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Texts<'de>, A::Error> {
                let (count, most) = (elements.size_hint().unwrap_or(0), Texts::MOST);
                if count > most {
                    return Err(de::Error::custom(format_args!("must have at most {most} elements, not {count}")));
                }
                let mut texts = Vec::with_capacity(count);
                while let Some(text) = elements.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        value.deserialize_seq(Reading)
    }
}

/// The items of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Items<'a>(pub Vec<ItemElement<'a>>);

impl Items<'_> {
    /// A decision that depends on more is several.
    pub const MOST: usize = 100;
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Items<'de>, A::Error> {
                let (count, most) = (elements.size_hint().unwrap_or(0), Items::MOST);
                if count > most {
                    return Err(de::Error::custom(format_args!("must have at most {most} elements, not {count}")));
                }
                let mut items = Vec::with_capacity(count);
                while let Some(item) = elements.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        value.deserialize_seq(Reading)
    }
}

/// A key as a message names it: as it is where it could be a name, else quoted and cut.
fn key_name(key: &str) -> String {
    let is_plain = key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { key.into() } else { shown(key) }
}

impl Error {
    /// Puts before the argument that is wrong where it stands: `events[3]`, or a key. An element's place, `[3]`, follows without a point.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        let placed = |inner: String| match inner.chars().next() {
            None => place.to_owned(),
            Some('[') => format!("{place}{inner}"),
            Some(_) => format!("{place}.{inner}"),
        };
        match self {
            Self::InvalidArgument { argument, reason, hint } => {
                Self::InvalidArgument { argument: placed(argument), reason, hint }
            }
            // It begins with the name of the argument.
            Self::LimitExceeded { setting, limit, actual, what } => {
                Self::LimitExceeded { setting, limit, actual, what: placed(what) }
            }
            other => other,
        }
    }
}

fn mistake(argument: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { argument: argument.into(), reason: reason.into(), hint: None }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        mistake("", reason.to_string())
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        mistake("", format!("must be {expected}, not {found}"))
    }

    fn missing_field(key: &'static str) -> Self {
        mistake(key, "must be given")
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::InvalidArgument {
            argument: key_name(key),
            reason: "is not a key that can stand here".into(),
            hint: Some(format!("Keys: {}.", known.join(", "))),
        }
    }
}
