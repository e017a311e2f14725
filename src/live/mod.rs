//! Read models and consumers that follow the log, and what an operator sees of them. ARCHITECTURE.md, "Live", has the design.
pub mod activation;
pub mod health;
mod health_server;
mod health_subscriptions;
pub mod maintain;
pub mod overview;
pub mod watch;
