//! The decision, and its cache: kept for (role, tenant setting) until grants, tenants, roles or memberships change.
use super::fixed;
use super::rights::{Access, Need, Scope, refusal};
use crate::log::identity;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::invalidation;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::pg::{function::call, process::server};
use crate::shared::catalog;
use crate::shared::meant;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::shared::within;
use eventstream_core::argument::Argument;
use eventstream_core::error::Error;
use eventstream_core::name::is_reserved;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use pgrx::pg_sys::{BOOLOID, Datum, OIDOID, Oid, TEXTOID};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The tenant `default`, which every log has.
const FIRST: i64 = 1;
const DEFAULT: &str = "default";

/// A row of grants that concerns a role.
struct Granted {
    tenant: (i64, String),
    privilege: Privilege,
    category: Option<String>,
    /// Not by a grant to public.
    is_own: bool,
}

/// By role, tenant, and whether that is fixed, so that what is granted in every tenant counts.
type Cache = HashMap<(Oid, Option<String>, bool), Rc<Access>>;

thread_local! {
    static CACHE: RefCell<(u64, Cache)> = RefCell::default();
    // A role has what was granted to it, to a role whose rights it has, and to everybody.
    static GRANTED: Plan = const { Plan::new(
        "select t.id, t.name, g.privilege, g.category, g.role_oid <> 0 \
         from _eventstream.tenants t join _eventstream.grants g on g.tenant_id = t.id or g.tenant_id = 0 and $3 \
         where g.privilege <> 'token' \
           and (g.role_oid = 0 or pg_has_role($1, _eventstream.role_of(g.role, g.role_oid, $2), 'USAGE')) \
         order by t.name",
        &[OIDOID, BOOLOID, BOOLOID],
    ) };
    static AUDITED: Plan = const { Plan::new(
        "select t.id from _eventstream.tenants t \
         where exists (select from _eventstream.grants g where g.tenant_id = t.id and g.privilege = 'audit' \
                       and (g.role_oid = 0 or pg_has_role($1, _eventstream.role_of(g.role, g.role_oid, $2), 'USAGE')))",
        &[OIDOID, BOOLOID],
    ) };
    static TENANTS: Plan = const { Plan::new("select id, name from _eventstream.tenants order by name limit 100", &[]) };
    static TENANT_IDS: Plan = const { Plan::new("select id from _eventstream.tenants order by id", &[]) };
    static TENANT: Plan = const { Plan::new("select id from _eventstream.tenants where name = $1", &[TEXTOID]) };
}

/// The role's access to `tenant` (None: its current one). Errors: ES041 where several are possible and none is named, 42501 where the
/// role has no privilege there; ES040 for those that may everything; ES042, ES044 where a token is needed. Refuses a fold or an upcaster that calls back.
fn current(tenant: Option<&str>, privilege: Privilege, need: Need) -> Result<Rc<Access>> {
    call::refuse_in_user_code()?;
    invalidation::take_in()?;
    let role = server::current_role();
    let Some(fixed) = fixed::tenant()? else {
        let chosen = tenant.map(ToOwned::to_owned).or_else(settings::tenant);
        return as_before(known((role, chosen, false), privilege, need)?);
    };
    fixed.must_be(tenant)?;
    let access = known((role, Some(fixed.tenant.to_string()), true), privilege, need)?;
    fixed.must_have_led_to(&access)?;
    Ok(fixed.narrowed(access))
}

/// Errors: ES040 where the tenant's name has meant another one in this transaction.
fn as_before(access: Rc<Access>) -> Result<Rc<Access>> {
    if meant::means(&access.tenant, access.tenant_id) {
        return Ok(access);
    }
    Err(within::changed(&access.tenant))
}

fn known(key: (Oid, Option<String>, bool), privilege: Privilege, need: Need) -> Result<Rc<Access>> {
    let generation = catalog::access_generation();
    let known = CACHE.with_borrow_mut(|(at, cache)| {
        if *at != generation {
            cache.clear();
            *at = generation;
        }
        cache.get(&key).map(Rc::clone)
    });
    if let Some(access) = known {
        return Ok(access);
    }
    let access = Rc::new(load((key.0, key.1.as_deref(), key.2), privilege, need)?);
    CACHE.with_borrow_mut(|(at, cache)| {
        if *at == generation {
            cache.insert(key, Rc::clone(&access));
        }
    });
    Ok(access)
}

fn load((role, named, is_fixed): (Oid, Option<&str>, bool), privilege: Privilege, need: Need) -> Result<Access> {
    let by_oid = Datum::from(identity::home()?.is_here);
    let args = [Some(Datum::from(role)), Some(by_oid), Some(Datum::from(is_fixed))];
    as_owner(Planning::ByCost, |db, catalog| {
        if server::may_everything(role, catalog.owner)? {
            let (tenant_id, tenant) = any_tenant(db, role, named)?;
            return Ok(Access::new(tenant_id, tenant, true, Vec::new()));
        }
        let granted = GRANTED.with(|plan| {
            plan.rows(db, View::Latest, 0, &args, |row| {
                let privilege = Privilege::parse("privilege", row.text(2)?)?;
                let category = row.text_opt(3)?.map(ToOwned::to_owned);
                Ok(Granted {
                    tenant: (row.int8(0)?, row.text(1)?.to_owned()),
                    privilege,
                    category,
                    is_own: row.boolean(4)?,
                })
            })
        })?;
        let chosen = match named {
            Some(name) => granted.iter().find(|grant| grant.tenant.1 == name).map(|grant| grant.tenant.clone()),
            None => {
                let tenants = |is_own| {
                    let of = granted.iter().filter(|grant| grant.is_own == is_own);
                    let mut tenants: Vec<_> = of.map(|grant| grant.tenant.clone()).collect();
                    tenants.dedup();
                    tenants
                };
                // No admin of a tenant makes another's clients choose, nor chooses for them, by what he opens to everybody: that is had by who
                // names the tenant; unnamed, it is the first one that counts, and no other.
                match (tenants(true), tenants(false)) {
                    (own, _) if !own.is_empty() => only_one(role, own)?,
                    (_, open) if open.is_empty() => None,
                    (_, open) => match open.iter().find(|tenant| tenant.0 == FIRST) {
                        Some(first) => Some(first.clone()),
                        None => return Err(must_choose(role, open)?.into()),
                    },
                }
            }
        };
        let Some((tenant_id, tenant)) = chosen else {
            let tenant = named.unwrap_or(DEFAULT);
            return Err(refusal(role, privilege, tenant, need, tenant != DEFAULT)?.into());
        };
        let grants = granted
            .into_iter()
            .filter(|grant| grant.tenant.0 == tenant_id)
            .map(|grant| (grant.privilege, grant.category))
            .collect();
        Ok(Access::new(tenant_id, tenant, false, grants))
    })
}

/// The tenant for a role that may choose among all of them.
fn any_tenant(db: &Db, role: Oid, named: Option<&str>) -> Result<(i64, String)> {
    if let Some(name) = named {
        let found = TENANT.with(|plan| plan.first(db, View::Latest, &[Some(from_text(name)?)], |row| row.int8(0)))?;
        return Ok((found.ok_or_else(|| Error::TenantNotFound { tenant: name.into() })?, name.to_owned()));
    }
    let tenants =
        TENANTS.with(|plan| plan.rows(db, View::Latest, 0, &[], |row| Ok((row.int8(0)?, row.text(1)?.to_owned()))))?;
    only_one(role, tenants)?.ok_or_else(|| Error::Internal { what: "there is no tenant".into() }.into())
}

fn only_one(role: Oid, mut tenants: Vec<(i64, String)>) -> Result<Option<(i64, String)>> {
    if tenants.len() > 1 {
        return Err(must_choose(role, tenants)?.into());
    }
    Ok(tenants.pop())
}

fn must_choose(role: Oid, tenants: Vec<(i64, String)>) -> Result<Error> {
    let tenants = tenants.into_iter().map(|(_, name)| name).collect();
    Ok(Error::TenantRequired { role: server::role_name(role)?, tenants })
}

/// The current tenant, where the current role has the privilege for the category. Errors: 42501, ES040, ES041.
pub fn authorize(privilege: Privilege, category: &str) -> Result<Rc<Access>> {
    let access = current(None, privilege, Need::Of(category))?;
    if access.covers(privilege, category) { Ok(access) } else { Err(access.refusal(privilege, Some(category))?.into()) }
}

/// Where the streams of a category are read: the current tenant, where the current role may; a reserved one is beside the tenant's own, for those
/// with audit. Errors: 42501, ES040, ES041.
pub fn authorize_reading(category: &str) -> Result<Rc<Access>> {
    if is_reserved(category) {
        Ok(Rc::new(authorize_tenant(None, Privilege::Audit)?.0.reserved()))
    } else {
        authorize(Privilege::Read, category)
    }
}

/// Where the log is read, and of which of the categories: as [`authorize_reading`]. Reserved ones are read by themselves, and only by name.
/// Errors: ES005, 42501, ES040, ES041.
pub fn authorize_reading_log(categories: Option<Vec<String>>) -> Result<(Rc<Access>, Option<Vec<String>>)> {
    let (reserved, others): (Vec<_>, Vec<_>) = categories.iter().flatten().partition(|category| is_reserved(category));
    match (reserved.first(), others.first()) {
        (None, _) => {
            let need = others.first().map_or(Need::Any, |category| Need::Of(category));
            let (access, scope) = anywhere(None, Privilege::Read, need)?;
            Ok((access, scope.narrow(categories)))
        }
        (Some(reserved), None) => Ok((authorize_reading(reserved)?, categories)),
        (Some(reserved), Some(other)) => Err(Error::InvalidArgument {
            argument: "categories".into(),
            reason: format!(
                "must be all reserved, or none of them: {} is, and {} is not",
                shown(reserved),
                shown(other)
            ),
            hint: Some("Acts of administration have a horizon of their own: read them by themselves.".into()),
        }
        .into()),
    }
}

/// The tenant (None: the current one) and the categories that the privilege covers there. Errors: 42501, ES040, ES041.
pub fn authorize_tenant(tenant: Option<&str>, privilege: Privilege) -> Result<(Rc<Access>, Scope)> {
    anywhere(tenant, privilege, Need::Any)
}

fn anywhere(tenant: Option<&str>, privilege: Privilege, need: Need) -> Result<(Rc<Access>, Scope)> {
    let access = current(tenant, privilege, need)?;
    match access.scope(privilege) {
        Some(scope) => Ok((access, scope)),
        None => Err(access.refused(privilege, need)?.into()),
    }
}

/// The current tenant, where the privilege covers all of these categories (None: every one). Errors: 42501, ES040, ES041.
pub fn authorize_all(privilege: Privilege, categories: Option<&[String]>) -> Result<Rc<Access>> {
    authorize_all_in(None, privilege, categories)
}

/// The same of a tenant (None: the current one). What is missing is named by its first category, so that whoever grants it grants no more.
pub fn authorize_all_in(
    tenant: Option<&str>,
    privilege: Privilege,
    categories: Option<&[String]>,
) -> Result<Rc<Access>> {
    let access = current(tenant, privilege, Need::of_all(categories))?;
    let missing = match access.scope(privilege) {
        Some(scope) if scope.covers(categories) => return Ok(access),
        Some(scope) => scope.first_missing(categories),
        None => categories.and_then(|categories| categories.first()).map(String::as_str),
    };
    Err(access.refusal(privilege, missing)?.into())
}

/// None for those that may everything, in every tenant; else as [`authorize_tenant`].
pub fn everything_or(privilege: Privilege) -> Result<Option<Rc<Access>>> {
    invalidation::take_in()?;
    let owner = catalog::Catalog::current()?.owner;
    if fixed::tenant()?.is_none() && server::may_everything(server::current_role(), owner)? {
        return Ok(None);
    }
    authorize_tenant(None, privilege).map(|(access, _)| Some(access))
}

/// Whether the role is in pg_monitor, which shows every tenant: not to who is held to one.
fn may_monitor() -> Result<bool> {
    Ok(fixed::tenant()?.is_none() && server::may_monitor()?)
}

/// The current tenant, for those who may look at how it runs: privilege manage, or membership in pg_monitor. Errors: 42501, ES040, ES041.
fn operated_tenant() -> Result<(i64, String)> {
    match authorize_tenant(None, Privilege::Manage) {
        Ok((access, _)) => Ok((access.tenant_id, access.tenant.clone())),
        Err(Failure::Rule(Error::InsufficientPrivilege { .. })) if may_monitor()? => {
            let named = settings::tenant();
            let role = server::current_role();
            let (id, tenant) = as_owner(Planning::ByCost, |db, _| any_tenant(db, role, named.as_deref()))?;
            if meant::means(&tenant, id) { Ok((id, tenant)) } else { Err(within::changed(&tenant)) }
        }
        Err(failure) => Err(operators(failure)),
    }
}

/// What a refusal says where membership in pg_monitor would do, too.
fn operators(failure: Failure) -> Failure {
    match failure {
        Failure::Rule(Error::InsufficientPrivilege { role, tenant, category, is_stranger, .. }) => {
            Error::OperatorRequired { role, tenant, category, is_stranger }.into()
        }
        other => other,
    }
}

/// None, which means every tenant, for those that may everything and for members of pg_monitor; else the current one's, where manage is not
/// narrowed there. Errors: 42501, ES040, ES041.
pub fn operated_tenants() -> Result<Option<i64>> {
    let owner = catalog::Catalog::current()?.owner;
    if may_monitor()? || fixed::tenant()?.is_none() && server::may_everything(server::current_role(), owner)? {
        return Ok(None);
    }
    authorize_all(Privilege::Manage, None).map(|access| Some(access.tenant_id)).map_err(operators)
}

/// The ids of the tenants of [`operated_tenants`].
pub fn operated_tenant_ids() -> Result<Vec<i64>> {
    match operated_tenants()? {
        Some(tenant_id) => Ok(vec![tenant_id]),
        None => as_owner(Planning::ByCost, |db, _| {
            TENANT_IDS.with(|plan| plan.rows(db, View::Latest, 0, &[], |row| row.int8(0)))
        }),
    }
}

/// The same, and those of the tenants in which the role may look at what was done (audit), whichever is chosen. Errors: as of [`operated_tenants`], where there are none.
pub fn listed_tenant_ids() -> Result<Vec<i64>> {
    let operated = operated_tenants();
    if let Ok(None) = operated {
        return operated_tenant_ids();
    }
    let mut listed = if fixed::tenant()?.is_some() {
        authorize_tenant(None, Privilege::Audit).map_or_else(|_| Vec::new(), |(access, _)| vec![access.tenant_id])
    } else {
        let args = [Some(Datum::from(server::current_role())), Some(Datum::from(identity::home()?.is_here))];
        as_owner(Planning::ByCost, |db, _| {
            AUDITED.with(|plan| plan.rows(db, View::Latest, 0, &args, |row| row.int8(0)))
        })?
    };
    match operated {
        Ok(operated) => listed.extend(operated),
        Err(failure) if listed.is_empty() => return Err(failure),
        Err(_) => {}
    }
    Ok(listed)
}

/// The current tenant, and the categories, where the role has one of the privileges. Errors: as for the first.
pub fn authorize_one_of(privileges: &[Privilege]) -> Result<(Rc<Access>, Scope)> {
    let mut refused = None;
    for &privilege in privileges {
        match authorize_tenant(None, privilege) {
            Err(failure) => refused = refused.or(Some(failure)),
            found => return found,
        }
    }
    Err(refused.unwrap_or_else(|| Error::Internal { what: "a view asks for no privilege".into() }.into()))
}

/// The current tenant's id, for those of [`operated_tenant`]; the categories whose projections, subscriptions and dead letters the role may look at; and
/// [`shown_categories`]. All of one moment.
pub fn operated() -> Result<(i64, Scope, Scope)> {
    let (tenant_id, _) = operated_tenant()?;
    let scope = if may_monitor()? { Scope::All } else { authorize_tenant(None, Privilege::Manage)?.1 };
    Ok((tenant_id, scope, shown_categories()?))
}

/// That those of [`operated_tenant`] have that tenant still. Errors: as there.
pub fn operated_in(tenant_id: i64) -> Result<()> {
    let (id, tenant) = operated_tenant()?;
    Access::new(id, tenant, false, Vec::new()).must_be(tenant_id)
}

/// The categories whose payloads the role may be shown, in the text of errors, too: none, where it may not read.
pub fn shown_categories() -> Result<Scope> {
    shown_in(None)
}

/// The same of a tenant (None: the current one).
pub fn shown_in(tenant: Option<&str>) -> Result<Scope> {
    match authorize_tenant(tenant, Privilege::Read) {
        Ok((_, scope)) => Ok(scope),
        Err(Failure::Rule(
            Error::InsufficientPrivilege { .. }
            | Error::TenantRequired { .. }
            | Error::TenantNotFound { .. }
            | Error::Withheld(_)
            | Error::Token(_),
        )) => Ok(Scope::Categories(Vec::new())),
        Err(failure) => Err(failure),
    }
}
