//! The rules of eventstream that need no database: names, expected versions, the chain hash, event ids,
//! limits and errors. Owns no state and does no I/O; anybody may use it, and it uses nothing of PostgreSQL.
//!
//! Every function here is total: a user's mistake is an [`Error`], never a panic.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod advice;
pub mod argument;
pub mod audit;
pub mod backoff;
pub mod breach;
pub mod broken;
pub mod column;
pub mod command;
pub mod decimal;
pub mod definition;
pub mod delivery;
pub mod digest;
pub mod document;
pub mod error;
mod error_hints;
mod error_words;
pub mod event_id;
pub mod expected;
pub mod fault;
pub mod hash;
pub mod hint;
pub mod isolate;
pub mod json;
pub mod moment;
pub mod name;
pub mod near;
pub mod newest;
pub mod number;
pub mod options;
pub mod own_words;
pub mod partition;
pub mod privilege;
pub mod protect;
pub mod query;
mod quote;
pub mod rules;
pub mod schema;
pub mod time;
pub mod token;
pub mod tokenless;
pub mod trace;
pub mod undecided;
pub mod violation;
pub mod withheld;
pub mod word;
pub mod zone;

pub use error::{Error, Result};
pub use event_id::{EventIds, from_ulid_text, to_ulid_text, to_uuid_text};
pub use expected::ExpectedVersion;
pub use hash::{EventFields, GENESIS, Hash, SALT_BYTES, Uuid, are_in_order, chain_hash, content_digest};
pub use name::{Category, EventType, StreamName, Subject, TenantName};
pub use number::printed_digits;
pub use partition::{FIRST_LOWER, FIRST_UPPER, range_for, table_name};
pub use privilege::Privilege;
pub use quote::{counted, quote_identifier, quote_literal, shown};
pub use time::{PG_EPOCH_UNIX_US, next_recorded_at, pg_to_unix_us};
