//! The room of decisions: what is appended comes in here, whoever appends it.
pub mod acts;
pub mod write;
