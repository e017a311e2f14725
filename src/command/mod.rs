//! The room of decisions: what is appended comes in here, whoever appends it.
pub mod acts;
pub mod closed;
pub mod condition;
pub mod counted;
pub mod declared;
pub mod event_type;
pub mod operation;
pub mod period;
pub mod ruling;
pub mod stored_types;
pub mod write;
