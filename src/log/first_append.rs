//! Whether this database has appended. A row that no dump carries says so, written by its first append: until then rows come into the
//! tables as a restore brings them, in any order; from then on only our own statements write them. "No rows" would be no test: a restore
//! loads one partition after the other, and the sequences last.
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Db;
use crate::pg::query::plan::Plan;
use crate::pg::relation;
use crate::shared::catalog::Catalog;
use crate::shared::transaction;
use pgrx::pg_sys::{self, Oid};
use std::cell::Cell;

thread_local! {
    static NOTE: Plan = const { Plan::new(
        "with noted as (insert into _eventstream.first_appends default values) \
         insert into _eventstream.log_identities (log_id, system_identifier, database_oid, created_at, has_begun) \
         select log_id, system_identifier, database_oid, created_at, true from _eventstream.this_log() where not has_begun",
        &[],
    ) };
    /// The log (its table of events) of which a committed row was seen.
    static NOTED: Cell<Oid> = const { Cell::new(pg_sys::InvalidOid) };
    /// When the statement began in which no row was seen: it asks once, not for each row that it inserts.
    static MISSED: Cell<i64> = const { Cell::new(i64::MIN) };
}

/// This transaction appends.
pub fn note(db: &Db, catalog: &Catalog) -> Result<()> {
    if !is_settled(catalog)? && !relation::has_row(catalog.first_appends)? {
        NOTE.with(|note| note.write(db, &[]))?;
        // It may yet be rolled back, alone: until the end of this transaction nothing that is seen settles anything.
        transaction::note_append();
    }
    Ok(())
}

/// Whether there is a row that is committed: no restore changes any more whose log this is.
pub fn is_settled(catalog: &Catalog) -> Result<bool> {
    if NOTED.get() == catalog.events {
        return Ok(true);
    }
    let settled = !transaction::has_appended() && relation::has_row(catalog.first_appends)?;
    if settled {
        NOTED.set(catalog.events);
    }
    Ok(settled)
}

pub fn is_there() -> Result<bool> {
    let began = server::statement_began();
    if MISSED.get() == began {
        return Ok(false);
    }
    let found = relation::has_row(Catalog::current()?.first_appends)?;
    if !found {
        MISSED.set(began);
    }
    Ok(found)
}
