//! Values from their text, as PostgreSQL's own input functions read it.
use crate::pg::error::failure::{self, Result, c_string};
use crate::pg::ffi;
use pgrx::pg_sys;

/// Calls one of PostgreSQL's own input functions on `text`; its error is a failure.
pub fn read_value(
    function: unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    text: &str,
) -> Result<pg_sys::Datum> {
    let text = c_string(text)?;
    failure::catch(|| {
        // SAFETY: (cstring, typioparam, typmod) is the signature of every input function.
        unsafe {
            ffi::DirectFunctionCall3Coll(
                Some(function),
                pg_sys::InvalidOid,
                pg_sys::Datum::from(text),
                pg_sys::Datum::from(0),
                pg_sys::Datum::from(-1_i32),
            )
        }
    })
}

/// A function's oid from its name and argument types, as a regprocedure literal is read: with the caller's search path.
pub fn read_regprocedure(text: &str) -> Result<pg_sys::Oid> {
    read_value(ffi::regprocedurein, text).map(|value| pg_sys::Oid::from(value.value() as u32))
}
