//! State: how the events of a stream become a state, and the state at any moment. Only reads the log. Promises: a state is a
//! function of (stream, version, chain hash there, fold fingerprint); snapshots and the cache make it faster, never other.
pub mod answer;
pub mod cache;
pub mod category;
mod checkpoints;
mod diff;
pub mod due;
pub mod event;
pub mod explain;
pub mod fit;
pub mod fold;
pub mod handler;
pub mod history;
pub mod in_use;
pub mod moment;
pub mod registry;
pub mod replay;
pub mod retention;
pub mod simulate;
pub mod snapshot;
pub mod snapshot_check;
mod source;
pub mod timeline;
pub mod upcast;
mod walk;
