//! Points at which a test ends a worker as kill -9 does, in the middle of what it does; compiled for tests only (feature pg_test).
//!
//! `eventstream_test.die_at = 'NAME:N'` in postgresql.conf: a background worker dies when it comes to the point NAME for the Nth time
//! in its life. Other processes pass.

/// This process comes to the point of that name.
#[cfg(not(feature = "pg_test"))]
#[inline(always)]
pub fn test_point(_: &str) {}

#[cfg(feature = "pg_test")]
pub fn test_point(name: &str) {
    use crate::pg::ffi;
    use pgrx::pg_sys;
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::ffi::CStr;

    const SIGKILL: i32 = 9;
    thread_local! {
        static PASSED: RefCell<HashMap<String, u64>> = RefCell::default();
    }
    // SAFETY: a pointer that is set once, at the start of a background worker.
    if unsafe { pg_sys::MyBgworkerEntry.is_null() } {
        return;
    }
    // SAFETY: a string of PostgreSQL's own, copied at once; a setting that is missing is NULL.
    let wanted = unsafe {
        let found = pg_sys::GetConfigOption(c"eventstream_test.die_at".as_ptr(), true, false);
        if found.is_null() { return } else { CStr::from_ptr(found).to_string_lossy().into_owned() }
    };
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
        // SAFETY: our own process, which ends here.
        unsafe { ffi::kill(std::process::id() as i32, SIGKILL) };
        loop {
            std::hint::spin_loop();
        }
    }
}
