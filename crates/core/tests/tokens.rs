//! Tokens: what is none, what none may say, and what one leaves of a role's rights.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use eventstream_core::Privilege;
use eventstream_core::token::{Claims, Fault, KEY_BYTES, LEEWAY, MOST_BYTES, Unverified, is_public_key};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"eventstream+jwt"}"#;
const ISSUER: &str = "https://id.example.org";
const AUDIENCE: &str = "0f8b2f5e-0000-4000-8000-000000000000/0";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> [u8; KEY_BYTES] {
    key().verifying_key().to_bytes()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW, "jti": "t-1", "tenant": "acme", "sub": "clerk-7"})
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(member);
    claims
}

fn signed(header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key().sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn token(claims: &Value) -> String {
    signed(HEADER, &claims.to_string())
}

/// All that src/access asks of a token.
fn accepted(token: &str, now: i64) -> Result<Claims, Fault> {
    let unverified = Unverified::read(token)?;
    assert_eq!((unverified.key_id(), unverified.tenant()), ("k1", "acme"));
    let claims = unverified.verify(&public())?;
    claims.check(ISSUER, AUDIENCE, 900)?;
    claims.check_time(now)?;
    Ok(claims)
}

#[test]
fn a_good_token_says_what_it_was_given() {
    let claims = accepted(&token(&claims()), NOW).unwrap();
    assert_eq!((claims.issuer.as_str(), claims.token_id.as_str(), claims.tenant.as_str()), (ISSUER, "t-1", "acme"));
    assert_eq!((claims.subject.as_str(), claims.expires_at, claims.issued_at), ("clerk-7", NOW + 600, NOW));
    assert!(claims.narrowing.is_none());
    // What others put beside it changes nothing, and one log of several is enough.
    let mut more = with("aud", json!(["another", AUDIENCE]));
    more["scope"] = json!({"privileges": ["admin"]});
    assert!(accepted(&token(&more), NOW).unwrap().narrowing.is_none());
}

#[test]
fn what_is_malformed_is_refused() {
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let raw = |claims: &str| signed(HEADER, claims);
    let headed = |header: &str| signed(header, &claims().to_string());
    let text = claims().to_string();
    let doubled = text.replacen('{', r#"{"tenant":"other","#, 1);
    let nested = text.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    let deep = text.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(200), "]".repeat(200)), 1);
    let cases: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("a word", "token".into()),
        ("dots alone", "..".into()),
        ("two parts", format!("{header}.{body}")),
        ("four parts", format!("{good}.{signature}")),
        ("an empty header", format!(".{body}.{signature}")),
        ("empty claims", format!("{header}..{signature}")),
        ("no signature", format!("{header}.{body}.")),
        ("a blank before", format!(" {good}")),
        ("a line end behind", format!("{good}\n")),
        ("a prefix", format!("Bearer {good}")),
        ("padding", format!("{header}.{body}.{signature}==")),
        ("the other alphabet", format!("{header}.{body}.{}", signature.replace(['-', '_'], "+"))),
        ("bits that count for nothing", format!("{header}.{body}.{}", trailing_bit(signature))),
        ("a short signature", format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode([1; 63]))),
        ("a long signature", format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode([1; 65]))),
        ("the JSON form", json!({"payload": body, "protected": header, "signature": signature}).to_string()),
        ("claims that are no JSON", raw("{")),
        ("claims with something behind", raw(&format!("{text} {{}}"))),
        ("claims that are an array", raw(&format!("[{text}]"))),
        ("claims that are null", raw("null")),
        ("a member twice", raw(&doubled)),
        ("a member within twice", raw(&nested)),
        ("deeper than is read", raw(&deep)),
        ("a byte order mark", raw(&format!("\u{feff}{text}"))),
        ("no algorithm", headed(r#"{"kid":"k1","typ":"eventstream+jwt"}"#)),
        ("algorithm none", headed(r#"{"alg":"none","kid":"k1","typ":"eventstream+jwt"}"#)),
        ("another algorithm", headed(r#"{"alg":"HS256","kid":"k1","typ":"eventstream+jwt"}"#)),
        ("a small algorithm", headed(r#"{"alg":"eddsa","kid":"k1","typ":"eventstream+jwt"}"#)),
        ("two algorithms", headed(r#"{"alg":"none","alg":"EdDSA","kid":"k1","typ":"eventstream+jwt"}"#)),
        ("another type", headed(r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#)),
        ("no type", headed(r#"{"alg":"EdDSA","kid":"k1"}"#)),
        ("no key", headed(r#"{"alg":"EdDSA","typ":"eventstream+jwt"}"#)),
        ("a key that is a number", headed(r#"{"alg":"EdDSA","kid":1,"typ":"eventstream+jwt"}"#)),
        ("an empty key", headed(r#"{"alg":"EdDSA","kid":"","typ":"eventstream+jwt"}"#)),
        ("a key of its own", headed(r#"{"alg":"EdDSA","kid":"k1","typ":"eventstream+jwt","jwk":{}}"#)),
        ("what is critical", headed(r#"{"alg":"EdDSA","kid":"k1","typ":"eventstream+jwt","crit":["b64"]}"#)),
        ("an address of keys", headed(r#"{"alg":"EdDSA","kid":"k1","typ":"eventstream+jwt","jku":"https://x"}"#)),
    ];
    for (what, bad) in cases {
        let fault = Unverified::read(&bad).expect_err(what);
        assert!(!matches!(fault, Fault::Signature | Fault::Key | Fault::Time(_)), "{what}: {fault}");
        assert!(!fault.to_string().contains("clerk-7"), "{what}: {fault}");
    }
    let binary = format!("{}.{}.{signature}", header, URL_SAFE_NO_PAD.encode([0xff, 0xfe]));
    assert!(matches!(Unverified::read(&binary), Err(Fault::Form(_))));
}

/// The last character of 64 bytes has four bits that are no part of them.
fn trailing_bit(signature: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = ALPHABET.find(signature.chars().last().unwrap()).unwrap();
    format!("{}{}", &signature[..signature.len() - 1], &ALPHABET[place + 1..place + 2])
}

#[test]
fn claims_that_are_missing_or_of_another_kind_are_refused() {
    for member in ["iss", "aud", "exp", "iat", "jti", "tenant", "sub"] {
        let fault = Unverified::read(&token(&without(member))).expect_err(member);
        assert!(matches!(&fault, Fault::Member { member: named, .. } if *named == member), "{member}: {fault}");
        for value in [json!(null), json!(true), json!({}), json!([1])] {
            let bad = token(&with(member, value.clone()));
            assert!(matches!(Unverified::read(&bad), Err(Fault::Member { .. })), "{member}: {value}");
        }
    }
    let bad = [
        ("iss", json!("")),
        ("aud", json!(["a", 1])),
        ("exp", json!("1700000600")),
        ("exp", json!(1.5)),
        ("exp", json!(-1)),
        ("exp", json!(i64::MAX)),
        ("iat", json!(u64::MAX)),
        ("nbf", json!("soon")),
        ("jti", json!("x".repeat(256))),
        ("tenant", json!("")),
        ("tenant", json!(" acme")),
        ("tenant", json!("ac\u{200B}me")),
        ("sub", json!("two\nlines")),
        ("privileges", json!("read")),
        ("privileges", json!(["read", "everything"])),
        ("privileges", json!([null])),
        // Null is no claim that was left out, which leaves everything.
        ("privileges", json!(null)),
        ("nbf", json!(null)),
        ("categories", json!({"a": 1})),
        ("categories", json!([1])),
        ("categories", json!(["a-1"])),
        ("categories", json!(["$audit"])),
        ("categories", json!(null)),
    ];
    for (member, value) in bad {
        let fault = Unverified::read(&token(&with(member, value.clone()))).expect_err(member);
        assert!(matches!(fault, Fault::Member { .. }), "{member} {value}: {fault}");
    }
}

#[test]
fn a_token_of_8_kib_is_read_and_a_longer_one_is_not() {
    let of = |length: usize| {
        let mut claims = claims();
        claims["x"] = "x".repeat(length).into();
        token(&claims)
    };
    let most = (5000..6200).rev().map(of).find(|token| token.len() <= MOST_BYTES).unwrap();
    assert!(most.len() > MOST_BYTES - 4 && accepted(&most, NOW).is_ok());
    let longer = (5000..6200).map(of).find(|token| token.len() > MOST_BYTES).unwrap();
    assert_eq!(Unverified::read(&longer).unwrap_err(), Fault::Form("is longer than 8192 bytes"));
}

#[test]
fn who_it_is_for_and_whose_it_is_must_fit() {
    let claims = accepted(&token(&claims()), NOW).unwrap();
    let fault = |issuer, audience, lifetime| claims.check(issuer, audience, lifetime).unwrap_err().to_string();
    assert!(fault("https://id.example.org/", AUDIENCE, 900).starts_with("its iss"));
    let next = AUDIENCE.replace("/0", "/1");
    assert_eq!(fault(ISSUER, &next, 900), format!("its aud must be this log: {next}"));
    assert!(fault(ISSUER, AUDIENCE, 599).contains("600 s, more than eventstream.token_max_lifetime allows (599 s)"));
    claims.check(ISSUER, AUDIENCE, 600).unwrap();
    for expires_at in [NOW, NOW - 1] {
        let never = accepted(&token(&with("exp", json!(expires_at))), NOW).unwrap_err();
        assert_eq!(never, Fault::Time("it expires before it was issued".into()));
    }
    assert!(accepted(&token(&with("aud", json!([]))), NOW).is_err());
}

#[test]
fn it_counts_from_half_a_minute_before_it_was_issued_until_half_a_minute_after_it_expires() {
    let claims = accepted(&token(&claims()), NOW).unwrap();
    for (now, counts) in [
        (NOW - LEEWAY - 1, false),
        (NOW - LEEWAY, true),
        (NOW, true),
        (NOW + 600 + LEEWAY - 1, true),
        (NOW + 600 + LEEWAY, false),
        (0, false),
        (i64::MAX, false),
    ] {
        assert_eq!(claims.check_time(now).is_ok(), counts, "{now}");
    }
    let later = accepted(&token(&with("nbf", json!(NOW + 100))), NOW + 100).unwrap();
    assert!(later.check_time(NOW + 69).is_err() && later.check_time(NOW + 70).is_ok());
    // An nbf before iat makes it count no earlier.
    let earlier = accepted(&token(&with("nbf", json!(NOW - 1000))), NOW).unwrap();
    assert!(earlier.check_time(NOW - LEEWAY - 1).is_err());
}

#[test]
fn a_signature_of_another_key_or_over_other_words_is_none() {
    let good = token(&claims());
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    assert_eq!(Unverified::read(&good).unwrap().verify(&other).unwrap_err(), Fault::Signature);
    let (text, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = text.split_once('.').unwrap();
    let swapped = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(with("tenant", json!("bank")).to_string()));
    assert_eq!(Unverified::read(&swapped).unwrap().verify(&public()).unwrap_err(), Fault::Signature);
    for short in [&public()[..31], &[], &[0; 33]] {
        assert_eq!(Unverified::read(&good).unwrap().verify(short).unwrap_err(), Fault::Signature);
    }
}

#[test]
fn a_signature_in_another_form_and_a_weak_key_are_none() {
    // s + the group's order is the same number there: verification that is not strict about it takes a second signature for the first one.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let good = token(&claims());
    let (text, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut carry = 0;
    for (byte, more) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    let second = format!("{text}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(Unverified::read(&second).unwrap().verify(&public()).unwrap_err(), Fault::Signature);

    // The points of small order: with such a key one signature fits every text.
    let mut identity = [0; 32];
    identity[0] = 1;
    for weak in [[0; 32], identity] {
        assert!(!is_public_key(&weak));
        let mut forged = [0; 64];
        forged[0] = 1;
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(forged));
        assert_eq!(Unverified::read(&forged).unwrap().verify(&weak).unwrap_err(), Fault::Signature);
    }
    assert!(is_public_key(&public()) && !is_public_key(&public()[..31]) && !is_public_key(&[2; 32]));
}

#[test]
fn a_key_has_one_form() {
    // A y at or above the prime 2^255 - 19, with either sign: the same points as 0 to 18, which begin with their own bytes.
    let mut taken = 0;
    for (low, sign) in (0xed..=0xff).flat_map(|low| [(low, 0x7f), (low, 0xff)]) {
        let mut other = [0xff; 32];
        (other[0], other[31]) = (low, sign);
        assert!(!is_public_key(&other), "{low:x} {sign:x}");
        let mut same = [0; 32];
        (same[0], same[31]) = (low - 0xed, sign & 0x80);
        taken += usize::from(is_public_key(&same));
    }
    assert!(taken > 5, "{taken}");
}

#[test]
fn it_narrows_what_a_role_may_do_and_never_widens_it() {
    let narrowing = |privileges: Value, categories: Value| {
        let mut claims = claims();
        for (member, value) in [("privileges", privileges), ("categories", categories)] {
            if !value.is_null() {
                claims[member] = value;
            }
        }
        accepted(&token(&claims), NOW).unwrap().narrowing
    };
    let both = narrowing(json!(["read", "audit"]), json!(["order", "stock"]));
    assert!(!both.is_none());
    let of = |category: &str| (Privilege::Read, Some(category.to_owned()));
    assert_eq!(both.left(Privilege::Read, None), [of("order"), of("stock")]);
    assert_eq!(both.left(Privilege::Read, Some("stock")), [of("stock")]);
    assert_eq!(both.left(Privilege::Read, Some("salary")), []);
    assert_eq!(both.left(Privilege::Append, None), []);
    assert_eq!(both.left(Privilege::Audit, None), [], "what concerns the whole tenant is not left of some categories");
    let privileges = narrowing(json!(["admin", "read"]), Value::Null);
    assert_eq!(
        privileges.left(Privilege::Admin, None),
        [],
        "whom it grants what, and whose key it adds, outlives the token"
    );
    assert_eq!(privileges.left(Privilege::Read, Some("order")), [of("order")]);
    for narrowed in
        [&both, &privileges, &narrowing(json!(["manage"]), Value::Null), &narrowing(Value::Null, json!(["order"]))]
    {
        assert_eq!(narrowed.left(Privilege::Manage, Some("order")), [], "what it registers outlives the token");
    }
    let nothing = narrowing(json!([]), Value::Null);
    assert!(!nothing.is_none() && Privilege::ALL.iter().all(|&privilege| nothing.left(privilege, None).is_empty()));
    let nowhere = narrowing(Value::Null, json!([]));
    assert!(!nowhere.is_none() && Privilege::ALL.iter().all(|&privilege| nowhere.left(privilege, None).is_empty()));
}

proptest! {
    /// Whatever it is: no panic, and never accepted.
    #[test]
    fn what_nobody_has_signed_is_refused(text in "[A-Za-z0-9_.-]{0,200}|\\PC{0,200}") {
        prop_assert!(Unverified::read(&text).is_err());
    }

    /// One character more, less, or another, anywhere.
    #[test]
    fn a_token_that_was_touched_is_refused(place in any::<prop::sample::Index>(), new in "[A-Za-z0-9_.-]?", keeps in any::<bool>()) {
        let good = token(&claims());
        let place = place.index(good.len());
        let touched = format!("{}{new}{}", &good[..place], &good[place + usize::from(!keeps)..]);
        prop_assume!(touched != good);
        let refused = Unverified::read(&touched).and_then(|unverified| unverified.verify(&public()));
        prop_assert!(refused.is_err());
    }

    /// Whatever a document says that the key has signed: it is read, or refused.
    #[test]
    fn claims_of_any_kind_are_read_or_refused(
        member in prop::sample::select(vec!["iss", "aud", "exp", "iat", "nbf", "jti", "tenant", "sub", "privileges", "categories"]),
        value in prop_oneof![
            any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), "\\PC{0,300}".prop_map(Value::from),
            prop::collection::vec("[a-z]{0,8}", 0..4).prop_map(Value::from),
        ],
        now in any::<i64>(),
    ) {
        if let Ok(unverified) = Unverified::read(&token(&with(member, value))) {
            let claims = unverified.verify(&public()).unwrap();
            let _ = claims.check(ISSUER, AUDIENCE, 900).and_then(|()| claims.check_time(now));
        }
    }
}
