//! jsonb as PostgreSQL holds it. A document is never parsed into floats: numbers keep value and scale. Walking a document
//! needs no recursion, so no input can overflow the stack.
pub mod parts;
mod read;
mod residual;
use super::error::failure::{Result, catch};
use super::ffi;
use crate::pg::error::failure::c_string;
use eventstream_core::error::Error;
use eventstream_core::json;
use eventstream_core::number::{decimal, printed_digits};
use eventstream_core::rules::Pointer;
use pgrx::pg_sys::{self, Datum, JsonbIteratorToken as Token, jbvType};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::{ptr, slice, str};

/// A detoasted document.
#[derive(Clone, Copy)]
pub struct Jsonb<'a> {
    pointer: *mut pg_sys::Jsonb,
    _memory: PhantomData<&'a ()>,
}

/// What a document is made of, found without printing it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Measure {
    /// Levels of nesting; a scalar has 0.
    pub depth: i64,
    /// Digits of its longest number.
    pub digits: u64,
    /// A lower bound of its printed size in bytes.
    pub bytes: u64,
}

/// A member of an object, or an element of an array.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    /// A number; [`Value::document`] gives its text.
    Number(Jsonb<'a>),
    Text(&'a str),
    Object(Jsonb<'a>),
    Array(Jsonb<'a>),
}

/// What `select jsonb_typeof` would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Object,
    Array,
    Scalar,
}

impl Shape {
    /// By the header of a container (utils/jsonb.h).
    pub(super) fn of_container(header: u32) -> Self {
        match header {
            header if header & pg_sys::JB_FSCALAR != 0 => Shape::Scalar,
            header if header & pg_sys::JB_FOBJECT != 0 => Shape::Object,
            _ => Shape::Array,
        }
    }
}

impl<'a> Jsonb<'a> {
    /// # Safety
    /// `value` is a datum of type jsonb; the result must not outlive the current memory context.
    pub unsafe fn from_datum(value: Datum) -> Result<Self> {
        // SAFETY: the caller vouches for the type.
        let pointer = catch(|| unsafe { ffi::pg_detoast_datum(value.cast_mut_ptr()).cast() })?;
        Ok(Self { pointer, _memory: PhantomData })
    }

    /// # Safety
    /// `value` is a detoasted jsonb, which stays where it is for as long as the result is used.
    pub(super) unsafe fn of_detoasted(value: Datum) -> Self {
        Self { pointer: value.cast_mut_ptr(), _memory: PhantomData }
    }

    /// What a function that is declared to return jsonb returned.
    pub fn of_datum(value: Datum) -> Result<Self> {
        // SAFETY: the declaration vouches for the type.
        unsafe { Self::from_datum(value) }
    }

    pub fn parse(text: &str) -> Result<Self> {
        let text = c_string(text)?;
        // SAFETY: jsonb_in takes a cstring and gives a jsonb.
        let made = catch(|| unsafe {
            ffi::DirectFunctionCall1Coll(Some(ffi::jsonb_in), pg_sys::InvalidOid, Datum::from(text))
        })?;
        // SAFETY: as above.
        unsafe { Self::from_datum(made) }
    }

    pub fn datum(self) -> Datum {
        Datum::from(self.pointer)
    }

    pub(super) fn root(self) -> *mut pg_sys::JsonbContainer {
        // SAFETY: the pointer is a whole, detoasted jsonb.
        unsafe { &raw mut (*self.pointer).root }
    }

    /// The text that PostgreSQL prints for it (`payload::text`), in the current memory context.
    pub fn text(self) -> Result<&'a [u8]> {
        let (root, size) = (self.root(), self.size());
        // SAFETY: a valid container; the result is a zero-terminated string.
        catch(|| unsafe { CStr::from_ptr(ffi::JsonbToCString(ptr::null_mut(), root, size as i32)).to_bytes() })
    }

    /// Bytes that the document takes, header included.
    pub fn size(self) -> usize {
        // SAFETY: detoasted, so its header is a plain 4-byte one.
        unsafe { pgrx::varlena::varsize_any(self.pointer.cast()) }
    }

    pub fn shape(self) -> Shape {
        // SAFETY: the header of a valid container.
        Shape::of_container(unsafe { (*self.root()).header })
    }

    /// Members of an object, elements of an array; 1 for a scalar.
    pub fn len(self) -> usize {
        // SAFETY: the header of a valid container.
        (unsafe { (*self.root()).header } & pg_sys::JB_CMASK) as usize
    }

    pub fn is_object(self) -> bool {
        self.shape() == Shape::Object
    }

    /// Depth, digits and size, giving up early once more than `enough_bytes` are certain.
    pub fn measure(self, enough_bytes: u64) -> Result<Measure> {
        let root = self.root();
        catch(|| {
            let mut measure = Measure::default();
            let mut level = 0_i64;
            let mut value = MaybeUninit::<pg_sys::JsonbValue>::uninit();
            let mut steps = 0_u32;
            // SAFETY: the protocol of JsonbIteratorNext; a value is read only after a token that fills it.
            unsafe {
                let mut iterator = ffi::JsonbIteratorInit(root);
                loop {
                    let token = ffi::JsonbIteratorNext(&mut iterator, value.as_mut_ptr(), false);
                    match token {
                        Token::WJB_DONE => break,
                        Token::WJB_BEGIN_ARRAY => {
                            let raw_scalar = (*value.as_ptr()).val.array.rawScalar;
                            level += i64::from(!raw_scalar);
                            measure.bytes += if raw_scalar { 0 } else { 2 };
                        }
                        Token::WJB_BEGIN_OBJECT => {
                            level += 1;
                            measure.bytes += 2;
                        }
                        Token::WJB_END_ARRAY | Token::WJB_END_OBJECT => level -= 1,
                        _ => {
                            let value = &*value.as_ptr();
                            match value.type_ {
                                jbvType::jbvString => measure.bytes += value.val.string.len as u64 + 2,
                                jbvType::jbvNumeric => {
                                    let body = numeric_body(value.val.numeric);
                                    let digits = printed_digits(body).unwrap_or(1);
                                    measure.digits = measure.digits.max(digits);
                                    measure.bytes += digits;
                                }
                                _ => measure.bytes += 4,
                            }
                        }
                    }
                    measure.depth = measure.depth.max(level);
                    if measure.bytes > enough_bytes {
                        break;
                    }
                    steps += 1;
                    if steps.is_multiple_of(4096) {
                        check_for_interrupts();
                    }
                }
            }
            measure
        })
    }

    /// Calls `each` with every member of an object, or with every element of an array and an empty key.
    pub fn each(self, mut each: impl FnMut(&'a str, Value<'a>) -> Result<()>) -> Result<()> {
        let mut pairs = self.pairs()?;
        while let Some((key, value)) = pairs.next()? {
            each(key, value)?;
        }
        Ok(())
    }
}

impl<'a> Value<'a> {
    /// # Safety
    /// `value` was filled by JsonbIteratorNext from a document that lives for 'a.
    unsafe fn of_filled(value: *mut pg_sys::JsonbValue) -> Result<Self> {
        // SAFETY: the caller vouches for the value; each variant is read as its tag says.
        unsafe {
            Ok(match (*value).type_ {
                jbvType::jbvNull => Value::Null,
                jbvType::jbvBool => Value::Boolean((*value).val.boolean),
                jbvType::jbvString => Value::Text(string(&*value)),
                jbvType::jbvNumeric => Value::Number(whole(value)?),
                _ => {
                    let document = whole(value)?;
                    if document.is_object() { Value::Object(document) } else { Value::Array(document) }
                }
            })
        }
    }

    /// The value as a document of its own.
    pub fn document(self) -> Result<Jsonb<'a>> {
        match self {
            Value::Null => Jsonb::parse("null"),
            Value::Boolean(true) => Jsonb::parse("true"),
            Value::Boolean(false) => Jsonb::parse("false"),
            Value::Number(document) | Value::Object(document) | Value::Array(document) => Ok(document),
            Value::Text(text) => {
                let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
                // SAFETY: a string value that borrows `text`, which JsonbValueToJsonb copies.
                unsafe {
                    (*value.as_mut_ptr()).type_ = jbvType::jbvString;
                    (*value.as_mut_ptr()).val.string.len = text.len() as i32;
                    (*value.as_mut_ptr()).val.string.val = text.as_ptr().cast_mut().cast();
                    whole(value.as_mut_ptr())
                }
            }
        }
    }

    /// What it is, for messages.
    pub fn kind(self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Boolean(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::Object(_) => "an object",
            Value::Array(_) => "an array",
        }
    }
}

/// # Safety
/// `value` is a filled value; the copy lives in the current memory context.
pub(super) unsafe fn whole<'a>(value: *mut pg_sys::JsonbValue) -> Result<Jsonb<'a>> {
    // SAFETY: as the caller says.
    let pointer = catch(|| unsafe { ffi::JsonbValueToJsonb(value) })?;
    Ok(Jsonb { pointer, _memory: PhantomData })
}

/// # Safety
/// `value` is a string value of a document that lives for 'a.
pub(super) unsafe fn string<'a>(value: &pg_sys::JsonbValue) -> &'a str {
    // SAFETY: jsonb strings are UTF-8 in a UTF8 database; `len` bytes are there.
    unsafe {
        let string = value.val.string;
        str::from_utf8_unchecked(slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize))
    }
}

/// # Safety
/// `number` is a numeric within a document (4-byte header).
pub(super) unsafe fn numeric_body<'a>(number: pg_sys::Numeric) -> &'a [u8] {
    // SAFETY: as the caller says.
    unsafe {
        let pointer = number.cast::<pg_sys::varlena>();
        slice::from_raw_parts(
            pgrx::varlena::vardata_any(pointer).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(pointer),
        )
    }
}

impl<'a> Jsonb<'a> {
    /// A copy of what the pointer points to, if there is such a value. Nothing else is looked at.
    pub fn at(self, pointer: &Pointer) -> Result<Option<json::Value>> {
        let root = self.root();
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        let into = value.as_mut_ptr();
        let mut tokens = pointer.tokens();
        let Some(mut token) = tokens.next() else { return self.value().map(Some) };
        let mut container = root;
        loop {
            // SAFETY: a valid container within the document; `into` is filled where something is found.
            let is_found = catch(|| unsafe { find(container, token.as_str(), token.index(), into) })?;
            if !is_found {
                return Ok(None);
            }
            match tokens.next() {
                // SAFETY: filled.
                None => return unsafe { owned(into) }.map(Some),
                Some(next) => {
                    // SAFETY: filled; a container value points into the document.
                    unsafe {
                        if (*into).type_ != jbvType::jbvBinary {
                            return Ok(None);
                        }
                        container = (*into).val.binary.data;
                    }
                    token = next;
                }
            }
        }
    }

    /// The whole document as rules hold it. Walks without recursion.
    pub fn value(self) -> Result<json::Value> {
        // SAFETY: a valid container.
        unsafe { container_value(self.root()) }
    }
}

/// Looks up a member of an object, or an element of an array, in `container`. Runs inside `catch`.
///
/// # Safety
/// `container` is a valid container.
unsafe fn find(
    container: *mut pg_sys::JsonbContainer,
    key: &str,
    index: Option<usize>,
    into: *mut pg_sys::JsonbValue,
) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        if (*container).header & pg_sys::JB_FOBJECT != 0 {
            let (key, length) = (key.as_ptr().cast(), key.len() as i32);
            return !ffi::getKeyJsonValueFromContainer(container, key, length, into).is_null();
        }
        if (*container).header & pg_sys::JB_FSCALAR != 0 {
            return false;
        }
        let found = match index.and_then(|index| u32::try_from(index).ok()) {
            Some(index) => ffi::getIthJsonbValueFromContainer(container, index),
            None => ptr::null_mut(),
        };
        if !found.is_null() {
            into.copy_from(found, 1);
        }
        !found.is_null()
    }
}

/// # Safety
/// `value` is filled, and what it points to is alive.
unsafe fn owned(value: *mut pg_sys::JsonbValue) -> Result<json::Value> {
    // SAFETY: as the caller says; each variant is read as its tag says.
    unsafe {
        Ok(match (*value).type_ {
            jbvType::jbvNull => json::Value::Null,
            jbvType::jbvBool => json::Value::Bool((*value).val.boolean),
            jbvType::jbvString => json::Value::Text(string(&*value).to_owned()),
            jbvType::jbvNumeric => json::Value::Number(number((*value).val.numeric)?),
            _ => container_value((*value).val.binary.data)?,
        })
    }
}

/// # Safety
/// `numeric` is a numeric within a document.
unsafe fn number(numeric: pg_sys::Numeric) -> Result<eventstream_core::decimal::Decimal> {
    // SAFETY: as the caller says.
    decimal(unsafe { numeric_body(numeric) })
        .ok_or_else(|| Error::Internal { what: "a number is not finite".into() }.into())
}

/// # Safety
/// `container` is a valid container.
unsafe fn container_value(container: *mut pg_sys::JsonbContainer) -> Result<json::Value> {
    // SAFETY: as the caller says.
    let mut iterator = catch(|| unsafe { ffi::JsonbIteratorInit(container) })?;
    // What is being filled, outermost first, each with the key that it will be put under.
    let mut open: Vec<(json::Value, String)> = Vec::new();
    let mut key = String::new();
    loop {
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        let (at, into) = (&raw mut iterator, value.as_mut_ptr());
        // SAFETY: the protocol of JsonbIteratorNext.
        let token = catch(|| unsafe { ffi::JsonbIteratorNext(at, into, false) })?;
        // SAFETY: the token says what was filled.
        let finished = unsafe {
            match token {
                Token::WJB_BEGIN_OBJECT => {
                    open.push((json::Value::Object(json::Object::default()), std::mem::take(&mut key)));
                    None
                }
                Token::WJB_BEGIN_ARRAY => {
                    open.push((json::Value::Array(Vec::new()), std::mem::take(&mut key)));
                    if (*into).val.array.rawScalar {
                        // A scalar document is an array of one: read the one, and be done.
                        catch(|| ffi::JsonbIteratorNext(at, into, false))?;
                        return owned(into);
                    }
                    None
                }
                Token::WJB_KEY => {
                    key = string(&*into).to_owned();
                    None
                }
                Token::WJB_VALUE | Token::WJB_ELEM => Some((owned(into)?, std::mem::take(&mut key))),
                Token::WJB_END_OBJECT | Token::WJB_END_ARRAY => open.pop(),
                _ => return Err(Error::Internal { what: "a document ends before it is complete".into() }.into()),
            }
        };
        let Some((value, key)) = finished else { continue };
        match open.last_mut() {
            None => return Ok(value),
            Some((json::Value::Object(object), _)) => {
                object.insert(key, value);
            }
            Some((json::Value::Array(array), _)) => array.push(value),
            Some(_) => {}
        }
    }
}

/// A document of our own, in memory that PostgreSQL does not manage: it outlives queries and transactions.
#[derive(Debug, Clone)]
pub struct Stored {
    /// 8-byte words, because a jsonb is read in 4-byte ones.
    words: Box<[u64]>,
    len: usize,
}

impl Stored {
    pub fn keep(document: Jsonb) -> Self {
        let len = document.size();
        let mut words = vec![0_u64; len.div_ceil(8)].into_boxed_slice();
        // SAFETY: `len` bytes are there, and there is room for them.
        unsafe { ptr::copy_nonoverlapping(document.pointer.cast::<u8>(), words.as_mut_ptr().cast::<u8>(), len) };
        Self { words, len }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.len
    }

    /// The document, for as long as it is kept; PostgreSQL only reads it.
    pub fn view(&self) -> Jsonb<'_> {
        Jsonb { pointer: self.words.as_ptr().cast_mut().cast(), _memory: PhantomData }
    }

    /// A datum in the current memory context.
    pub fn datum(&self) -> Result<Datum> {
        let (from, len) = (self.words.as_ptr().cast::<u8>(), self.len);
        // SAFETY: `len` bytes are there, and palloc gives as many.
        catch(|| unsafe {
            let made = ffi::palloc(len).cast::<u8>();
            ptr::copy_nonoverlapping(from, made, len);
            Datum::from(made)
        })
    }
}

/// CHECK_FOR_INTERRUPTS of miscadmin.h; may raise, so only inside [`catch`].
pub fn check_for_interrupts() {
    // SAFETY: a flag that signal handlers set, and the function that acts on it.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
            ffi::ProcessInterrupts();
        }
    }
}
