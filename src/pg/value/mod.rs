//! TODO pg::value
pub mod composite;
pub mod datum;
pub mod input;
pub mod zone;
