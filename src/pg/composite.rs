//! Composite values of a named row type: made from columns, and taken apart again.
use super::failure::{Result, catch};
use super::ffi;
use pgrx::pg_sys::{self, Datum, Oid};

/// A row type. Lives as long as the memory context that was current when it was looked up.
pub struct RowType {
    desc: pg_sys::TupleDesc,
}

impl RowType {
    pub fn look_up(oid: Oid) -> Result<Self> {
        // SAFETY: a copy of the descriptor of a composite type, which BlessTupleDesc registers.
        let desc = catch(|| unsafe { ffi::BlessTupleDesc(ffi::lookup_rowtype_tupdesc_copy(oid, -1)) })?;
        Ok(Self { desc })
    }

    /// A value with these columns, in the current memory context; what is stored elsewhere (TOAST) is fetched.
    pub fn form<const N: usize>(&self, values: &[Datum; N], nulls: &[bool; N]) -> Result<Datum> {
        debug_assert_eq!(self.columns(), N);
        let (desc, values, nulls) = (self.desc, values.as_ptr(), nulls.as_ptr());
        catch(|| {
            // SAFETY: one value and one flag for each column of the descriptor.
            unsafe {
                let tuple = ffi::heap_form_tuple(desc, values, nulls);
                ffi::HeapTupleHeaderGetDatum((*tuple).t_data)
            }
        })
    }

    /// The columns of a value that [`RowType::form`] made; they live as long as the value.
    pub fn deform<const N: usize>(&self, value: Datum) -> Result<([Datum; N], [bool; N])> {
        debug_assert_eq!(self.columns(), N);
        let mut values = [Datum::null(); N];
        let mut nulls = [true; N];
        let (desc, into, flags) = (self.desc, values.as_mut_ptr(), nulls.as_mut_ptr());
        catch(|| {
            // SAFETY: a composite datum is a HeapTupleHeader; the temporary tuple only points to it.
            unsafe {
                let header = value.cast_mut_ptr::<pg_sys::HeapTupleHeaderData>();
                let mut tuple = pg_sys::HeapTupleData {
                    t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
                    t_self: pg_sys::ItemPointerData::default(),
                    t_tableOid: pg_sys::InvalidOid,
                    t_data: header,
                };
                ffi::heap_deform_tuple(&mut tuple, desc, into, flags);
            }
        })?;
        Ok((values, nulls))
    }

    /// Bytes that a value takes.
    pub fn size(&self, value: Datum) -> usize {
        // SAFETY: a composite datum is a varlena with a 4-byte header.
        unsafe { pgrx::varlena::varsize_any(value.cast_mut_ptr()) }
    }

    fn columns(&self) -> usize {
        // SAFETY: the descriptor is ours.
        unsafe { (*self.desc).natts as usize }
    }
}
