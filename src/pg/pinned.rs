//! What the code of users sees of the session's settings: nothing. While it runs, every setting that changes what text means, how a value
//! becomes text, or which rows are seen has one value, whoever asks; those that have it already cost a comparison.
//!
//! That is not enough for a plan: a helper function's plan is kept by the session, with the constants that were read when it was made,
//! perhaps under another time zone. PostgreSQL makes a plan anew when it was made under another search path. So every search path that is set
//! while users' code runs, by a function's own SET too, ends in an empty schema of ours, and no other search path reaches that schema.
use super::error::entry::{raising, silent};
use super::error::failure::{Result, catch};
use super::{compat, ffi, guard};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Oid, config_type};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// The settings and their values: PostgreSQL's own defaults, and UTC. What only costs or places something is left to the session, and so is the
/// order of rows, which no query has that does not ask for one.
const PINS: [(&CStr, &CStr); 28] = [
    (c"DateStyle", c"ISO, MDY"),
    (c"TimeZone", c"UTC"),
    (c"IntervalStyle", c"postgres"),
    (c"timezone_abbreviations", c"Default"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"array_nulls", c"on"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"default_text_search_config", c"pg_catalog.english"),
    (c"gin_fuzzy_search_limit", c"0"),
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    (c"quote_all_identifiers", c"off"),
    (c"check_function_bodies", c"on"),
    (c"row_security", c"on"),
    (c"restrict_nonsystem_relation_kind", c""),
    (c"session_replication_role", c"origin"),
    (c"plpgsql.check_asserts", c"on"),
    (c"plpgsql.extra_errors", c"none"),
    (c"plpgsql.variable_conflict", c"error"),
    // The moment that temporal views show: now.
    (c"eventstream.as_of", c""),
    (c"eventstream.known_at", c""),
    // What a handler appends is not the session's.
    (c"eventstream.metadata", c""),
];

/// The schema's name, and what a search path gets at its end.
const SCHEMA: &CStr = c"eventstream_pinned";
const PATH_END: &str = "eventstream_pinned";

/// Where a setting's value lies, and the value that it is to have.
#[derive(Clone, Copy)]
enum Variable {
    Boolean(*const bool, bool),
    Number(*const c_int, c_int),
    Text(*const *mut c_char),
    /// Defined by a library that is not loaded yet, or not by this version of PostgreSQL.
    Unknown,
}

thread_local! {
    /// Whether users' code runs now.
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    /// Of each pin; empty before they were looked up.
    static VARIABLES: RefCell<Vec<Variable>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    /// Whether strings were read by other rules since the session began.
    static STRINGS_WERE_OTHERS: Cell<bool> = const { Cell::new(false) };
}

static mut PREVIOUS_CHECK: pg_sys::GucStringCheckHook = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

/// Puts the hooks in their places; once a process, from _PG_init.
pub fn init() {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained. The record of search_path is guc.c's own, for the life of
    // the process.
    unsafe {
        let found = compat::find_setting(c"search_path").cast::<pg_sys::config_string>();
        PREVIOUS_CHECK = (*found).check_hook;
        (*found).check_hook = Some(check_search_path);
        let strings = compat::find_setting(c"standard_conforming_strings").cast::<pg_sys::config_bool>();
        (*strings).check_hook = Some(check_strings);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(on_access);
        if !pg_sys::process_shared_preload_libraries_in_progress {
            // Until now this session's search path could end in our schema: paths and plans are made anew.
            pg_sys::CallSyscacheCallbacks(pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int, 0);
        }
    }
}

/// On, or off, until dropped.
pub struct Switched {
    before: bool,
}

impl Drop for Switched {
    fn drop(&mut self) {
        IS_ON.set(self.before);
    }
}

/// Search paths that are set from now on are users' code's.
pub fn begin() -> Switched {
    Switched { before: IS_ON.replace(true) }
}

/// Our own statements run with search paths of their own.
pub fn suspend() -> Switched {
    Switched { before: IS_ON.replace(false) }
}

/// A function that PL/pgSQL has read stays as it was read, whatever search path it is called under: with the strings of the rules that were in
/// force. Errors: 0A000 where these were others in this session.
pub fn refuse_other_strings() -> Result<()> {
    // SAFETY: a plain variable of this backend.
    if unsafe { pg_sys::standard_conforming_strings } && !STRINGS_WERE_OTHERS.get() {
        return Ok(());
    }
    Err(Error::FeatureNotSupported {
        what: "folds, upcasters and projections cannot run in a session in which standard_conforming_strings was off: it keeps the functions \
               that it read meanwhile, which may say something else"
            .into(),
        hint: Some("Connect anew, with standard_conforming_strings = on for the role, the database or the server.".into()),
    }
    .into())
}

/// Gives each setting its value, in the nesting level of settings that was begun. To be called while it is on.
pub fn set(search_path: &CStr) -> Result<()> {
    VARIABLES.with_borrow_mut(|variables| {
        catch(|| {
            // SAFETY: inside of a nesting level of settings, as the caller says; zero-terminated texts.
            unsafe {
                variables.resize(PINS.len(), Variable::Unknown);
                for (variable, (name, value)) in variables.iter_mut().zip(PINS) {
                    let mut at = *variable;
                    if matches!(at, Variable::Unknown) {
                        let is_final;
                        (at, is_final) = look_up(name, value);
                        if is_final {
                            *variable = at;
                        }
                    }
                    if !at.has(value) {
                        save_setting(name.as_ptr(), value.as_ptr());
                    }
                }
                save_setting(c"search_path".as_ptr(), search_path.as_ptr());
            }
        })
    })
}

/// # Safety
/// Inside of a nesting level of settings. May raise.
pub unsafe fn save_setting(name: *const c_char, value: *const c_char) {
    // Some are the superuser's alone, who set them for his session.
    let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_SESSION);
    // SAFETY: as the caller says; zero-terminated texts.
    unsafe { ffi::set_config_option(name, value, context, source, pg_sys::GucAction::GUC_ACTION_SAVE, true, 0, false) };
}

/// Where a setting lies, and whether it will stay there: a placeholder goes when its library is loaded.
///
/// # Safety
/// May raise.
unsafe fn look_up(name: &CStr, value: &CStr) -> (Variable, bool) {
    // SAFETY: the type of a setting's record says what the record is (utils/guc_tables.h); they live as long as the process, but for
    // placeholders.
    unsafe {
        let found = compat::find_setting(name);
        if found.is_null() {
            return (Variable::Unknown, false);
        }
        let variable = match (*found).vartype {
            config_type::PGC_BOOL => Variable::Boolean((*found.cast::<pg_sys::config_bool>()).variable, value == c"on"),
            config_type::PGC_INT => {
                let wanted = value.to_str().ok().and_then(|value| value.parse().ok()).unwrap_or(0);
                Variable::Number((*found.cast::<pg_sys::config_int>()).variable, wanted)
            }
            config_type::PGC_ENUM => {
                let record = found.cast::<pg_sys::config_enum>();
                let mut option = (*record).options;
                while !(*option).name.is_null() && CStr::from_ptr((*option).name) != value {
                    option = option.add(1);
                }
                Variable::Number((*record).variable, (*option).val)
            }
            config_type::PGC_STRING => Variable::Text((*found.cast::<pg_sys::config_string>()).variable),
            _ => Variable::Unknown,
        };
        (variable, (*found).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int == 0)
    }
}

impl Variable {
    /// # Safety
    /// The setting is still there.
    unsafe fn has(self, value: &CStr) -> bool {
        // SAFETY: as the caller says; a text is zero-terminated, or NULL, which is empty.
        unsafe {
            match self {
                Variable::Boolean(at, wanted) => *at == wanted,
                Variable::Number(at, wanted) => *at == wanted,
                Variable::Text(at) if (*at).is_null() => value.is_empty(),
                Variable::Text(at) => CStr::from_ptr(*at) == value,
                Variable::Unknown => true,
            }
        }
    }
}

type Value = *mut *mut c_char;
type Extra = *mut *mut c_void;

/// Notes that strings were read by other rules, or will be. What a session begins with is looked at when it counts.
unsafe extern "C-unwind" fn check_strings(value: *mut bool, _: Extra, _: pg_sys::GucSource::Type) -> bool {
    // SAFETY: as guc.c calls a check hook; plain variables of this backend.
    silent("the check of standard_conforming_strings", false, || unsafe {
        let is_usual = *value && pg_sys::standard_conforming_strings;
        if !is_usual
            && !IS_ON.get()
            && pg_sys::Mode == pg_sys::ProcessingMode::NormalProcessing
            && pg_sys::IsUnderPostmaster
        {
            STRINGS_WERE_OTHERS.set(true);
        }
        true
    })
}

/// Puts our schema at the end of a search path that users' code is to run with.
unsafe extern "C-unwind" fn check_search_path(value: Value, extra: Extra, source: pg_sys::GucSource::Type) -> bool {
    // SAFETY: as guc.c calls a check hook: the value is a text of its own allocation, which may be replaced by another one.
    let is_ready = silent("the check of search_path", false, || unsafe {
        if IS_ON.get() && !(*value).is_null() {
            let given = CStr::from_ptr(*value);
            let text = given.to_string_lossy();
            if !text.contains(PATH_END) {
                let separator = if text.trim().is_empty() { "" } else { ", " };
                let longer = CString::new(format!("{text}{separator}{PATH_END}")).unwrap_or_default();
                let replaced = compat::setting_text(&longer);
                if replaced.is_null() {
                    return false;
                }
                compat::free_setting_text(std::mem::replace(&mut *value, replaced));
            }
        }
        true
    });
    // SAFETY: as above.
    is_ready && unsafe { PREVIOUS_CHECK.is_none_or(|previous| previous(value, extra, source)) }
}

/// Leaves our schema out of the search paths of others.
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: as objectaccess.c calls the hook; the look-up reads the syscache, as the caller did just now, and leaves nothing to drop.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_NAMESPACE_SEARCH && !IS_ON.get() {
            let search = argument.cast::<pg_sys::ObjectAccessNamespaceSearch>();
            let leave_out = || {
                // Named in a statement, it is as empty as it is.
                // One of that name that is a user's own, in a database without the extension, is his.
                let is_it = object == ffi::get_namespace_oid(SCHEMA.as_ptr(), true);
                if !(*search).ereport_on_violation && is_it && guard::own_schema(SCHEMA) == Some(object) {
                    (*search).result = false;
                }
            };
            raising("the search of a schema", || catch(leave_out));
        }
        if let Some(previous) = PREVIOUS_ACCESS {
            previous(access, class, object, part, argument);
        }
    }
}
