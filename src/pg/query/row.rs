//! One row of a result, or of a scan: its columns as they lie there. Whoever reads a column knows its type from the statement that it wrote.
use crate::pg::compat;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::memory::Room;
use crate::pg::value::datum::{self, Nullable};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ptr;

/// One row of a result.
pub struct Row<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
    /// Where the row came from, if it can be copied as a whole.
    slot: *mut pg_sys::TupleTableSlot,
    /// What its columns are; looked at in debug builds and tests only.
    #[cfg(any(debug_assertions, feature = "pg_test"))]
    types: Types<'a>,
}

/// Where the types of a row's columns stand.
#[cfg(any(debug_assertions, feature = "pg_test"))]
enum Types<'a> {
    /// NULL: nowhere.
    Described(pg_sys::TupleDesc),
    Listed(&'a [Oid]),
}

/// What [`Row`]'s functions read: their types.
mod of {
    use pgrx::pg_sys::{self, Oid};

    /// 64 bits; timestamptz is microseconds.
    pub const NUMBER: &[Oid] = &[pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID];
    pub const OID: &[Oid] = &[pg_sys::OIDOID, pg_sys::REGPROCEDUREOID, pg_sys::REGCLASSOID, pg_sys::REGROLEOID];
}

impl<'a> Row<'a> {
    /// # Safety
    /// The slot holds `columns` deformed columns, and does so while the row is used.
    pub unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot, columns: usize) -> Self {
        // SAFETY: as the caller says.
        unsafe {
            Self {
                values: std::slice::from_raw_parts((*slot).tts_values, columns),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, columns),
                slot,
                #[cfg(any(debug_assertions, feature = "pg_test"))]
                types: Types::Described((*slot).tts_tupleDescriptor),
            }
        }
    }

    /// Columns of these types, wherever they came from.
    #[inline]
    pub fn of_parts(values: &'a [Datum], nulls: &'a [bool], types: &'a [Oid]) -> Self {
        #[cfg(not(any(debug_assertions, feature = "pg_test")))]
        let _ = types;
        Self {
            values,
            nulls,
            slot: ptr::null_mut(),
            #[cfg(any(debug_assertions, feature = "pg_test"))]
            types: Types::Listed(types),
        }
    }

    /// Columns of a row that this describes, or NULL.
    pub fn of_tuple(values: &'a [Datum], nulls: &'a [bool], desc: pg_sys::TupleDesc) -> Self {
        #[cfg(not(any(debug_assertions, feature = "pg_test")))]
        let _ = desc;
        Self {
            values,
            nulls,
            slot: ptr::null_mut(),
            #[cfg(any(debug_assertions, feature = "pg_test"))]
            types: Types::Described(desc),
        }
    }

    /// Debug builds and tests refuse to read a column as what it is not; NULL, too, has a type.
    #[cfg(any(debug_assertions, feature = "pg_test"))]
    fn expect(&self, column: usize, wanted: &[Oid]) {
        let found = match self.types {
            Types::Described(desc) if desc.is_null() => return,
            // SAFETY: the descriptor of this row; columns count from 1.
            Types::Described(desc) => unsafe { pg_sys::SPI_gettypeid(desc, column as i32 + 1) },
            Types::Listed(types) => types[column],
        };
        assert!(wanted.contains(&found), "column {column} is of the type {}, not {wanted:?}", found.to_u32());
    }

    #[cfg(not(any(debug_assertions, feature = "pg_test")))]
    #[inline(always)]
    fn expect(&self, _: usize, _: &[Oid]) {}

    /// These columns, copied to `room` in one piece; None is left to the caller. Only for rows of a table as a probe gives them.
    pub fn copy_to<const N: usize>(
        &self,
        room: &mut Room,
        columns: &[Option<usize>; N],
    ) -> Result<([Datum; N], [bool; N])> {
        let slot = self.slot;
        let (mut values, mut nulls) = ([Datum::null(); N], [false; N]);
        // SAFETY: the slot holds a row of a table; what its deformed columns point to lies within the tuple, and so at the same
        // distance within its copy.
        let is_copied = unsafe {
            if slot.is_null() || !ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple) {
                false
            } else {
                let tuple = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple;
                let (from, len) = ((*tuple).t_data.cast::<u8>(), (*tuple).t_len as usize);
                let desc = (*slot).tts_tupleDescriptor;
                room.take(len).is_some_and(|copy| {
                    ptr::copy_nonoverlapping(from, copy, len);
                    for (place, column) in columns.iter().enumerate() {
                        let Some(column) = *column else { continue };
                        let value = self.values[column];
                        nulls[place] = self.nulls[column];
                        values[place] = match nulls[place] || compat::is_by_value(desc, column) {
                            true => value,
                            false => Datum::from(copy.add(value.value() - from as usize)),
                        };
                    }
                    true
                })
            }
        };
        if !is_copied {
            return Err(Error::Internal { what: "this row cannot be copied".into() }.into());
        }
        Ok((values, nulls))
    }

    /// The first `N` columns of any row that came as it was read, copied to the current memory context.
    pub fn copy_any<const N: usize>(&self) -> Result<([Datum; N], [bool; N])> {
        let slot = self.slot;
        if slot.is_null() || self.values.len() < N {
            return Err(Error::Internal { what: "this row cannot be copied".into() }.into());
        }
        let (mut values, mut nulls) = ([Datum::null(); N], [true; N]);
        let (into, flags, columns) = (values.as_mut_ptr(), nulls.as_mut_ptr(), N);
        catch(|| {
            // SAFETY: the row becomes a tuple of its own, which the values point into; it has N columns at least.
            unsafe {
                let from = (*slot).tts_ops.as_ref().and_then(|operations| operations.copy_heap_tuple);
                let Some(copy) = from else { return };
                let tuple = copy(slot);
                let desc = (*slot).tts_tupleDescriptor;
                if (*desc).natts as usize == columns {
                    pg_sys::heap_deform_tuple(tuple, desc, into, flags);
                }
            }
        })?;
        Ok((values, nulls))
    }

    /// Whether this transaction has written it. Only for rows of a table as a probe gives them.
    pub fn is_own(&self) -> Result<bool> {
        let slot = self.slot;
        if slot.is_null() {
            return Err(Error::Internal { what: "it is not known who wrote this row".into() }.into());
        }
        catch(|| {
            // SAFETY: the slot holds a row of a table, whose header has the inserting transaction as long as that is under way; the
            // tuple stays in the slot's hands.
            unsafe {
                let tuple = ffi::ExecFetchSlotHeapTuple(slot, false, ptr::null_mut());
                pg_sys::TransactionIdIsCurrentTransactionId((*(*tuple).t_data).t_choice.t_heap.t_xmin)
            }
        })
    }

    /// All values and null flags.
    pub fn parts(&self) -> (&[Datum], &[bool]) {
        (self.values, self.nulls)
    }

    pub fn get(&self, column: usize) -> Nullable {
        (!self.nulls[column]).then(|| self.values[column])
    }

    /// A column that the schema declares NOT NULL, or an expression that cannot be NULL.
    fn required(&self, column: usize) -> Result<Datum> {
        self.get(column).ok_or_else(|| Error::Internal { what: format!("column {column} is NULL") }.into())
    }

    pub fn int8(&self, column: usize) -> Result<i64> {
        self.expect(column, of::NUMBER);
        self.required(column).map(|value| value.value() as i64)
    }

    pub fn int8_opt(&self, column: usize) -> Option<i64> {
        self.expect(column, of::NUMBER);
        self.get(column).map(|value| value.value() as i64)
    }

    pub fn int4(&self, column: usize) -> Result<i32> {
        self.expect(column, &[pg_sys::INT4OID]);
        self.required(column).map(|value| value.value() as i32)
    }

    pub fn boolean(&self, column: usize) -> Result<bool> {
        self.expect(column, &[pg_sys::BOOLOID]);
        self.required(column).map(|value| value.value() & 1 == 1)
    }

    /// The elements of a bigint[] without NULLs.
    pub fn int8_array(&self, column: usize) -> Result<Vec<i64>> {
        self.expect(column, &[pg_sys::INT8ARRAYOID]);
        // SAFETY: the statement's author selects a bigint[] there.
        self.required(column).and_then(|value| unsafe { datum::int8_array(value) })
    }

    pub fn oid(&self, column: usize) -> Result<Oid> {
        self.expect(column, of::OID);
        self.required(column).map(|value| Oid::from(value.value() as u32))
    }

    pub fn oid_opt(&self, column: usize) -> Option<Oid> {
        self.expect(column, of::OID);
        self.get(column).map(|value| Oid::from(value.value() as u32))
    }

    pub fn text(&self, column: usize) -> Result<&'a str> {
        self.expect(column, &[pg_sys::TEXTOID]);
        // SAFETY: the statement's author selects a text there.
        self.required(column).and_then(|value| unsafe { datum::text(value) })
    }

    pub fn text_opt(&self, column: usize) -> Result<Option<&'a str>> {
        self.expect(column, &[pg_sys::TEXTOID]);
        // SAFETY: the statement's author selects a text there.
        self.get(column).map(|value| unsafe { datum::text(value) }).transpose()
    }

    pub fn bytes_opt(&self, column: usize) -> Result<Option<&'a [u8]>> {
        self.expect(column, &[pg_sys::BYTEAOID]);
        // SAFETY: the statement's author selects a bytea there.
        self.get(column).map(|value| unsafe { datum::bytes(value) }).transpose()
    }

    pub fn uuid(&self, column: usize) -> Result<[u8; 16]> {
        self.expect(column, &[pg_sys::UUIDOID]);
        // SAFETY: the statement's author selects a uuid there.
        self.required(column).map(|value| unsafe { datum::uuid(value) })
    }

    /// The elements of a text[]; none where it is NULL.
    pub fn texts(&self, column: usize) -> Result<Vec<Option<String>>> {
        self.expect(column, &[pg_sys::TEXTARRAYOID]);
        // SAFETY: the statement's author selects a text[] there.
        let array = self.get(column).map(|value| unsafe { datum::text_array(value) }).transpose()?;
        Ok(array.unwrap_or_default())
    }

    /// The elements of a text[] that are not NULL.
    pub fn text_array_opt(&self, column: usize) -> Result<Option<Vec<String>>> {
        if self.get(column).is_none() {
            return Ok(None);
        }
        Ok(Some(self.texts(column)?.into_iter().flatten().collect()))
    }

    pub fn hash(&self, column: usize) -> Result<[u8; 32]> {
        let bytes = self.bytes_opt(column)?.unwrap_or_default();
        bytes
            .try_into()
            .map_err(|_| Error::Internal { what: format!("a chain hash has {} bytes, not 32", bytes.len()) }.into())
    }

    pub fn jsonb_opt(&self, column: usize) -> Result<Option<Jsonb<'a>>> {
        self.expect(column, &[pg_sys::JSONBOID]);
        // SAFETY: the statement's author selects a jsonb there.
        self.get(column).map(|value| unsafe { Jsonb::from_datum(value) }).transpose()
    }
}
