//! Parts of a document where they lie, without copies, and documents put together from parts. Nothing here recurses over a
//! document, however deep it is.
use super::{Jsonb, Shape, check_for_interrupts, find, numeric_body, string, whole};
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Datum, JsonbIteratorToken as Token, jbvType};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::{ptr, slice};

/// A value within a document, or the document itself.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    value: pg_sys::JsonbValue,
    _document: PhantomData<&'a ()>,
}

impl<'a> Jsonb<'a> {
    /// What `self @> other` says.
    pub fn contains(self, other: Jsonb) -> Result<bool> {
        // SAFETY: both are detoasted documents.
        let says = catch(|| unsafe {
            let (all, part) = (self.datum(), other.datum());
            ffi::DirectFunctionCall2Coll(Some(ffi::jsonb_contains), pg_sys::InvalidOid, all, part)
        })?;
        Ok(says.value() != 0)
    }

    /// The member of an object, where it is a string. Nothing else is looked at.
    pub fn member_text(self, key: &str) -> Result<Option<&'a str>> {
        if self.shape() != Shape::Object {
            return Ok(None);
        }
        let root = self.root();
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        let into = value.as_mut_ptr();
        // SAFETY: a valid container within the document; `into` is filled where something is found, and points into it.
        unsafe {
            if !catch(|| find(root, key, None, into))? || (*into).type_ != jbvType::jbvString {
                return Ok(None);
            }
            Ok(Some(string(&*into)))
        }
    }

    /// The object with that text as a member, in the place of one of that name.
    pub fn with_text<'made>(self, key: &str, text: &str) -> Result<Jsonb<'made>> {
        let mut object = ObjectBuilder::begin()?;
        object.put_all(self)?;
        object.put(key, Part::text(text))?;
        object.finish()
    }

    /// The members of both objects: of two of one name that of `over`.
    pub fn under<'made>(self, over: Jsonb) -> Result<Jsonb<'made>> {
        let mut object = ObjectBuilder::begin()?;
        object.put_all(self)?;
        object.put_all(over)?;
        object.finish()
    }
}

impl<'a> Part<'a> {
    pub fn all_of(document: Jsonb<'a>) -> Result<Self> {
        let root = document.root();
        if document.shape() == Shape::Scalar {
            // SAFETY: a scalar document is an array of one; the value points into the document.
            let value = catch(|| unsafe { *ffi::getIthJsonbValueFromContainer(root, 0) })?;
            return Ok(Self { value, _document: PhantomData });
        }
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        // SAFETY: a container value as JsonbIteratorNext gives it; zeroes are a valid JsonbValue.
        let value = unsafe {
            (*value.as_mut_ptr()).type_ = jbvType::jbvBinary;
            (*value.as_mut_ptr()).val.binary.data = root;
            (*value.as_mut_ptr()).val.binary.len = (document.size() - pg_sys::VARHDRSZ) as i32;
            value.assume_init()
        };
        Ok(Self { value, _document: PhantomData })
    }

    pub fn text(text: &'a str) -> Self {
        Self::scalar(jbvType::jbvString, |value| {
            // SAFETY: the tag says that this member of the union counts; the text lives as long as the part.
            let string = unsafe { &mut value.val.string };
            string.len = text.len() as i32;
            string.val = text.as_ptr().cast_mut().cast();
        })
    }

    pub fn boolean(is: bool) -> Self {
        Self::scalar(jbvType::jbvBool, |value| value.val.boolean = is)
    }

    pub fn null() -> Self {
        Self::scalar(jbvType::jbvNull, |_| ())
    }

    /// In the current memory context.
    pub fn integer(number: i64) -> Result<Self> {
        // SAFETY: int8_numeric takes a bigint and gives a numeric.
        let made = catch(|| unsafe {
            ffi::DirectFunctionCall1Coll(Some(ffi::int8_numeric), pg_sys::InvalidOid, Datum::from(number))
        })?;
        Ok(Self::scalar(jbvType::jbvNumeric, |value| value.val.numeric = made.cast_mut_ptr()))
    }

    fn scalar(kind: jbvType::Type, fill: impl FnOnce(&mut pg_sys::JsonbValue)) -> Self {
        // SAFETY: zeroes are a valid JsonbValue (jbvNull).
        let mut value: pg_sys::JsonbValue = unsafe { MaybeUninit::zeroed().assume_init() };
        value.type_ = kind;
        fill(&mut value);
        Self { value, _document: PhantomData }
    }

    /// The container, and the bytes it takes; None for a scalar.
    fn container(&self) -> Option<(*mut pg_sys::JsonbContainer, usize)> {
        if self.value.type_ != jbvType::jbvBinary {
            return None;
        }
        // SAFETY: the tag says that this member of the union is set.
        let binary = unsafe { self.value.val.binary };
        Some((binary.data, binary.len as usize))
    }

    pub fn shape(&self) -> Shape {
        match self.container() {
            None => Shape::Scalar,
            // SAFETY: a valid container.
            Some((container, _)) => Shape::of_container(unsafe { (*container).header }),
        }
    }

    /// Whether both print as the same text: numbers with value and scale.
    pub fn is_same(&self, other: &Part) -> bool {
        if self.value.type_ != other.value.type_ {
            return false;
        }
        // SAFETY: the tag says which member of the union is set; each points to as many bytes as it says.
        unsafe {
            match self.value.type_ {
                jbvType::jbvNull => true,
                jbvType::jbvBool => self.value.val.boolean == other.value.val.boolean,
                jbvType::jbvString => string(&self.value) == string(&other.value),
                jbvType::jbvNumeric => numeric_body(self.value.val.numeric) == numeric_body(other.value.val.numeric),
                _ => {
                    let bytes = |(container, len): (*mut pg_sys::JsonbContainer, usize)| {
                        slice::from_raw_parts(container.cast::<u8>(), len)
                    };
                    self.container().map(bytes) == other.container().map(bytes)
                }
            }
        }
    }

    /// The members of an object by the length of their keys and then by their bytes, or the elements of an array; none of a scalar.
    pub fn members(&self) -> Result<Members<'a>> {
        let iterator = match self.container() {
            // SAFETY: a valid container.
            Some((container, _)) => catch(|| unsafe { ffi::JsonbIteratorInit(container) })?,
            None => ptr::null_mut(),
        };
        Ok(Members { iterator, key: "", _document: PhantomData })
    }
}

/// Gives the members of an object, or the elements of an array with an empty key, one by one.
pub struct Members<'a> {
    iterator: *mut pg_sys::JsonbIterator,
    key: &'a str,
    _document: PhantomData<&'a ()>,
}

impl<'a> Members<'a> {
    pub fn next(&mut self) -> Result<Option<(&'a str, Part<'a>)>> {
        while !self.iterator.is_null() {
            let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
            let (at, into) = (&raw mut self.iterator, value.as_mut_ptr());
            // SAFETY: the protocol of JsonbIteratorNext; nested containers come as one value (skip_nested).
            let token = catch(|| unsafe {
                check_for_interrupts();
                ffi::JsonbIteratorNext(at, into, true)
            })?;
            match token {
                Token::WJB_DONE => self.iterator = ptr::null_mut(),
                // SAFETY: a key is a string within the document.
                Token::WJB_KEY => self.key = unsafe { string(&*value.as_ptr()) },
                Token::WJB_VALUE | Token::WJB_ELEM => {
                    // SAFETY: the token says that the value was filled.
                    let value = unsafe { value.assume_init() };
                    return Ok(Some((self.key, Part { value, _document: PhantomData })));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// An object that is put together; keys and parts must live until it is finished.
pub struct ObjectBuilder<'a> {
    state: *mut pg_sys::JsonbParseState,
    _parts: PhantomData<&'a ()>,
}

impl<'a> ObjectBuilder<'a> {
    pub fn begin() -> Result<Self> {
        let mut builder = Self { state: ptr::null_mut(), _parts: PhantomData };
        builder.push(Token::WJB_BEGIN_OBJECT, ptr::null_mut())?;
        Ok(builder)
    }

    fn push(&mut self, token: Token::Type, value: *mut pg_sys::JsonbValue) -> Result<*mut pg_sys::JsonbValue> {
        let state = &raw mut self.state;
        // SAFETY: tokens come in the order that pushJsonbValue expects; it copies the value, but not what that points to.
        catch(|| unsafe { ffi::pushJsonbValue(state, token, value) })
    }

    fn key(&mut self, key: &'a str) -> Result<()> {
        let mut key = Part::text(key).value;
        self.push(Token::WJB_KEY, &raw mut key).map(drop)
    }

    pub fn put(&mut self, key: &'a str, part: Part<'a>) -> Result<()> {
        self.key(key)?;
        let mut value = part.value;
        self.push(Token::WJB_VALUE, &raw mut value).map(drop)
    }

    /// Puts all members of an object.
    pub fn put_all(&mut self, object: Jsonb<'a>) -> Result<()> {
        let mut members = Part::all_of(object)?.members()?;
        while let Some((key, part)) = members.next()? {
            self.put(key, part)?;
        }
        Ok(())
    }

    /// Puts an array of texts.
    pub fn put_texts(&mut self, key: &'a str, texts: impl Iterator<Item = &'a str>) -> Result<()> {
        self.key(key)?;
        self.push(Token::WJB_BEGIN_ARRAY, ptr::null_mut())?;
        for text in texts {
            let mut text = Part::text(text).value;
            self.push(Token::WJB_ELEM, &raw mut text)?;
        }
        self.push(Token::WJB_END_ARRAY, ptr::null_mut()).map(drop)
    }

    /// Begins an object within this one, up to [`ObjectBuilder::end_member`].
    pub fn begin_member(&mut self, key: &'a str) -> Result<()> {
        self.key(key)?;
        self.push(Token::WJB_BEGIN_OBJECT, ptr::null_mut()).map(drop)
    }

    pub fn end_member(&mut self) -> Result<()> {
        self.push(Token::WJB_END_OBJECT, ptr::null_mut()).map(drop)
    }

    /// The object, in the current memory context. Of two members of one name it has the later one.
    pub fn finish<'made>(mut self) -> Result<Jsonb<'made>> {
        let made = self.push(Token::WJB_END_OBJECT, ptr::null_mut())?;
        // SAFETY: the outermost object is complete.
        unsafe { whole(made) }
    }
}
