//! JSON documents as text. Promise: what PostgreSQL wrote is what is handed on, digit for digit; nothing is parsed until somebody says as what.
use crate::error::Error;
use bytes::{BufMut, BytesMut};
use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;

/// One JSON value, as text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

/// The byte before the text of a jsonb, as PostgreSQL sends and takes it (jsonb_send in jsonb.c).
const JSONB_VERSION: u8 = 1;

impl Json {
    /// The document that `text` is; an error where it is none.
    pub fn parse_text(text: impl Into<String>) -> Result<Self, Error> {
        RawValue::from_string(text.into()).map(Self).map_err(Error::NotJson)
    }

    /// `value`, written as JSON.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        serde_json::value::to_raw_value(value).map(Self).map_err(Error::NotJson)
    }

    /// The empty object.
    pub fn empty() -> Self {
        Self(RawValue::from_string("{}".to_owned()).expect("an object is JSON"))
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The document as a type of the caller's. A field of a decimal type keeps every digit, one of `f64` does not.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.as_str()).map_err(Error::NotJson)
    }

    /// What stands at a JSON Pointer (RFC 6901); None where there is nothing.
    pub fn at(&self, pointer: &str) -> Option<Self> {
        let mut here = self.0.clone();
        if pointer.is_empty() {
            return Some(Self(here));
        }
        for step in pointer.strip_prefix('/')?.split('/') {
            let key = step.replace("~1", "/").replace("~0", "~");
            here = match here.get().as_bytes().first()? {
                b'{' => serde_json::from_str::<HashMap<String, Box<RawValue>>>(here.get()).ok()?.remove(&key)?,
                b'[' => {
                    let mut elements = serde_json::from_str::<Vec<Box<RawValue>>>(here.get()).ok()?;
                    let place = key.parse::<usize>().ok().filter(|place| *place < elements.len())?;
                    elements.swap_remove(place)
                }
                _ => return None,
            };
        }
        Some(Self(here))
    }

    /// The text at a pointer; None where there is no string.
    pub fn string_at(&self, pointer: &str) -> Option<String> {
        self.at(pointer)?.read().ok()
    }

    /// The whole number at a pointer; None where there is none, or not one of 64 bits.
    pub fn integer_at(&self, pointer: &str) -> Option<i64> {
        self.at(pointer)?.read().ok()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ToSql for Json {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if *ty == Type::JSONB {
            out.put_u8(JSONB_VERSION);
        }
        out.extend_from_slice(self.as_str().as_bytes());
        Ok(IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Json {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let text = match raw {
            [JSONB_VERSION, text @ ..] if *ty == Type::JSONB => text,
            _ if *ty == Type::JSONB => return Err("a jsonb of a version that this client does not know".into()),
            text => text,
        };
        Ok(Self(RawValue::from_string(std::str::from_utf8(text)?.to_owned())?))
    }

    accepts!(JSON, JSONB);
}
