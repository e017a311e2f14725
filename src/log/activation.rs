//! Whether this database is where its log is at home: a restored dump or a copied database moves no projection and serves no
//! subscription before somebody says that it is the original now (ARCHITECTURE.md, "A copy is not the original").
use super::identity;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::board;
use crate::shared::catalog;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use pgrx::pg_sys::{Datum, INT8OID, OIDOID, TEXTOID};

thread_local! {
    static ACTIVATE: Plan = const { Plan::new(
        "insert into _eventstream.activations (log_id, system_identifier, database_oid, activated_by) \
         select o.log_id, $1, $2, $3 from _eventstream.this_log() o \
         on conflict do nothing",
        &[INT8OID, OIDOID, TEXTOID],
    ) };
    static BIND: Plan = const { Plan::new("select _eventstream.bind_roles()", &[]) };
}

/// Whether this database is where its log was made, or was made its home by [`activate`].
pub fn is_active() -> Result<bool> {
    Ok(identity::home()?.is_here)
}

/// Errors: ES026, naming the call, where [`is_active`] is false.
pub fn must_be_active(call: &str) -> Result<()> {
    let home = identity::home()?;
    if home.is_here {
        return Ok(());
    }
    Err(Error::NotActivated { what: call.into(), log_id: home.log_id }.into())
}

/// Makes this database the log's home; the log's id. Does nothing where it is that already.
pub fn activate() -> Result<String> {
    let home = identity::home()?;
    if !home.is_here {
        let row = [
            Some(Datum::from(server::system_identifier()?)),
            Some(Datum::from(server::database())),
            Some(from_text(&server::role_name(server::current_role())?)?),
        ];
        as_owner(Planning::ByIndex, |db, catalog| {
            ACTIVATE.with(|plan| plan.write(db, &row))?;
            BIND.with(|plan| plan.first(db, View::Write, &[], |_| Ok(())))?;
            board::wake_at_commit();
            catalog::announce_access_change(catalog)?;
            catalog::announce_fold_change(catalog)?;
            catalog::announce_projection_change(catalog)
        })?;
    }
    Ok(home.log_id)
}
