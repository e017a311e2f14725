//! Roles that need a token: what they have gained since es_require_token looked, by which they could leave something behind for the next transaction or get around the token; and how they come.
use super::check::{Check, Level};
use crate::log::identity;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::{counted, quote_identifier};
use pgrx::pg_sys::{BOOLOID, Datum};

thread_local! {
    static ROLES: Plan = const { Plan::new(
        "select r.rolname::text, f.whats, f.statements, \
                exists (select from pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0 and s.setconfig @> '{track_activities=off}'), \
                (select count(*) from pg_stat_activity a join pg_stat_ssl l on l.pid = a.pid \
                 where a.usesysid = r.oid and a.client_addr is not null and not l.ssl) \
         from _eventstream.grants g join pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, $1) \
         cross join lateral (select array_agg(f.what), array_agg(distinct f.statement) from _eventstream.token_role_faults(r.oid, $1) f) f (whats, statements) \
         where g.tenant_id = 0 and g.privilege = 'token' order by r.rolname",
        &[BOOLOID],
    ) };
}

struct Role {
    name: String,
    faults: Vec<String>,
    statements: Vec<String>,
    is_hidden: bool,
    /// Connections through the network without TLS.
    open_connections: i64,
}

/// No row where no role needs a token.
pub fn checks() -> Result<Vec<Check>> {
    let by_oid = [Some(Datum::from(identity::home()?.is_here))];
    let roles = as_owner(Planning::ByCost, |db, _| {
        ROLES.with(|plan| {
            plan.rows(db, View::Latest, 0, &by_oid, |row| {
                Ok(Role {
                    name: row.text(0)?.to_owned(),
                    faults: row.text_array_opt(1)?.unwrap_or_default(),
                    statements: row.text_array_opt(2)?.unwrap_or_default(),
                    is_hidden: row.boolean(3)?,
                    open_connections: row.int8(4)?,
                })
            })
        })
    })?;
    if roles.is_empty() {
        return Ok(Vec::new());
    }
    let bad: Vec<Check> = roles.iter().flat_map(of_role).collect();
    let count = counted(roles.len() as i64, "role needs a token and can", "roles need a token and can");
    Ok(if bad.is_empty() { vec![Check::ok("tokens", format!("{count} leave nothing behind"))] } else { bad })
}

fn of_role(role: &Role) -> Vec<Check> {
    let name = || format!("token role {}", role.name);
    let mut checks = Vec::new();
    if !role.faults.is_empty() {
        let detail = format!(
            "role {} needs a token, and {}: it could leave something behind for who has the session next, or get around its token",
            role.name,
            role.faults.join(", ")
        );
        let statements: String = role.statements.iter().map(|statement| format!("{statement};\n")).collect();
        checks.push(Check::bad(name(), Level::Critical, "has too much", detail, statements.trim_end().to_owned()));
    }
    if !role.is_hidden {
        let detail =
            format!("pg_stat_activity shows what each session of role {} does to the others of that role", role.name);
        let fix = format!("alter role {} set track_activities = off;", quote_identifier(&role.name));
        checks.push(Check::bad(name(), Level::Warning, "seen by others", detail, fix));
    }
    if role.open_connections > 0 {
        let connections = counted(role.open_connections, "connection", "connections");
        let detail = format!(
            "role {} has {connections} through the network without TLS, where its tokens can be read: let pg_hba.conf have hostssl lines for it only",
            role.name
        );
        let fix = "select a.pid, a.usename, a.client_addr from pg_stat_activity a join pg_stat_ssl s on s.pid = a.pid where a.client_addr is not null and not s.ssl;";
        checks.push(Check::bad(name(), Level::Warning, "without TLS", detail, fix.into()));
    }
    checks
}
