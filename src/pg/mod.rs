//! The border to PostgreSQL: the only home of `unsafe`, and of version differences. Nothing here knows about events.
#![allow(unsafe_code)]
// What PostgreSQL calls of ours panics no further than error::entry, and PostgreSQL itself does not unwind: it jumps, past frames that own nothing.
#![allow(ffi_unwind_calls)]
pub mod compat;
pub mod error;
pub mod ffi;
pub mod function;
pub mod guard;
pub mod guc;
pub mod invalidation;
pub mod jsonb;
pub mod left_behind;
pub mod pinned;
pub mod process;
pub mod query;
pub mod relation;
pub mod shmem;
pub mod utility;
pub mod value;
