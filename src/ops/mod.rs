//! TODO ops
pub mod health;
pub mod maintain;
pub mod metrics;
pub mod overview;
pub mod watch;
