//! es_maintain.
use crate::access::everything_or;
use crate::live::maintain::step;
use crate::pg::datum::from_text;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::store::Store;
use crate::pg::{report, server};
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

sql_function!("eventstream_maintain", maintain);

fn maintain(args: &Args) -> Returned {
    server::must_be_writable(c"es_maintain")?;
    let access = everything_or(Privilege::Upkeep)?;
    let store = Store::begin(args)?;
    let done = step(access.map(|access| access.tenant_id), &mut report::warning)?;
    let tasks = [
        ("partitions made ahead", done.partitions_made),
        ("tables analyzed", done.tables_analyzed),
        ("snapshots taken", done.snapshots.taken),
        ("snapshots failed", done.snapshots.failed),
        ("snapshots removed", done.snapshots.removed),
    ];
    for (task, done) in tasks {
        store.put(&[Some(from_text(task)?), Some(Datum::from(done))])?;
    }
    Ok(None)
}
