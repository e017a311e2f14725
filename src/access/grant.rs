//! Tenants and grants are made and taken back here; every session notices at the commit.
use super::check::{authorize_tenant, everything_or};
use super::fixed::{must_be_everywhere, must_be_free};
use super::rights::Access;
use crate::log::{audit, identity};
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::pg::{error::report, process::server};
use crate::shared::catalog::{Catalog, announce_access_change, announce_fold_change, announce_projection_change};
use crate::shared::meant;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::{Category, EVERY_TENANT as EVERYWHERE, TenantName};
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, TEXTOID};
use std::ffi::CStr;

/// What is granted or revoked.
pub struct Grant<'a> {
    pub role: &'a str,
    pub privilege: Privilege,
    /// None = the current tenant; every one (`*`).
    pub tenant: Option<&'a str>,
    /// None = every category.
    pub category: Option<&'a str>,
}

thread_local! {
    static NEEDS_TOKEN: Plan = const { Plan::new(
        "select true from _eventstream.grants g where g.tenant_id = 0 and g.privilege = 'token' \
         and _eventstream.role_of(g.role, g.role_oid, $2) = to_regrole(quote_ident($1))",
        &[TEXTOID, BOOLOID],
    ) };
    static CREATE_TENANT: Plan = const { Plan::new(
        "insert into _eventstream.tenants (id, name, uuid) values (nextval('_eventstream.tenant_ids'), $1, gen_random_uuid()) \
         on conflict (name) do nothing returning id",
        &[TEXTOID],
    ) };
    static CLOSED: Plan =
        const { Plan::new("select closed_at is not null from _eventstream.tenants where name = $1", &[TEXTOID]) };
    static ROLE: Plan = const { Plan::new("select true from pg_roles where rolname = $1", &[TEXTOID]) };
    static GRANT: Plan = const { Plan::new(
        // What a namesake that is gone had of it goes: revoking by the name would else take both.
        "with gone as (delete from _eventstream.grants where role = $1 and role_oid is null and privilege = $2 and tenant_id = $3 \
                       and category is not distinct from $4) \
         insert into _eventstream.grants (role, role_oid, privilege, tenant_id, category, granted_by) \
         select $1, o.oid, $2, $3, $4, $5 from (select case when $1 = 'public' then 0 else to_regrole(quote_ident($1))::oid end) o (oid) \
         where o.oid is not null on conflict do nothing",
        &[TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID],
    ) };
    static HAS_STREAMS: Plan = const { Plan::new(
        "select exists (select from _eventstream.streams where tenant_id = $1 and category = $2) \
             or exists (select from _eventstream.folds where tenant_id = $1 and category = $2)",
        &[INT8OID, TEXTOID],
    ) };
    static SEE_ROLES: Plan = const { Plan::new("select _eventstream.see_roles($1)", &[BOOLOID]) };
    static REVOKE: Plan = const { Plan::new(
        "delete from _eventstream.grants where role = $1 and privilege = $2 and tenant_id = $3 \
         and category is not distinct from $4",
        &[TEXTOID, TEXTOID, INT8OID, TEXTOID],
    ) };
}

fn invalid(argument: &str, reason: String, hint: Option<String>) -> Failure {
    Error::InvalidArgument { argument: argument.into(), reason, hint }.into()
}

/// Errors: 42501 for roles without admin, ES005 where there is one of that name, unless `if_not_exists`.
pub fn create_tenant(name: &str, if_not_exists: bool) -> Result<()> {
    TenantName::parse(name)?;
    server::must_be_writable(c"es_create_tenant")?;
    must_be_free()?;
    let admin = everything_or(Privilege::Admin)?;
    let creator = server::role_name(server::current_role())?;
    let is_made = as_owner(Planning::ByIndex, |db, catalog| {
        let id =
            CREATE_TENANT.with(|plan| plan.first(db, View::Write, &[Some(from_text(name)?)], |row| row.int8(0)))?;
        let Some(id) = id else { return Ok(false) };
        meant::forget(name);
        if admin.is_some() {
            write(db, &GRANT, &creator, Privilege::Admin, id, None, Some(&creator))?;
        }
        announce_access_change(catalog)?;
        Ok(true)
    })?;
    if is_made { Ok(()) } else { is_there(name, if_not_exists) }
}

/// Whether it is closed is told to those that may use it.
fn is_there(name: &str, is_fine: bool) -> Result<()> {
    let key = [Some(from_text(name)?)];
    let is_closed = must_have_any(Some(name)).is_ok()
        && as_owner(Planning::ByIndex, |db, _| {
            CLOSED.with(|plan| plan.first(db, View::Latest, &key, |row| row.boolean(0)))
        })? == Some(true);
    let (and, hint) = if is_closed {
        (
            ", and it is closed",
            "A closed tenant is not opened again, and has its name until es_rename_tenant gives it another one: take a new name, or rename it first.",
        )
    } else {
        ("", "In a script that runs again, es_create_tenant(…, if_not_exists => true) leaves it as it is.")
    };
    if is_fine {
        return report::notice(&format!("tenant {} is there already{and}", shown(name)));
    }
    Err(invalid(
        "tenant",
        format!("must be a new name: there is a tenant {} already{and}", shown(name)),
        Some(hint.into()),
    ))
}

/// Uses the tenant until the end of the transaction. Errors: 42501, ES040.
pub fn use_tenant(name: &str) -> Result<()> {
    // Also of a name that cannot be: whoever has no privilege anywhere is told so.
    let parsed = TenantName::parse(name);
    must_have_any(parsed.is_ok().then_some(name))?;
    parsed?;
    server::set_locally(c"eventstream.tenant", name)
}

/// Errors: 42501, ES040 for a role that has no privilege in the tenant (None: in any). Any will do; what a call needs is checked by the call.
pub fn must_have_any(tenant: Option<&str>) -> Result<()> {
    let mut refusal = None;
    for &privilege in Privilege::ALL {
        match authorize_tenant(tenant, privilege) {
            Ok(_) => return Ok(()),
            // It has some, in more than one.
            Err(Failure::Rule(Error::TenantRequired { .. })) if tenant.is_none() => return Ok(()),
            Err(failure) => refusal = refusal.or(Some(failure)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Errors: 42501 without admin, ES005 for a role that does not exist or a privilege that cannot be narrowed, ES040.
pub fn grant(grant: &Grant) -> Result<()> {
    let creator = server::role_name(server::current_role())?;
    if grant.tenant == Some(EVERYWHERE) {
        return everywhere(grant, c"es_grant", |db, by_oid| {
            let args = [Some(from_text(grant.role)?), Some(Datum::from(by_oid))];
            if NEEDS_TOKEN.with(|plan| plan.first(db, View::Latest, &args, |_| Ok(())))?.is_none() {
                let reason = format!(
                    "must be one that needs a token, to be granted every tenant, and {} is none",
                    shown(grant.role)
                );
                let hint = "Name a tenant; or first: select es_require_token(role).";
                return Err(invalid("role", reason, Some(hint.into())));
            }
            write(db, &GRANT, grant.role, grant.privilege, 0, grant.category, Some(&creator)).map(drop)
        });
    }
    in_tenant(grant, c"es_grant", |db, access| {
        let exists = grant.role == "public"
            || ROLE.with(|plan| plan.first(db, View::Latest, &[Some(from_text(grant.role)?)], |_| Ok(())))?.is_some();
        if !exists {
            let reason = format!("must be an existing role, or public, not {}", shown(grant.role));
            return Err(invalid("role", reason, Some("Make the role first, or grant to public.".into())));
        }
        write(db, &GRANT, grant.role, grant.privilege, access.tenant_id, grant.category, Some(&creator))?;
        let Some(category) = grant.category else { return Ok(()) };
        notice_of_new(db, access.tenant_id, category, "the grant counts from its first one on")
    })
}

/// A NOTICE for each of the categories that has neither a stream nor a fold: a slip of the pen would else be found by silence.
pub fn notice_of_new_categories(tenant_id: i64, categories: Option<&[String]>, then: &str) -> Result<()> {
    let Some(categories) = categories else { return Ok(()) };
    as_owner(Planning::ByIndex, |db, _| {
        let new = categories.iter().enumerate().filter(|(place, category)| !categories[..*place].contains(category));
        new.map(|(_, category)| category).try_for_each(|category| notice_of_new(db, tenant_id, category, then))
    })
}

fn notice_of_new(db: &Db, tenant_id: i64, category: &str, then: &str) -> Result<()> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(category)?)];
    if HAS_STREAMS.with(|plan| plan.first(db, View::Latest, &key, |row| row.boolean(0)))? == Some(true) {
        return Ok(());
    }
    report::notice(&format!("category {} has no streams yet: {then}", shown(category)))
}

/// Errors: as [`grant`]; ES005 where there was no such grant.
pub fn revoke(grant: &Grant) -> Result<()> {
    let revoked = |db: &Db, tenant_id, tenant: &str| {
        if write(db, &REVOKE, grant.role, grant.privilege, tenant_id, grant.category, None)? == 0 {
            let category = match grant.category {
                Some(category) => format!("category {}", shown(category)),
                None => "all categories".into(),
            };
            return Err(invalid(
                "privilege",
                format!(
                    "must be one that was granted: role {} has no grant of {} for {category} in tenant {}",
                    shown(grant.role),
                    grant.privilege.as_str(),
                    shown(tenant)
                ),
                Some("A grant is revoked as it was given; the view eventstream.grants shows what was granted.".into()),
            ));
        }
        Ok(())
    };
    if grant.tenant == Some(EVERYWHERE) {
        return everywhere(grant, c"es_revoke", |db, _| revoked(db, 0, EVERYWHERE));
    }
    in_tenant(grant, c"es_revoke", |db, access| revoked(db, access.tenant_id, &access.tenant))
}

/// Notes what the roles of grants and registrations are called by now, and which are gone for good.
pub fn see_roles(db: &Db, catalog: &Catalog) -> Result<()> {
    let begins = Some(Datum::from(audit::are_due(catalog.events)));
    let changed = SEE_ROLES.with(|plan| plan.first(db, View::Write, &[begins], |row| row.boolean(0)))?;
    if changed == Some(true) {
        announce_access_change(catalog)?;
        announce_fold_change(catalog)?;
        announce_projection_change(catalog)?;
    }
    Ok(())
}

/// Runs `work` for whoever decides for every tenant; it is told whether roles are known by their oids.
fn everywhere(grant: &Grant, call: &CStr, work: impl FnOnce(&Db, bool) -> Result<()>) -> Result<()> {
    check_category(grant)?;
    server::must_be_writable(call)?;
    must_be_everywhere()?;
    let by_oid = identity::home()?.is_here;
    as_owner(Planning::ByIndex, |db, catalog| {
        see_roles(db, catalog)?;
        work(db, by_oid)?;
        announce_access_change(catalog)
    })
}

fn check_category(grant: &Grant) -> Result<()> {
    if let Some(category) = grant.category {
        Category::parse("category", category)?;
        if !grant.privilege.may_be_narrowed() {
            let reason = format!(
                "must be NULL with {}: only read, append, command, consume, manage and reveal can be narrowed",
                grant.privilege.as_str()
            );
            return Err(invalid("category", reason, None));
        }
    }
    Ok(())
}

/// Runs `work` where the current role is admin of the grant's tenant.
fn in_tenant(grant: &Grant, call: &CStr, work: impl FnOnce(&Db, &Access) -> Result<()>) -> Result<()> {
    check_category(grant)?;
    server::must_be_writable(call)?;
    let (access, _) = authorize_tenant(grant.tenant, Privilege::Admin)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        see_roles(db, catalog)?;
        work(db, &access)?;
        announce_access_change(catalog)
    })
}

fn write(
    db: &Db,
    plan: &'static std::thread::LocalKey<Plan>,
    role: &str,
    privilege: Privilege,
    tenant_id: i64,
    category: Option<&str>,
    by: Option<&str>,
) -> Result<u64> {
    let mut args: Vec<Nullable> = vec![
        Some(from_text(role)?),
        Some(from_text(privilege.as_str())?),
        Some(Datum::from(tenant_id)),
        category.map(from_text).transpose()?,
    ];
    if let Some(by) = by {
        args.push(Some(from_text(by)?));
    }
    plan.with(|plan| plan.write(db, &args))
}
