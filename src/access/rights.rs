//! What a role may do in a tenant: its grants, and which categories they cover.
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::shared::token;
use eventstream_core::audit::reserved_of;
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::token::Narrowing;
use eventstream_core::tokenless::Tokenless;
use eventstream_core::withheld::Withheld;
use pgrx::pg_sys::Oid;
use std::rc::Rc;

/// What a role may do in its current tenant.
#[derive(Debug)]
pub struct Access {
    pub tenant_id: i64,
    pub tenant: String,
    /// Superusers and the owner.
    pub everything: bool,
    pub grants: Vec<(Privilege, Option<String>)>,
    /// What the role may do without the token that narrowed it to this.
    whole: Option<Rc<Access>>,
}

/// The categories that a privilege covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Categories(Vec<String>),
}

impl Scope {
    /// Whether all of these are covered (None: every category).
    pub fn covers(&self, categories: Option<&[String]>) -> bool {
        match (self, categories) {
            (Scope::All, _) => true,
            (Scope::Categories(_), None) => false,
            (Scope::Categories(allowed), Some(wanted)) => wanted.iter().all(|category| allowed.contains(category)),
        }
    }

    /// The first of those named that it does not cover.
    pub fn first_missing<'a>(&self, wanted: Option<&'a [String]>) -> Option<&'a str> {
        match (self, wanted) {
            (Scope::Categories(allowed), Some(wanted)) => {
                wanted.iter().find(|category| !allowed.contains(category)).map(String::as_str)
            }
            _ => None,
        }
    }

    /// `wanted` (None = whatever may be read), narrowed to what is allowed.
    pub fn narrow(self, wanted: Option<Vec<String>>) -> Option<Vec<String>> {
        match (self, wanted) {
            (Scope::All, wanted) => wanted,
            (Scope::Categories(allowed), None) => Some(allowed),
            (Scope::Categories(allowed), Some(wanted)) => {
                Some(wanted.into_iter().filter(|category| allowed.contains(category)).collect())
            }
        }
    }
}

impl Access {
    pub fn new(tenant_id: i64, tenant: String, everything: bool, grants: Vec<(Privilege, Option<String>)>) -> Self {
        Self { tenant_id, tenant, everything, grants, whole: None }
    }

    /// What the privilege covers; None where the role does not have it at all.
    pub fn scope(&self, privilege: Privilege) -> Option<Scope> {
        if self.everything {
            return Some(Scope::All);
        }
        let mut categories = Vec::new();
        for (granted, category) in &self.grants {
            match category {
                _ if *granted != privilege => {}
                None => return Some(Scope::All),
                Some(category) => categories.push(category.clone()),
            }
        }
        (!categories.is_empty()).then_some(Scope::Categories(categories))
    }

    /// The tenant's reserved streams, for whoever may read them all.
    pub fn reserved(&self) -> Self {
        Self::new(reserved_of(self.tenant_id), self.tenant.clone(), true, Vec::new())
    }

    /// What a token leaves of it.
    pub fn narrowed(self: &Rc<Self>, narrowing: &Narrowing) -> Self {
        let all = || Privilege::ALL.iter().map(|&privilege| (privilege, None)).collect();
        let held: Vec<(Privilege, Option<String>)> = if self.everything { all() } else { self.grants.clone() };
        let left = held.iter().flat_map(|(privilege, category)| narrowing.left(*privilege, category.as_deref()));
        let left = Self::new(self.tenant_id, self.tenant.clone(), false, left.collect());
        Self { whole: Some(Rc::clone(self)), ..left }
    }

    /// Errors: ES040 where a statement has begun to read that tenant, and another one was chosen meanwhile.
    pub fn must_be(&self, tenant_id: i64) -> Result<()> {
        if self.tenant_id == tenant_id { Ok(()) } else { Err(self.chosen_meanwhile()) }
    }

    /// The same of a tenant by its name.
    pub fn must_be_named(&self, tenant: &str) -> Result<()> {
        if self.tenant == tenant { Ok(()) } else { Err(self.chosen_meanwhile()) }
    }

    fn chosen_meanwhile(&self) -> Failure {
        let tenant = self.tenant.clone();
        Error::Withheld(Box::new(Withheld::TenantChanged { tenant, what: "statement" })).into()
    }

    pub fn covers(&self, privilege: Privilege, category: &str) -> bool {
        self.everything
            || self.grants.iter().any(|(granted, narrowed)| {
                *granted == privilege && narrowed.as_deref().is_none_or(|narrowed| narrowed == category)
            })
    }

    /// That the current role lacks the privilege there, of that category (None: of some that nobody names).
    pub fn refusal(&self, privilege: Privilege, category: Option<&str>) -> Result<Error> {
        self.refused(privilege, category.map_or(Need::Every, Need::Of))
    }

    /// The same of whatever it is needed for; or that its token leaves it out.
    pub fn refused(&self, privilege: Privilege, need: Need) -> Result<Error> {
        let role = server::current_role();
        match &self.whole {
            Some(whole) if whole.meets(privilege, need) => Ok(Error::Token(Box::new(Tokenless::LeftOut {
                role: server::role_name(role)?,
                privilege: privilege.as_str(),
                tenant: self.tenant.clone(),
                category: need.category(),
            }))),
            _ if privilege == Privilege::Admin && token::in_use().is_some() => {
                let (role, tenant) = (server::role_name(role)?, self.tenant.clone());
                Ok(Error::Token(Box::new(Tokenless::NoAdmin { role, tenant })))
            }
            _ => refusal(role, privilege, &self.tenant, need, false),
        }
    }

    fn meets(&self, privilege: Privilege, need: Need) -> bool {
        match need {
            Need::Of(category) => self.covers(privilege, category),
            Need::Any => self.scope(privilege).is_some(),
            Need::Every => self.scope(privilege) == Some(Scope::All),
        }
    }
}

/// What a privilege is needed for.
#[derive(Clone, Copy)]
pub enum Need<'a> {
    Of(&'a str),
    /// Any one category.
    Any,
    /// All of them.
    Every,
}

impl<'a> Need<'a> {
    fn category(self) -> Option<String> {
        if let Self::Of(category) = self { Some(category.into()) } else { None }
    }

    /// Of these (None: every one), as far as one can be named.
    pub fn of_all(categories: Option<&'a [String]>) -> Self {
        categories.and_then(|categories| categories.first()).map_or(Self::Every, |category| Self::Of(category))
    }
}

/// That the role lacks the privilege there. `is_stranger`: it has nothing in what it named, which may be no tenant.
pub fn refusal(role: Oid, privilege: Privilege, tenant: &str, need: Need, is_stranger: bool) -> Result<Error> {
    Ok(Error::InsufficientPrivilege {
        role: server::role_name(role)?,
        privilege: privilege.as_str(),
        tenant: tenant.into(),
        category: need.category(),
        any: matches!(need, Need::Any),
        is_stranger,
    })
}
