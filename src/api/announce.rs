//! The end of CREATE EXTENSION.
use crate::pg::error::report;
use crate::pg::function::{Args, Returned, sql_function};
use crate::shared::board::database;
use crate::shared::open_appends;

sql_function!("eventstream_announce", "", announce);

fn announce(_: &Args) -> Returned {
    database::announce_at_commit();
    if !open_appends::are_there() {
        // PostgreSQL keeps the notices of an extension's script from the client; its warnings it shows.
        report::warning_with(
            "eventstream is not preloaded: appends, reads of streams, states and verification work; what follows the log (es_read_all, \
             es_horizon, projections, state tables, subscriptions) does not, and no background workers run",
            "Put eventstream into shared_preload_libraries and restart the server: the view eventstream.health prints the statement.",
        )?;
    }
    Ok(None)
}
