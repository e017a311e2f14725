//! Results of more than one value: a tuplestore for sets (it spills to disk beyond work_mem, so no result is too large),
//! and composite values for single rows.
use super::row::Row;
use crate::pg::compat;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use crate::pg::function::Args;
use crate::pg::value::datum::Nullable;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ptr;

/// The result set of the function being called.
pub struct Store {
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
    context: pg_sys::MemoryContext,
}

impl Store {
    /// Tells the executor that the result comes in a tuplestore (as InitMaterializedSRF of funcapi.c).
    pub fn begin(args: &Args) -> Result<Self> {
        let info = args.info();
        let made = catch(|| {
            // SAFETY: resultinfo is a ReturnSetInfo where the caller accepts sets, as InitMaterializedSRF checks.
            unsafe {
                let result = (*info).resultinfo.cast::<pg_sys::ReturnSetInfo>();
                if result.is_null()
                    || (*result).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                    || (*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32 == 0
                {
                    return None;
                }
                let context = (*(*result).econtext).ecxt_per_query_memory;
                let before = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = context;
                let mut desc = ptr::null_mut();
                ffi::get_call_result_type(info, ptr::null_mut(), &mut desc);
                let desc = ffi::BlessTupleDesc(desc);
                let random =
                    (*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random as i32 != 0;
                let store = ffi::tuplestore_begin_heap(random, false, pg_sys::work_mem);
                (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
                (*result).setResult = store;
                (*result).setDesc = desc;
                pg_sys::CurrentMemoryContext = before;
                Some(Store { store, desc, context })
            }
        })?;
        made.ok_or_else(|| {
            Error::FeatureNotSupported { what: "a set of rows cannot be returned here".into(), hint: None }.into()
        })
    }

    /// Rows of a named row type that are kept aside for a second look ([`Store::take`]). Lives in the current memory context.
    pub fn aside(row_type: Oid) -> Result<Self> {
        catch(|| {
            // SAFETY: a copy of the descriptor, and a store, both in the current memory context.
            unsafe {
                let desc = ffi::BlessTupleDesc(ffi::lookup_rowtype_tupdesc_copy(row_type, -1));
                let store = ffi::tuplestore_begin_heap(false, false, pg_sys::work_mem);
                Store { store, desc, context: pg_sys::CurrentMemoryContext }
            }
        })
    }

    /// Gives every row to `each`, in the order in which they came, and ends the store.
    pub fn take(self, mut each: impl FnMut(&Row) -> Result<()>) -> Result<()> {
        let columns = {
            // SAFETY: the descriptor is ours.
            unsafe { (*self.desc).natts as usize }
        };
        // SAFETY: a slot for the rows of a tuplestore, which are minimal tuples.
        let slot =
            catch(|| unsafe { ffi::MakeSingleTupleTableSlot(self.desc, &raw const pg_sys::TTSOpsMinimalTuple) })?;
        let outcome = loop {
            // SAFETY: the slot is of the store's kind; a row is used before the next one is fetched.
            let found = catch(|| unsafe {
                crate::pg::jsonb::check_for_interrupts();
                let found = ffi::tuplestore_gettupleslot(self.store, true, false, slot);
                if found {
                    ffi::slot_getsomeattrs_int(slot, columns as i32);
                }
                found
            })?;
            if !found {
                break Ok(());
            }
            // SAFETY: all columns are there.
            if let Err(failure) = each(&unsafe { Row::of_slot(slot, columns) }) {
                break Err(failure);
            }
        };
        if !matches!(outcome, Err(Failure::Postgres(_))) {
            // SAFETY: nothing points to the rows any more.
            catch(|| unsafe {
                ffi::ExecDropSingleTupleTableSlot(slot);
                ffi::tuplestore_end(self.store);
            })?;
        }
        outcome
    }

    fn expect(&self, columns: usize) -> Result<()> {
        // SAFETY: the descriptor is the function's, or ours.
        expect_columns(columns, unsafe { (*self.desc).natts })
    }

    /// A row of exactly the store's columns.
    pub fn put_row(&self, row: &Row) -> Result<()> {
        let (values, nulls) = row.parts();
        self.expect(values.len())?;
        let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
        // SAFETY: one value and one flag for each column of the descriptor; the row is copied.
        catch(|| unsafe { compat::put_row(self.store, self.desc, values, nulls) })
    }

    /// As [`Store::put_row`], where the rows must stay in memory: `room` is what is left of it. Errors: ES007 where there is none.
    pub fn put_row_in(&self, room: &mut Room, row: &Row) -> Result<()> {
        let (values, nulls) = row.parts();
        self.expect(values.len())?;
        let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
        // SAFETY: one value and one flag for each column of the descriptor; the row is freed at once.
        let bytes = catch(|| unsafe {
            let tuple = compat::form_row(self.desc, values, nulls);
            let bytes = (*tuple).t_len as usize;
            ffi::heap_freetuple(tuple);
            bytes
        })?;
        room.take(bytes)?;
        self.put_row(row)
    }

    /// A receiver that puts rows of exactly the function's row type into the store.
    pub fn receiver(&self) -> Result<*mut pg_sys::DestReceiver> {
        catch(|| {
            // SAFETY: the store and its context outlive the statement.
            unsafe {
                let receiver = ffi::CreateTuplestoreDestReceiver();
                let none = ptr::null_mut();
                ffi::SetTuplestoreDestReceiverParams(receiver, self.store, self.context, false, none, ptr::null());
                receiver
            }
        })
    }

    pub fn put(&self, row: &[Nullable]) -> Result<()> {
        self.expect(row.len())?;
        let (values, nulls) = split(row);
        let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
        // SAFETY: one value and one flag for each column of the descriptor; the row is copied.
        catch(|| unsafe { compat::put_row(self.store, self.desc, values, nulls) })
    }
}

/// What a store has of work_mem before it goes to disk.
pub struct Room {
    left: usize,
    rows: u64,
    bytes: usize,
}

/// What a store takes for itself, at first (tuplestore.c).
const STORE_BYTES: usize = 16 * 1024;
/// What a row takes beside itself: its header, and its places in the store's list, which is doubled when it is full.
const ROW_BYTES: usize = 64;

impl Room {
    /// All of it.
    pub fn whole() -> Self {
        Self { left: Self::limit().saturating_mul(1024).saturating_sub(STORE_BYTES), rows: 0, bytes: 0 }
    }

    /// work_mem in kB.
    fn limit() -> usize {
        // SAFETY: a plain variable of this backend.
        usize::try_from(unsafe { pg_sys::work_mem }).unwrap_or_default()
    }

    /// Memory is given out in powers of two.
    fn take(&mut self, bytes: usize) -> Result<()> {
        (self.rows, self.bytes) = (self.rows + 1, self.bytes.saturating_add(bytes));
        let Some(left) = self.left.checked_sub(bytes.saturating_mul(2).saturating_add(ROW_BYTES)) else {
            return Err(Error::LimitExceeded {
                setting: "work_mem",
                limit: Self::limit() as i64,
                actual: None,
                what: format!("{} rows of {} bytes altogether are too many in FROM", self.rows, self.bytes),
            }
            .into());
        };
        self.left = left;
        Ok(())
    }
}

/// One value for each column: PostgreSQL reads as many as a row type has.
pub fn expect_columns(given: usize, wanted: i32) -> Result<()> {
    if usize::try_from(wanted) == Ok(given) {
        return Ok(());
    }
    Err(Error::Internal { what: format!("{given} values for {wanted} columns of a result") }.into())
}

fn split(row: &[Nullable]) -> (Vec<Datum>, Vec<bool>) {
    (row.iter().map(|value| value.unwrap_or(Datum::null())).collect(), row.iter().map(Option::is_none).collect())
}

/// A composite value of the function's own result type.
pub fn composite(args: &Args, row: &[Nullable]) -> Result<Datum> {
    let info = args.info();
    let (values, nulls) = split(row);
    let columns = values.len();
    let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
    let made = catch(|| {
        // SAFETY: one value and one flag for each column of the function's declared result.
        unsafe {
            let mut desc = ptr::null_mut();
            ffi::get_call_result_type(info, ptr::null_mut(), &mut desc);
            if (*desc).natts as usize != columns {
                return Err((*desc).natts);
            }
            let tuple = compat::form_row(ffi::BlessTupleDesc(desc), values, nulls);
            Ok(ffi::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    })?;
    match made {
        Ok(row) => Ok(row),
        Err(wanted) => expect_columns(columns, wanted).map(|()| Datum::null()),
    }
}
