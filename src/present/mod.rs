//! TODO present
pub mod event;
pub mod upcast;
