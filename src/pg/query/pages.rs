//! A set that is returned row by row (value-per-call), for callers that can take it so: `select es_read(…)`, `copy (select
//! es_read(…)) to …`. Rows are fetched a page at a time, so memory stays at one page and the first row comes at once. All
//! state lives in PostgreSQL's memory: a caller that stops early leaves nothing behind.
use super::row::Row;
use super::store::expect_columns;
use crate::pg::compat;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use crate::pg::function::{Args, Returned};
use crate::pg::process::server;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum};
use std::ptr;

/// Rows fetched at once.
pub const PAGE: i64 = 500;

/// Where the next page starts; what the numbers mean is the caller's business.
pub type Cursor = [i64; 2];

struct State {
    cursor: Cursor,
    whose: i64,
    /// Holds the rows of one page.
    memory: pg_sys::MemoryContext,
    rows: *mut Datum,
    count: usize,
    at: usize,
    is_last_page: bool,
    desc: pg_sys::TupleDesc,
}

/// A page being filled.
pub struct Page<'a>(&'a mut State);

impl Page<'_> {
    /// Adds a row of exactly the function's row type.
    pub fn put(&mut self, row: &Row) -> Result<()> {
        let state = &mut *self.0;
        if state.count == PAGE as usize {
            return Err(Error::Internal { what: "a page has too many rows".into() }.into());
        }
        let (values, nulls) = row.parts();
        // SAFETY: the function's descriptor, which lives as long as the set.
        expect_columns(values.len(), unsafe { (*state.desc).natts })?;
        let (values, nulls) = (values.as_ptr(), nulls.as_ptr());
        let (desc, memory) = (state.desc, state.memory);
        let datum = catch(|| {
            // SAFETY: the row has the descriptor's columns; the copy is made in the page's memory.
            unsafe {
                let before = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = memory;
                let tuple = compat::form_row(desc, values, nulls);
                let datum = ffi::HeapTupleHeaderGetDatum((*tuple).t_data);
                pg_sys::CurrentMemoryContext = before;
                datum
            }
        })?;
        // SAFETY: `rows` has room for a page.
        unsafe { *state.rows.add(state.count) = datum };
        state.count += 1;
        Ok(())
    }
}

/// Whether the caller takes values one by one, and does not want a tuplestore anyway (as a function in FROM does).
pub fn are_wanted(args: &Args) -> bool {
    // SAFETY: resultinfo is a ReturnSetInfo where the caller accepts sets.
    unsafe {
        let result = (*args.info()).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        !result.is_null()
            && (*result).type_ == pg_sys::NodeTag::T_ReturnSetInfo
            && (*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_ValuePerCall as i32 != 0
            && (*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Preferred as i32 == 0
    }
}

/// Whether a page was returned by an earlier call already.
pub fn has_begun(args: &Args) -> bool {
    // SAFETY: fn_extra is NULL on the first call and a FuncCallContext after it (funcapi.h).
    unsafe { !(*(*args.info()).flinfo).fn_extra.is_null() }
}

/// The next row of `whose` log. `start` gives the first cursor; `fetch` fills a page from a cursor and gives the next one, None at the end. Fails with what `another` says where the
/// pages before were of another one.
pub fn next(
    args: &Args,
    (whose, another): (i64, impl FnOnce() -> Failure),
    start: impl FnOnce() -> Result<Cursor>,
    fetch: impl FnOnce(Cursor, &mut Page) -> Result<Option<Cursor>>,
) -> Returned {
    let info = args.info();
    if !has_begun(args) {
        let cursor = start()?;
        catch(|| init(info, cursor, whose))?;
    }
    let (context, state) = set(args);
    if state.whose != whose {
        return Err(another());
    }
    if state.at == state.count && !state.is_last_page {
        let memory = state.memory;
        // SAFETY: the rows of the previous page were copied by the executor before it asked for the next one.
        catch(|| unsafe { ffi::MemoryContextReset(memory) })?;
        (state.count, state.at) = (0, 0);
        match fetch(state.cursor, &mut Page(state)) {
            Ok(Some(cursor)) => state.cursor = cursor,
            Ok(None) => state.is_last_page = true,
            Err(failure) => {
                // What was fetched may not be what may go out.
                (state.count, state.at) = (0, 0);
                return Err(failure);
            }
        }
    }
    if let Some(row) = left(args) {
        return Ok(Some(row));
    }
    // SAFETY: the protocol of SRF_RETURN_DONE.
    unsafe {
        catch(|| ffi::end_MultiFuncCall(info, context))?;
        (*(*info).resultinfo.cast::<pg_sys::ReturnSetInfo>()).isDone = pg_sys::ExprDoneCond::ExprEndResult;
        Ok(None)
    }
}

/// The next row of the page that an earlier call has fetched, if one is left: nothing need be asked for it, but by code that runs for others, which may fetch from a
/// cursor of whom it runs for.
pub fn at_hand(args: &Args) -> Option<Datum> {
    if has_begun(args) && !server::is_restricted() { left(args) } else { None }
}

/// Of a set that has begun.
fn left(args: &Args) -> Option<Datum> {
    let (context, state) = set(args);
    if state.at == state.count {
        return None;
    }
    // SAFETY: the protocol of SRF_RETURN_NEXT; the row is one of the page.
    unsafe {
        let datum = *state.rows.add(state.at);
        state.at += 1;
        (*context).call_cntr += 1;
        (*(*args.info()).resultinfo.cast::<pg_sys::ReturnSetInfo>()).isDone = pg_sys::ExprDoneCond::ExprMultipleResult;
        Some(datum)
    }
}

/// The set that has begun.
fn set<'a>(args: &Args<'a>) -> (*mut pg_sys::FuncCallContext, &'a mut State) {
    // SAFETY: `init` put our state there; it lives until the end of the set.
    unsafe {
        let context = (*(*args.info()).flinfo).fn_extra.cast::<pg_sys::FuncCallContext>();
        (context, &mut *(*context).user_fctx.cast::<State>())
    }
}

fn init(info: pg_sys::FunctionCallInfo, cursor: Cursor, whose: i64) {
    // SAFETY: called inside `catch`; everything is made in the context that ends with the set.
    unsafe {
        let context = ffi::init_MultiFuncCall(info);
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*context).multi_call_memory_ctx;
        let mut desc = ptr::null_mut();
        ffi::get_call_result_type(info, ptr::null_mut(), &mut desc);
        let state = ffi::palloc(size_of::<State>()).cast::<State>();
        state.write(State {
            cursor,
            whose,
            memory: ffi::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"eventstream page".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            ),
            rows: ffi::palloc(PAGE as usize * size_of::<Datum>()).cast(),
            count: 0,
            at: 0,
            is_last_page: false,
            desc: ffi::BlessTupleDesc(desc),
        });
        (*context).user_fctx = state.cast();
        pg_sys::CurrentMemoryContext = before;
    }
}
