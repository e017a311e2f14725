//! The companion program of eventstream. docs/internals/companion.md says what each part owns and promises.
pub mod database;
mod failure;
mod identity;
pub mod live;
pub mod migrate;
pub mod numbers;
pub mod openapi;
mod precondition;
mod problem;
mod rest;
pub mod serve;
pub mod settings;
mod stop;

pub use failure::Failure;
