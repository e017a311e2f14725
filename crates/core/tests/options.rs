//! What JSON objects may say, and what is said of those that say something else. Where they lie is pg_test's and tests/regress's.
use eventstream_core::error::Error;
use eventstream_core::options::{ColumnElement, EventElement, ProjectionSettings, StreamElement};
use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// A value of a document, as a test writes it.
#[derive(Clone)]
enum Given {
    Null,
    Whole(i64),
    Text(&'static str),
    Texts(Vec<&'static str>),
}

impl IntoDeserializer<'_, Error> for Given {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Given {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Whole(number) => visitor.visit_i64(number),
            Self::Text(text) => visitor.visit_borrowed_str(text),
            Self::Texts(texts) => {
                let texts = texts.into_iter().map(Self::Text);
                visitor.visit_seq(SeqDeserializer::<_, Error>::new(texts))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if matches!(self, Self::Null) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

fn read<T: Deserialize<'static>>(members: &[(&'static str, Given)]) -> Result<T, Error> {
    let members = members.iter().map(|(key, value)| (BorrowedStrDeserializer::new(key), value.clone()));
    T::deserialize(MapDeserializer::new(members.map(|(key, value)| (Key(key), value))))
}

/// A key of an object.
struct Key(BorrowedStrDeserializer<'static, Error>);

impl IntoDeserializer<'static, Error> for Key {
    type Deserializer = BorrowedStrDeserializer<'static, Error>;

    fn into_deserializer(self) -> Self::Deserializer {
        self.0
    }
}

fn refused<T: Deserialize<'static>>(members: &[(&'static str, Given)]) -> (String, Option<String>) {
    match read::<T>(members) {
        Err(Error::InvalidArgument { argument, reason, hint }) => (format!("{argument} {reason}"), hint),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was read"),
    }
}

type Event = EventElement<'static, &'static str>;

#[test]
fn an_element_says_what_an_event_is() {
    use Given::{Null, Text, Texts, Whole};
    let event: Event = read(&[
        ("type", Text("Opened")),
        ("tags", Texts(vec!["b", "a"])),
        ("payload", Text("{}")),
        ("schema_version", Whole(3)),
        ("subject", Null),
    ])
    .unwrap();
    assert_eq!((event.event_type, event.payload, event.schema_version), ("Opened", "{}", Some(3)));
    assert_eq!((event.tags.unwrap().0, event.subject, event.event_id), (vec!["b", "a"], None, None));
}

#[test]
fn what_must_be_there_is_asked_for_by_name() {
    use Given::Text;
    assert_eq!(refused::<Event>(&[("payload", Text("{}"))]).0, "type must be given");
    assert_eq!(refused::<Event>(&[("type", Text("A"))]).0, "payload must be given");
    assert_eq!(refused::<StreamElement<&str>>(&[("events", Text("[]"))]).0, "stream must be given");
    assert_eq!(refused::<StreamElement<&str>>(&[("stream", Text("a-1"))]).0, "events must be given");
}

#[test]
fn an_unknown_key_is_named_beside_those_that_are_known() {
    use Given::Text;
    let (reason, hint) = refused::<Event>(&[("colour", Text("red"))]);
    assert_eq!(reason, "colour is not a key that can stand here");
    assert_eq!(hint.unwrap(), "Keys: type, payload, metadata, event_id, occurred_at, schema_version, subject, tags.");
    let (reason, hint) = refused::<StreamElement<&str>>(&[("a key\nof another", Text("x"))]);
    assert_eq!(reason, "\"a key\\nof another\" is not a key that can stand here");
    assert_eq!(hint.unwrap(), "Keys: stream, expected_version, events.");
    let (_, hint) = refused::<ColumnElement>(&[("kind", Text("x"))]);
    assert_eq!(hint.unwrap(), "Keys: name, type, path.");
    let (_, hint) = refused::<ProjectionSettings>(&[("size", Text("x"))]);
    assert_eq!(hint.unwrap(), "Keys: batch_size, on_error, max_retries, handler, reset.");
}

#[test]
fn what_is_not_given_is_left_as_it_is_and_null_is_no_setting() {
    use Given::{Null, Text, Whole};
    let settings: ProjectionSettings = read(&[("batch_size", Whole(7)), ("on_error", Text("skip"))]).unwrap();
    assert_eq!(
        settings,
        ProjectionSettings { batch_size: Some(7), on_error: Some("skip"), ..ProjectionSettings::default() }
    );
    assert!(refused::<ProjectionSettings>(&[("batch_size", Null)]).0.contains("must be"));
    assert!(refused::<ProjectionSettings>(&[("handler", Null)]).0.contains("must be"));
}

#[test]
fn more_tags_than_a_set_could_need_are_not_copied() {
    use Given::{Text, Texts};
    let with = |count| [("type", Text("A")), ("payload", Text("{}")), ("tags", Texts(vec!["a"; count]))];
    assert!(read::<Event>(&with(1000)).is_ok());
    assert_eq!(refused::<Event>(&with(1001)).0, " must have at most 1000 elements, not 1001");
    let (reason, _) = refused::<Event>(&[("tags", Text("a"))]);
    assert_eq!(reason, " must be an array of strings, not string \"a\"");
}

#[test]
fn a_place_stands_before_what_is_wrong_there() {
    let wrong =
        |argument: &str| Error::InvalidArgument { argument: argument.into(), reason: "is wrong".into(), hint: None };
    assert_eq!(wrong("").within("events[0]").to_string(), "events[0] is wrong");
    assert_eq!(wrong("type").within("events[0]").to_string(), "events[0].type is wrong");
    assert_eq!(wrong("").within("[2]").within("tags").within("events[0]").to_string(), "events[0].tags[2] is wrong");
    let long = Error::LimitExceeded { setting: "s", limit: 1, actual: Some(2), what: "payload has 2 bytes".into() };
    assert!(long.within("events[0]").to_string().starts_with("events[0].payload has 2 bytes, "));
}
