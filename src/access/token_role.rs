//! Which roles need a token in each transaction. It stands among the grants, as what is demanded of a role in every tenant, so that a role is known there, renamed and dropped as all of them are
//! (sql/access/functions.sql).
//!
//! Promises: a role that is let in by tokens keeps nothing from one transaction to the next in the database, and is no way around them: what it may not have is asked here, and by health from then on.
use super::fixed::must_be_everywhere;
use super::grant::see_roles;
use crate::log::identity;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::error::report;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::catalog::announce_access_change;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::shown;
use pgrx::pg_sys::{BOOLOID, Datum, TEXTOID};

thread_local! {
    static FAULTS: Plan = const { Plan::new(
        "select f.what, f.statement, r.rolsuper from pg_roles r left join _eventstream.token_role_faults(r.oid, $2) f on true where r.rolname = $1",
        &[TEXTOID, BOOLOID],
    ) };
    static HAS_EVERYWHERE: Plan = const { Plan::new(
        "select true from _eventstream.grants where role = $1 and role_oid is not null and tenant_id = 0 and privilege <> 'token' limit 1",
        &[TEXTOID],
    ) };
    static DEMAND: Plan = const { Plan::new(
        "insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) \
         select r.rolname, r.oid, 'token', 0, $2 from pg_roles r where r.rolname = $1 on conflict do nothing",
        &[TEXTOID, TEXTOID],
    ) };
    static LET_GO: Plan = const { Plan::new(
        "delete from _eventstream.grants where role = $1 and tenant_id = 0 and privilege = 'token'",
        &[TEXTOID],
    ) };
    static IS_ELSEWHERE: Plan = const { Plan::new(
        "select true from pg_roles r join pg_database d on d.datallowconn and d.datname <> current_database() and has_database_privilege(r.oid, d.oid, 'connect') \
         where r.rolname = $1 and r.rolcanlogin limit 1",
        &[TEXTOID],
    ) };
    static SHOW_ACTIVITIES: Plan = const { Plan::new("select _eventstream.show_activities($1, $2)", &[TEXTOID, BOOLOID]) };
}

/// Errors: 42501; ES005 for a role that does not exist, has what no token covers, or has grants in every tenant, which are for roles that need a token.
pub fn require_token(role: &str, is_required: bool) -> Result<()> {
    server::must_be_writable(c"es_require_token")?;
    must_be_everywhere()?;
    let by = server::role_name(server::current_role())?;
    let by_oid = identity::home()?.is_here;
    as_owner(Planning::ByIndex, |db, catalog| {
        see_roles(db, catalog)?;
        let name = Some(from_text(role)?);
        if is_required {
            must_keep_nothing(db, role, by_oid)?;
            DEMAND.with(|plan| plan.write(db, &[name, Some(from_text(&by)?)]))?;
            if IS_ELSEWHERE.with(|plan| plan.first(db, View::Latest, &[name], |_| Ok(())))?.is_some() {
                report::warning_with(
                    &format!(
                        "role {} may connect to other databases of this server, where it may change its own settings and password",
                        shown(role)
                    ),
                    "Take that from it: eventstream.health (token role …) names them, with the statements.",
                )?;
            }
        } else {
            if HAS_EVERYWHERE.with(|plan| plan.first(db, View::Latest, &[name], |_| Ok(())))?.is_some() {
                return Err(Error::InvalidArgument {
                    argument: "role".into(),
                    reason: format!("must have no grants in every tenant, which {} has", shown(role)),
                    hint: Some("They are for roles that need a token: es_revoke(…, tenant => '*') first.".into()),
                }
                .into());
            }
            if LET_GO.with(|plan| plan.write(db, &[name]))? == 0 {
                return Err(invalid("role", format!("must be one that needs a token, not {}", shown(role))));
            }
        }
        SHOW_ACTIVITIES
            .with(|plan| plan.first(db, View::Write, &[name, Some(Datum::from(!is_required))], |_| Ok(())))?;
        announce_access_change(catalog)
    })
}

fn must_keep_nothing(db: &Db, role: &str, by_oid: bool) -> Result<()> {
    let args = [Some(from_text(role)?), Some(Datum::from(by_oid))];
    let found = FAULTS.with(|plan| {
        plan.rows(db, View::Latest, 0, &args, |row| {
            Ok((row.text_opt(0)?.map(str::to_owned), row.text_opt(1)?.map(str::to_owned), row.boolean(2)?))
        })
    })?;
    if found.is_empty() {
        return Err(invalid("role", format!("must be an existing role, not {}", shown(role))));
    }
    let is_super = found.iter().any(|(_, _, is_super)| *is_super);
    let faults: Vec<&str> = found.iter().filter_map(|(fault, ..)| fault.as_deref()).collect();
    let mut statements: Vec<&str> = found.iter().filter_map(|(_, statement, _)| statement.as_deref()).collect();
    if faults.is_empty() {
        return Ok(());
    }
    statements.dedup();
    let (faults, hint) = if is_super {
        // It may be the only one: whoever takes that from it locks everybody out.
        (
            "is a superuser".to_owned(),
            "Leave it as it is. What works with tokens has a role of its own: create role … login; and name that one."
                .to_owned(),
        )
    } else {
        let others = statements.iter().any(|statement| statement.contains(" from public"));
        let note = if others {
            " What is revoked from public other roles lose, too: grant it to those that need it."
        } else {
            ""
        };
        (faults.join(", "), format!("Take that from it first: {};{note}", statements.join("; ")))
    };
    Err(Error::InvalidArgument {
        argument: "role".into(),
        reason: format!(
            "must be a role that can leave nothing behind for who comes next, and {} {faults}",
            shown(role)
        ),
        hint: Some(hint),
    }
    .into())
}
