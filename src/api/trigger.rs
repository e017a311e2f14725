//! The trigger that keeps events as they were recorded.
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::server;
use eventstream_core::error::Error;

sql_function!("eventstream_refuse_change", refuse_change);

fn refuse_change(args: &Args) -> Returned {
    Err(match server::trigger_target(args.info())? {
        Some((operation, table)) => Error::Immutable { operation: operation.into(), table },
        None => {
            Error::FeatureNotSupported { what: "a trigger function can only be called as a trigger".into(), hint: None }
        }
    }
    .into())
}
