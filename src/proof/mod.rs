//! TODO proof
pub mod guard;
pub mod verify;
