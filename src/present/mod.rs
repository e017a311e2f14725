//! The door out: an event as it is stored becomes what a caller may see. Owns the form of eventstream.event, and upcasting.
pub mod event;
pub mod registry;
pub mod upcast;
