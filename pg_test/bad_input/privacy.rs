//! Bad input to what hides, what shows in clear, and what lets in by tokens.
use super::{BAD_STREAM_NAMES, Bad, Call, argument_refuses, fault, refuses};

const PROTECT: Call = Call { function: "es_protect", good: &[("event_type", "'Kept'"), ("pointers", "'{/a}'")] };

const UNPROTECT: Call = Call { function: "es_unprotect", good: &[("event_type", "'Held'")] };

const REVEAL: Call = Call { function: "es_reveal", good: &[("stream", "'kept-1'"), ("reason", "'CASE-1'")] };

const USE_TOKEN: Call = Call { function: "es_use_token", good: &[] };

const REQUIRE_TOKEN: Call = Call { function: "es_require_token", good: &[("role", "'bad_web'")] };

const ADD_KEY: Call = Call {
    function: "es_add_token_key",
    good: &[
        ("kid", "'new'"),
        ("public_key", r"'\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'"),
        ("tenant", "'default'"),
        ("issuer", "'https://id.example.org'"),
    ],
};

const REVOKE_KEY: Call = Call { function: "es_revoke_token_key", good: &[("kid", "'held'"), ("tenant", "'default'")] };

/// Of labels: kid, issuer.
const BAD_LABELS: &[Bad<'static>] = &[
    ("null", "ES005", "must not be NULL"),
    ("''", "ES005", "empty"),
    ("repeat('x', 256)", "ES005", "255"),
    ("repeat('x', 10000000)", "ES005", "must be shorter|10000000"),
    ("E'a\\nb'", "ES005", "control"),
    ("E'a\\u202eb'", "ES005", ""),
    ("' a'", "ES005", "blank"),
];

const BAD_TENANTS: &[Bad<'static>] = &[
    ("''", "ES040", "tenant"),
    ("'none'", "ES040", "tenant|none"),
    ("'*'", "ES040", "tenant"),
    ("E'a\\nb'", "ES040", "tenant"),
    ("repeat('x', 1000000)", "ES040", "tenant"),
    ("repeat('x', 10000000)", "ES005", "tenant|must be shorter|10000000"),
];

/// Whatever is wrong with a token is told to the server's log alone.
const REFUSED: &str = "the token is refused";

/// A part of a token: base64 in its form for URLs.
fn part(json: &str) -> String {
    format!("translate(encode(convert_to('{json}', 'UTF8'), 'base64'), E'+/=\\n', '-_')")
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg_test::sql::{rows, run};
    use pgrx::pg_test;

    fn held() {
        run("select es_protect('Held', pointers => '{/a}')");
        let held = ADD_KEY.with("kid", "'held'");
        run(&held);
        run("create role bad_web nosuperuser");
    }

    #[pg_test]
    fn es_protect_refuses_bad_types_versions_and_kinds() {
        held();
        let version = |named| ("ES005", named);
        let all: &[(&str, &str, (&str, &str))] = &[
            ("event_type", "null", ("ES005", "event_type|must not be NULL")),
            ("event_type", "''", ("ES005", "event_type|empty")),
            ("event_type", "repeat('x', 256)", ("ES005", "event_type|255")),
            ("event_type", "repeat('x', 10000000)", ("ES005", "event_type|must be shorter|10000000")),
            ("event_type", "E'A\\nb'", ("ES005", "event_type|control")),
            ("event_type", "' A'", ("ES005", "event_type|blank")),
            ("event_type", "'StreamClosed'", ("ES005", "event_type|StreamClosed")),
            ("schema_version", "null", version("schema_version|must not be NULL")),
            ("schema_version", "0", version("schema_version|0")),
            ("schema_version", "-2147483648", version("schema_version|-2147483648")),
            ("schema_version", "2", version("schema_version|version 1")),
            ("schema_version", "2147483647", version("schema_version|version 1")),
            ("kind", "null", ("ES005", "kind|must not be NULL")),
            ("kind", "''", ("ES005", "kind|event")),
            ("kind", "'Event'", ("ES005", "kind|Event")),
            ("kind", "E'event\\n'", ("ES005", "kind")),
            ("kind", "repeat('x', 10000000)", ("ES005", "kind|must be shorter|10000000")),
        ];
        let statements =
            all.iter().map(|(argument, expression, (code, named))| (PROTECT.with(argument, expression), *code, *named));
        refuses(&statements.collect::<Vec<_>>());
        let command = "select es_protect('Pay', 2, '{/a}', kind => 'command')";
        assert_eq!(fault(command, "ES005", "schema_version|1 for commands"), None);
    }

    #[pg_test]
    fn es_protect_refuses_bad_pointers() {
        let both = [("pointers", ""), ("clear_pointers", ""), ("metadata_pointers", ", pointers => '{}'")];
        let bad: &[(&str, &str)] = &[
            ("'{null}'", "must not contain NULL"),
            ("'{a}'", "JSON Pointer"),
            ("'{/a~2}'", "~"),
            ("'{/a/-}'", "the step -"),
            ("'{{/a},{/b}}'", "flat list"),
            ("array(select '/' || n from generate_series(1, 65) n)", "64"),
            ("array_fill('/a'::text, array[100000])", "elements"),
            ("array[repeat('/a', 65)]", "64 steps"),
            ("array['/' || repeat('x', 10000000)]", "shorter elements"),
            // As many ways as there are subsets of the steps.
            (
                "array(select repeat('/*', n) || '/0' || repeat('/*', 40 - n) from generate_series(1, 40) n)",
                "so many ways",
            ),
        ];
        let mut statements = Vec::new();
        for (argument, also) in both {
            for (expression, named) in bad {
                let call = format!("select es_protect('Kept', {argument} => {expression}{also})");
                statements.push((call, "ES005", format!("{argument}|{named}")));
            }
        }
        for own in ["/actor", "/command/key", "/correlation_id", "/causation_id", "/traceparent", ""] {
            let call = format!("select es_protect('Kept', pointers => '{{}}', metadata_pointers => array['{own}'])");
            statements.push((call, "ES005", "metadata_pointers|eventstream itself".to_owned()));
        }
        for (given, found) in
            [("", "neither"), (", pointers => null", "neither"), (", pointers => '{}', clear_pointers => '{}'", "both")]
        {
            statements.push((format!("select es_protect('Kept'{given})"), "ES005", format!("pointers|{found}")));
        }
        let statements: Vec<_> =
            statements.iter().map(|(call, code, named)| (call.clone(), *code, named.as_str())).collect();
        refuses(&statements);
    }

    #[pg_test]
    fn es_unprotect_refuses_bad_input() {
        held();
        let names: &[Bad] = &[
            ("null", "ES005", "event_type|must not be NULL"),
            ("''", "ES005", "event_type|empty"),
            ("'Kept'", "ES005", "event_type|not protected"),
            ("'held'", "ES005", "event_type|not protected"),
            ("'StreamClosed'", "ES005", "event_type"),
            ("repeat('x', 256)", "ES005", "event_type|255"),
            ("repeat('x', 10000000)", "ES005", "event_type|must be shorter|10000000"),
            ("E'Held\\n'", "ES005", "event_type|control"),
        ];
        argument_refuses(&UNPROTECT, "event_type", names);
        let kinds: &[Bad] = &[
            ("null", "ES005", "kind|must not be NULL"),
            ("''", "ES005", "kind"),
            ("'EVENT'", "ES005", "kind|EVENT"),
            ("'command'", "ES005", "event_type|not protected"),
            ("repeat('x', 10000000)", "ES005", "kind|must be shorter|10000000"),
        ];
        for (expression, code, named) in kinds {
            assert_eq!(fault(&UNPROTECT.with("kind", expression), code, named), None);
        }
        assert_eq!(rows("select event_type from eventstream.protections"), "(Held)");
    }

    #[pg_test]
    fn es_reveal_refuses_bad_input() {
        for (expression, code, named) in BAD_STREAM_NAMES {
            assert_eq!(fault(&REVEAL.with("stream", expression), code, named), None);
        }
        let all: &[(&str, &str, &str)] = &[
            ("reason", "null", "reason|must not be NULL"),
            ("reason", "''", "reason|empty"),
            ("reason", "'  '", "reason|empty"),
            ("reason", "repeat('x', 65)", "reason|64|65"),
            ("reason", "repeat('x', 10000000)", "reason|must be shorter|10000000"),
            ("reason", "'ada@example.org'", "reason|@"),
            ("reason", "E'ada\\uff20example.org'", "reason|@"),
            ("reason", "E'a\\nb'", "reason|control"),
            ("reason", "' CASE-1'", "reason|blank"),
            ("from_version", "null", "from_version|must not be NULL"),
            ("from_version", "0", "from_version|0"),
            ("from_version", "-9223372036854775808", "from_version"),
            ("max_count", "-1", "max_count|-1"),
            ("max_count", "-9223372036854775808", "max_count"),
        ];
        let statements: Vec<_> = all
            .iter()
            .map(|(argument, expression, named)| (REVEAL.with(argument, expression), "ES005", *named))
            .collect();
        refuses(&statements);
        assert_eq!(rows("select * from eventstream.access_log"), "");
    }

    #[pg_test]
    fn es_use_token_refuses_whatever_is_no_token() {
        held();
        let (header, other) = (
            part(r#"{"alg":"EdDSA","kid":"held","typ":"eventstream+jwt"}"#),
            part(r#"{"alg":"none","kid":"held","typ":"eventstream+jwt"}"#),
        );
        let claims = part(
            r#"{"iss":"https://id.example.org","aud":"x","exp":4000000000,"iat":1,"jti":"j","tenant":"default","sub":"s"}"#,
        );
        let twice = part(r#"{"alg":"EdDSA","kid":"held","typ":"eventstream+jwt","kid":"held"}"#);
        let hostile = part(r#"{"alg":"EdDSA","kid":"held'' or true --","typ":"eventstream+jwt"}"#);
        let deep = "repeat('W1tb', 1000)".to_owned();
        let signed = "repeat('A', 86)";
        let tokens = [
            "''".to_owned(),
            "'.'".to_owned(),
            "'..'".to_owned(),
            "'...'".to_owned(),
            "E'a.b.c\\n'".to_owned(),
            "'ä.ö.ü'".to_owned(),
            "repeat('x', 8193)".to_owned(),
            "repeat('.', 8192)".to_owned(),
            "repeat('x', 1000000)".to_owned(),
            format!("{header} || '.' || {claims}"),
            format!("{header} || '.' || {claims} || '.'"),
            format!("{header} || '.' || {claims} || '.' || {signed}"),
            format!("{header} || '.' || {claims} || '.' || {signed} || '='"),
            format!("{header} || '.' || {claims} || '.' || repeat('A', 10)"),
            format!("{other} || '.' || {claims} || '.'"),
            format!("{twice} || '.' || {claims} || '.' || {signed}"),
            format!("{hostile} || '.' || {claims} || '.' || {signed}"),
            format!("{deep} || '.' || {deep} || '.' || {signed}"),
            format!("{header} || '.' || {} || '.' || {signed}", part("[]")),
            format!("{header} || '.' || {} || '.' || {signed}", part("null")),
        ];
        let mut statements: Vec<_> =
            tokens.iter().map(|token| (USE_TOKEN.with("token", token), "ES043", REFUSED)).collect();
        statements.push((USE_TOKEN.with("token", "null"), "ES005", "token|must not be NULL"));
        statements.push((USE_TOKEN.with("token", "repeat('x', 10000000)"), "ES005", "token|must be shorter|10000000"));
        refuses(&statements);
    }

    #[pg_test]
    fn es_require_token_refuses_bad_input() {
        held();
        let all: &[(&str, &str, &str)] = &[
            ("role", "null", "role|must not be NULL"),
            ("role", "''", "role"),
            ("role", "'no_such_role'", "role|no_such_role"),
            ("role", "'public'", "role|public"),
            ("role", "E'a\\nb'", "role"),
            ("role", "repeat('x', 1000000)::name", "role|existing"),
            ("role", "current_user", "role|leave nothing behind"),
            ("required", "null", "required|must not be NULL"),
            ("required", "false", "role|bad_web"),
        ];
        let statements: Vec<_> = all
            .iter()
            .map(|(argument, expression, named)| (REQUIRE_TOKEN.with(argument, expression), "ES005", *named))
            .collect();
        refuses(&statements);
    }

    #[pg_test]
    fn keys_of_tokens_refuse_bad_input() {
        held();
        let all: &[(&Call, &str, &str, &str)] = &[
            (&ADD_KEY, "kid", "'held'", "kid|must be new"),
            (&ADD_KEY, "public_key", "null", "public_key|must not be NULL"),
            (&ADD_KEY, "public_key", "''", "public_key|32|0"),
            (&ADD_KEY, "public_key", "decode(repeat('ab', 31), 'hex')", "public_key|32|31"),
            (&ADD_KEY, "public_key", "decode(repeat('ab', 33), 'hex')", "public_key|32|33"),
            // No point of the curve, and one of small order, with which anything may be signed.
            (&ADD_KEY, "public_key", "decode('02' || repeat('00', 31), 'hex')", "public_key|Ed25519"),
            (&ADD_KEY, "public_key", "decode('01' || repeat('00', 31), 'hex')", "public_key|Ed25519"),
            (&ADD_KEY, "public_key", "decode(repeat('ff', 32), 'hex')", "public_key|Ed25519|canonical"),
            (&ADD_KEY, "public_key", "decode(repeat('00', 10000000), 'hex')", "public_key|must be shorter|10000000"),
            (&REVOKE_KEY, "kid", "null", "kid|must not be NULL"),
            (&REVOKE_KEY, "kid", "''", "kid"),
            (&REVOKE_KEY, "kid", "'HELD'", "kid|HELD"),
            (&REVOKE_KEY, "kid", "E'held\\n'", "kid"),
            (&REVOKE_KEY, "kid", "repeat('x', 1000000)", "kid"),
            (&REVOKE_KEY, "kid", "repeat('x', 10000000)", "kid|must be shorter|10000000"),
        ];
        let mut statements: Vec<_> = all
            .iter()
            .map(|(call, argument, expression, named)| (call.with(argument, expression), "ES005", *named))
            .collect();
        for (call, argument, bad) in [
            (&ADD_KEY, "kid", BAD_LABELS),
            (&ADD_KEY, "issuer", BAD_LABELS),
            (&ADD_KEY, "tenant", BAD_TENANTS),
            (&REVOKE_KEY, "tenant", BAD_TENANTS),
        ] {
            statements
                .extend(bad.iter().map(|(expression, code, named)| (call.with(argument, expression), *code, *named)));
        }
        refuses(&statements);
        assert_eq!(rows("select kid from _eventstream.token_keys"), "(held)");
    }
}
