//! es_maintain.
use crate::access::everything_or;
use crate::log::{horizon, partition};
use crate::pg::datum::from_text;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::server;
use crate::pg::session::{Planning, as_owner};
use crate::pg::store::Store;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

sql_function!("eventstream_maintain", maintain);

fn maintain(args: &Args) -> Returned {
    server::must_be_writable(c"es_maintain")?;
    everything_or(Privilege::Manage)?;
    let store = Store::begin(args)?;
    let made = as_owner(Planning::ByIndex, |db, catalog| {
        let last_position = horizon::last_position(catalog)?;
        partition::make_ahead(db, catalog, last_position)
    })?;
    store.put(&[Some(from_text("partitions made ahead")?), Some(Datum::from(made))])?;
    Ok(None)
}
