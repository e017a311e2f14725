//! TODO pg::error
pub mod failure;
pub mod log_hook;
pub mod report;
