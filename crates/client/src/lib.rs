//! Calls eventstream, the event store inside PostgreSQL, from Rust: appends, reads, states at any time, commands that are executed once, and a loop for subscriptions.
//!
//! A [`Log`] lays typed calls over any connection of tokio-postgres: a client, a transaction, one of a pool. Each call is one statement in one round trip and leaves nothing in the session, so a
//! pooler in transaction mode is fine. Documents are [`Json`]: the text that PostgreSQL wrote, so that no digit of an amount is lost on the way. Refusals come as [`Refusal`], with the SQLSTATE and the
//! numbers of the database.
//!
//! ```no_run
//! # async fn example(client: &tokio_postgres::Client) -> Result<(), eventstream_client::Error> {
//! use eventstream_client::{Command, Expected, Json, Log, NewEvent};
//! let log = Log::new(client);
//! let version = log.append("account-1", &[NewEvent::new("AccountOpened", Json::of(&"Ada")?)], Expected::NoStream).await?;
//! let balance = log.state("account-1", None).await?.at("/balance");
//! let answer = log.command(&Command::new("account-1", "Withdraw", Json::parse_text(r#"{"amount": 12.50}"#)?).key("order-4711")).await?;
//! # Ok(()) }
//! ```
pub mod again;
mod command;
pub mod consumer;
mod error;
mod event;
mod json;
pub mod link;
mod log;
pub mod scope;

pub use command::{Answer, Command};
pub use error::{Error, Kind, Refusal, Result};
pub use event::{Append, Appended, Delivery, Event, Expected, NewEvent};
pub use jiff::Timestamp;
pub use json::Json;
pub use log::{Filter, Log, Page};
