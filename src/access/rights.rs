//! What a role may do in a tenant: its grants, and which categories they cover.
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use eventstream_core::audit::reserved_of;
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::token::Narrowing;
use pgrx::pg_sys::Oid;

/// What a role may do in its current tenant.
#[derive(Debug)]
pub struct Access {
    pub tenant_id: i64,
    pub tenant: String,
    /// Superusers and the owner.
    pub everything: bool,
    pub grants: Vec<(Privilege, Option<String>)>,
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
        Self {
            tenant_id: reserved_of(self.tenant_id),
            tenant: self.tenant.clone(),
            everything: true,
            grants: Vec::new(),
        }
    }

    /// What a token leaves of it.
    pub fn narrowed(&self, narrowing: &Narrowing) -> Self {
        let all = || Privilege::ALL.iter().map(|&privilege| (privilege, None)).collect();
        let held: Vec<(Privilege, Option<String>)> = if self.everything { all() } else { self.grants.clone() };
        let left = held.iter().flat_map(|(privilege, category)| narrowing.left(*privilege, category.as_deref()));
        Self { tenant_id: self.tenant_id, tenant: self.tenant.clone(), everything: false, grants: left.collect() }
    }

    pub fn covers(&self, privilege: Privilege, category: &str) -> bool {
        self.everything
            || self.grants.iter().any(|(granted, narrowed)| {
                *granted == privilege && narrowed.as_deref().is_none_or(|narrowed| narrowed == category)
            })
    }

    /// That the current role lacks the privilege there, of that category (None: of some that nobody names).
    pub fn refusal(&self, privilege: Privilege, category: Option<&str>) -> Result<Error> {
        refusal(server::current_role(), privilege, &self.tenant, category.map_or(Need::Every, Need::Of))
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
    /// Of these (None: every one), as far as one can be named.
    pub fn of_all(categories: Option<&'a [String]>) -> Self {
        categories.and_then(|categories| categories.first()).map_or(Self::Every, |category| Self::Of(category))
    }
}

/// That the role lacks the privilege there.
pub fn refusal(role: Oid, privilege: Privilege, tenant: &str, need: Need) -> Result<Error> {
    Ok(Error::InsufficientPrivilege {
        role: server::role_name(role)?,
        privilege: privilege.as_str(),
        tenant: tenant.into(),
        category: if let Need::Of(category) = need { Some(category.into()) } else { None },
        any: matches!(need, Need::Any),
    })
}
