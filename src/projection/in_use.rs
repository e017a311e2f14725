//! Which projections call a function, as a handler or to empty a read model, or write a state table: named in their rows, as src/usercode/in_use.rs
//! says of folds.
use crate::pg::error::failure::Result;
use crate::pg::guard::Users;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT8OID, OIDOID};

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

/// The rows of state tables of which this is true.
macro_rules! writers_of {
    ($which:literal) => {
        concat!(
            "select 'projection ' || quote_ident(j.name) || ' of tenant ' || t.name \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             join _eventstream.projections j on j.table_name = format('%I.%I', n.nspname, c.relname) \
             join _eventstream.tenants t on t.id = j.tenant_id \
             where c.relkind in ('r', 'p') and ",
            $which,
            " order by 1 limit 5"
        )
    };
}

thread_local! {
    // Columns that the owner has added are nobody's.
    static OF_TABLE: Plan = const { Plan::new(
        writers_of!(
            "c.oid = $1 and ($2 = 0 or exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum = $2 \
              and (a.attname in ('stream', 'version') \
                   or exists (select from jsonb_array_elements(j.columns) e where e ->> 'name' = a.attname))))"
        ),
        &[OIDOID, INT8OID],
    ) };
    // What rows are written by. Other constraints are the owner's.
    static OF_KEY: Plan = const { Plan::new(
        writers_of!("c.oid = (select k.conrelid from pg_constraint k where k.oid = $1 and k.contype = 'p')"),
        &[OIDOID],
    ) };
    static TABLES_OF_SCHEMA: Plan = const { Plan::new(writers_of!("c.relnamespace = $1"), &[OIDOID]) };
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
        let names = |plan: &'static std::thread::LocalKey<Plan>, args: &[Option<Datum>]| {
            plan.with(|plan| plan.rows(db, View::Latest, 0, args, |row| Ok(row.text(0)?.to_owned())))
        };
        match object {
            Users::Function(oid) => names(&OF_FUNCTION, &[Some(Datum::from(oid))]),
            Users::Table(oid, column) => {
                names(&OF_TABLE, &[Some(Datum::from(oid)), Some(Datum::from(i64::from(column)))])
            }
            Users::Constraint(oid) => names(&OF_KEY, &[Some(Datum::from(oid))]),
            Users::Schema(oid) => {
                let mut users = names(&OF_SCHEMA, &[Some(Datum::from(oid))])?;
                users.extend(names(&TABLES_OF_SCHEMA, &[Some(Datum::from(oid))])?);
                Ok(users)
            }
        }
    })
}
