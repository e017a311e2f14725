//! Whether the log is what it was: verification, and whether what administers it is what its acts
//! made it; and what may become of it by a command.
pub mod audit;
pub mod definitions;
pub mod guard;
pub mod verify;
