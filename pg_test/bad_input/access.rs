//! Bad input to tenants and grants.
use super::{Bad, Call, argument_refuses, fault, refuses};

const CREATE_TENANT: Call = Call { function: "es_create_tenant", good: &[("tenant", "'bad'")] };

const USE_TENANT: Call = Call { function: "es_use_tenant", good: &[("tenant", "'default'")] };

const GRANT: Call = Call { function: "es_grant", good: &[("role", "current_user"), ("privilege", "'read'")] };

const REVOKE: Call = Call { function: "es_revoke", good: &[("role", "'public'"), ("privilege", "'read'")] };

const CLOSE_TENANT: Call = Call { function: "es_close_tenant", good: &[("tenant", "'kept'"), ("reason", "'CHG-1'")] };

const RENAME_TENANT: Call =
    Call { function: "es_rename_tenant", good: &[("tenant", "'kept'"), ("new_name", "'renamed'")] };

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg_test::sql::run;
    use pgrx::pg_test;

    #[pg_test]
    fn tenant_functions_refuse_bad_names() {
        let bad: &[Bad] = &[
            ("null", "ES005", "tenant|must not be NULL"),
            ("''", "ES005", "tenant|empty"),
            ("repeat('x', 256)", "ES005", "tenant|255"),
            ("repeat('x', 1000000)", "ES005", "tenant|255|1000000"),
            ("E'a\\nb'", "ES005", "tenant|control"),
            ("' a'", "ES005", "tenant|blank"),
            ("'a '", "ES005", "tenant|blank"),
        ];
        argument_refuses(&CREATE_TENANT, "tenant", bad);
        for (expression, code, named) in bad {
            assert_eq!(fault(&USE_TENANT.with("tenant", expression), code, named), None);
            if *expression != "null" {
                assert_eq!(fault(&GRANT.with("tenant", expression), "ES040", "tenant"), None);
                assert_eq!(fault(&REVOKE.with("tenant", expression), "ES040", "tenant"), None);
            }
        }
        // What no name can be long enough for is refused before it is looked at, or asked for.
        for call in [&CREATE_TENANT, &USE_TENANT, &GRANT, &REVOKE] {
            let call = call.with("tenant", "repeat('x', 10000000)");
            assert_eq!(fault(&call, "ES005", "tenant|must be shorter|10000000"), None);
        }
        assert_eq!(fault(&CREATE_TENANT.with("tenant", "'default'"), "ES005", "tenant|default|already"), None);
        assert_eq!(fault(&USE_TENANT.with("tenant", "'none'"), "ES040", "tenant|none"), None);
        assert_eq!(fault(&GRANT.with("tenant", "'none'"), "ES040", "tenant|none"), None);
        assert_eq!(fault(&REVOKE.with("tenant", "'none'"), "ES040", "tenant|none"), None);
    }

    #[pg_test]
    fn the_end_and_the_name_of_a_tenant_refuse_bad_input() {
        run("select es_create_tenant('kept'); set local eventstream.tenant = 'default'");
        let names: &[Bad] = &[
            ("null", "ES005", "new_name|must not be NULL"),
            ("''", "ES005", "new_name|empty"),
            ("'*'", "ES005", "new_name|one tenant"),
            ("repeat('x', 256)", "ES005", "new_name|255"),
            ("repeat('x', 10000000)", "ES005", "new_name|must be shorter|10000000"),
            ("E'a\nb'", "ES005", "new_name|control"),
            ("' a'", "ES005", "new_name|blank"),
            ("'default'", "ES005", "new_name|default|already"),
        ];
        let reasons: &[Bad] = &[
            ("null", "ES005", "reason|must not be NULL"),
            ("' '", "ES005", "reason|empty"),
            ("repeat('x', 65)", "ES005", "reason|64"),
            ("'ada@example.org'", "ES005", "reason|@"),
            ("E'a\nb'", "ES005", "reason|control"),
        ];
        let tenants: &[Bad] = &[
            ("null", "ES005", "tenant|must not be NULL"),
            ("'none'", "ES040", "tenant|none"),
            ("'*'", "ES040", "tenant"),
            ("'default'", "ES005", "tenant|default"),
            ("repeat('x', 10000000)", "ES005", "tenant|must be shorter|10000000"),
        ];
        let asked = [
            (&RENAME_TENANT, "new_name", names),
            (&RENAME_TENANT, "tenant", tenants),
            (&CLOSE_TENANT, "reason", reasons),
            (&CLOSE_TENANT, "tenant", tenants),
        ];
        let each = asked.iter().flat_map(|(call, argument, bad)| {
            bad.iter().map(|(expression, code, named)| (call.with(argument, expression), *code, *named))
        });
        refuses(&each.collect::<Vec<_>>());
    }

    #[pg_test]
    fn a_nonsense_setting_eventstream_tenant_is_named_and_refused() {
        for tenant in ["E'a\\nb'", "repeat('x', 1000000)", "' default'"] {
            run(&format!("select set_config('eventstream.tenant', {tenant}, true)"));
            assert_eq!(fault("select es_stream_version('kept-1')", "ES040", "tenant"), None);
        }
    }

    #[pg_test]
    fn es_grant_and_es_revoke_refuse_bad_input() {
        let bad: &[(&str, &str, &str)] = &[
            ("role", "null", "role|must not be NULL"),
            ("role", "''", "role"),
            ("role", "'no_such_role'", "role|no_such_role"),
            ("role", "E'a\\nb'", "role"),
            ("privilege", "null", "privilege|must not be NULL"),
            ("privilege", "''", "privilege|read, append, command, consume, manage, upkeep, reveal, audit or admin"),
            ("privilege", "'READ'", "privilege|READ"),
            ("privilege", "'write'", "privilege|write"),
            ("privilege", "E'read\\n'", "privilege"),
            ("privilege", "repeat('x', 10000000)", "privilege"),
            ("category", "''", "category|empty"),
            ("category", "'a-b'", "category"),
            ("category", "' a'", "category|blank"),
            ("category", "E'a\\n'", "category|control"),
            ("category", "repeat('x', 511)", "category|510"),
        ];
        let statements: Vec<_> = bad
            .iter()
            .flat_map(|(argument, expression, named)| {
                // A role that is gone may still have grants to be revoked.
                let of_revoke =
                    if *argument == "role" && *expression != "null" { "privilege|role|read" } else { *named };
                [
                    (GRANT.with(argument, expression), "ES005", *named),
                    (REVOKE.with(argument, expression), "ES005", of_revoke),
                ]
            })
            .collect();
        refuses(&statements);
        for privilege in ["upkeep", "audit", "admin"] {
            let statement = format!("select es_grant('public', '{privilege}', category => 'a')");
            assert_eq!(fault(&statement, "ES005", &format!("category|{privilege}")), None);
        }
        assert_eq!(
            fault(
                "select es_revoke('public', 'audit')",
                "ES005",
                "public|no grant of audit for all categories|default"
            ),
            None
        );
    }
}
