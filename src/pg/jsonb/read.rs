//! Documents member by member, and as serde reads them, where they lie: strings are borrowed, numbers are whole or refused, and a document within stays one. Errors
//! name the place below the value that is read.
use super::{Jsonb, Value, string};
use crate::pg::error::failure::{Failure, Result, catch, invalid};
use crate::pg::ffi;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, JsonbIteratorToken as Token};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// The name by which a document asks for itself.
const DOCUMENT: &str = "eventstream.document";

/// The most digits of a number that could be a whole one of 64 bits.
const MOST_DIGITS: u64 = 40;

thread_local! {
    /// A document on its way from the deserializer to [`Jsonb::deserialize`], for which serde has no word.
    static HANDED: Cell<Option<Jsonb<'static>>> = const { Cell::new(None) };
}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Error::custom(reason).into()
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Error::invalid_type(found, expected).into()
    }

    fn missing_field(key: &'static str) -> Self {
        Error::missing_field(key).into()
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Error::unknown_field(key, known).into()
    }
}

impl<'a> Value<'a> {
    /// The value as what it has to be. Errors: ES005.
    pub fn read<T: Deserialize<'a>>(self) -> Result<T> {
        T::deserialize(self)
    }

    fn is_not(self, what: &str) -> Failure {
        invalid("", format!("must be {what}, not {}", self.kind()))
    }

    fn integer(self) -> Result<i64> {
        let Value::Number(number) = self else { return Err(self.is_not("a whole number")) };
        if number.measure(u64::MAX)?.digits > MOST_DIGITS {
            return Err(invalid("", "must be a whole number of at most 18 digits"));
        }
        let text = String::from_utf8_lossy(number.text()?);
        text.parse().map_err(|_| invalid("", format!("must be a whole number, not {text}")))
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Failure;

    /// Of a kind that the visitor does not take.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        Err(de::Error::invalid_type(Unexpected::Other(self.kind()), &visitor))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            other => Err(other.is_not("a string")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Value::Boolean(value) => visitor.visit_bool(value),
            other => Err(other.is_not("a boolean")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_i64(self.integer()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Value::Null => visitor.visit_none(),
            there => visitor.visit_some(there),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Value::Array(array) => visitor.visit_seq(Elements { pairs: array.pairs()?, place: 0, count: array.len() }),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self {
            Value::Object(object) => visitor.visit_map(Members { pairs: object.pairs()?, member: None }),
            other => Err(other.is_not("an object")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name != DOCUMENT {
            return self.deserialize_any(visitor);
        }
        let document = self.document()?;
        HANDED.set(Some(document.handed()));
        let read = visitor.visit_unit();
        HANDED.set(None);
        read
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf unit unit_struct tuple tuple_struct map enum identifier
        ignored_any
    }
}

impl<'a> Jsonb<'a> {
    /// The members of an object, or the elements of an array with an empty key.
    pub(super) fn pairs(self) -> Result<Pairs<'a>> {
        let root = self.root();
        // SAFETY: a valid container.
        let iterator = catch(|| unsafe { ffi::JsonbIteratorInit(root) })?;
        Ok(Pairs { iterator, key: "", _document: PhantomData })
    }

    /// For as long as it takes the visitor to take it out again.
    fn handed(self) -> Jsonb<'static> {
        Jsonb { pointer: self.pointer, _memory: PhantomData }
    }
}

impl<'de> Deserialize<'de> for Jsonb<'de> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Jsonb<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a document of PostgreSQL's")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Jsonb<'de>, E> {
                HANDED.take().ok_or_else(|| E::invalid_type(Unexpected::Unit, &self))
            }
        }
        value.deserialize_newtype_struct(DOCUMENT, Reading)
    }
}

/// Gives members or elements one by one; None once, and then no more.
pub(super) struct Pairs<'a> {
    iterator: *mut pg_sys::JsonbIterator,
    key: &'a str,
    _document: PhantomData<&'a ()>,
}

impl<'a> Pairs<'a> {
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, Value<'a>)>> {
        loop {
            let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
            let (at, into) = (&raw mut self.iterator, value.as_mut_ptr());
            // SAFETY: the protocol of JsonbIteratorNext; nested containers come as one value (skip_nested).
            let token = catch(|| unsafe { ffi::JsonbIteratorNext(at, into, true) })?;
            match token {
                Token::WJB_DONE => return Ok(None),
                // SAFETY: a key is a string within the document.
                Token::WJB_KEY => self.key = unsafe { string(&*value.as_ptr()) },
                Token::WJB_VALUE | Token::WJB_ELEM => {
                    // SAFETY: the token says that the value was filled.
                    return Ok(Some((self.key, unsafe { Value::of_filled(value.as_mut_ptr()) }?)));
                }
                _ => {}
            }
        }
    }
}

/// The members of an object.
struct Members<'a> {
    pairs: Pairs<'a>,
    /// Whose key was read, and whose value is next.
    member: Option<(&'a str, Value<'a>)>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.member = self.pairs.next()?;
        let Some((key, _)) = self.member else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let Some((key, value)) = self.member.take() else { return Err(de::Error::custom("has a key without a value")) };
        seed.deserialize(value).map_err(|failure| failure.within(|| key.to_owned()))
    }
}

/// The elements of an array.
struct Elements<'a> {
    pairs: Pairs<'a>,
    place: usize,
    count: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some((_, value)) = self.pairs.next()? else { return Ok(None) };
        let place = self.place;
        self.place += 1;
        seed.deserialize(value).map(Some).map_err(|failure| failure.within(|| format!("[{place}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.place)
    }
}
