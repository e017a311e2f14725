//! Tenants are walls: what shows and changes nothing of another one, and how the current one is chosen.
use super::{as_role, detail, one_event, two_tenants};
use crate::pg_test::sql::{refused, rows, run, value};

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_new_tenant_is_noticed_by_a_session_that_knew_only_one() {
        one_event();
        assert_eq!(value("select es_stream_version('a-1')"), "1");
        run("select es_create_tenant('second')");
        refused("ES041", "select es_stream_version('a-1')");
        run("select es_use_tenant('default')");
        assert_eq!(value("select es_stream_version('a-1')"), "1");
    }

    #[pg_test]
    fn a_tenant_is_a_wall() {
        two_tenants();
        run("create role t_x");
        run("select es_grant('t_x', privilege, 'x') from unnest(array['read', 'append', 'audit']) privilege");
        as_role("t_x", || {
            // The role's only tenant is the current one.
            for query in [
                "select payload from es_read('a-1')",
                "select payload from es_read_backward()",
                "select payload from es_read_subject('p')",
                "select payload from eventstream.events",
                "select payload from es_event('00000000-0000-0000-0000-000000000001')",
            ] {
                assert_eq!(rows(query), "(\"\"\"x\"\"\")", "{query}");
            }
            assert_eq!(rows("select * from es_event('00000000-0000-0000-0000-000000000002')"), "");
            assert_eq!(rows("select distinct tenant from eventstream.streams"), "(x)");
            assert_eq!(rows("select distinct tenant from eventstream.audit"), "(x)");
            assert_eq!(rows("select distinct tenant from eventstream.grants"), "(x)");
            assert_eq!(rows("select distinct tenant from es_chain_heads()"), "(x)");
            assert_eq!(rows("select * from es_verify()"), "");
            // An id of another tenant's tells nothing: it is free here.
            assert_eq!(
                value("select es_append('a-1', 'U', '{}', event_id => '00000000-0000-0000-0000-000000000002')"),
                "2"
            );
        });
        run("select es_use_tenant('y')");
        assert_eq!(value("select es_stream_version('a-1')"), "1");
    }

    #[pg_test]
    fn setting_the_tenant_alone_gives_nothing() {
        two_tenants();
        run("create role t_climber");
        run("select es_grant('t_climber', 'read', 'x'), es_grant('t_climber', 'append', 'x')");
        as_role("t_climber", || {
            for tenant in ["y", "default", "none"] {
                run(&format!("set local eventstream.tenant = '{tenant}'"));
                let error = refused("42501", "select es_read('a-1')");
                assert_eq!(detail(&error)["tenant"], tenant);
                refused("42501", "select es_append('a-1', 'T', '{}')");
                refused("42501", "select * from eventstream.events");
                refused("42501", &format!("select es_use_tenant('{tenant}')"));
            }
            run("set local eventstream.tenant = 'x'");
            assert_eq!(value("select es_stream_version('a-1')"), "1");
        });
    }

    #[pg_test]
    fn what_a_role_is_told_of_a_tenant_does_not_say_whether_it_exists() {
        two_tenants();
        run("create role t_curious");
        run("select es_grant('t_curious', 'read', 'x')");
        as_role("t_curious", || {
            let mut answers = Vec::new();
            for tenant in ["y", "n"] {
                let error = refused("42501", &format!("select es_use_tenant('{tenant}')"));
                answers.push((error.message, error.detail, error.hint));
            }
            let (message, detail, hint) = &answers[0];
            let other = |text: &String| text.replace("\"y\"", "\"n\"").replace("'y'", "'n'");
            assert_eq!(answers[1], (other(message), other(detail), other(hint)));
        });
    }

    #[pg_test]
    fn a_role_of_several_tenants_must_say_which() {
        two_tenants();
        run("create role t_both");
        run("select es_grant('t_both', 'read', 'x'), es_grant('t_both', 'append', 'y')");
        as_role("t_both", || {
            let error = refused("ES041", "select es_read('a-1')");
            assert_eq!(detail(&error)["tenants"], serde_json::json!(["x", "y"]));
            assert!(
                error.hint.contains("eventstream.tenant") && error.hint.contains("es_use_tenant"),
                "{}",
                error.hint
            );
            refused("ES041", "select * from eventstream.events");
            run("select es_use_tenant('x')");
            assert_eq!(rows("select payload from es_read('a-1')"), "(\"\"\"x\"\"\")");
            refused("42501", "select es_append('a-1', 'T', '{}')");
            run("select es_use_tenant('y')");
            refused("42501", "select es_read('a-1')");
            assert_eq!(value("select es_append('a-1', 'T', '{}')"), "2");
        });
        // So must the superuser, who may use all three.
        run("set local eventstream.tenant = ''");
        let error = refused("ES041", "select es_read('a-1')");
        assert_eq!(detail(&error)["tenants"], serde_json::json!(["default", "x", "y"]));
    }

    #[pg_test]
    fn a_tenant_that_does_not_exist_is_es040_to_those_who_may_everything() {
        let error = refused("ES040", "select es_use_tenant('none')");
        assert_eq!(error.detail, r#"{"tenant":"none"}"#);
        run("set local eventstream.tenant = 'none'");
        refused("ES040", "select es_append('a-1', 'T', '{}')");
        refused("ES040", "select * from eventstream.events");
    }

    #[pg_test]
    fn es_use_tenant_is_undone_with_its_subtransaction() {
        two_tenants();
        run("select es_use_tenant('x')");
        refused("P0001", "do $$ begin perform es_use_tenant('y'); raise 'no'; end $$");
        assert_eq!(value("select current_setting('eventstream.tenant')"), "x");
    }

    #[pg_test]
    fn the_same_stream_name_is_another_stream_in_another_tenant() {
        two_tenants();
        run("select es_use_tenant('x')");
        assert_eq!(value("select es_append('a-1', 'T', '{}', 1)"), "2");
        run("select es_use_tenant('y')");
        refused("ES001", "select es_append('a-1', 'T', '{}', 2)");
        // The tenant is part of what the chain covers.
        assert_eq!(value("select count(distinct chain_hash) from _eventstream.events"), "3");
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn admin_of_one_tenant_grants_there_and_nowhere_else() {
        two_tenants();
        run("create role t_admin; create role t_new");
        run("select es_grant('t_admin', 'admin', 'x')");
        as_role("t_admin", || {
            run("select es_grant('t_new', 'read', 'x')");
            refused("42501", "select es_grant('t_new', 'read', 'y')");
            refused("42501", "select es_grant('t_new', 'read', 'default')");
            // Admin is not the right to read.
            refused("42501", "select es_read('a-1')");
            run("select es_create_tenant('z')");
            run("select es_grant('t_admin', 'append', 'z')");
        });
        assert_eq!(
            rows(
                "select role, privilege, t.name from _eventstream.grants g join _eventstream.tenants t on t.id = g.tenant_id order by 1, 2, 3"
            ),
            "(t_admin,admin,x) (t_admin,admin,z) (t_admin,append,z) (t_new,read,x)"
        );
    }
}
