//! State: how the events of a stream become a state, and the state at any moment. Only reads the log. Promises: a state is a
//! function of (stream, version, chain hash there, fold fingerprint); snapshots and the cache make it faster, never other.
pub mod answer;
pub mod cache;
pub mod category;
mod checkpoints;
pub mod columns;
mod diff;
pub mod due;
pub mod explain;
pub mod fit;
pub mod fold;
pub mod folding;
pub mod folds;
pub mod history;
pub mod kept;
pub mod moment;
pub mod retention;
pub mod simulate;
pub mod snapshot;
pub mod snapshot_check;
mod source;
pub mod timeline;
mod walk;
