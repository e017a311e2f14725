//! Statements of the caller's: they run with the rights that are on, under the session's own settings and search path.
use crate::pg::error::failure::{Failure, Result, catch, invalid};
use crate::pg::ffi;
use crate::pg::jsonb::Jsonb;
use crate::pg::value::datum::{self, Nullable};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CString, c_char, c_int};

/// Runs statements, whatever they are; what the last one gave in the first column of its first row goes to `read`, as JSON. Errors: ES005 for `sql` where it would end the transaction, or
/// speaks to the client; whatever it raises.
pub fn run<T>(sql: &str, read: impl FnOnce(Option<Jsonb>) -> Result<T>) -> Result<T> {
    within_spi(|| {
        let text = c_text(sql)?;
        // SAFETY: SPI is connected; it takes a snapshot for each statement.
        let outcome = catch(|| unsafe { ffi::SPI_execute(text.as_ptr(), false, 0) })?;
        if outcome < 0 {
            let reason = "must not end the transaction, begin another, or copy from or to the client";
            return Err(invalid("sql", reason));
        }
        // SAFETY: SPI's result, if there is one.
        match unsafe { first_value() }? {
            Some((value, of)) if of != pg_sys::VOIDOID => {
                let made = with_arguments("select pg_catalog.to_jsonb($1)", &[of], &[Some(value)])?;
                read(made.map(|(value, _)| Jsonb::of_datum(value)).transpose()?)
            }
            _ => read(None),
        }
    })
}

/// What a statement gives, as text.
pub fn text(sql: &str, types: &[Oid], args: &[Nullable]) -> Result<Option<String>> {
    within_spi(|| {
        // SAFETY: the statement gives a text.
        let made = with_arguments(sql, types, args)?.map(|(value, _)| unsafe { datum::text(value) }).transpose()?;
        Ok(made.map(ToOwned::to_owned))
    })
}

fn within_spi<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: ended below, or by the abort of the (sub)transaction.
    catch(|| unsafe { ffi::SPI_connect() })?;
    let result = work();
    if !matches!(result, Err(Failure::Postgres(_))) {
        // SAFETY: connected above.
        catch(|| unsafe { ffi::SPI_finish() })?;
    }
    result
}

fn c_text(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::Internal { what: "a statement holds a zero byte".into() }.into())
}

/// The first column of the first row, and its type.
fn with_arguments(sql: &str, types: &[Oid], args: &[Nullable]) -> Result<Option<(Datum, Oid)>> {
    let text = c_text(sql)?;
    let mut values: Vec<Datum> = args.iter().map(|arg| arg.unwrap_or(Datum::null())).collect();
    let nulls: Vec<c_char> = args.iter().map(|arg| if arg.is_some() { b' ' } else { b'n' } as c_char).collect();
    let (count, types) = (types.len().min(args.len()) as c_int, types.as_ptr().cast_mut());
    let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
    // SAFETY: SPI is connected, and copies the types; one value and one null flag for each.
    let outcome =
        catch(|| unsafe { ffi::SPI_execute_with_args(text.as_ptr(), count, types, values, nulls, false, 1) })?;
    if outcome < 0 {
        return Err(Error::Internal { what: format!("SPI says {outcome} to: {sql}") }.into());
    }
    // SAFETY: SPI's result.
    unsafe { first_value() }
}

/// # Safety
/// SPI is connected.
unsafe fn first_value() -> Result<Option<(Datum, Oid)>> {
    // SAFETY: SPI's result variables, valid after a statement; the table is NULL for statements that return no rows.
    catch(|| unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() || (*table).numvals == 0 || (*(*table).tupdesc).natts == 0 {
            return None;
        }
        let (desc, tuple) = ((*table).tupdesc, *(*table).vals);
        let of = pg_sys::SPI_gettypeid(desc, 1);
        let columns = (*desc).natts as usize;
        let (mut values, mut nulls) = (vec![Datum::null(); columns], vec![true; columns]);
        pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
        (!nulls[0]).then(|| (values[0], of))
    })
}
