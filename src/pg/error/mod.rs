//! Errors on their way: caught, kept, raised again, reported.
pub mod entry;
pub mod failure;
pub mod hushed;
pub mod log_hook;
pub mod report;
