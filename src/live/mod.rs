//! Read models that follow the log: projections, state tables and subscriptions, one batch at a time, in the transaction of whoever
//! calls (a worker, es_run_projection, an append), and what an operator sees of them. ARCHITECTURE.md, "Live", has the design. Sole
//! owner of their tables.
pub mod activation;
pub mod advance;
pub mod applier;
mod around;
pub mod dead_letter;
pub mod definition;
pub mod events;
pub mod health;
mod health_folds;
mod health_guards;
mod health_server;
mod health_stale;
mod health_subscriptions;
pub mod in_use;
pub mod inline;
pub mod maintain;
pub mod metrics;
pub mod overview;
pub mod overview_subscriptions;
pub mod progress;
pub mod projection;
pub mod rebuild;
pub mod refold;
pub mod registry;
pub mod run;
pub mod schedule;
pub mod state_table;
pub mod subscription;
pub mod wait;
pub mod watch;
