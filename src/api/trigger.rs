//! The triggers that keep what was recorded, and the tables that say what the log is, as the functions wrote them.
use crate::log::first_append;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::process::server::Fired;
use crate::pg::{guard, process::server};
use crate::shared::catalog;
use eventstream_core::error::Error;

sql_function!("eventstream_refuse_change", "", refuse_change);
sql_function!("eventstream_refuse_foreign", "", refuse_foreign);

fn fired(args: &Args) -> crate::pg::error::failure::Result<Fired> {
    server::trigger(args.info())?.ok_or_else(|| {
        Error::FeatureNotSupported { what: "a trigger function can only be called as a trigger".into(), hint: None }
            .into()
    })
}

fn refuse_change(args: &Args) -> Returned {
    let Fired { operation, table, .. } = fired(args)?;
    Err(Error::Immutable { operation: operation.into(), table }.into())
}

/// Only our own statements get through; and rows, into a database that has not appended yet: it may be a restore.
fn refuse_foreign(args: &Args) -> Returned {
    let Fired { operation, table, goes_on } = fired(args)?;
    // A stream's row may be updated in the transaction that makes it: logical replication brings both.
    let may_come = operation == "INSERT" || operation == "UPDATE" && server::applies_replication();
    if guard::is_own_work() {
        return Ok(Some(goes_on));
    }
    if may_come && !first_append::is_there()? {
        // Sessions that are there already have known the table without it.
        catalog::announce_foreign(&table)?;
        return Ok(Some(goes_on));
    }
    Err(Error::Foreign { operation: operation.into(), table }.into())
}
