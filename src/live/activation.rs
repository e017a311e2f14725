//! Whether this database is where its log is at home: a restored dump or a copied database moves no projection and serves no
//! subscription before somebody says that it is the original now (ARCHITECTURE.md, "A copy is not the original").
use crate::pg::board;
use crate::pg::catalog;
use crate::pg::datum::from_text;
use crate::pg::failure::Result;
use crate::pg::plan::{Plan, View};
use crate::pg::server;
use crate::pg::session::{Planning, as_owner};
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT8OID, OIDOID, TEXTOID};

thread_local! {
    // Asked anew each time: a restore fills these tables by COPY, which invalidates nothing that could be kept. While a restore is
    // under way the oldest row may still be this database's own; projections and subscriptions older than it are then another's:
    // what is made here is never noted as older, whatever the clock does.
    static HOME: Plan = const { Plan::new(
        "select o.log_id::text, \
                o.system_identifier = $1 and o.database_oid = $2 \
                and not exists (select from _eventstream.projections p where p.created_at < o.created_at) \
                and not exists (select from _eventstream.subscriptions s where s.created_at < o.created_at) \
                or exists (select from _eventstream.activations a \
                           where a.log_id = o.log_id and a.system_identifier = $1 and a.database_oid = $2) \
         from (select * from _eventstream.log_identities order by created_at limit 1) o",
        &[INT8OID, OIDOID],
    ) };
    static ACTIVATE: Plan = const { Plan::new(
        "insert into _eventstream.activations (log_id, system_identifier, database_oid, activated_by) \
         select o.log_id, $1, $2, $3 from (select * from _eventstream.log_identities order by created_at limit 1) o \
         on conflict do nothing",
        &[INT8OID, OIDOID, TEXTOID],
    ) };
}

struct Home {
    log_id: String,
    is_active: bool,
}

fn look() -> Result<Home> {
    let place = [Some(Datum::from(server::system_identifier()?)), Some(Datum::from(server::database()))];
    as_owner(Planning::ByIndex, |db, _| {
        HOME.with(|home| {
            home.first(db, View::Latest, &place, |row| {
                Ok(Home { log_id: row.text(0)?.to_owned(), is_active: row.boolean(1)? })
            })
        })
    })?
    .ok_or_else(|| Error::Internal { what: "_eventstream.log_identities is empty".into() }.into())
}

/// Whether this database is where its log was made, or was made its home by [`activate`].
pub fn is_active() -> Result<bool> {
    Ok(look()?.is_active)
}

/// Errors: ES026, naming the call, where [`is_active`] is false.
pub fn must_be_active(call: &str) -> Result<()> {
    let home = look()?;
    if home.is_active {
        return Ok(());
    }
    Err(Error::NotActivated { what: call.into(), log_id: home.log_id }.into())
}

/// Makes this database the log's home; the log's id. Does nothing where it is that already.
pub fn activate() -> Result<String> {
    let home = look()?;
    if !home.is_active {
        let row = [
            Some(Datum::from(server::system_identifier()?)),
            Some(Datum::from(server::database())),
            Some(from_text(&server::role_name(server::current_role())?)?),
        ];
        as_owner(Planning::ByIndex, |db, catalog| {
            ACTIVATE.with(|plan| plan.write(db, &row))?;
            board::wake_at_commit();
            catalog::announce_projection_change(catalog)
        })?;
    }
    Ok(home.log_id)
}
