//! How SQL calls a Rust function: [`sql_function!`] exports one, [`Args`] reads its arguments (NULL where a value is
//! needed is an error that names the argument), and whatever goes wrong leaves through [`raising`].
pub mod call;
use super::error::entry::raising;
use super::error::failure::{self, Failure, Result};
use super::ffi;
use super::jsonb::Jsonb;
use super::value::datum::{self, Nullable};
use eventstream_core::error::Error;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr;

/// The longest text that a call takes: names, reasons and rules are shorter. What is longer is a document, and those are jsonb. What a
/// caller can make large stays in PostgreSQL's memory, where too much is an error, or is refused before it is copied: where Rust's
/// memory ends, the server does.
const MOST_TEXT_BYTES: usize = 1 << 20;
/// The most names that a filter takes, and the longest: longer than every name there can be.
const MOST_NAMES: usize = 1000;
const MOST_NAME_BYTES: usize = 1024;

/// What a function returns: a datum, or NULL.
pub type Returned = Result<Option<pg_sys::Datum>>;

/// The arguments of a call. Borrowed values live as long as the call.
pub struct Args<'call> {
    info: pg_sys::FunctionCallInfo,
    /// As `sql_function!` has them.
    types: &'static str,
    _call: PhantomData<&'call ()>,
}

/// Exports `$target: fn(&Args) -> Returned` as the C function `$symbol` (calling convention version 1). `$types`: its arguments', as
/// oidvectortypes() says them; pg_test/catalog.rs compares them with how each function is declared.
macro_rules! sql_function {
    ($symbol:literal, $types:literal, $target:expr) => {
        #[allow(unsafe_code)]
        const _: () = {
            #[unsafe(export_name = $symbol)]
            extern "C-unwind" fn exported(info: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
                $crate::pg::function::call(($symbol, $types), info, $target)
            }
            #[unsafe(export_name = concat!("pg_finfo_", $symbol))]
            extern "C" fn record() -> &'static pgrx::pg_sys::Pg_finfo_record {
                &pgrx::pg_sys::Pg_finfo_record { api_version: 1 }
            }
            #[cfg(feature = "pg_test")]
            #[unsafe(export_name = concat!("types_of_", $symbol))]
            fn types() -> &'static str {
                $types
            }
        };
    };
}
pub(crate) use sql_function;

/// Runs `target` for a function of that symbol, whose arguments are of these types.
pub fn call(
    (symbol, types): (&'static str, &'static str),
    info: pg_sys::FunctionCallInfo,
    target: fn(&Args) -> Returned,
) -> pg_sys::Datum {
    let returned = raising(symbol, || target(&Args { info, types, _call: PhantomData }));
    returned.unwrap_or_else(|| {
        // SAFETY: PostgreSQL calls us with a valid FunctionCallInfo.
        unsafe { (*info).isnull = true };
        pg_sys::Datum::null()
    })
}

/// What `sql_function!` has of that symbol.
#[cfg(feature = "pg_test")]
pub fn types_of(symbol: &str) -> Result<&'static str> {
    let name = std::ffi::CString::new(format!("types_of_{symbol}")).unwrap_or_default();
    let found = failure::catch(|| {
        let none = ptr::null_mut();
        // SAFETY: this library, which is loaded; an error where it has no such symbol.
        unsafe { pg_sys::load_external_function(c"$libdir/eventstream".as_ptr(), name.as_ptr(), true, none) }
    })?;
    // SAFETY: `sql_function!` exports such a function under that name.
    let types = unsafe { std::mem::transmute::<*mut std::ffi::c_void, fn() -> &'static str>(found.cast()) };
    Ok(types())
}

/// "… must not be NULL", naming the argument.
fn null(argument: &str) -> Failure {
    Error::InvalidArgument { argument: argument.into(), reason: "must not be NULL".into(), hint: None }.into()
}

impl<'call> Args<'call> {
    pub fn info(&self) -> pg_sys::FunctionCallInfo {
        self.info
    }

    /// All of them, as they are.
    pub fn given(&self) -> Vec<Nullable> {
        // SAFETY: PostgreSQL passes as many arguments as it says.
        let args = unsafe { (*self.info).args.as_slice((*self.info).nargs as usize) };
        args.iter().map(|arg| (!arg.isnull).then_some(arg.value)).collect()
    }

    /// The argument at `place` (from 0) as it is, whatever its type.
    pub fn value(&self, place: usize) -> Nullable {
        // SAFETY: as in `datum`.
        unsafe {
            let arg = &(*self.info).args.as_slice((*self.info).nargs as usize)[place];
            (!arg.isnull).then_some(arg.value)
        }
    }

    /// The argument at `place` (from 0), None where it is NULL. Debug builds and tests refuse to read it as what it is not.
    fn datum(&self, place: usize, kind: &str) -> Option<pg_sys::Datum> {
        if cfg!(any(debug_assertions, feature = "pg_test")) {
            let declared = self.types.split(", ").nth(place);
            assert!(declared == Some(kind), "argument {place} is read as {kind}, of ({})", self.types);
        }
        // SAFETY: PostgreSQL passes as many arguments as the function was declared with; sql/ and src/api agree on them.
        unsafe {
            let args = (*self.info).args.as_slice((*self.info).nargs as usize);
            let arg = &args[place];
            (!arg.isnull).then_some(arg.value)
        }
    }

    pub fn text_opt(&self, place: usize) -> Result<Option<&'call str>> {
        let Some(value) = self.datum(place, "text") else { return Ok(None) };
        // Asked before it is unpacked: whoever reads it may copy it into memory whose end is the end of the server.
        let bytes = datum::unpacked_size(value).saturating_sub(pg_sys::VARHDRSZ);
        if bytes > MOST_TEXT_BYTES {
            return Err(self.too_large(place, format!("must be shorter: it has {bytes} bytes")));
        }
        // SAFETY: declared as text in sql/; the detoasted copy lives in the call's memory context.
        unsafe { datum::text(value) }.map(Some)
    }

    /// ES005, naming the argument as it was declared.
    fn too_large(&self, place: usize, reason: String) -> Failure {
        let argument = self.name_of(place).unwrap_or_else(|_| format!("argument {}", place + 1));
        Error::InvalidArgument { argument, reason, hint: None }.into()
    }

    /// The argument's name, as the function was declared.
    fn name_of(&self, place: usize) -> Result<String> {
        let info = self.info;
        // SAFETY: PostgreSQL passes the function that it calls, whose row is there while it runs; the names are copies.
        let name = failure::catch(|| unsafe {
            let row = ffi::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, (*(*info).flinfo).fn_oid.into());
            let (mut types, mut names, mut modes) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            let count = ffi::get_func_arg_info(row, &mut types, &mut names, &mut modes);
            ffi::ReleaseSysCache(row);
            if names.is_null() || place >= count as usize { ptr::null_mut() } else { *names.add(place) }
        })?;
        if name.is_null() {
            return Err(Error::Internal { what: "an argument has no name".into() }.into());
        }
        // SAFETY: a cstring.
        Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    pub fn text(&self, place: usize, argument: &str) -> Result<&'call str> {
        self.text_opt(place)?.ok_or_else(|| null(argument))
    }

    /// An argument of type name.
    pub fn name(&self, place: usize, argument: &str) -> Result<&'call str> {
        let value = self.datum(place, "name").ok_or_else(|| null(argument))?;
        // SAFETY: declared as name in sql/: a zero-terminated array of NAMEDATALEN bytes.
        Ok(unsafe { datum::name(value) })
    }

    pub fn name_opt(&self, place: usize) -> Option<&'call str> {
        // SAFETY: as in `name`.
        self.datum(place, "name").map(|value| unsafe { datum::name(value) })
    }

    pub fn int8_opt(&self, place: usize) -> Option<i64> {
        self.datum(place, "bigint").map(|value| value.value() as i64)
    }

    pub fn int8(&self, place: usize, argument: &str) -> Result<i64> {
        self.int8_opt(place).ok_or_else(|| null(argument))
    }

    pub fn int4_opt(&self, place: usize) -> Option<i32> {
        self.datum(place, "integer").map(|value| value.value() as i32)
    }

    /// Days since 2000-01-01; the ends of the range are infinity.
    pub fn date_opt(&self, place: usize) -> Option<i32> {
        self.datum(place, "date").map(|value| value.value() as i32)
    }

    pub fn date(&self, place: usize, argument: &str) -> Result<i32> {
        self.date_opt(place).ok_or_else(|| null(argument))
    }

    pub fn int4(&self, place: usize, argument: &str) -> Result<i32> {
        self.int4_opt(place).ok_or_else(|| null(argument))
    }

    pub fn boolean(&self, place: usize, argument: &str) -> Result<bool> {
        self.datum(place, "boolean").map(|value| value.value() & 1 == 1).ok_or_else(|| null(argument))
    }

    /// An argument of type interval.
    pub fn interval_opt(&self, place: usize) -> Option<pg_sys::Datum> {
        self.datum(place, "interval")
    }

    /// Microseconds since 2000-01-01 UTC; the ends of the range are infinity.
    pub fn timestamptz_opt(&self, place: usize) -> Option<i64> {
        self.datum(place, "timestamp with time zone").map(|value| value.value() as i64)
    }

    pub fn uuid_opt(&self, place: usize) -> Option<[u8; 16]> {
        // SAFETY: declared as uuid in sql/: a pointer to 16 bytes.
        self.datum(place, "uuid").map(|value| unsafe { datum::uuid(value) })
    }

    pub fn uuid(&self, place: usize, argument: &str) -> Result<[u8; 16]> {
        self.uuid_opt(place).ok_or_else(|| null(argument))
    }

    /// A bytea, which must be short: it is copied.
    pub fn bytes_opt(&self, place: usize) -> Result<Option<&'call [u8]>> {
        let Some(value) = self.datum(place, "bytea") else { return Ok(None) };
        let bytes = datum::unpacked_size(value).saturating_sub(pg_sys::VARHDRSZ);
        if bytes > MOST_TEXT_BYTES {
            return Err(self.too_large(place, format!("must be shorter: it has {bytes} bytes")));
        }
        // SAFETY: declared as bytea in sql/; the detoasted copy lives in the call's memory context.
        unsafe { datum::bytes(value) }.map(Some)
    }

    pub fn bytes(&self, place: usize, argument: &str) -> Result<&'call [u8]> {
        self.bytes_opt(place)?.ok_or_else(|| null(argument))
    }

    pub fn jsonb(&self, place: usize, argument: &str) -> Result<Jsonb<'call>> {
        let value = self.datum(place, "jsonb").ok_or_else(|| null(argument))?;
        // SAFETY: declared as jsonb in sql/; the detoasted copy lives in the call's memory context.
        unsafe { Jsonb::from_datum(value) }
    }

    pub fn jsonb_opt(&self, place: usize) -> Result<Option<Jsonb<'call>>> {
        // SAFETY: declared as jsonb in sql/; the detoasted copy lives in the call's memory context.
        self.datum(place, "jsonb").map(|value| unsafe { Jsonb::from_datum(value) }).transpose()
    }

    /// An argument of type regprocedure.
    pub fn oid_opt(&self, place: usize) -> Option<pg_sys::Oid> {
        self.datum(place, "regprocedure").map(|value| pg_sys::Oid::from(value.value() as u32))
    }

    pub fn oid(&self, place: usize, argument: &str) -> Result<pg_sys::Oid> {
        self.oid_opt(place).ok_or_else(|| null(argument))
    }

    pub fn timestamptz(&self, place: usize, argument: &str) -> Result<i64> {
        self.timestamptz_opt(place).ok_or_else(|| null(argument))
    }

    /// The elements of an array of names: at most [`MOST_NAMES`], none longer than [`MOST_NAME_BYTES`]; NULL elements are an error, and so are
    /// more dimensions than one.
    pub fn text_array_opt(&self, place: usize, argument: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.datum(place, "text[]") else { return Ok(None) };
        let invalid = |reason: String| Error::InvalidArgument { argument: argument.into(), reason, hint: None };
        // SAFETY: declared as text[] in sql/.
        let elements = unsafe {
            let array = datum::Array::of_text(value)?;
            if array.dimensions() > 1 {
                return Err(
                    invalid(format!("must be a flat list, not an array of {} dimensions", array.dimensions())).into()
                );
            }
            if array.len() > MOST_NAMES {
                return Err(invalid(format!("must have at most {MOST_NAMES} elements, not {}", array.len())).into());
            }
            if array.longest() > MOST_NAME_BYTES {
                let reason = format!("must have shorter elements: the longest has {} bytes", array.longest());
                return Err(invalid(reason).into());
            }
            array.elements()?
        };
        elements
            .into_iter()
            .map(|element| {
                element.ok_or_else(|| {
                    Error::InvalidArgument {
                        argument: argument.into(),
                        reason: "must not contain NULL".into(),
                        hint: None,
                    }
                    .into()
                })
            })
            .collect::<Result<Vec<_>>>()
            .map(Some)
    }
}
