//! The keys by which tenants' tokens are verified. Sole owner of the table token_keys, which verified.rs reads.
use super::check::authorize_tenant;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::error::report;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{from_text, varlena};
use crate::shared::catalog::announce_access_change;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::check_label;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use eventstream_core::token::{KEY_BYTES, is_public_key};
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID, TEXTOID};

thread_local! {
    static ADD: Plan = const { Plan::new(
        "insert into _eventstream.token_keys (tenant_id, kid, public_key, issuer, added_by) values ($1, $2, $3, $4, $5) \
         on conflict (tenant_id, kid) do nothing",
        &[INT8OID, TEXTOID, BYTEAOID, TEXTOID, TEXTOID],
    ) };
    static ELSEWHERE: Plan = const { Plan::new(
        "select t.name from _eventstream.token_keys k join _eventstream.tenants t on t.id = k.tenant_id \
         where k.public_key = $1 and k.tenant_id <> $2 order by t.name collate \"C\"",
        &[BYTEAOID, INT8OID],
    ) };
    static REVOKE: Plan =
        const { Plan::new("delete from _eventstream.token_keys where tenant_id = $1 and kid = $2", &[INT8OID, TEXTOID]) };
}

/// Registers a key of a tenant's (None: the current one) and its issuer. Errors: 42501 for roles without admin there, ES005.
pub fn add_key(key_id: &str, public_key: &[u8], tenant: Option<&str>, issuer: &str) -> Result<()> {
    check_label("kid", key_id)?;
    check_label("issuer", issuer)?;
    if !is_public_key(public_key) {
        let reason = format!("must be the {KEY_BYTES} bytes of a public key of Ed25519, not {}", public_key.len());
        let reason = if public_key.len() == KEY_BYTES {
            "must be a public key of Ed25519, in its canonical encoding (RFC 8032)".to_owned()
        } else {
            reason
        };
        return Err(invalid("public_key", reason));
    }
    server::must_be_writable(c"es_add_token_key")?;
    let (access, _) = authorize_tenant(tenant, Privilege::Admin)?;
    let by = server::role_name(server::current_role())?;
    let elsewhere = as_owner(Planning::ByIndex, |db, catalog| {
        let row = [
            Some(Datum::from(access.tenant_id)),
            Some(from_text(key_id)?),
            Some(varlena(public_key)?),
            Some(from_text(issuer)?),
            Some(from_text(&by)?),
        ];
        if ADD.with(|plan| plan.write(db, &row))? == 0 {
            return Err(Error::InvalidArgument {
                argument: "kid".into(),
                reason: format!("must be new: tenant {} has a key {}", shown(&access.tenant), shown(key_id)),
                hint: Some("Keys are rotated under another kid each: add the new one, let the tokens of the old one expire, and revoke it (es_revoke_token_key).".into()),
            }
            .into());
        }
        announce_access_change(catalog)?;
        let same = [Some(varlena(public_key)?), Some(Datum::from(access.tenant_id))];
        ELSEWHERE.with(|plan| plan.rows(db, View::Latest, 0, &same, |row| Ok(row.text(0)?.to_owned())))
    })?;
    say_shared(key_id, &elsewhere)
}

/// Of other tenants only those whose keys the caller may register are named.
fn say_shared(key_id: &str, tenants: &[String]) -> Result<()> {
    let mut named = Vec::new();
    for tenant in tenants {
        match authorize_tenant(Some(tenant), Privilege::Admin) {
            Ok(_) => named.push(shown(tenant)),
            Err(Failure::Rule(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    report::notice(&format!(
        "key {} is registered for {} {}, too: whoever has its private half makes tokens of each",
        shown(key_id),
        if named.len() == 1 { "tenant" } else { "tenants" },
        named.join(", ")
    ))
}

/// From now on it counts for nothing. Errors: 42501, ES005 where there is none.
pub fn revoke_key(key_id: &str, tenant: Option<&str>) -> Result<()> {
    server::must_be_writable(c"es_revoke_token_key")?;
    let (access, _) = authorize_tenant(tenant, Privilege::Admin)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(access.tenant_id)), Some(from_text(key_id)?)];
        if REVOKE.with(|plan| plan.write(db, &key))? == 0 {
            let reason = format!("must be one that tenant {} has, not {}", shown(&access.tenant), shown(key_id));
            return Err(invalid("kid", reason));
        }
        announce_access_change(catalog)
    })
}
