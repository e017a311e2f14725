//! Tokens that say which tenant a transaction works in: a JSON Web Token (RFC 7519) as a compact JWS (RFC 7515), signed with Ed25519 (RFC 8032). Owns what such a token must look like, what it
//! must say, and what it leaves of a role's rights.
//!
//! Promises: nothing of a token counts before its signature is verified, but which tenant and key it names; no token has two readings (one algorithm, one encoding, each member once); a token only ever
//! narrows what a role may do. Which keys there are, and what is in use, is src/access's.

use crate::document;
use crate::hash::Hash;
use crate::name::{Category, Subject, TenantName, check_label};
use crate::privilege::Privilege;
use crate::word::Word as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The longest token, in bytes.
pub const MOST_BYTES: usize = 8192;
/// The length of a public key, in bytes.
pub const KEY_BYTES: usize = 32;
/// By how much clocks may differ, in seconds.
pub const LEEWAY: i64 = 30;

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "eventstream+jwt";

/// Why a token is refused. For the server's log: whoever brings a token is told no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No compact JWS of the kind that is wanted.
    #[error("it {0}")]
    Form(&'static str),
    /// A member is missing, of another kind, or says what it may not.
    #[error("its {member} {reason}")]
    Member {
        #[allow(missing_docs)]
        member: &'static str,
        /// "must …"
        reason: String,
    },
    /// There is no such key of that tenant, or it was revoked.
    #[error("no key of that kid is registered for the tenant that it names")]
    Key,
    /// The key has not signed this.
    #[error("its signature is none of the key that it names")]
    Signature,
    /// Its times.
    #[error("{0}")]
    Time(String),
}

/// By what a token is known again.
#[must_use]
pub fn fingerprint(token: &str) -> Hash {
    Sha256::digest(token).into()
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// iss
    pub issuer: String,
    /// aud: one of them has to be this log.
    pub audience: Vec<String>,
    /// exp, in seconds since 1970.
    pub expires_at: i64,
    /// iat
    pub issued_at: i64,
    /// nbf
    pub not_before: Option<i64>,
    /// jti
    pub token_id: String,
    /// The tenant's name.
    pub tenant: String,
    /// sub: a pseudonym.
    pub subject: String,
    /// What is left of the role's rights.
    pub narrowing: Narrowing,
}

/// A token that is well-formed, and not verified yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    key_id: String,
    claims: Claims,
    signed: &'a str,
    signature: Signature,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`Fault::Form`], [`Fault::Member`].
    pub fn read(token: &'a str) -> Result<Self, Fault> {
        if token.len() > MOST_BYTES {
            return Err(Fault::Form("is longer than 8192 bytes"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(THREE_PARTS)?;
        let (header, claims) = signed.split_once('.').ok_or(THREE_PARTS)?;
        if claims.contains('.') {
            return Err(THREE_PARTS);
        }
        let key_id = key_id_of(header)?;
        let claims = Claims::of(&members(claims)?)?;
        let signature: [u8; Signature::BYTE_SIZE] =
            decoded(signature)?.try_into().map_err(|_| Fault::Form("has a signature that is not 64 bytes long"))?;
        Ok(Self { key_id, claims, signed, signature: Signature::from_bytes(&signature) })
    }

    /// kid: which of the tenant's keys it says it was signed with.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Whose key it has to be.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.claims.tenant
    }

    /// What it says, where this key has signed it.
    ///
    /// # Errors
    /// [`Fault::Signature`]
    pub fn verify(self, key: &[u8]) -> Result<Claims, Fault> {
        let key = public_key(key).ok_or(Fault::Signature)?;
        // Strict: no key of small order, no signature in another form.
        key.verify_strict(self.signed.as_bytes(), &self.signature).map_err(|_| Fault::Signature)?;
        Ok(self.claims)
    }
}

const THREE_PARTS: Fault = Fault::Form("does not have three parts with a dot between them");

/// Whether these bytes are a key that signatures can be verified with, and the one form of it (RFC 8032, 5.1.3): one key in two forms would be told apart from itself.
#[must_use]
pub fn is_public_key(key: &[u8]) -> bool {
    // from_bytes reads a y that is not below the field's prime, and keeps it as it was given.
    public_key(key).is_some_and(|read| read.to_edwards().compress().as_bytes()[..] == *key)
}

fn public_key(key: &[u8]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
    (!key.is_weak()).then_some(key)
}

fn decoded(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Form("has a part that is not base64url without padding"))
}

fn members(part: &str) -> Result<serde_json::Map<String, Value>, Fault> {
    let text =
        String::from_utf8(decoded(part)?).map_err(|_| Fault::Form("has a part that is not UTF-8 within base64url"))?;
    match document::read_unambiguous(&text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Fault::Form("has a part that is not a JSON object")),
        Err(_) => Err(Fault::Form("has a part that is not JSON, or has a member twice")),
    }
}

/// The header must have these three members and no other: what it does not say cannot change how the rest is read.
fn key_id_of(header: &str) -> Result<String, Fault> {
    let header = members(header)?;
    let exactly = |name, wanted| header.get(name).and_then(Value::as_str) == Some(wanted);
    if !exactly("alg", ALGORITHM) {
        return Err(must("alg", "must be EdDSA"));
    }
    if !exactly("typ", TYPE) {
        return Err(must("typ", "must be eventstream+jwt"));
    }
    let key_id = label(&header, "kid")?;
    if header.len() == 3 { Ok(key_id) } else { Err(must("header", "must have no members but alg, kid and typ")) }
}

fn must(member: &'static str, reason: &str) -> Fault {
    Fault::Member { member, reason: reason.into() }
}

type Members = serde_json::Map<String, Value>;

fn text(members: &Members, member: &'static str) -> Result<String, Fault> {
    match members.get(member) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(must(member, "must be a string")),
        None => Err(must(member, "must not be missing")),
    }
}

fn label(members: &Members, member: &'static str) -> Result<String, Fault> {
    let label = text(members, member)?;
    valid(member, check_label(member, &label))?;
    Ok(label)
}

fn valid<T>(member: &'static str, checked: crate::Result<T>) -> Result<T, Fault> {
    checked.map_err(|error| match error {
        crate::Error::InvalidArgument { reason, .. } => Fault::Member { member, reason },
        other => Fault::Member { member, reason: other.to_string() },
    })
}

fn seconds(members: &Members, member: &'static str) -> Result<Option<i64>, Fault> {
    match members.get(member) {
        None => Ok(None),
        // So far that no sum of such times overflows.
        Some(Value::Number(number)) => match number.as_i64().filter(|seconds| (0..=1 << 40).contains(seconds)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(must(member, "must be whole seconds since 1970")),
        },
        Some(_) => Err(must(member, "must be a number")),
    }
}

fn needed_seconds(members: &Members, member: &'static str) -> Result<i64, Fault> {
    seconds(members, member)?.ok_or_else(|| must(member, "must not be missing"))
}

fn texts(member: &'static str, value: &Value) -> Result<Vec<String>, Fault> {
    let texts = value.as_array().and_then(|array| array.iter().map(|one| one.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| must(member, "must be an array of strings"))
}

impl Claims {
    fn of(members: &Members) -> Result<Self, Fault> {
        let audience = match members.get("aud") {
            Some(Value::String(audience)) => vec![audience.clone()],
            Some(several @ Value::Array(_)) => texts("aud", several)?,
            Some(_) => return Err(must("aud", "must be a string, or an array of strings")),
            None => return Err(must("aud", "must not be missing")),
        };
        let (tenant, subject) = (text(members, "tenant")?, text(members, "sub")?);
        valid("tenant", TenantName::parse(&tenant))?;
        valid("sub", Subject::parse(&subject))?;
        Ok(Self {
            issuer: label(members, "iss")?,
            audience,
            expires_at: needed_seconds(members, "exp")?,
            issued_at: needed_seconds(members, "iat")?,
            not_before: seconds(members, "nbf")?,
            token_id: label(members, "jti")?,
            tenant,
            subject,
            narrowing: Narrowing::of(members)?,
        })
    }

    /// That it was issued by the key's issuer, for this log, and for no longer than is allowed (seconds).
    ///
    /// # Errors
    /// [`Fault::Member`], [`Fault::Time`].
    pub fn check(&self, issuer: &str, audience: &str, max_lifetime: i64) -> Result<(), Fault> {
        if self.issuer != issuer {
            return Err(must("iss", "must be the issuer that its key was registered for"));
        }
        if !self.audience.iter().any(|one| one == audience) {
            return Err(Fault::Member { member: "aud", reason: format!("must be this log: {audience}") });
        }
        self.check_lifetime(max_lifetime)
    }

    /// That it was issued for no longer than is allowed (seconds).
    ///
    /// # Errors
    /// [`Fault::Time`].
    pub fn check_lifetime(&self, max_lifetime: i64) -> Result<(), Fault> {
        let lifetime = self.expires_at - self.issued_at;
        if lifetime <= 0 {
            return Err(Fault::Time("it expires before it was issued".into()));
        }
        if lifetime > max_lifetime {
            let reason = format!(
                "it lives for {lifetime} s, more than eventstream.token_max_lifetime allows ({max_lifetime} s)"
            );
            return Err(Fault::Time(reason));
        }
        Ok(())
    }

    /// That it counts at a time (seconds since 1970).
    ///
    /// # Errors
    /// [`Fault::Time`]
    pub fn check_time(&self, now: i64) -> Result<(), Fault> {
        let from = self.not_before.map_or(self.issued_at, |not_before| not_before.max(self.issued_at));
        if now >= self.expires_at + LEEWAY {
            return Err(Fault::Time(format!("it expired {} s ago", now.saturating_sub(self.expires_at))));
        }
        if now < from - LEEWAY {
            return Err(Fault::Time(format!("it counts only in {} s", from.saturating_sub(now))));
        }
        Ok(())
    }
}

/// What a token leaves of a role's rights: None leaves all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    privileges: Option<Vec<Privilege>>,
    categories: Option<Vec<String>>,
}

impl Narrowing {
    fn of(members: &Members) -> Result<Self, Fault> {
        let given = |member| members.get(member).map(|value| texts(member, value)).transpose();
        let privileges = given("privileges")?.map(|names| {
            let named = names.iter().map(|name| Privilege::named(name)).collect::<Option<Vec<_>>>();
            named.ok_or_else(|| must("privileges", "must be privileges that there are"))
        });
        let categories = given("categories")?;
        for category in categories.iter().flatten() {
            valid("categories", Category::parse("categories", category))?;
        }
        Ok(Self { privileges: privileges.transpose()?, categories })
    }

    /// Whether it leaves everything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.privileges.is_none() && self.categories.is_none()
    }

    /// What is left of a grant (its category None: of every one). Where it names categories, what concerns the whole tenant is gone; where it leaves less than all, manage and admin are: what they register
    /// and grant has all rights of the role, or more, for good.
    #[must_use]
    pub fn left(&self, privilege: Privilege, category: Option<&str>) -> Vec<(Privilege, Option<String>)> {
        if self.privileges.as_ref().is_some_and(|privileges| !privileges.contains(&privilege)) {
            return Vec::new();
        }
        if matches!(privilege, Privilege::Manage | Privilege::Admin) && !self.is_none() {
            return Vec::new();
        }
        let Some(categories) = &self.categories else { return vec![(privilege, category.map(str::to_owned))] };
        if !privilege.may_be_narrowed() {
            return Vec::new();
        }
        let covered = categories.iter().filter(|one| category.is_none_or(|category| category == one.as_str()));
        covered.map(|one| (privilege, Some(one.clone()))).collect()
    }
}
