//! Whether the log is what it was: verification, and what may become of it by a command.
pub mod guard;
pub mod verify;
