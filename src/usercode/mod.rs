//! Functions of users (folds, upcasters, handlers): what they must be, whose rights they run with, and that nobody takes them away while they are used.
pub mod handler;
pub mod in_use;
