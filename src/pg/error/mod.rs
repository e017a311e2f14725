//! Errors on their way: caught, kept, raised again, reported.
pub mod entry;
pub mod failure;
pub mod log_hook;
pub mod report;
