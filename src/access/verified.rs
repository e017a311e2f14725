//! Tokens that were verified by a key which is registered for the tenant that they name, and those that a session remembers.
//!
//! Promises: a tenant's key speaks for no other tenant; a key that was revoked counts no more, wherever its tokens are in use or remembered.
use crate::log::identity;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::catalog;
use crate::shared::known::Known;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::shared::token::Token;
use eventstream_core::error::Error;
use eventstream_core::hash::Hash;
use eventstream_core::pg_to_unix_us;
use eventstream_core::token::{Fault, Unverified, fingerprint};
use eventstream_core::tokenless::Tokenless;
use lru::LruCache;
use pgrx::pg_sys::TEXTOID;
use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;

/// So many a session remembers.
const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();

struct Remembered {
    /// As [`catalog::access_generation`] counts.
    generation: u64,
    tokens: LruCache<Hash, Rc<Token>>,
}

/// By tenant and kid; None: there is none.
type Keys = Known<(String, String), Option<Rc<Key>>>;

thread_local! {
    static KEYS: RefCell<Keys> = RefCell::default();
    static REMEMBERED: RefCell<Option<Remembered>> = const { RefCell::new(None) };
    static KEY: Plan = const { Plan::new(
        "select t.id, k.public_key, k.issuer from _eventstream.tenants t join _eventstream.token_keys k on k.tenant_id = t.id \
         where t.name = $1 and k.kid = $2",
        &[TEXTOID, TEXTOID],
    ) };
}

/// A key of a tenant's, as it is registered, and what its tokens must say.
struct Key {
    tenant_id: i64,
    public_key: Vec<u8>,
    issuer: String,
    audience: String,
}

fn key_of(tenant: &str, key_id: &str) -> Result<Option<Rc<Key>>> {
    Known::of(&KEYS, catalog::access_generation, (tenant.to_owned(), key_id.to_owned()), || {
        as_owner(Planning::ByIndex, |db, _| registered(db, tenant, key_id)).map(|key| key.map(Rc::new))
    })
}

fn registered(db: &Db, tenant: &str, key_id: &str) -> Result<Option<Key>> {
    let args = [Some(from_text(tenant)?), Some(from_text(key_id)?)];
    let audience = identity::audience(db)?;
    KEY.with(|plan| {
        plan.first(db, View::Latest, &args, |row| {
            let public_key = row.bytes_opt(1)?.unwrap_or_default().to_vec();
            let (issuer, audience) = (row.text(2)?.to_owned(), audience.clone());
            Ok(Key { tenant_id: row.int8(0)?, public_key, issuer, audience })
        })
    })
}

/// By the server's clock, in seconds since 1970.
fn now() -> i64 {
    pg_to_unix_us(server::clock()).div_euclid(1_000_000)
}

/// The remembered tokens, where rights, tenants and keys are what they were.
fn remembered<T>(generation: u64, work: impl FnOnce(&mut LruCache<Hash, Rc<Token>>) -> T) -> T {
    REMEMBERED.with_borrow_mut(|known| {
        if known.as_ref().is_none_or(|known| known.generation != generation) {
            *known = None;
        }
        let known = known.get_or_insert_with(|| Remembered { generation, tokens: LruCache::new(MOST) });
        work(&mut known.tokens)
    })
}

/// The token, where it counts now; why it does not.
pub fn known_or_verified(text: &str) -> Result<Result<Rc<Token>, Fault>> {
    let fingerprint = fingerprint(text);
    let generation = catalog::access_generation();
    let known = remembered(generation, |tokens| tokens.get(&fingerprint).cloned());
    let is_known = known.is_some();
    let token = match known {
        Some(known) => known,
        None => match verified(text, generation)? {
            Ok(token) => token,
            Err(fault) => return Ok(Err(fault)),
        },
    };
    let is_in_time = token.claims.check_lifetime(settings::token_max_lifetime());
    if let Err(fault) = is_in_time.and_then(|()| token.claims.check_time(now())) {
        return Ok(Err(fault));
    }
    if !is_known && catalog::access_generation() == generation {
        remembered(generation, |tokens| tokens.put(fingerprint, Rc::clone(&token)));
    }
    Ok(Ok(token))
}

fn verified(text: &str, generation: u64) -> Result<Result<Rc<Token>, Fault>> {
    let unverified = match Unverified::read(text) {
        Ok(unverified) => unverified,
        Err(fault) => return Ok(Err(fault)),
    };
    let Some(key) = key_of(unverified.tenant(), unverified.key_id())? else { return Ok(Err(Fault::Key)) };
    let key_id = unverified.key_id().to_owned();
    let claims = unverified.verify(&key.public_key).and_then(|claims| {
        claims.check(&key.issuer, &key.audience, settings::token_max_lifetime())?;
        Ok(claims)
    });
    Ok(claims.map(|claims| {
        let (tenant_id, key) = (key.tenant_id, key.public_key.clone());
        Rc::new(Token { tenant_id, key_id, key, claims, found_at: Cell::new(generation) })
    }))
}

/// That a token still counts: its time, and its key, tenant and log, where rights have changed since it was found to. Errors: ES042.
pub fn must_count(token: &Token) -> Result<()> {
    let generation = catalog::access_generation();
    let is_registered = token.found_at.get() == generation || {
        key_of(&token.claims.tenant, &token.key_id)?.is_some_and(|key| {
            let is_of_it = key.tenant_id == token.tenant_id && key.public_key == token.key;
            is_of_it && token.claims.check(&key.issuer, &key.audience, settings::token_max_lifetime()).is_ok()
        })
    };
    if is_registered && token.claims.check_time(now()).is_ok() {
        token.found_at.set(generation);
        return Ok(());
    }
    Err(tokenless(Tokenless::Ended))
}

/// As it is told.
pub fn tokenless(error: Tokenless) -> Failure {
    Error::Token(Box::new(error)).into()
}
