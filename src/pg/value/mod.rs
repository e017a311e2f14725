//! PostgreSQL's values, there and back.
pub mod composite;
pub mod datum;
pub mod input;
pub mod zone;
