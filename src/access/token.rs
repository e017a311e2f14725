//! A token as it is brought. What a token must be is crates/core's (token.rs), whether it counts verified.rs's, and what holds a session to its tenant fixed.rs's.
//!
//! Promises: whoever is refused learns that he is, and nothing else, and the server's log why; a token is never left where other sessions see it.
use super::verified::{known_or_verified, tokenless};
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::error::report;
use crate::pg::function::call;
use crate::pg::invalidation;
use crate::pg::process::{server, session, statement};
use crate::shared::counters::{self, Counter};
use crate::shared::token as kept;
use crate::shared::{open_appends, within};
use eventstream_core::error::Error;
use eventstream_core::shown;
use eventstream_core::token::{Fault, Unverified};
use eventstream_core::tokenless::Tokenless;

/// No token is shorter: such words are not looked for in a statement.
const SHORTEST: usize = 64;

/// Has the transaction work in the token's tenant, with what it leaves of the role's rights; the tenant's name. Errors: ES005 for a token that stands in the statement's text, ES008, ES043, ES044;
/// 0A000 in users' code, and where the commit has a cursor WITH HOLD to fill.
pub fn use_token(text: &str) -> Result<String> {
    refuse_literal(text)?;
    call::refuse_in_user_code()?;
    must_be_possible()?;
    invalidation::take_in()?;
    let token = match known_or_verified(text)? {
        Ok(token) => token,
        Err(fault) => return Err(refused(text, &fault)?),
    };
    if let Some(first) = kept::first().filter(|first| first.tenant_id != token.tenant_id) {
        let (tenant, other) = (first.claims.tenant.clone(), token.claims.tenant.clone());
        return Err(tokenless(Tokenless::OtherTenant { tenant, other }));
    }
    let tenant = token.claims.tenant.clone();
    if kept::begin(token) {
        return Ok(tenant);
    }
    let reason = format!("must be one of at most {} in a transaction that are not rolled back", kept::MOST);
    Err(invalid("token", reason))
}

fn must_be_possible() -> Result<()> {
    if !open_appends::are_there() {
        return Err(Error::PreloadRequired { what: "es_use_token".into() }.into());
    }
    let (what, hint) = if within::tenant().is_some() || session::is_at_work() {
        ("es_use_token is not for code that is called for a tenant", "It works in that tenant, and needs no token.")
    } else if kept::holds_cursor() {
        (
            "es_use_token is refused in a transaction that has declared a cursor WITH HOLD",
            "Its commit would run the cursor's statement with the token, for whoever comes next: commit first.",
        )
    } else {
        return Ok(());
    };
    Err(Error::FeatureNotSupported { what: what.into(), hint: Some(hint.into()) }.into())
}

/// What stands in a statement's text is seen by other sessions of the role, and is written into logs.
fn refuse_literal(text: &str) -> Result<()> {
    if text.len() < SHORTEST || !statement::says(text) {
        return Ok(());
    }
    statement::show_instead(c"es_use_token(a token that was not bound as a parameter)");
    Err(Error::InvalidArgument {
        argument: "token".into(),
        reason: "must be bound as a parameter, and not stand in the statement's text, which others see".into(),
        hint: Some("select es_use_token($1). This one was seen by now: let it expire.".into()),
    }
    .into())
}

/// ES043, and in the server's log why, with the key and the tenant that it names, as far as it can be read.
fn refused(text: &str, fault: &Fault) -> Result<Failure> {
    counters::add(Counter::TokensRefused, 1);
    let role = server::role_name(server::session_role())?;
    let of = Unverified::read(text)
        .map(|token| format!(", of key {} and tenant {},", shown(token.key_id()), shown(token.tenant())))
        .unwrap_or_default();
    report::log_for_server(&format!("a token of role {}{of} is refused: {fault}", shown(&role)))?;
    Ok(tokenless(Tokenless::Refused))
}
