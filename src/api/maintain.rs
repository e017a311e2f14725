//! es_maintain.
use crate::access::everything_or;
use crate::log::{horizon, partition};
use crate::pg::datum::from_text;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::server;
use crate::pg::session::{Planning, as_owner};
use crate::pg::store::Store;
use crate::state::due;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

sql_function!("eventstream_maintain", maintain);

fn maintain(args: &Args) -> Returned {
    server::must_be_writable(c"es_maintain")?;
    let access = everything_or(Privilege::Manage)?;
    let store = Store::begin(args)?;
    let made = as_owner(Planning::ByIndex, |db, catalog| {
        let last_position = horizon::last_position(catalog)?;
        partition::make_ahead(db, catalog, last_position)
    })?;
    let done = due::run(access.map(|access| access.tenant_id))?;
    let tasks = [
        ("partitions made ahead", made),
        ("snapshots taken", done.taken),
        ("snapshots failed", done.failed),
        ("snapshots removed", done.removed),
    ];
    for (task, done) in tasks {
        store.put(&[Some(from_text(task)?), Some(Datum::from(done))])?;
    }
    Ok(None)
}
