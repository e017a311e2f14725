//! TODO usercode
pub mod handler;
pub mod in_use;
