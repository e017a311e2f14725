//! Which projections call a function, as a handler or to empty a read model: named in their rows, as src/state/in_use.rs says of folds.
use crate::pg::failure::Result;
use crate::pg::guard::Users;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Planning, as_owner};
use pgrx::pg_sys::{Datum, OIDOID};

thread_local! {
    static USERS: Plan = const { Plan::new(
        "select 'projection ' || quote_ident(j.name) || ' of tenant ' || t.name \
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
         join _eventstream.projections j on (j.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
              and oidvectortypes(p.proargtypes) = case j.kind when 'batch' then 'eventstream.event[]' else 'eventstream.event' end) \
           or (j.reset = quote_ident(n.nspname) || '.' || quote_ident(p.proname) and p.pronargs = 0) \
         join _eventstream.tenants t on t.id = j.tenant_id \
         where p.oid = $1 or p.pronamespace = $2 order by 1 limit 5",
        &[OIDOID, OIDOID],
    ) };
}

/// Some of them, as a message names them.
pub fn by(object: Users) -> Result<Vec<String>> {
    let (function, schema) = match object {
        Users::Function(oid) => (Some(Datum::from(oid)), None),
        Users::Schema(oid) => (None, Some(Datum::from(oid))),
    };
    as_owner(Planning::ByIndex, |db, _| {
        USERS.with(|users| users.rows(db, View::Latest, 0, &[function, schema], |row| Ok(row.text(0)?.to_owned())))
    })
}
