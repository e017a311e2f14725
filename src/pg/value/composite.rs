//! Composite values as PostgreSQL's languages like them best: expanded records, whose columns are there to be used without
//! taking a tuple apart; and flat ones.
use crate::pg::compat;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ptr;

/// A row type, looked up once for many values of it.
pub struct RowType {
    pub oid: Oid,
    /// Without a value.
    model: *mut pg_sys::ExpandedRecordHeader,
}

impl RowType {
    /// To be used as long as the memory context lives that is current now.
    pub fn look_up(oid: Oid) -> Result<Self> {
        // SAFETY: the record lives in the current memory context, which holds on to the type's description.
        let model = catch(|| unsafe { ffi::make_expanded_record_from_typeid(oid, -1, pg_sys::CurrentMemoryContext) })?;
        Ok(Self { oid, model })
    }

    /// A value with these columns, which have to stay where they are for as long as it is used.
    pub fn record<'a, const N: usize>(&'a self, values: &'a [Datum; N], nulls: &'a [bool; N]) -> Record<'a> {
        Record { of: self, values, nulls }
    }
}

/// Columns of a value of a row type.
pub struct Record<'a> {
    of: &'a RowType,
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl Record<'_> {
    /// The value, made in the current memory context; whoever it is given to may take it over and change it (a read-write pointer). None where the
    /// type has other columns.
    ///
    /// # Safety
    /// May raise.
    pub unsafe fn expanded(&self) -> Option<Datum> {
        let columns = self.values.len();
        // SAFETY: a new record has room for its type's columns; they are only pointed to, which DVALUES_VALID without
        // DVALUES_ALLOCED says (utils/expandedrecord.h).
        unsafe {
            let record = ffi::make_expanded_record_from_exprecord(self.of.model, pg_sys::CurrentMemoryContext);
            if (*record).nfields as usize != columns {
                return None;
            }
            ptr::copy_nonoverlapping(self.values.as_ptr(), (*record).dvalues, columns);
            ptr::copy_nonoverlapping(self.nulls.as_ptr(), (*record).dnulls, columns);
            (*record).flags |= pg_sys::ER_FLAG_DVALUES_VALID as i32;
            // Whoever assigns to a column frees the old value, unless it lies within the record's flat form
            // (expanded_record_set_field_internal): these are not the record's to free, wherever they lie.
            (*record).fstartptr = ptr::null_mut();
            (*record).fendptr = ptr::without_provenance_mut(usize::MAX);
            Some(Datum::from((&raw mut (*record).hdr.eoh_rw_ptr).cast::<u8>()))
        }
    }

    /// The value, flat, in the current memory context: what an array can hold.
    pub fn flat(&self) -> Result<Datum> {
        let made = catch(|| {
            // SAFETY: one value and one flag for each column of the type; what is stored elsewhere is fetched.
            unsafe {
                let desc = (*self.of.model).er_tupdesc;
                ((*desc).natts as usize == self.values.len()).then(|| {
                    let tuple = compat::form_row(desc, self.values.as_ptr(), self.nulls.as_ptr());
                    ffi::HeapTupleHeaderGetDatum((*tuple).t_data)
                })
            }
        })?;
        made.ok_or_else(mismatch)
    }
}

pub fn mismatch() -> Failure {
    Error::Internal { what: "the row type has other columns than its values".into() }.into()
}
