//! Invariants that nothing can be judged by any more, because their function, their fold or their registrant is gone, and those that judge with a superuser's rights.
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
            "select a.tenant, a.name, a.gone, a.registrant from ( \
             select t.name as tenant, i.name, case \
                 when i.handler is not null and r.oid is null then 'role ' || i.registrant || ' that registered it does not exist any more' \
                 when i.handler is not null and to_regprocedure(i.handler || '(eventstream.event[])') is null \
                     then 'its function ' || i.handler || ' does not exist any more' \
                 when i.handler is null then (select min(case when i.fold is null then 'category ' || c.category || ' has no default fold any more' \
                                                              else 'fold ' || i.fold || ' does not exist any more' end) \
                     from unnest(i.categories) c (category) \
                     where not exists (select from _eventstream.folds f where f.tenant_id = i.tenant_id and f.category = c.category \
                                       and case when i.fold is null then f.is_default else f.name = i.fold end)) end as gone, \
                 coalesce(r.rolname::text, '') as registrant, coalesce(r.rolsuper, false) and i.handler is not null as is_super \
             from _eventstream.invariants i join _eventstream.tenants t on t.id = i.tenant_id",
            registrant_of!("i"),
            "where $1 is null or i.tenant_id = $1) a \
             where a.gone is not null or a.is_super order by a.tenant collate \"C\", a.name collate \"C\""
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
            format!(
                "lets nothing pass: {gone}, and what is appended to its categories is ES019. Make it again and register the invariant again, or take it back"
            ),
        ),
        None => (
            Level::Warning,
            "superuser",
            format!(
                "judges with the rights of {registrant}, a superuser: whoever may replace its function, or mislead it, has them. Let a role that may only read what it \
                 needs own the function and register it"
            ),
        ),
    };
    let fix = format!(
        "{}select categories, handler, fold, registrant from eventstream.invariants where name = {};",
        writing.choice(Some(tenant)),
        quote_literal(name)
    );
    Check::bad(format!("invariant {name}"), level, problem, detail, fix).of(tenant)
}
