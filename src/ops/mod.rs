//! What an operator sees and does: health, metrics, how everything stands, upkeep. Owns no table.
pub mod health;
pub mod maintain;
pub mod metrics;
pub mod overview;
pub mod watch;
