//! Which folds, upcasters, deciders and invariants call a function: it is named in their rows, not by its oid, which would not survive a restore.
use crate::pg::error::failure::Result;
use crate::pg::guard::Users;
use crate::pg::process::lock::LockTag;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, OIDOID, Oid};

/// The rows that name functions of which this is true.
macro_rules! users_of {
    ($which:literal) => {
        concat!(
            "select 'fold ' || quote_ident(f.name) || ' of tenant ' || t.name \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             join _eventstream.folds f on f.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
             join _eventstream.tenants t on t.id = f.tenant_id \
             where ",
            $which,
            " and oidvectortypes(p.proargtypes) = 'jsonb, eventstream.event' \
             union all \
             select 'the upcaster of ' || quote_ident(u.event_type) || ' from schema version ' || u.from_schema_version || ' of tenant ' || t.name \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             join _eventstream.upcasters u on u.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
             join _eventstream.tenants t on t.id = u.tenant_id \
             where ",
            $which,
            " and oidvectortypes(p.proargtypes) = 'jsonb, jsonb' \
             union all \
             select 'decider ' || quote_ident(d.name) || ' of tenant ' || t.name \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             join _eventstream.deciders d on quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
                 = case oidvectortypes(p.proargtypes) when 'jsonb, eventstream.command' then d.handler when 'eventstream.command' then d.boundary end \
             join _eventstream.tenants t on t.id = d.tenant_id \
             where ",
            $which,
            " union all \
             select 'invariant ' || quote_ident(i.name) || ' of tenant ' || t.name \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             join _eventstream.invariants i on i.handler = quote_ident(n.nspname) || '.' || quote_ident(p.proname) \
             join _eventstream.tenants t on t.id = i.tenant_id \
             where ",
            $which,
            " and oidvectortypes(p.proargtypes) = 'eventstream.event[]' \
             order by 1 limit 5"
        )
    };
}

thread_local! {
    static ANY: Plan = const { Plan::new(
        "select 1::bigint where exists (select from _eventstream.folds) or exists (select from _eventstream.upcasters) \
         or exists (select from _eventstream.deciders) or exists (select from _eventstream.invariants)",
        &[],
    ) };
    // One for both would read all functions each time.
    static OF_FUNCTION: Plan = const { Plan::new(users_of!("p.oid = $1"), &[OIDOID]) };
    static OF_SCHEMA: Plan = const { Plan::new(users_of!("p.pronamespace = $1"), &[OIDOID]) };
}

/// Who registers a function of that schema shares it until its commit, and who alters the schema has it alone: PostgreSQL renames one without any lock.
pub fn tag_of_schema(schema: Oid) -> Result<LockTag> {
    Ok(LockTag { table: Catalog::current()?.folds, object: i64::from(schema.to_u32()), part: 0 })
}

/// Some of them, as a message names them.
pub fn by(object: Users) -> Result<Vec<String>> {
    if let Users::Schema(schema) = object {
        tag_of_schema(schema)?.lock()?;
    }
    as_owner(Planning::ByIndex, |db, _| {
        if ANY.with(|any| any.rows(db, View::Latest, 1, &[], |row| row.int8(0)))?.is_empty() {
            return Ok(Vec::new());
        }
        let (users, oid) = match object {
            Users::Function(oid) => (&OF_FUNCTION, oid),
            Users::Schema(oid) => (&OF_SCHEMA, oid),
            Users::Table(..) | Users::Constraint(_) => return Ok(Vec::new()),
        };
        users
            .with(|users| users.rows(db, View::Latest, 0, &[Some(Datum::from(oid))], |row| Ok(row.text(0)?.to_owned())))
    })
}
