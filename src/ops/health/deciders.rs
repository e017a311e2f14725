//! Deciders that cannot decide any more, because their function or their registrant is gone, and those that decide with a superuser's rights.
use super::check::{Check, Level, Writing};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use crate::usercode::registrant_of;
use eventstream_core::quote_literal;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static ASKED: Plan = const { Plan::new(
        concat!(
            "select t.name, d.name, case \
                 when r.oid is null then 'role ' || d.registrant || ' that registered it does not exist any more' \
                 when to_regprocedure(d.handler || '(jsonb, eventstream.command)') is null then 'its function ' || d.handler || ' does not exist any more' \
                 when to_regprocedure(d.boundary || '(eventstream.command)') is null and d.boundary is not null \
                     then 'the function ' || d.boundary || ' of its boundary does not exist any more' end, coalesce(r.rolname::text, '') \
             from _eventstream.deciders d join _eventstream.tenants t on t.id = d.tenant_id",
            registrant_of!("d"),
            "where ($1 is null or d.tenant_id = $1) \
               and (r.oid is null or r.rolsuper or to_regprocedure(d.handler || '(jsonb, eventstream.command)') is null \
                    or d.boundary is not null and to_regprocedure(d.boundary || '(eventstream.command)') is null) \
             order by t.name collate \"C\", d.name collate \"C\""
        ),
        &[INT8OID],
    ) };
}

/// A row for each of a tenant, or (None) of every one.
pub fn checks(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    as_owner(Planning::ByIndex, |db, _| {
        ASKED.with(|asked| {
            asked.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                let (tenant, name, registrant) = (row.text(0)?, row.text(1)?, row.text(3)?);
                Ok(check((tenant, name), row.text_opt(2)?, registrant, writing))
            })
        })
    })
}

fn check((tenant, name): (&str, &str), gone: Option<&str>, registrant: &str, writing: &Writing) -> Check {
    let (level, problem, detail) = match gone {
        Some(gone) => (
            Level::Critical,
            "gone",
            format!("cannot decide: {gone}, and its commands are ES037. Make it again, and register the decider again"),
        ),
        None => (
            Level::Warning,
            "superuser",
            format!(
                "decides with the rights of {registrant}, a superuser: whoever may replace its function, or mislead it, has them. Let a role that may only read what it \
                 needs own the function and register it"
            ),
        ),
    };
    let fix = format!(
        "{}select handler, boundary, registrant from eventstream.deciders where name = {};",
        writing.choice(Some(tenant)),
        quote_literal(name)
    );
    Check::bad(format!("decider {name}"), level, problem, detail, fix).of(tenant)
}
