//! Roles that need a token: what they have gained since es_require_token looked, by which they could leave something behind for the next transaction or get around the token; and how they come.
use super::check::{Check, Level};
use crate::log::identity;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::Nullable;
use crate::shared::session::as_owner;
use eventstream_core::{counted, quote_identifier};
use pgrx::pg_sys::{BOOLOID, Datum};

thread_local! {
    static ROLES: Plan = const { Plan::new(
        "select r.rolname::text, f.whats, f.statements, \
                coalesce((select s.setconfig @> '{track_activities=off}' from pg_db_role_setting s \
                          where s.setrole = r.oid and s.setdatabase in (0, (select oid from pg_database where datname = current_database())) \
                            and exists (select from unnest(s.setconfig) c (line) where c.line like 'track\\_activities=%') \
                          order by s.setdatabase desc limit 1), false), \
                (select count(*) from pg_stat_activity a join pg_stat_ssl l on l.pid = a.pid \
                 where a.usesysid = r.oid and a.client_addr is not null and not l.ssl) \
         from _eventstream.grants g join pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, $1) \
         cross join lateral (select array_agg(f.what), array_agg(distinct f.statement) from _eventstream.token_role_faults(r.oid, $1) f) f (whats, statements) \
         where g.tenant_id = 0 and g.privilege = 'token' order by r.rolname",
        &[BOOLOID],
    ) };
    /// What is had without a token, and what was set for the role: by whoever administers the database, or by itself before it needed one. Who has a role is looked for among its members, and theirs: to ask of each
    /// role of the server costs as many questions as there are pairs. (What a superuser, or the database's owner, has beyond is told by token_role_faults.)
    static HELD: Plan = const { Plan::new(
        "with recursive needing as ( \
             select r.oid, r.rolname from _eventstream.grants g join pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, $1) \
             where g.tenant_id = 0 and g.privilege = 'token' \
         ), has (oid, role) as ( \
             select n.oid, n.oid from needing n union select h.oid, a.roleid from has h join pg_auth_members a on a.member = h.role \
         ), had (oid, member) as ( \
             select n.oid, n.oid from needing n union select h.oid, a.member from had h join pg_auth_members a on a.roleid = h.member \
         ), given (tenant_id, role) as materialized ( \
             select distinct g.tenant_id, _eventstream.role_of(g.role, g.role_oid, $1) from _eventstream.grants g where g.privilege <> 'token' and g.role_oid <> 0 \
         ), granted (oid, lowest, highest) as ( \
             select h.oid, min(g.tenant_id), max(g.tenant_id) from has h join given g on g.role = h.role where pg_has_role(h.oid, h.role, 'USAGE') group by h.oid \
         ), tables as materialized ( \
             select p.tenant_id, t.name, p.table_name, to_regclass(p.table_name) as relation \
             from _eventstream.projections p join _eventstream.tenants t on t.id = p.tenant_id where p.kind = 'table' \
         ), held (role, kind, what, statement) as ( \
             select n.rolname, 'table', format('%s of tenant %s', t.table_name, t.name), format('revoke select on %s from %I, public', t.table_name, n.rolname) \
             from needing n join granted g on g.oid = n.oid \
             join tables t on (g.lowest <> t.tenant_id or g.highest <> t.tenant_id) and has_any_column_privilege(n.oid, t.relation, 'select') \
             union all \
             select n.rolname, 'member', m.rolname::text, \
                    case when exists (select from pg_auth_members a where a.roleid = n.oid and a.member = m.oid) then format('revoke %I from %I', n.rolname, m.rolname) \
                         else ('select pg_get_userbyid(roleid) as role, pg_get_userbyid(member) as member from pg_auth_members') end \
             from needing n join granted g on g.oid = n.oid and g.highest <> 0 join had h on h.oid = n.oid and h.member <> n.oid \
             join pg_roles m on m.oid = h.member and m.rolcanlogin and not m.rolsuper and pg_has_role(m.oid, n.oid, 'USAGE') \
             where m.oid not in (select o.oid from needing o) \
             union all \
             select n.rolname, 'elsewhere', d.datname::text, format('revoke connect on database %I from %I, public', d.datname, n.rolname) \
             from needing n join pg_roles r on r.oid = n.oid and r.rolcanlogin \
             join pg_database d on d.datallowconn and d.datname <> current_database() and has_database_privilege(n.oid, d.oid, 'connect') \
             union all \
             select n.rolname, 'setting', s.setting, null \
             from needing n join pg_db_role_setting d on d.setrole = n.oid cross join unnest(d.setconfig) s (setting) \
             where d.setdatabase in (0, (select oid from pg_database where datname = current_database())) and s.setting <> 'track_activities=off' \
         ) \
         select h.role::text, h.kind, (array_agg(h.what order by h.what))[:10], (array_agg(h.statement order by h.what))[:10] \
         from held h group by h.role, h.kind order by h.role, h.kind",
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
    let mut bad: Vec<Check> = roles.iter().flat_map(of_role).collect();
    let (held, known): (Vec<_>, Vec<_>) = held(&by_oid)?.into_iter().partition(|check| check.level > Level::Ok);
    bad.extend(held);
    let count = counted(roles.len() as i64, "role needs a token and can", "roles need a token and can");
    if bad.is_empty() {
        bad.push(Check::ok("tokens", format!("{count} leave nothing behind")));
    }
    Ok(bad.into_iter().chain(known).collect())
}

fn held(by_oid: &[Nullable]) -> Result<Vec<Check>> {
    as_owner(Planning::ByCost, |db, _| {
        HELD.with(|plan| {
            plan.rows(db, View::Latest, 0, by_oid, |row| {
                let (role, kind) = (row.text(0)?, row.text(1)?);
                let whats = row.text_array_opt(2)?.unwrap_or_default().join(", ");
                let statements = row.text_array_opt(3)?.unwrap_or_default();
                Ok(of_held(role, kind, &whats, &statements))
            })
        })
    })
}

fn of_held(role: &str, kind: &str, whats: &str, statements: &[String]) -> Check {
    let (problem, detail) = match kind {
        "table" => (
            "read without a token",
            format!(
                "role {role} needs a token, has rights in several tenants, and may read state tables, which need none: {whats}"
            ),
        ),
        "member" => (
            "inherited",
            format!(
                "role {role} needs a token, and what it was granted in single tenants is had without one by {whats}"
            ),
        ),
        "elsewhere" => (
            "connects elsewhere",
            format!(
                "role {role} needs a token, and may connect to other databases of this server, where it may change its own settings and password, which count here for who comes next: {whats}"
            ),
        ),
        _ => {
            let detail = format!(
                "role {role} needs a token, and each of its sessions begins with {whats}: by who administers the database, or by the role itself before it needed one"
            );
            return Check::ok(format!("settings of role {role}"), detail);
        }
    };
    let fix: Vec<_> = statements.iter().map(|statement| format!("{statement};")).collect();
    Check::bad(format!("token role {role}"), Level::Warning, problem, detail, fix.join("\n"))
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
