//! Read models that follow the log by a handler or as a state table: one batch at a time, in the transaction of whoever calls (a worker, es_run_projection,
//! an append). Sole owner of their tables.
pub mod advance;
pub mod applier;
mod around;
pub mod behalf;
pub mod dead_letter;
pub mod definition;
pub mod events;
pub mod in_use;
pub mod inline;
pub mod outcome;
mod passed;
pub mod progress;
pub mod projections;
pub mod rebuild;
pub mod refold;
pub mod run;
pub mod schedule;
pub mod state_table;
pub mod steer;
pub mod wait;
