//! Calling a user's code (a fold's handler, an upcaster, a projection, a decider, an invariant). Promises: it runs as the role that registered it and with that
//! role's search path, security-restricted, whoever asks; what it sets is undone; its errors leave whole, with a CONTEXT line that
//! says what it was called for; and a fold or an upcaster cannot call back into es_* functions, which would make its result depend
//! on more than its arguments.
use crate::pg::error::entry::silent;
use crate::pg::error::failure::{Result, catch, speak_of_all};
use crate::pg::process::memory::{Replaced, Scratch};
use crate::pg::process::test_point::test_point;
use crate::pg::value::composite::{self, Record};
use crate::pg::value::datum;
use crate::pg::{compat, ffi, pinned, process::server};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::mem::{ManuallyDrop, MaybeUninit};

thread_local! {
    static IN_USER_CODE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a fold or an upcaster is running.
pub fn is_in_user_code() -> bool {
    IN_USER_CODE.get()
}

/// Sets the flag until dropped.
struct InUserCode;

impl InUserCode {
    fn enter() -> Self {
        IN_USER_CODE.set(true);
        Self
    }
}

impl Drop for InUserCode {
    fn drop(&mut self) {
        IN_USER_CODE.set(false);
    }
}

/// Whose code it is, and the search path that its names are looked up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    /// What it is called, or was.
    pub role: String,
    /// None: it is gone, whoever has the name now.
    pub oid: Option<Oid>,
    pub search_path: CString,
}

/// A function that was found and may be called, by its registrant.
pub struct Function {
    oid: Oid,
    info: pg_sys::FmgrInfo,
    /// What the function keeps from call to call. It goes with the context that was current at the look-up.
    memory: ManuallyDrop<Scratch>,
    /// Whether a call was left by an error: a function in SQL would take its half-run execution up again.
    was_left: bool,
    role: Oid,
    search_path: CString,
}

/// What may be done inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A fold or an upcaster: a function of its arguments alone.
    Pure,
    /// A projection: whatever its registrant may do.
    Handler,
    /// A decider: whatever its registrant may read.
    Decider,
    /// An invariant: the same, in a subtransaction that is rolled back, which puts rights and settings back.
    Invariant,
}

impl Code {
    /// Whose code that may only read it is, and what that does instead of writing.
    fn only_reads(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Pure | Self::Handler => None,
            Self::Decider => Some(("a decider", "A decider answers which events follow, and es_command appends them.")),
            Self::Invariant => Some(("an invariant", "An invariant answers NULL, or why what was appended breaks it.")),
        }
    }
}

/// Where the calls of a function stand, for the CONTEXT of its errors.
pub struct Position<'a> {
    /// "fold \"balance\" of stream \"account-1\"", zero-terminated.
    what: &'a CStr,
    unit: &'static CStr,
    at: Cell<i64>,
}

impl<'a> Position<'a> {
    /// "… at version n".
    pub fn version(what: &'a CStr, version: i64) -> Self {
        Self { what, unit: c"version", at: Cell::new(version) }
    }

    /// "… at n", of what the caller counts.
    pub fn counted(what: &'a CStr, unit: &'static CStr, at: i64) -> Self {
        Self { what, unit, at: Cell::new(at) }
    }

    /// "… at global position n".
    pub fn global(what: &'a CStr) -> Self {
        Self { what, unit: c"global position", at: Cell::new(0) }
    }

    pub fn set(&self, at: i64) {
        self.at.set(at);
    }

    pub fn get(&self) -> i64 {
        self.at.get()
    }
}

impl Registrant {
    /// The role, where it still exists.
    pub fn existing(&self) -> Result<Option<Oid>> {
        let Some(oid) = self.oid else { return Ok(None) };
        Ok(server::role_exists(oid)?.then_some(oid))
    }
}

/// Whether the role may call the function.
pub fn may_execute(function: Oid, role: Oid) -> Result<bool> {
    // SAFETY: a syscache look-up.
    catch(|| unsafe { compat::may_execute(function, role) })
}

/// Whether there is a function of that oid.
pub fn exists(function: Oid) -> Result<bool> {
    let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
    let (key, none) = (Datum::from(function), Datum::null());
    // SAFETY: a syscache look-up.
    catch(|| unsafe { ffi::SearchSysCacheExists(cache, key, none, none, none) })
}

impl Function {
    /// Prepares calls of the function. They must end in the memory context that is current now.
    pub fn look_up(oid: Oid, role: Oid, search_path: &CStr) -> Result<Self> {
        let memory = ManuallyDrop::new(Scratch::new()?);
        let info = found(oid, &memory)?;
        Ok(Self { oid, info, memory, was_left: false, role, search_path: search_path.to_owned() })
    }

    /// Makes a call. After one that an error ended, nothing of it is left: by now its (sub)transaction is, too.
    fn called<T>(&mut self, call: impl FnOnce(*mut pg_sys::FmgrInfo) -> Result<T>) -> Result<T> {
        if self.was_left {
            self.info = found(self.oid, &self.memory)?;
        }
        self.was_left = true;
        let result = call(&raw mut self.info)?;
        self.was_left = false;
        Ok(result)
    }

    /// Runs `work` with the registrant's rights; inside it, [`Calls::call`] calls the function.
    pub fn as_registrant<T>(
        &mut self,
        code: Code,
        at: &Position,
        work: impl FnOnce(&mut Calls) -> Result<T>,
    ) -> Result<T> {
        pinned::refuse_other_strings()?;
        let (role, search_path) = (self.role, self.search_path.clone());
        as_registrant(role, &search_path, code, at, || work(&mut Calls(self)))
    }
}

/// Looks the function up, in memory that is emptied before.
fn found(oid: Oid, memory: &Scratch) -> Result<pg_sys::FmgrInfo> {
    let mut info = MaybeUninit::<pg_sys::FmgrInfo>::zeroed();
    let into = info.as_mut_ptr();
    // SAFETY: fills `info`, whose memory context is the current one.
    memory.step(|| catch(|| unsafe { ffi::fmgr_info(oid, into) }))?;
    // SAFETY: filled.
    Ok(unsafe { info.assume_init() })
}

/// Runs `work` with a registrant's rights, security-restricted, and search path. After PostgreSQL's own error, and an invariant's, they are left to the abort of
/// the (sub)transaction, which puts them back.
pub fn as_registrant<T>(
    role: Oid,
    search_path: &CStr,
    code: Code,
    at: &Position,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if is_in_user_code() {
        return Err(refusal());
    }
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    let _pinned = pinned::begin();
    // SAFETY: as index.c does before it calls a user's function: a nesting level of settings, then the rights.
    let level = catch(|| unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        ffi::NewGUCNestLevel()
    })?;
    // What a day is, and how times are printed, must not depend on who asks: a state made in Tokyo is kept for everybody.
    pinned::set(search_path)?;
    // SAFETY: undone below, or by the abort.
    unsafe { pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32) };
    let result = {
        let (_users, _all) = (crate::pg::guard::users_work(), speak_of_all());
        let _flag = (code == Code::Pure).then(InUserCode::enter);
        let _reads = code.only_reads().map(|(who, hint)| server::OnlyReading::begin(who, hint));
        with_context(at, || {
            test_point("users' code");
            work()
        })
    };
    // An invariant's subtransaction is rolled back whatever comes of it.
    if code == Code::Invariant || matches!(result, Err(crate::pg::error::failure::Failure::Postgres(_))) {
        return result;
    }
    catch(|| {
        // SAFETY: undoes the above in reverse order.
        unsafe {
            pg_sys::SetUserIdAndSecContext(user, context);
            ffi::AtEOXact_GUC(false, level);
        }
    })?;
    result
}

/// A setting until the registrant's code ends: to be called inside [`as_registrant`].
pub fn set(name: &CStr, value: &str) -> Result<()> {
    let value = CString::new(value).map_err(|_| Error::Internal { what: "a setting holds a zero byte".into() })?;
    let (name, value) = (name.as_ptr(), value.as_ptr());
    // SAFETY: as in `as_registrant`, in the nesting level that it began.
    catch(|| unsafe { pinned::save_setting(name, value) })
}

/// For functions that touch no table, but answer otherwise each time.
pub fn refuse_in_user_code() -> Result<()> {
    if is_in_user_code() { Err(refusal()) } else { Ok(()) }
}

/// What a fold or upcaster that calls back is told.
fn refusal() -> crate::pg::error::failure::Failure {
    Error::FeatureNotSupported {
        what: "es_* functions cannot be called by a fold or an upcaster".into(),
        hint: Some("A state is a function of the stream's events alone: take what is needed from the event.".into()),
    }
    .into()
}

/// Runs `work`; to what is raised meanwhile, where it stands is added.
fn with_context<T>(at: &Position, work: impl FnOnce() -> T) -> T {
    /// Takes the line down, also when a panic passes: its frame is gone then.
    struct Before(*mut pg_sys::ErrorContextCallback);
    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: a plain variable of this backend; what it pointed to before lives in a frame below this one.
            unsafe { pg_sys::error_context_stack = self.0 }
        }
    }
    // SAFETY: reads a variable of this backend.
    let before = Before(unsafe { pg_sys::error_context_stack });
    let mut line = pg_sys::ErrorContextCallback {
        previous: before.0,
        callback: Some(add_context),
        arg: std::ptr::from_ref(at).cast_mut().cast(),
    };
    // SAFETY: taken down by `before`; `catch` inside puts its own entry value back, which is this one.
    unsafe { pg_sys::error_context_stack = &raw mut line };
    work()
}

unsafe extern "C-unwind" fn add_context(position: *mut c_void) {
    // SAFETY: the Position outlives the callback, which `with_context` takes down.
    let position = silent("the context of an error", None, || Some(unsafe { &*position.cast::<Position>() }));
    if let Some(position) = position {
        // SAFETY: the protocol of errcontext().
        unsafe {
            ffi::set_errcontext_domain(std::ptr::null());
            ffi::errcontext_msg(
                c"%s at %s %lld".as_ptr(),
                position.what.as_ptr(),
                position.unit.as_ptr(),
                position.at.get(),
            );
        }
    }
}

/// What came of a fold: where it did not come to its end, the last record is the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    All,
    Null,
    Large,
}

/// The right to call, while the registrant's rights are on.
pub struct Calls<'a>(&'a mut Function);

/// FunctionCallInfoBaseData with room for two arguments.
#[repr(C)]
struct CallOfTwo {
    base: pg_sys::FunctionCallInfoBaseData,
    args: [pg_sys::NullableDatum; 2],
}

impl Calls<'_> {
    /// The function's result; None for NULL, and where a strict function is given NULL. Two arguments at most.
    pub fn call(&mut self, arguments: &[Option<Datum>]) -> Result<Option<Datum>> {
        let is_strict = self.0.info.fn_strict;
        if is_strict && arguments.iter().any(Option::is_none) {
            return Ok(None);
        }
        // SAFETY: a function of so many arguments, as registration checked.
        self.0.called(|info| catch(|| unsafe { invoke(info, arguments) }))
    }

    /// The same of a function that answers a text, as registration checked: a copy of it.
    pub fn text(&mut self, arguments: &[Option<Datum>]) -> Result<Option<String>> {
        // SAFETY: a text.
        self.call(arguments)?.map(|answer| unsafe { datum::text(answer).map(ToOwned::to_owned) }).transpose()
    }

    /// Calls the function of a record, in `scratch`, which is emptied before.
    pub fn handle(&mut self, scratch: &Scratch, record: &Record) -> Result<()> {
        // SAFETY: a function of the record's type, as registration checked.
        let call = |info| catch(|| unsafe { record.expanded().map(|record| invoke(info, &[Some(record)])) });
        let is_made = self.0.called(|info| scratch.step(|| call(info)))?;
        is_made.map(drop).ok_or_else(composite::mismatch)
    }

    /// Replaces the state by what the function makes of it and a record, for one record after the other until there is no `next`; each call in
    /// `scratch`, which is emptied before. It ends where a state is NULL or has more than `most` bytes. All of it stands in one `catch`: `next` says
    /// where the fold stands, and owns nothing.
    pub fn fold<'r>(
        &mut self,
        scratch: &Scratch,
        state: &mut Replaced,
        most: usize,
        mut next: impl FnMut() -> Option<Record<'r>>,
    ) -> Result<Folded> {
        let mut fold = |info| {
            while let Some(record) = next() {
                scratch.empty();
                // SAFETY: a function of a jsonb and the record's type that gives a jsonb, as registration checked.
                unsafe {
                    let record = record.expanded()?;
                    let Some(made) = invoke(info, &[Some(state.value().datum()), Some(record)]) else {
                        return Some(Folded::Null);
                    };
                    state.replace(made);
                }
                if state.value().size() > most {
                    return Some(Folded::Large);
                }
            }
            Some(Folded::All)
        };
        let folded = self.0.called(|info| scratch.inside(|| catch(|| fold(info))))?;
        folded.ok_or_else(composite::mismatch)
    }
}

/// # Safety
/// A function of so many arguments, two at most, all of them given where it is strict. May raise.
unsafe fn invoke(info: *mut pg_sys::FmgrInfo, arguments: &[Option<Datum>]) -> Option<Datum> {
    // SAFETY: as the caller says; the call's data lives until it returns.
    unsafe {
        let mut call = MaybeUninit::<CallOfTwo>::zeroed();
        let data = call.as_mut_ptr();
        let base = &raw mut (*data).base;
        (*base).flinfo = info;
        (*base).fncollation = pg_sys::DEFAULT_COLLATION_OID;
        (*base).nargs = arguments.len().min(2) as i16;
        let args = (*base).args.as_mut_ptr();
        for (place, arg) in arguments.iter().take(2).enumerate() {
            *args.add(place) = pg_sys::NullableDatum { value: arg.unwrap_or(Datum::null()), isnull: arg.is_none() };
        }
        crate::pg::jsonb::check_for_interrupts();
        let function = (*info).fn_addr;
        let value = function.map_or(Datum::null(), |function| function(base));
        (!(*base).isnull).then_some(value)
    }
}
