//! Read models and consumers that follow the log, and what an operator sees of them. ARCHITECTURE.md, "Live", has the design.
pub mod activation;
pub mod maintain;
pub mod overview;
