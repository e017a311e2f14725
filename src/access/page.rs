//! Whose pages of es_query are whose: the keys that seal them. Sole owner of the table page_keys.
//!
//! Promises: a key never leaves the database in clear, a dump has none, and nobody reads them but the owner and superusers; a tenant's admin changes the tenant's own key,
//! and nobody else's pages with it; a page of another database of the same log, such as one that was made from a dump or as a copy by CREATE DATABASE, is none here.
use super::check::authorize_tenant;
use crate::log::{audit, identity};
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::varlena;
use crate::shared::session::as_owner;
use eventstream_core::audit::{act, owner_of};
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::query::page::{KEY_BYTES, Query, Sealer, first_key};
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID};

/// What a page is of, beside where it is asked for.
pub struct Asked<'a> {
    pub tenant_id: i64,
    /// The categories that the role may read, in order; None: all.
    pub scope: Option<&'a [String]>,
    pub criteria: &'a [u8],
    pub times: &'a [i64],
    pub is_backward: bool,
}

/// The row of the database itself, from which the keys of tenants come that have not changed theirs.
const OF_DATABASE: i64 = 0;

thread_local! {
    // Asked anew each time: it is one row, and what was changed counts at once.
    static KEYS: Plan = const { Plan::new(
        "select key, previous from _eventstream.page_keys where tenant_id = $1",
        &[INT8OID],
    ) };
    static CHANGE: Plan = const { Plan::new(
        "insert into _eventstream.page_keys (tenant_id, key, previous) values ($1, $2, $3) \
         on conflict (tenant_id) do update set key = excluded.key, previous = page_keys.key, changed_at = excluded.changed_at \
         returning (extract(epoch from changed_at - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint",
        &[INT8OID, BYTEAOID, BYTEAOID],
    ) };
}

/// What seals the pages of a query, and what opens them: its tenant's key first, and the one before it.
pub fn sealers(asked: &Asked) -> Result<Vec<Sealer>> {
    let place = format!("{}/{}", server::system_identifier()?, u32::from(server::database()));
    as_owner(Planning::ByIndex, |db, catalog| {
        let log_id = identity::log_id(db)?;
        let tenant_uuid = identity::tenant_uuid(db, catalog, asked.tenant_id)?;
        let query = Query {
            place: place.as_bytes(),
            log_id: &log_id,
            tenant_uuid: &tenant_uuid,
            scope: asked.scope,
            criteria: asked.criteria,
            times: asked.times,
            is_backward: asked.is_backward,
        };
        let keys = match keys_of(db, owner_of(asked.tenant_id))? {
            Some(keys) => keys,
            None => vec![first_key(&of_database(db)?, &tenant_uuid).to_vec()],
        };
        Ok(keys.iter().map(|key| Sealer::new(key, &query)).collect())
    })
}

/// A tenant's key and the one before it; None where it was never changed.
fn keys_of(db: &Db, tenant_id: i64) -> Result<Option<Vec<Vec<u8>>>> {
    KEYS.with(|plan| {
        plan.first(db, View::Latest, &[Some(Datum::from(tenant_id))], |row| {
            let keys = [row.bytes_opt(0)?, row.bytes_opt(1)?];
            Ok(keys.into_iter().flatten().map(<[u8]>::to_vec).collect())
        })
    })
}

fn of_database(db: &Db) -> Result<Vec<u8>> {
    keys_of(db, OF_DATABASE)?
        .and_then(|keys| keys.into_iter().next())
        .ok_or_else(|| Error::Internal { what: "_eventstream.page_keys lacks the database's key".into() }.into())
}

/// Changes the key of the current tenant; when. Errors: 42501 for roles without admin.
pub fn rotate() -> Result<i64> {
    server::must_be_writable(c"es_rotate_page_key")?;
    let (access, _) = authorize_tenant(None, Privilege::Admin)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let tenant_uuid = identity::tenant_uuid(db, catalog, access.tenant_id)?;
        let first = first_key(&of_database(db)?, &tenant_uuid);
        let key: [u8; KEY_BYTES] = std::array::from_fn({
            let halves = [server::random_bytes()?, server::random_bytes()?].concat();
            move |place| halves[place]
        });
        let args = [Some(Datum::from(access.tenant_id)), Some(varlena(&key)?), Some(varlena(&first)?)];
        let changed = CHANGE.with(|plan| plan.first(db, View::Write, &args, |row| row.int8(0)))?;
        let of = (audit::Kind::Tenant, access.tenant.as_str());
        audit::note_act(access.tenant_id, act::PAGE_KEY_CHANGED, of, &serde_json::json!({}))?;
        changed.ok_or_else(|| Error::Internal { what: "the key of pages was not changed".into() }.into())
    })
}
