//! The client's statement as others see it: in pg_stat_activity, and beside an error in the server's log.
use pgrx::pg_sys;
use std::ffi::CStr;

/// Whether its text has these words in it, and does not bind them as a parameter.
pub fn says(words: &str) -> bool {
    // SAFETY: null, or the text that the client sent.
    let text = unsafe { pg_sys::debug_query_string };
    // SAFETY: as above: a cstring.
    !text.is_null() && contains(unsafe { CStr::from_ptr(text) }.to_bytes(), words.as_bytes())
}

/// Without the tables that a search for long words is mostly prepared with: few statements are as long as what is looked for.
fn contains(text: &[u8], words: &[u8]) -> bool {
    let Some(first) = words.first() else { return true };
    text.windows(words.len()).any(|window| window[0] == *first && window == words)
}

/// Shows these words instead of it from now on, until the next one. What is raised next has no CONTEXT, whose lines are statements, too.
pub fn show_instead(words: &'static CStr) {
    // SAFETY: plain variables of this backend, and the entry of this backend, which copies the words; postgres.c sets both anew with each statement.
    unsafe {
        pg_sys::debug_query_string = words.as_ptr();
        pg_sys::error_context_stack = std::ptr::null_mut();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, words.as_ptr());
    }
}
