//! Statements, plans and scans: what is kept of them, and how rows come back. Nobody else talks to the executor.
pub mod columns;
pub mod estimate;
pub mod fetch;
pub mod insert;
pub mod intersect;
pub mod merge;
pub mod own_rows;
pub mod pages;
pub mod plan;
pub mod planner;
pub mod probe;
pub mod row;
pub mod snapshot;
pub mod spoken;
pub mod store;
