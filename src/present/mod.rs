//! The door out: an event as it is stored becomes what a caller may see. Owns the form of eventstream.event, what is protected, and upcasting.
pub mod cursors;
pub mod door;
pub mod event;
pub mod protected;
pub mod query;
pub mod upcast;
pub mod upcasters;
