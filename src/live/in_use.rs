//! Which projections call a function, as a handler or to empty a read model: named in their rows, as src/state/in_use.rs says of folds.
use crate::pg::failure::Result;
use crate::pg::guard::Users;
use crate::pg::plan::{Plan, View};
use crate::pg::session::{Planning, as_owner};
use pgrx::pg_sys::{Datum, OIDOID};

/// The rows that name functions of which this is true.
macro_rules! users_of {
    ($which:literal) => {
        concat!(
            "select 'projection ' || quote_ident(j.name) || ' of tenant ' || t.name \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             join _eventstream.projections j on (j.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
                  and oidvectortypes(p.proargtypes) = case j.kind when 'batch' then 'eventstream.event[]' else 'eventstream.event' end) \
               or (j.reset = quote_ident(n.nspname) || '.' || quote_ident(p.proname) and p.pronargs = 0) \
             join _eventstream.tenants t on t.id = j.tenant_id \
             where ",
            $which,
            " order by 1 limit 5"
        )
    };
}

thread_local! {
    static ANY: Plan = const { Plan::new("select 1::bigint where exists (select from _eventstream.projections)", &[]) };
    static OF_FUNCTION: Plan = const { Plan::new(users_of!("p.oid = $1"), &[OIDOID]) };
    static OF_SCHEMA: Plan = const { Plan::new(users_of!("p.pronamespace = $1"), &[OIDOID]) };
}

/// Some of them, as a message names them.
pub fn by(object: Users) -> Result<Vec<String>> {
    as_owner(Planning::ByIndex, |db, _| {
        if ANY.with(|any| any.rows(db, View::Latest, 1, &[], |row| row.int8(0)))?.is_empty() {
            return Ok(Vec::new());
        }
        let (users, oid) = match object {
            Users::Function(oid) => (&OF_FUNCTION, oid),
            Users::Schema(oid) => (&OF_SCHEMA, oid),
        };
        users
            .with(|users| users.rows(db, View::Latest, 0, &[Some(Datum::from(oid))], |row| Ok(row.text(0)?.to_owned())))
    })
}
