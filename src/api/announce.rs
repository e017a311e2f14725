//! The end of CREATE EXTENSION.
use crate::pg::board::database;
use crate::pg::function::{Args, Returned, sql_function};

sql_function!("eventstream_announce", announce);

fn announce(_: &Args) -> Returned {
    database::announce_at_commit();
    Ok(None)
}
