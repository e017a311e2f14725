//! The border to PostgreSQL: the only home of `unsafe`, and of version differences. Nothing here knows about events.
#![allow(unsafe_code)]
pub mod call;
pub mod catalog;
pub mod compat;
pub mod composite;
pub mod counters;
pub mod datum;
pub mod failure;
mod ffi;
pub mod function;
pub mod insert;
pub mod jsonb;
pub mod jsonb_parts;
pub mod memory;
pub mod pages;
pub mod plan;
pub mod probe;
pub mod report;
pub mod sequence;
pub mod server;
pub mod session;
pub mod settings;
pub mod shared;
pub mod slots;
pub mod store;
pub mod subtransaction;
pub mod worker;
pub mod xact;
