//! This process among the server's: its life, transactions, rights, locks, memory and signals; and what it may know of the others.
pub mod databases;
pub mod deadline;
pub mod exit;
pub mod latch;
pub mod life;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod sequence;
pub mod server;
pub mod session;
pub mod statement;
pub mod subtransaction;
pub mod test_point;
pub mod worker;
pub mod xact;
