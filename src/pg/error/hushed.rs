//! What users' code says of something that is kept out of the server's log: a decider is given all of a command, and may repeat it in an error, a DETAIL, a warning, a CONTEXT.
//! Whoever called gets each word of it; the log is told the SQLSTATE and which code it was of (src/pg/error/log_hook.rs), and what PostgreSQL says of itself (crates/core/src/own_words.rs).
//!
//! Promises: an error stays hushed wherever it is caught, kept and raised again, as the names of its file and function do; what is said while the code works is hushed by then.
use super::failure::{Failure, PgError, Result, at_home, catch, is_ours, raise, unpacked_sqlstate};
use crate::pg::ffi;
use eventstream_core::own_words;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::ptr;

/// The file that hushed errors are of.
const FILE: &CStr = c"hushed.rs";

/// Whose words a hushed error has: the function that it is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Ours.
    Ours,
    /// PostgreSQL's own, which the log is told.
    Servers,
    Others,
}

impl Whose {
    const ALL: [Self; 3] = [Self::Ours, Self::Servers, Self::Others];

    const fn name(self) -> &'static CStr {
        match self {
            Self::Ours => c"ours",
            Self::Servers => c"servers",
            Self::Others => c"others",
        }
    }

    /// # Safety
    /// An error that elog.c made.
    unsafe fn of(error: &pg_sys::ErrorData) -> Self {
        let code = unpacked_sqlstate(error.sqlerrcode);
        // SAFETY: as the caller says.
        let (is_ours, file) = unsafe { (is_ours(error), text(error.filename)) };
        match (is_ours, file.and_then(|file| file.to_str().ok()), str::from_utf8(&code)) {
            (true, ..) => Self::Ours,
            (_, Some(file), Ok(code)) if own_words::is_of_error(code, file) => Self::Servers,
            _ => Self::Others,
        }
    }
}

/// # Safety
/// Null, or a cstring.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: as the caller says.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What is said is hushed until this is dropped, by an error or a panic too.
pub struct Hushing(());

impl Hushing {
    pub fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for Hushing {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether code works whose words are hushed.
pub fn is_on() -> bool {
    DEPTH.get() > 0
}

impl Failure {
    /// The same for its caller; the log is told what it is `of`, and its SQLSTATE.
    pub fn hushed(self, of: &str) -> Result<Self> {
        let PgError(error) = match self {
            Failure::Postgres(error) => error,
            // As it would be raised.
            rule @ Failure::Rule(_) => match catch(|| raise(rule)) {
                Err(Failure::Postgres(error)) => error,
                other => return other,
            },
        };
        // SAFETY: a copy that CopyErrorData made.
        if unsafe { self::of(&*error) }.is_some() {
            return Ok(Failure::Postgres(PgError(error)));
        }
        let of = at_home(of)?.cast_mut();
        // SAFETY: as above: it points to names that are constants; `of` lives as long as it does, and is freed with it.
        unsafe {
            let error = &mut *error;
            error.funcname = Whose::of(error).name().as_ptr();
            error.filename = FILE.as_ptr();
            // Which no client is sent.
            error.detail_log = of;
        }
        Ok(Failure::Postgres(PgError(error)))
    }

    /// For whoever keeps it for others than its caller: without the words of what is hushed.
    pub fn withheld(self) -> Result<Self> {
        let Failure::Postgres(error) = &self else { return Ok(self) };
        // SAFETY: a copy that CopyErrorData made.
        let said = match unsafe { of(&*error.0).map(|(of, whose)| (of, instead(&*error.0, whose))) } {
            Some((of, said)) => format!("{}: {}", of.to_string_lossy(), said.to_string_lossy()),
            None => return Ok(self),
        };
        self.in_other_words(&said)
    }
}

/// What a hushed error is of, and whose words it has; None: it is not hushed.
///
/// # Safety
/// An error that elog.c made.
pub unsafe fn of(error: &pg_sys::ErrorData) -> Option<(&CStr, Whose)> {
    // SAFETY: names and texts, which live as long as the error.
    let [file, function, of] = [error.filename, error.funcname, error.detail_log].map(|of| unsafe { text(of) });
    if file != Some(FILE) {
        return None;
    }
    let whose = Whose::ALL.into_iter().find(|whose| function == Some(whose.name()));
    Some((of.unwrap_or_default(), whose.unwrap_or(Whose::Others)))
}

/// What is told of a hushed error to others than its caller.
///
/// # Safety
/// A hushed error, whose words these are.
unsafe fn instead(error: &pg_sys::ErrorData, whose: Whose) -> &CStr {
    match whose {
        // SAFETY: as the caller says.
        Whose::Servers => unsafe { text(error.message) }.unwrap_or_default(),
        Whose::Ours | Whose::Others => {
            c"what it says is told to its caller, and not here, because fields of commands or events are protected"
        }
    }
}

/// Whether that is what the server says of itself while users' code works.
///
/// # Safety
/// A message that elog.c made, and no error.
pub unsafe fn is_of_server(message: &pg_sys::ErrorData) -> bool {
    // SAFETY: as the caller says.
    let file = unsafe { text(message.filename) };
    file.and_then(|file| file.to_str().ok()).is_some_and(own_words::is_of_line)
}

/// What the log says instead of such an error, from within its hook; which it passes through, too, as a message that is hushed and no error: there it becomes one for the log.
///
/// # Safety
/// A hushed error is being written.
pub unsafe fn tell(error: &pg_sys::ErrorData) {
    // SAFETY: as the caller says; the texts live until it is written.
    let Some((of, whose)) = (unsafe { self::of(error) }) else { return };
    let sqlstate = unpacked_sqlstate(error.sqlerrcode);
    // SAFETY: as above.
    let (message, detail) = unsafe { (instead(error, whose), text(error.detail).filter(|_| whose == Whose::Servers)) };
    // SAFETY: the protocol of ereport(); every text is passed through "%s". Where it raises, nothing is left to tell.
    let _ = catch(|| unsafe {
        if ffi::errstart(pg_sys::LOG_SERVER_ONLY as i32, ptr::null()) {
            ffi::errcode(error.sqlerrcode);
            ffi::errmsg(c"error %.5s of %s: %s".as_ptr(), sqlstate.as_ptr(), of.as_ptr(), message.as_ptr());
            if let Some(detail) = detail {
                ffi::errdetail(c"%s".as_ptr(), detail.as_ptr());
            }
            ffi::errfinish(FILE.as_ptr(), 0, c"tell".as_ptr());
        }
    });
}
