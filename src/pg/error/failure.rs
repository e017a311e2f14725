//! Errors on their way to the client. Owns the only two ways one gets there: a broken rule becomes an error with its own
//! SQLSTATE, message, DETAIL and HINT; PostgreSQL's own error (a user's trigger, a cancel, a deadlock) is kept as
//! PostgreSQL made it and thrown again whole. Both happen as the last thing, when no Rust value is left to drop.
use crate::pg::ffi;
use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use eventstream_core::error::Error;
use eventstream_core::fault;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// A rule of eventstream's was broken.
    Rule(Error),
    /// PostgreSQL raised an error; the transaction cannot go on, so this must reach [`raise`].
    Postgres(PgError),
}

/// An error as PostgreSQL made it, in memory that lives as long as the transaction.
#[derive(Debug)]
pub struct PgError(pub(super) *mut pg_sys::ErrorData);

/// An error that was taken back, with what it did: what is left of it are its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    /// The names of the constraint and of the column that it is about, where it says so: unlike its words they hold nothing of a row.
    pub constraint: Option<Box<str>>,
    pub column: Option<Box<str>>,
    /// Whether it is the fault of the event that was processed ([`fault`]).
    pub is_of_event: bool,
}

impl Failure {
    /// Whether it is the fault of the event that was processed ([`fault`]).
    pub fn is_of_event(&self) -> bool {
        match self {
            Failure::Postgres(error) => fault::is_of_event(&error.sqlstate()),
            Failure::Rule(error) => error.is_of_event(),
        }
    }

    /// Puts before the argument that breaks a rule where it stands.
    pub fn within(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Failure::Rule(error) => error.within(&place()).into(),
            raised @ Failure::Postgres(_) => raised,
        }
    }

    /// Says what to do about an event's fault that somebody else's code raised without a word of it.
    pub fn hinting_event(self, hint: impl FnOnce() -> String) -> Self {
        if self.is_of_event() { self.hinting("", hint) } else { self }
    }

    /// The same of an error of PostgreSQL's whose SQLSTATE begins so.
    pub fn hinting(self, class: &str, hint: impl FnOnce() -> String) -> Self {
        if let Failure::Postgres(error) = &self {
            // SAFETY: a copy that CopyErrorData made; the hint lives where it does, and is freed with it.
            let place = unsafe { &raw mut (*error.0).hint };
            // SAFETY: as above.
            if unsafe { (*place).is_null() } && error.sqlstate().starts_with(class) {
                let hint = hint();
                if let Ok(text) = at_home(&hint) {
                    // SAFETY: as above.
                    unsafe { *place = text.cast_mut() };
                }
            }
        }
        self
    }

    /// An error of PostgreSQL's, or of users' code, with its SQLSTATE and other words: its own may say what the role is not to know.
    pub fn in_other_words(self, message: &str) -> Result<Self> {
        if let Failure::Postgres(error) = &self {
            // As long-lived as the error: whoever takes it back frees them, when the memory that is current now may be gone.
            let message = at_home(message)?.cast_mut();
            // SAFETY: a copy that CopyErrorData made; the new words lie where it does.
            unsafe {
                let error = &mut *error.0;
                error.message = message;
                (error.detail, error.detail_log, error.hint, error.context) =
                    (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            }
        }
        Ok(self)
    }

    /// Whether it has that SQLSTATE.
    pub fn is(&self, sqlstate: &str) -> bool {
        match self {
            Failure::Postgres(error) => error.sqlstate() == sqlstate,
            Failure::Rule(error) => error.sqlstate() == sqlstate,
        }
    }

    /// The words of a failure whose (sub)transaction is aborted next.
    pub fn into_caught(self) -> Caught {
        match self {
            Failure::Postgres(error) => error.into_caught(),
            Failure::Rule(error) => Caught {
                sqlstate: error.sqlstate().to_owned(),
                message: error.to_string(),
                detail: error.detail().map(|detail| detail.to_string()),
                constraint: None,
                column: None,
                is_of_event: error.is_of_event(),
            },
        }
    }
}

impl PgError {
    /// Five characters.
    pub fn sqlstate(&self) -> String {
        // SAFETY: a copy that CopyErrorData made, alive until `raise` or `into_caught`.
        unpacked_sqlstate(unsafe { (*self.0).sqlerrcode }).map(char::from).iter().collect()
    }

    pub fn into_caught(self) -> Caught {
        let sqlstate = self.sqlstate();
        // SAFETY: as in `sqlstate`; its memory is not used afterwards.
        unsafe {
            let (message, detail) = (words((*self.0).message).unwrap_or_default(), words((*self.0).detail));
            let name = |text| words(text).map(Into::into);
            let (constraint, column) = (name((*self.0).constraint_name), name((*self.0).column_name));
            ffi::FreeErrorData(self.0);
            Caught { is_of_event: fault::is_of_event(&sqlstate), sqlstate, message, detail, constraint, column }
        }
    }
}

/// The most bytes of an error's text that are kept of one that was taken back, in memory and in tables: whoever raises it may make it as large as
/// memory is.
pub const MOST_WORDS: usize = 8192;
const ELLIPSIS: &str = "…";

/// A copy, cut where it is too long.
///
/// # Safety
/// Null, or a cstring.
unsafe fn words(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() <= MOST_WORDS {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    // Not within a character (UTF-8's continuation bytes are 10xxxxxx).
    let end = (0..=MOST_WORDS - ELLIPSIS.len()).rev().find(|&end| bytes[end] & 0xc0 != 0x80).unwrap_or(0);
    Some(format!("{}{ELLIPSIS}", String::from_utf8_lossy(&bytes[..end])))
}

thread_local! {
    /// Where errors are kept instead of the current (sub)transaction's memory, which ends with it; null: there.
    static HOME: Cell<pg_sys::MemoryContext> = const { Cell::new(ptr::null_mut()) };
}

/// Where an error that is caught now is kept.
///
/// # Safety
/// Within a transaction, or where there is none.
unsafe fn home_of_errors() -> pg_sys::MemoryContext {
    let home = HOME.get();
    // SAFETY: plain variables of this backend.
    unsafe {
        if !home.is_null() {
            home
        } else if pg_sys::CurTransactionContext.is_null() {
            pg_sys::TopMemoryContext
        } else {
            pg_sys::CurTransactionContext
        }
    }
}

/// A copy of words for an error, where errors are kept.
pub(super) fn at_home(words: &str) -> Result<*const c_char> {
    catch(|| {
        // SAFETY: plain variables; `catch` puts the memory context back after an error.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = home_of_errors();
            let text = c_text(words);
            pg_sys::CurrentMemoryContext = context;
            text
        }
    })
}

/// Keeps the errors of `work`, whose subtransaction may end before they are told, where errors are kept already; else in the memory of the (sub)transaction that is current now.
/// Those of one attempt within another may pass through both: they outlive both.
pub fn keeping_errors<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: plain variables of this backend; whoever keeps errors elsewhere is below this frame.
    keeping_errors_in(unsafe { home_of_errors() }, work)
}

/// Keeps the errors of `work` in `home`.
pub fn keeping_errors_in<T>(home: pg_sys::MemoryContext, work: impl FnOnce() -> T) -> T {
    struct Before(pg_sys::MemoryContext);
    impl Drop for Before {
        fn drop(&mut self) {
            HOME.set(self.0);
        }
    }
    let _before = Before(HOME.replace(home));
    work()
}

thread_local! {
    /// Where the CONTEXT of our own errors begins while statements of ours are at work; None: where they are raised.
    static CALLERS: Cell<Option<*mut pg_sys::ErrorContextCallback>> = const { Cell::new(None) };
}

/// What the CONTEXT of our own errors speaks of, until this is dropped.
pub struct Speaking(Option<*mut pg_sys::ErrorContextCallback>);

impl Drop for Speaking {
    fn drop(&mut self) {
        CALLERS.set(self.0);
    }
}

/// From here on statements of ours call functions of ours, which says nothing to whoever meets an error of ours: its CONTEXT is that of here.
pub fn speak_of_callers() -> Speaking {
    // SAFETY: a plain variable of this backend.
    let here = unsafe { pg_sys::error_context_stack };
    // Also below others of the kind; entries of frames that are still there, because this is dropped before they end.
    Speaking(CALLERS.replace(Some(CALLERS.get().unwrap_or(here))))
}

/// From here on a user's code is at work, and what of it was running when it met an error of ours is said.
pub fn speak_of_all() -> Speaking {
    Speaking(CALLERS.replace(None))
}

/// For serde, which asks for it; what a client is told is put together elsewhere.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failure::Rule(error) => error.fmt(f),
            Failure::Postgres(error) => f.write_str(&error.sqlstate()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Rule(error)
    }
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Puts PostgreSQL's idea of "where an error jumps to" back, also when a Rust panic passes.
struct Landing {
    exception_stack: *mut pg_sys::sigjmp_buf,
    context_stack: *mut pg_sys::ErrorContextCallback,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // SAFETY: plain assignments of the values found at entry; their frames are still alive, below ours.
        unsafe {
            pg_sys::PG_exception_stack = self.exception_stack;
            pg_sys::error_context_stack = self.context_stack;
        }
    }
}

/// Runs `work`, which calls functions of [`crate::pg::ffi`], and gives PostgreSQL's error as a value (PG_TRY).
///
/// # Safety contract
/// The frames that an error jumps over must own nothing: `work` builds no value with a destructor before its last call into
/// PostgreSQL. After an error the (sub)transaction cannot go on: the failure has to reach [`raise`], or be replaced by another.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T> {
    // SAFETY: a plain variable of this backend.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    if let Some(done) = landed(work) {
        return Ok(done.unwrap_or_else(|panic| resume_unwind(panic)));
    }
    // SAFETY: an error was just caught; CurrentMemoryContext is not ErrorContext while it is copied.
    unsafe {
        pg_sys::CurrentMemoryContext = home_of_errors();
        let error = ffi::CopyErrorData();
        pg_sys::CurrentMemoryContext = context;
        ffi::FlushErrorState();
        Err(Failure::Postgres(PgError(error)))
    }
}

/// Runs `work`, and `after` whether it raises or not (PG_FINALLY). As in [`catch`], the frames that an error jumps over own nothing.
pub fn finally(work: impl FnOnce(), after: impl FnOnce()) {
    let done = landed(work);
    after();
    match done {
        // SAFETY: an error is on its way, and goes on as it was raised.
        None => unsafe { ffi::pg_re_throw() },
        Some(done) => done.unwrap_or_else(|panic| resume_unwind(panic)),
    }
}

/// Runs `work`: what came of it, or its panic; None where PostgreSQL raised an error, which is on its way still.
fn landed<T>(work: impl FnOnce() -> T) -> Option<std::thread::Result<T>> {
    let mut result = MaybeUninit::uninit();
    // SAFETY: as PG_TRY of elog.h: the jump buffer lives in this frame, and Landing takes it down before the frame ends.
    let jumped = unsafe {
        let landing =
            Landing { exception_stack: pg_sys::PG_exception_stack, context_stack: pg_sys::error_context_stack };
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = ptr::from_ref::<SigJmpBufFields>(buffer).cast_mut().cast();
            // A panic must not reach the frame that calls this one, which ends the process then, and with it all sessions.
            result.write(catch_unwind(AssertUnwindSafe(work)));
            0
        });
        drop(landing);
        jumped
    };
    if jumped != 0 {
        return None;
    }
    // SAFETY: the closure wrote it before it returned 0.
    Some(unsafe { result.assume_init() })
}

/// MAKE_SQLSTATE of elog.h: five characters, six bits each.
pub fn packed_sqlstate(code: &str) -> c_int {
    code.bytes()
        .take(5)
        .enumerate()
        .fold(0, |packed, (place, byte)| packed + ((c_int::from(byte.wrapping_sub(b'0')) & 0x3f) << (6 * place)))
}

/// The same backward.
pub fn unpacked_sqlstate(packed: c_int) -> [u8; 5] {
    [0, 1, 2, 3, 4].map(|place| ((packed >> (6 * place)) & 0x3f) as u8 + b'0')
}

/// `text` as a C string in PostgreSQL's memory, which the end of the transaction frees.
fn c_text(text: &str) -> *const c_char {
    // SAFETY: palloc gives len + 1 bytes or raises an error, which leaves nothing half-made.
    unsafe {
        let copy = ffi::palloc(text.len() + 1).cast::<u8>();
        for (place, byte) in text.bytes().enumerate() {
            *copy.add(place) = if byte == 0 { b'?' } else { byte };
        }
        *copy.add(text.len()) = 0;
        copy.cast()
    }
}

/// Raises the failure as an ERROR. Call it as the last thing, with nothing alive that needs dropping.
pub fn raise(failure: Failure) -> ! {
    match failure {
        // SAFETY: a copy that CopyErrorData made, as ReThrowError wants it.
        Failure::Postgres(PgError(error)) => unsafe { ffi::ReThrowError(error) },
        Failure::Rule(error) => report(error),
    }
    unreachable!("an ERROR does not return")
}

/// Levels of elog.h.
const ERROR: c_int = pg_sys::elog::PgLogLevel::ERROR as c_int;
const LOG: c_int = pg_sys::elog::PgLogLevel::LOG as c_int;

/// The file and the function that our own errors are of. A function of a user's can give its error any SQLSTATE, but not these.
static OURS: (&CStr, &CStr) = (c"failure.rs", c"report");

/// Whether the error is one of ours, also where it was caught and raised again: by then elog.c has copies of both names, in other places.
///
/// # Safety
/// An error that elog.c made.
pub unsafe fn is_ours(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: null, or cstrings.
    let is = |name: *const c_char, ours: &CStr| !name.is_null() && unsafe { CStr::from_ptr(name) } == ours;
    is(error.filename, OURS.0) && is(error.funcname, OURS.1)
}

fn report(error: Error) {
    let code = packed_sqlstate(error.sqlstate());
    let message = c_text(&error.to_string());
    let detail = error.detail().map(|detail| c_text(&detail.to_string()));
    let hint = error.hint().map(|hint| c_text(&hint));
    drop(error);
    // SAFETY: the protocol of ereport(); every text is passed through "%s".
    unsafe {
        if ffi::errstart(ERROR, ptr::null()) {
            ffi::errcode(code);
            ffi::errmsg(c"%s".as_ptr(), message);
            if let Some(detail) = detail {
                ffi::errdetail(c"%s".as_ptr(), detail);
            }
            if let Some(hint) = hint {
                ffi::errhint(c"%s".as_ptr(), hint);
            }
            if let Some(callers) = CALLERS.get() {
                // Whoever catches the error puts it back.
                pg_sys::error_context_stack = callers;
            }
            ffi::errfinish(OURS.0.as_ptr(), 0, OURS.1.as_ptr());
        }
    }
}

/// Writes the failure to the server's log, without raising it.
pub fn log(failure: &Failure, what: &str) -> Result<()> {
    let (code, message, detail) = match failure {
        Failure::Rule(error) => {
            (packed_sqlstate(error.sqlstate()), error.to_string(), error.detail().map(|detail| detail.to_string()))
        }
        // SAFETY: a copy that CopyErrorData made, alive until `raise` or `into_caught`.
        Failure::Postgres(error) => unsafe {
            ((*error.0).sqlerrcode, words((*error.0).message).unwrap_or_default(), words((*error.0).detail))
        },
    };
    let context = match failure {
        // SAFETY: as above; the text lives as long as the copy.
        Failure::Postgres(error) => unsafe { (*error.0).context.cast_const() },
        Failure::Rule(_) => ptr::null(),
    };
    let message = c_string(&format!("{what}: {message}"))?;
    let detail = detail.map(|detail| c_string(&detail)).transpose()?;
    catch(|| {
        // SAFETY: the protocol of ereport(); every text is passed through "%s".
        unsafe {
            if ffi::errstart(LOG, ptr::null()) {
                ffi::errcode(code);
                ffi::errmsg(c"%s".as_ptr(), message);
                if let Some(detail) = detail {
                    ffi::errdetail(c"%s".as_ptr(), detail);
                }
                if !context.is_null() {
                    ffi::set_errcontext_domain(ptr::null());
                    ffi::errcontext_msg(c"%s".as_ptr(), context);
                }
                ffi::errfinish(OURS.0.as_ptr(), 0, c"log".as_ptr());
            }
        }
    })
}

/// Leaves the error for guc.c to report, from the check hook of a setting.
pub fn refuse_setting(error: Error) {
    let (message, hint) = (c_text(&error.to_string()), error.hint().map(|hint| c_text(&hint)));
    let detail = error.detail().map(|detail| c_text(&detail.to_string()));
    // SAFETY: plain variables that guc.c reads right after the hook; the texts live in the current memory context.
    unsafe {
        pg_sys::GUC_check_errcode(packed_sqlstate(error.sqlstate()));
        pg_sys::GUC_check_errmsg_string = message.cast_mut();
        pg_sys::GUC_check_errdetail_string = detail.unwrap_or(ptr::null()).cast_mut();
        pg_sys::GUC_check_errhint_string = hint.unwrap_or(ptr::null()).cast_mut();
    }
}

/// A zero-terminated copy; the text holds no zero byte, as no text of PostgreSQL's does.
pub fn c_string(text: &str) -> Result<*mut c_char> {
    let (from, len) = (text.as_ptr(), text.len());
    catch(|| unsafe {
        // SAFETY: palloc gives len + 1 bytes, all of which are written.
        let made = ffi::palloc(len + 1).cast::<u8>();
        ptr::copy_nonoverlapping(from, made, len);
        *made.add(len) = 0;
        made.cast()
    })
}

/// "… must be …", naming the argument.
pub fn invalid(argument: impl Into<String>, reason: impl Into<String>) -> Failure {
    invalid_with(argument, reason, None)
}

/// The same, with what to do about it.
pub fn invalid_with(argument: impl Into<String>, reason: impl Into<String>, hint: Option<String>) -> Failure {
    Error::InvalidArgument { argument: argument.into(), reason: reason.into(), hint }.into()
}

/// The beginning of an error's message or detail: it is stored with every attempt.
pub fn shortened(message: &str) -> &str {
    let end = (0..=message.len().min(MOST_WORDS)).rev().find(|&end| message.is_char_boundary(end));
    &message[..end.unwrap_or(0)]
}
