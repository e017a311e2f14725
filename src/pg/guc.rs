//! Settings that are texts, and are looked at when somebody sets them; those that are whole numbers, by a table; and the end of their definition.
//! Others are pgrx's.
use super::compat;
use super::error::entry::silent;
use super::error::failure::{Result, catch, refuse_setting};
use super::ffi;
use eventstream_core::error::Error;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::GucSource::{PGC_S_DATABASE_USER, PGC_S_DEFAULT};
use pgrx::pg_sys::{self, GucSource};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::RangeInclusive;

/// What a setting's text must be.
pub trait Text {
    const NAME: &'static CStr;
    /// A longer text is cut: whoever reads it copies it, and a session may set as much as its memory holds.
    const MOST_BYTES: usize;

    /// Refuses what somebody sets, if it is wrong. What comes from a file, a database's or a role's settings, or from before the
    /// library was loaded, guc.c would drop with no more than a WARNING, and the default would count instead: it is let through, and refused by
    /// whoever reads it.
    fn check(text: &str) -> Result<(), Error>;
}

thread_local! {
    /// Whether a definition is at work: what was set before is taken over, whatever it is.
    static DEFINING: Cell<bool> = const { Cell::new(false) };
}

/// Defines a setting that anybody may set.
pub fn define_text<T: Text>(short: &'static CStr, long: &'static CStr, setting: &'static GucSetting<Option<CString>>) {
    DEFINING.set(true);
    let (user, plain) = (GucContext::Userset, GucFlags::empty());
    // SAFETY: the hook keeps nothing, and raises nothing.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            T::NAME,
            short,
            long,
            setting,
            user,
            plain,
            Some(check::<T>),
            None,
            None,
        );
    }
    DEFINING.set(false);
}

/// A setting's value as the server's configuration says it, whatever this session has set; None where its role, its database or its client says another one, which hides it here.
pub fn standing(name: &CStr) -> Result<Option<String>> {
    let value = catch(|| {
        // SAFETY: the record of a setting lives as long as the process.
        unsafe {
            let found = compat::find_setting(name);
            let is_own = found.is_null() || (*found).reset_source > GucSource::PGC_S_ARGV;
            (!is_own).then(|| ffi::GetConfigOptionResetString(name.as_ptr()))
        }
    })?;
    let Some(value) = value else { return Ok(None) };
    if value.is_null() {
        return Ok(Some(String::new()));
    }
    // SAFETY: a text of guc.c's, which stays until another setting is asked for.
    Ok(Some(unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned()))
}

/// A setting that is a whole number.
pub struct Integer {
    pub name: &'static CStr,
    pub short: &'static CStr,
    pub long: &'static CStr,
    pub setting: &'static GucSetting<i32>,
    pub range: RangeInclusive<i32>,
    /// Its unit.
    pub flags: GucFlags,
}

/// Whether the server is starting, and settings can be defined that are fixed from then on.
pub fn is_preloading() -> bool {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Defines settings that are whole numbers.
pub fn define_integers(integers: &[Integer], context: impl Fn() -> GucContext) {
    for one in integers {
        let (least, most) = (*one.range.start(), *one.range.end());
        GucRegistry::define_int_guc(one.name, one.short, one.long, one.setting, least, most, context(), one.flags);
    }
}

/// A misspelt setting that begins so is an error from now on, and not one without effect. Once, after all of them were defined.
pub fn reserve(prefix: &'static CStr) {
    // SAFETY: a name that guc.c copies.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

unsafe extern "C-unwind" fn check<T: Text>(
    value: *mut *mut c_char,
    _: *mut *mut c_void,
    source: GucSource::Type,
) -> bool {
    let judged = silent("the check of a setting", None, || {
        // SAFETY: guc.c gives a string of its own, or NULL; the cut lies within it.
        let text = unsafe {
            if value.is_null() || (*value).is_null() {
                return Some(Ok(()));
            }
            if CStr::from_ptr(*value).to_bytes().len() > T::MOST_BYTES {
                *(*value).add(T::MOST_BYTES) = 0;
            }
            CStr::from_ptr(*value).to_string_lossy()
        };
        let passes = text.is_empty() || DEFINING.get() || (source > PGC_S_DEFAULT && source <= PGC_S_DATABASE_USER);
        Some(if passes { Ok(()) } else { T::check(&text) })
    });
    match judged {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            refuse_setting(error);
            false
        }
        // guc.c says that the value is invalid.
        None => false,
    }
}
