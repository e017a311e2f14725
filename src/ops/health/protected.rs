//! What else shows protected fields: the server's log (logged.rs), and roles that read the tables themselves.
use super::check::{Check, Level, first_lines};
use super::logged;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::{counted, quote_identifier, shown};
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::BTreeSet;

thread_local! {
    static IS_ANY: Plan = const { Plan::new(
        "select exists (select from _eventstream.protections where $1 is null or tenant_id = $1)",
        &[INT8OID],
    ) };
    /// By which of its direct members each role that can log in is one of pg_read_all_data.
    static READERS: Plan = const { Plan::new(
        "with recursive reach (direct, member) as ( \
             select a.member, a.member from pg_auth_members a where a.roleid = 'pg_read_all_data'::regrole \
             union select r.direct, a.member from reach r join pg_auth_members a on a.roleid = r.member \
         ) \
         select r.rolname::text, array_agg(d.rolname::text order by d.rolname) \
         from reach join pg_roles r on r.oid = reach.member join pg_roles d on d.oid = reach.direct \
         where r.rolcanlogin and not r.rolsuper group by r.rolname order by r.rolname",
        &[],
    ) };
}

/// So many roles are named.
const MOST_NAMED: usize = 20;

/// None where nothing is protected.
pub fn checks(tenant_id: Option<i64>) -> Result<Vec<Check>> {
    let is_any = as_owner(Planning::ByIndex, |db, _| {
        IS_ANY.with(|plan| plan.first(db, View::Latest, &[tenant_id.map(Datum::from)], |row| row.boolean(0)))
    })?;
    if is_any != Some(true) {
        return Ok(Vec::new());
    }
    Ok([logged::check()?].into_iter().chain(readers()?).collect())
}

/// No row where no role is one.
fn readers() -> Result<Option<Check>> {
    let found = as_owner(Planning::ByCost, |db, _| {
        READERS.with(|plan| {
            plan.rows(db, View::Latest, 0, &[], |row| {
                Ok((row.text(0)?.to_owned(), row.text_array_opt(1)?.unwrap_or_default()))
            })
        })
    })?;
    if found.is_empty() {
        return Ok(None);
    }
    let named: Vec<_> = found.iter().take(MOST_NAMED).map(|(role, _)| shown(role)).collect();
    let more = if found.len() > MOST_NAMED { ", …" } else { "" };
    let detail = format!(
        "{} the tables themselves, with what is protected in clear, as a member of pg_read_all_data: {}{more}. No rule hides anything from it, and nothing is recorded",
        counted(found.len() as i64, "role that can log in reads", "roles that can log in read"),
        named.join(", ")
    );
    let members: BTreeSet<_> = found.iter().flat_map(|(_, members)| members).collect();
    let fix = first_lines(
        members.iter().map(|member| format!("revoke pg_read_all_data from {};", quote_identifier(member))),
        MOST_NAMED,
    );
    Ok(Some(Check::bad("protected tables", Level::Warning, "read in clear", detail, fix.join("\n"))))
}
