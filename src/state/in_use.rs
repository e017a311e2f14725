//! Which folds and upcasters call a function: it is named in their rows, not by its oid, which would not survive a restore.
use crate::pg::failure::Result;
use crate::pg::guard::Users;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Planning, as_owner};
use pgrx::pg_sys::{Datum, OIDOID};

thread_local! {
    static USERS: Plan = const { Plan::new(
        "select 'fold ' || quote_ident(f.name) || ' of tenant ' || t.name \
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
         join _eventstream.folds f on f.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
         join _eventstream.tenants t on t.id = f.tenant_id \
         where (p.oid = $1 or p.pronamespace = $2) and oidvectortypes(p.proargtypes) = 'jsonb, eventstream.event' \
         union all \
         select 'the upcaster of ' || quote_ident(u.event_type) || ' from schema version ' || u.from_schema_version || ' of tenant ' || t.name \
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
         join _eventstream.upcasters u on u.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
         join _eventstream.tenants t on t.id = u.tenant_id \
         where (p.oid = $1 or p.pronamespace = $2) and oidvectortypes(p.proargtypes) = 'jsonb, jsonb' \
         order by 1 limit 5",
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
