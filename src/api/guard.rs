//! What the guard of the extension's objects decides, and the event trigger that loads it in time.
use crate::access;
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::guard::{self, Guards, Users};
use crate::pg::process::session::Planning;
use crate::pg::{process::server, utility};
use crate::present::cursors;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::{projection, proof, usercode};
use eventstream_core::error::Error;

sql_function!("eventstream_guard", "", loaded);

static GUARDS: Guards = Guards {
    tables: &[
        c"events",
        c"first_appends",
        c"tenants",
        c"folds",
        c"upcasters",
        c"deciders",
        c"invariants",
        c"projections",
    ],
    is_off: settings::allows_drop,
    ours: proof::guard::protect,
    users: keep_in_use,
};

/// Once a backend, from _PG_init.
pub fn init() {
    guard::init(&GUARDS);
    access::init();
    cursors::init();
}

/// Once a backend, from _PG_init: a role that is renamed or dropped in this database is seen at once, so that no dump names a namesake.
pub fn note_roles() {
    utility::after_roles_change(|| {
        // Nothing to note where the log is not, or is only read.
        if server::is_standby() || guard::is_absent()? {
            return Ok(());
        }
        as_owner(Planning::ByIndex, access::see_roles)
    });
}

/// The event trigger: that it is called has loaded the library.
fn loaded(args: &Args) -> Returned {
    guard::note_event(args.info())?;
    Ok(None)
}

/// Refuses to let go what folds, upcasters, deciders, invariants and projections call or write.
fn keep_in_use(object: Users, command: &str, description: &str) -> Result<()> {
    let mut users = usercode::in_use::by(object)?;
    users.extend(projection::in_use::by(object)?);
    if users.is_empty() {
        return Ok(());
    }
    let is_table = matches!(object, Users::Table(..) | Users::Constraint(_));
    Err(Error::InUse { command: command.into(), object: description.into(), users, is_table }.into())
}
