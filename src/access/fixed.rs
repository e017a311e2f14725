//! Whose tenant is fixed, so that no setting and no argument chooses it: by the token of the transaction, for the roles that need one, and for whoever uses one; by what is worked for, where users' code
//! runs that is called for a tenant (src/shared/within.rs). Every path by which a tenant is chosen asks here.
//!
//! ```text
//! neither the session's user, nor SET ROLE's, nor the effective role needs a token, nor did any when users' code was called, and none is in use ─▶ not fixed: the setting chooses among the grants
//! users' code that is called for a tenant ─▶ that one, with all rights of the registrant
//! a token is in use ─▶ its tenant, and what it leaves of the role's rights, as long as its time lasts and its key is registered
//! else ─▶ ES042
//! ```
//! Promises: which role is asked for makes no difference to who is in the session, so that neither SET ROLE nor SECURITY DEFINER leads out; where no role needs a token, that is known from the
//! cache of rights alone.
use super::rights::Access;
use super::verified::{must_count, tokenless};
use crate::log::identity;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call;
use crate::pg::guard;
use crate::pg::left_behind::Left;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::estimate;
use crate::pg::query::fetch::Portion;
use crate::pg::query::plan::{Plan, View};
use crate::pg::{invalidation, left_behind};
use crate::shared::catalog;
use crate::shared::known::Known;
use crate::shared::portions;
use crate::shared::session::as_owner;
use crate::shared::token::{self as kept, Token};
use crate::shared::within;
use eventstream_core::error::Error;
use eventstream_core::tokenless::Tokenless;
use pgrx::pg_sys::{BOOLOID, Datum, Oid};
use std::cell::RefCell;
use std::rc::Rc;

/// The tenant that a call is held to.
pub struct Fixed {
    pub tenant: Rc<str>,
    tenant_id: i64,
    /// None: it is that of the work.
    token: Option<Rc<Token>>,
}

thread_local! {
    static NEEDING: Plan = const { Plan::new(
        "select _eventstream.role_of(g.role, g.role_oid, $1) from _eventstream.grants g \
         where g.tenant_id = 0 and g.privilege = 'token'",
        &[BOOLOID],
    ) };
    /// The roles that need a token.
    static ROLES: RefCell<Known<(), Rc<[Oid]>>> = RefCell::default();
    /// What a token left of a role's rights, last.
    static NARROWED: RefCell<Option<Narrowed>> = const { RefCell::new(None) };
}

struct Narrowed {
    of: Rc<Access>,
    by: Rc<Token>,
    left: Rc<Access>,
}

/// Once a process, from _PG_init.
pub fn init() {
    left_behind::init(before_left_behind);
    estimate::hide_values(is_held);
}

fn needing() -> Result<Rc<[Oid]>> {
    Known::of(&ROLES, catalog::access_generation, (), || {
        let by_oid = [Some(Datum::from(identity::home()?.is_here))];
        as_owner(Planning::ByIndex, |db, _| {
            NEEDING.with(|plan| plan.rows(db, View::Latest, 0, &by_oid, |row| Ok(row.oid_opt(0))))
        })
        .map(|roles| roles.into_iter().flatten().collect())
    })
}

/// The role because of which this session, or the users' code that it runs, needs a token.
fn who_needs_one() -> Result<Option<Oid>> {
    let needing = needing()?;
    if needing.is_empty() {
        return Ok(None);
    }
    let needs_one = |role| needing.contains(&role);
    Ok(within::roles_now().into_iter().find(|&role| needs_one(role)).or_else(|| within::role(needs_one)))
}

/// Whether that role needs a token.
pub fn needs_token(role: Oid) -> Result<bool> {
    Ok(needing()?.contains(&role))
}

/// None: the session may choose. Errors: ES042.
pub fn tenant() -> Result<Option<Fixed>> {
    let (role, token) = (who_needs_one()?, kept::in_use());
    if role.is_none() && token.is_none() {
        portions::note_free();
        return Ok(None);
    }
    if let Some((tenant, tenant_id)) = within::tenant() {
        return Ok(Some(Fixed { tenant, tenant_id, token: None }));
    }
    match (token, role) {
        (Some(token), _) => {
            must_count(&token)?;
            let (tenant, tenant_id) = (token.claims.tenant.as_str().into(), token.tenant_id);
            Ok(Some(Fixed { tenant, tenant_id, token: Some(token) }))
        }
        (None, Some(role)) => Err(tokenless(Tokenless::Required { role: server::role_name(role)? })),
        (None, None) => Ok(None),
    }
}

/// The tenant's id, where the session works with a token, or must. Errors: ES042.
pub fn tenant_id_of_token() -> Result<Option<i64>> {
    invalidation::take_in()?;
    Ok(tenant()?.and_then(|fixed| fixed.token).map(|token| token.tenant_id))
}

/// That only superusers and the owner of the log may do that: it concerns every tenant. Errors: 42501, ES042.
pub fn must_be_everywhere() -> Result<()> {
    let role = server::current_role();
    let owner = catalog::Catalog::current()?.owner;
    if tenant()?.is_none() && server::may_everything(role, owner)? {
        return Ok(());
    }
    Err(tokenless(Tokenless::OfEveryTenant { role: server::role_name(role)? }))
}

/// Whether a tenant holds whoever asks: what is counted of all of them is not told then. Errors: ES042.
pub fn is_held_to_one() -> Result<bool> {
    Ok(tenant()?.is_some())
}

/// For what tells of every tenant, whoever may call it. Errors: 42501 where a tenant holds whoever asks, ES042.
pub fn must_not_be_held(what: &'static str) -> Result<()> {
    if is_held_to_one()? { Err(tokenless(Tokenless::TellsOfAll { what })) } else { Ok(()) }
}

/// For what concerns the tenants' names: under a token none is told of another one, nor makes one. Errors: 42501, ES042.
pub fn must_be_free() -> Result<()> {
    if tenant()?.is_some() { must_be_everywhere() } else { Ok(()) }
}

impl Fixed {
    /// Errors: ES044 where another tenant is named.
    pub fn must_be(&self, named: Option<&str>) -> Result<()> {
        match named {
            Some(other) if other != &*self.tenant => {
                Err(tokenless(Tokenless::OtherTenant { tenant: (&*self.tenant).into(), other: other.into() }))
            }
            _ => Ok(()),
        }
    }

    /// That its name has led to it: another one may have got the name since it was looked at. Errors: ES042, ES040.
    pub fn must_have_led_to(&self, access: &Access) -> Result<()> {
        match &self.token {
            _ if access.tenant_id == self.tenant_id => Ok(()),
            Some(_) => Err(tokenless(Tokenless::Ended)),
            None => Err(within::changed(&self.tenant)),
        }
    }

    /// What is left of the role's rights there.
    pub fn narrowed(&self, access: Rc<Access>) -> Rc<Access> {
        let Some(token) = self.token.as_ref().filter(|token| !token.claims.narrowing.is_none()) else { return access };
        NARROWED.with_borrow_mut(|last| match last {
            Some(last) if Rc::ptr_eq(&last.of, &access) && Rc::ptr_eq(&last.by, token) => Rc::clone(&last.left),
            _ => {
                let left = Rc::new(access.narrowed(&token.claims.narrowing));
                *last = Some(Narrowed { of: access, by: Rc::clone(token), left: Rc::clone(&left) });
                left
            }
        })
    }
}

/// That a statement may give its next rows: only as long as every token counts under which it gave any, and is not rolled back, and, where it has read something of a tenant without one, as long as none
/// is needed. What has read nothing asks for none. What users' code runs that is called for a tenant ends as it began. Errors: ES042; 0A000 where the rest would be kept beyond the transaction.
pub fn may_go_on(portion: &Portion) -> Result<()> {
    let is_for_tenant = within::tenant().is_some() || call::is_in_user_code();
    if !portion.is_first && !is_for_tenant && portions::read(portion.statement).is_free {
        invalidation::take_in()?;
        if let Some(role) = who_needs_one()? {
            return Err(tokenless(Tokenless::Required { role: server::role_name(role)? }));
        }
    }
    if portion.is_first {
        kept::note_begin(portion.statement);
    } else if let Some(ran) = kept::ran(portion.statement) {
        if ran.is_taken_back {
            return Err(tokenless(Tokenless::Ended));
        }
        invalidation::take_in()?;
        ran.tokens().try_for_each(must_count)?;
    }
    if is_for_tenant {
        return Ok(());
    }
    if let Some(token) = kept::in_use() {
        match must_count(&token) {
            Ok(()) => kept::note_run(portion.statement),
            // Whatever asks for it is refused.
            Err(Failure::Rule(Error::Token(_))) => (),
            Err(failure) => return Err(failure),
        }
    }
    if portion.is_kept && kept::ran(portion.statement).is_some() {
        return Err(refused(
            "COMMIT and ROLLBACK are refused within a loop over a query that ran with a token",
            "What is left of it would outlive the token: end the transaction after the loop, or loop over numbers or an array.",
        ));
    }
    Ok(())
}

fn refused(what: &str, hint: &str) -> Failure {
    Error::FeatureNotSupported { what: what.into(), hint: Some(hint.into()) }.into()
}

/// Whether what others have written is kept from this session, but for what it asks for. Takes part in planning.
fn is_held() -> Result<bool> {
    if guard::is_own_work() || catalog::Catalog::events_if_any()?.is_none() {
        return Ok(false);
    }
    Ok(kept::has_had() || who_needs_one()?.is_some())
}

/// What would stay for whoever comes next: a cursor WITH HOLD is filled when its transaction commits. Errors: 0A000 where the session needs a token, and, for such a cursor, works with one.
fn before_left_behind(left: Left) -> Result<()> {
    invalidation::take_in()?;
    if catalog::Catalog::events_if_any()?.is_none() {
        return Ok(());
    }
    let is_needed = who_needs_one()?.is_some();
    match left {
        Left::HeldCursor if is_needed || kept::has_had() => Err(refused(
            "a cursor WITH HOLD is refused where a token is needed",
            "It would outlive the token, for whoever has the session next: fetch within the transaction.",
        )),
        Left::HeldCursor => {
            kept::note_held_cursor();
            Ok(())
        }
        Left::Lasting(what) if is_needed => Err(refused(
            &format!("{what} is refused where a token is needed"),
            "It would stay behind for whoever comes next as that role: ask who administers the database.",
        )),
        Left::Lasting(_) => Ok(()),
    }
}
