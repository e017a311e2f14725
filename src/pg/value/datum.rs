//! Values across the border: PostgreSQL's datums to Rust and back. By-reference datums are made in the current memory
//! context and live as long as it does.
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Datum};
use std::ffi::{CStr, c_char};
use std::{ptr, slice, str};

pub type Nullable = Option<Datum>;

/// # Safety
/// `value` is a datum of a variable-length type; the result lives in the current memory context, or where the datum does.
pub unsafe fn bytes<'a>(value: Datum) -> Result<&'a [u8]> {
    // SAFETY: the caller vouches for the type.
    catch(|| unsafe {
        let packed = ffi::pg_detoast_datum_packed(value.cast_mut_ptr());
        slice::from_raw_parts(pgrx::varlena::vardata_any(packed).cast::<u8>(), pgrx::varlena::varsize_any_exhdr(packed))
    })
}

/// # Safety
/// `value` is a datum of type text in a database whose encoding is UTF8 (CREATE EXTENSION checked it).
pub unsafe fn text<'a>(value: Datum) -> Result<&'a str> {
    // SAFETY: the server validates the encoding of every text that enters.
    unsafe { bytes(value).map(|bytes| str::from_utf8_unchecked(bytes)) }
}

/// # Safety
/// `value` is a datum of type name.
pub unsafe fn name<'a>(value: Datum) -> &'a str {
    // SAFETY: a name is zero-terminated and in the server's encoding, UTF8.
    unsafe { str::from_utf8_unchecked(CStr::from_ptr(value.cast_mut_ptr::<c_char>()).to_bytes()) }
}

/// # Safety
/// `value` is a datum of type uuid.
pub unsafe fn uuid(value: Datum) -> [u8; 16] {
    // SAFETY: a uuid is 16 bytes without alignment.
    unsafe { value.cast_mut_ptr::<[u8; 16]>().read_unaligned() }
}

/// The elements of a text[], where they lie.
pub struct Array {
    elements: *mut Datum,
    nulls: *mut bool,
    count: usize,
    dimensions: i32,
}

impl Array {
    /// # Safety
    /// `value` is a datum of type text[]; the result must not outlive the current memory context.
    pub unsafe fn of_text(value: Datum) -> Result<Self> {
        let mut elements = ptr::null_mut();
        let mut nulls = ptr::null_mut();
        let mut count = 0;
        // SAFETY: text is a variable-length type of alignment int; deconstruct_array fills the three results.
        let dimensions = catch(|| unsafe {
            let array: *mut pg_sys::ArrayType = ffi::pg_detoast_datum(value.cast_mut_ptr()).cast();
            ffi::deconstruct_array(
                array,
                pg_sys::TEXTOID,
                -1,
                false,
                b'i' as c_char,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            (*array).ndim
        })?;
        Ok(Self { elements, nulls, count: count as usize, dimensions })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// 1, or 0 of an empty one; more where each element is an array.
    pub fn dimensions(&self) -> i32 {
        self.dimensions
    }

    fn at(&self, place: usize) -> Option<Datum> {
        // SAFETY: both arrays have `count` elements, and `place` is below that.
        unsafe { (!*self.nulls.add(place)).then(|| *self.elements.add(place)) }
    }

    /// Bytes of its longest element.
    pub fn longest(&self) -> usize {
        let size = |value| unpacked_size(value).saturating_sub(pg_sys::VARHDRSZ);
        (0..self.count).filter_map(|place| self.at(place)).map(size).max().unwrap_or(0)
    }

    /// Copies of the elements.
    pub fn elements(&self) -> Result<Vec<Option<String>>> {
        // SAFETY: the elements of a text[] are texts.
        let copy = |value| unsafe { text(value) }.map(ToOwned::to_owned);
        (0..self.count).map(|place| self.at(place).map(copy).transpose()).collect()
    }
}

/// The elements of a text[] of our own tables.
///
/// # Safety
/// `value` is a datum of type text[].
pub unsafe fn text_array(value: Datum) -> Result<Vec<Option<String>>> {
    // SAFETY: as the caller says.
    unsafe { Array::of_text(value) }?.elements()
}

/// The elements of a bigint[] without NULLs.
///
/// # Safety
/// `value` is a datum of type bigint[].
pub unsafe fn int8_array(value: Datum) -> Result<Vec<i64>> {
    let mut elements = ptr::null_mut();
    let mut count = 0;
    // SAFETY: bigint is passed by value, 8 bytes, alignment double; NULL for the flags refuses NULLs.
    catch(|| unsafe {
        ffi::deconstruct_array(
            ffi::pg_detoast_datum(value.cast_mut_ptr()).cast(),
            pg_sys::INT8OID,
            8,
            true,
            b'd' as c_char,
            &mut elements,
            ptr::null_mut(),
            &mut count,
        );
    })?;
    // SAFETY: the array has `count` elements.
    Ok((0..count as usize).map(|place| unsafe { (*elements.add(place)).value() as i64 }).collect())
}

/// A datum of type text or bytea.
pub fn varlena(content: &[u8]) -> Result<Datum> {
    let (from, len) = (content.as_ptr(), content.len());
    catch(|| unsafe {
        // SAFETY: palloc gives header + len bytes, all of which are written.
        let size = len + pg_sys::VARHDRSZ;
        let made = ffi::palloc(size).cast::<pg_sys::varlena>();
        pgrx::varlena::set_varsize_4b(made, size as i32);
        ptr::copy_nonoverlapping(from, made.cast::<u8>().add(pg_sys::VARHDRSZ), len);
        Datum::from(made)
    })
}

/// A copy of a variable-length datum that lives as long as the session.
pub fn keep_varlena(value: Datum) -> Result<Datum> {
    catch(|| unsafe {
        // SAFETY: the caller's datum is of a variable-length type; the memory context is put back, by the abort on error.
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
        let from = ffi::pg_detoast_datum(value.cast_mut_ptr());
        let size = pgrx::varlena::varsize_any(from);
        let made = ffi::palloc(size).cast::<u8>();
        ptr::copy_nonoverlapping(from.cast::<u8>(), made, size);
        pg_sys::CurrentMemoryContext = before;
        Datum::from(made)
    })
}

/// The value itself where the datum only says where it is stored (TOAST); any other as it is.
pub fn fetched(value: Datum) -> Result<Datum> {
    // SAFETY: a datum of a variable-length type begins with a varlena header.
    if unsafe { !pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr()) } {
        return Ok(value);
    }
    // SAFETY: as above.
    catch(|| unsafe { Datum::from(ffi::pg_detoast_datum(value.cast_mut_ptr())) })
}

/// Bytes that a datum of a variable-length type takes once it is fetched and unpacked.
pub fn unpacked_size(value: Datum) -> usize {
    // SAFETY: it begins with a varlena header; reads that, or what it points to.
    unsafe { ffi::toast_raw_datum_size(value) }
}

/// A datum of type float8, which is passed by value (Float8GetDatum of postgres.h).
pub fn from_float(value: f64) -> Datum {
    Datum::from(value.to_bits() as i64)
}

/// A datum of type text.
pub fn from_text(text: &str) -> Result<Datum> {
    varlena(text.as_bytes())
}

/// A datum of type uuid.
pub fn from_uuid(id: &[u8; 16]) -> Result<Datum> {
    let from = id.as_ptr();
    catch(|| unsafe {
        // SAFETY: palloc gives 16 bytes, all of which are written.
        let made = ffi::palloc(16).cast::<u8>();
        ptr::copy_nonoverlapping(from, made, 16);
        Datum::from(made)
    })
}

/// A datum of an array of by-reference elements (text, uuid) that are datums already.
pub fn array(elements: &mut [Datum], element_type: pg_sys::Oid, length: i32, alignment: u8) -> Result<Datum> {
    let (from, count) = (elements.as_mut_ptr(), elements.len() as i32);
    catch(|| unsafe {
        // SAFETY: construct_array copies `count` datums of the type that the caller names.
        Datum::from(ffi::construct_array(from, count, element_type, length, false, alignment as c_char))
    })
}

pub fn text_array_of<T: AsRef<str>>(elements: &[T]) -> Result<Datum> {
    let mut made = elements.iter().map(|element| from_text(element.as_ref())).collect::<Result<Vec<_>>>()?;
    array(&mut made, pg_sys::TEXTOID, -1, b'i')
}

pub fn uuid_array_of(elements: &[[u8; 16]]) -> Result<Datum> {
    let mut made = elements.iter().map(from_uuid).collect::<Result<Vec<_>>>()?;
    array(&mut made, pg_sys::UUIDOID, 16, b'c')
}

pub fn int8_array_of(elements: &[i64]) -> Result<Datum> {
    let mut made: Vec<Datum> = elements.iter().map(|&element| Datum::from(element)).collect();
    let (from, count) = (made.as_mut_ptr(), made.len() as i32);
    catch(|| unsafe {
        // SAFETY: int8 is passed by value, 8 bytes, alignment double.
        Datum::from(ffi::construct_array(from, count, pg_sys::INT8OID, 8, true, b'd' as c_char))
    })
}
