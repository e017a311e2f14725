//! Composite values as PostgreSQL's languages like them best: expanded records, whose columns are there to be used without
//! taking a tuple apart.
use super::failure::{Result, catch};
use super::ffi;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ptr;

/// A value of the row type with these columns, which have to stay where they are for as long as it is used. It is made in the
/// current memory context, and whoever it is given to may take it over and change it (a read-write pointer).
pub fn expanded<const N: usize>(row_type: Oid, values: &[Datum; N], nulls: &[bool; N]) -> Result<Datum> {
    let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
    let made = catch(|| {
        // SAFETY: a new record has room for its type's columns; they are only pointed to, which DVALUES_VALID without
        // DVALUES_ALLOCED says (utils/expandedrecord.h).
        unsafe {
            let record = ffi::make_expanded_record_from_typeid(row_type, -1, pg_sys::CurrentMemoryContext);
            if (*record).nfields as usize != N {
                return None;
            }
            ptr::copy_nonoverlapping(values, (*record).dvalues, N);
            ptr::copy_nonoverlapping(nulls, (*record).dnulls, N);
            (*record).flags |= pg_sys::ER_FLAG_DVALUES_VALID as i32;
            // Whoever assigns to a column frees the old value, unless it lies within the record's flat form
            // (expanded_record_set_field_internal): these are not the record's to free, wherever they lie.
            (*record).fstartptr = ptr::null_mut();
            (*record).fendptr = ptr::without_provenance_mut(usize::MAX);
            Some(Datum::from((&raw mut (*record).hdr.eoh_rw_ptr).cast::<u8>()))
        }
    })?;
    made.ok_or_else(|| Error::Internal { what: format!("the row type has not {N} columns") }.into())
}

/// A value of the row type with these columns, flat, in the current memory context: what an array can hold.
pub fn flat<const N: usize>(row_type: Oid, values: &[Datum; N], nulls: &[bool; N]) -> Result<Datum> {
    let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
    let made = catch(|| {
        // SAFETY: one value and one flag for each column of the type; what is stored elsewhere is fetched.
        unsafe {
            let desc = ffi::lookup_rowtype_tupdesc_copy(row_type, -1);
            if (*desc).natts as usize != N {
                return None;
            }
            let tuple = ffi::heap_form_tuple(desc, values, nulls);
            Some(ffi::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    })?;
    made.ok_or_else(|| Error::Internal { what: format!("the row type has not {N} columns") }.into())
}
