//! Points at which a test ends a worker or a session as kill -9 does, in the middle of what it does, or lets any process panic; compiled for tests only
//! (feature pg_test).
//!
//! `eventstream_test.die_at = 'NAME:N'` in postgresql.conf: a background worker dies when it comes to the point NAME for the Nth time
//! in its life. Other processes pass. `set eventstream_test.kill_at = 'NAME'`: the session that says so dies there. `eventstream_test.panic_at = 'NAME'`: a panic where PostgreSQL calls what is named so
//! ([`crate::pg::error::entry`]), and at the points of that name.

/// This process comes to the point of that name.
#[cfg(not(feature = "pg_test"))]
#[inline(always)]
pub fn test_point(_: &str) {}

/// It panics here, if a test asks for that.
#[cfg(not(feature = "pg_test"))]
#[inline(always)]
pub fn panic_point(_: &str) {}

#[cfg(feature = "pg_test")]
pub use at_work::{panic_point, test_point};

#[cfg(feature = "pg_test")]
mod at_work {
    use crate::pg::ffi;
    use pgrx::pg_sys;
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::ffi::CStr;

    const SIGKILL: i32 = pg_sys::SIGKILL as i32;

    thread_local! {
        static PASSED: RefCell<HashMap<String, u64>> = RefCell::default();
    }

    /// A setting of the tests, where it is set.
    fn setting(name: &CStr) -> Option<String> {
        // SAFETY: a string of PostgreSQL's own, copied at once; a setting that is missing is NULL.
        unsafe {
            let found = pg_sys::GetConfigOption(name.as_ptr(), true, false);
            (!found.is_null()).then(|| CStr::from_ptr(found).to_string_lossy().into_owned())
        }
    }

    pub fn panic_point(name: &str) {
        // SAFETY: a plain variable of this process: before it is set there are no settings.
        let is_up = unsafe { pg_sys::Mode == pg_sys::ProcessingMode::NormalProcessing && pg_sys::IsUnderPostmaster };
        assert!(!is_up || setting(c"eventstream_test.panic_at").as_deref() != Some(name), "a test wants it");
    }

    pub fn test_point(name: &str) {
        panic_point(name);
        if setting(c"eventstream_test.kill_at").as_deref() == Some(name) {
            die();
        }
        // SAFETY: a pointer that is set once, at the start of a background worker.
        if unsafe { pg_sys::MyBgworkerEntry.is_null() } {
            return;
        }
        let Some(wanted) = setting(c"eventstream_test.die_at") else { return };
        let Some((point, nth)) = wanted.split_once(':') else { return };
        if point != name {
            return;
        }
        let times = PASSED.with_borrow_mut(|passed| {
            let times = passed.entry(wanted.clone()).or_default();
            *times += 1;
            *times
        });
        if nth.parse() == Ok(times) {
            die();
        }
    }

    fn die() -> ! {
        // SAFETY: our own process, which ends here.
        unsafe { ffi::kill(std::process::id() as i32, SIGKILL) };
        loop {
            std::hint::spin_loop();
        }
    }
}
