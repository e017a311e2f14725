//! The log: the sole owner of streams and events. `append` writes; everything else reads.
pub mod acting;
pub mod append;
pub mod delivery;
pub mod event;
pub mod horizon;
pub mod identity;
pub mod known;
pub mod last_append;
pub mod partition;
pub mod pending;
pub mod places;
pub mod read;
pub mod replay;
pub mod scan;
pub mod statements;
pub mod stream;
pub mod verify;
