//! Tenants are walls, and grants the only doors in them: what a role may see and do, by functions and by views.
use crate::pg_test::sql::{Caught, caught, refused, rows, run, value};

/// Runs `work` as another role. The session user stays.
fn as_role<T>(role: &str, work: impl FnOnce() -> T) -> T {
    run(&format!("set local role {role}"));
    let done = work();
    run("reset role");
    done
}

fn detail(error: &Caught) -> serde_json::Value {
    serde_json::from_str(&error.detail).expect("DETAIL is JSON")
}

/// Everything that shows or writes something of a tenant, with the privilege that it needs.
const CALLS: &[(&str, &str)] = &[
    ("append", "select es_append('a-1', 'T', '{}')"),
    ("append", r#"select es_append_events('a-1', '[{"type": "T", "payload": {}}]')"#),
    ("append", r#"select * from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]}]')"#),
    ("append", "select es_close_stream('a-1', 'over')"),
    ("read", "select * from es_read('a-1')"),
    ("read", "select * from es_read_all()"),
    ("read", "select * from es_read_backward()"),
    ("read", "select * from es_read_subject('p')"),
    ("read", "select * from es_event('00000000-0000-0000-0000-000000000001')"),
    ("read", "select es_stream_version('a-1')"),
    ("read", "select es_stream('a-1')"),
    ("read", "select es_horizon()"),
    ("read", "select es_settled_until()"),
    ("read", "select es_log_info()"),
    ("read", "select * from eventstream.events"),
    ("read", "select * from eventstream.streams"),
    ("audit", "select * from eventstream.audit"),
    ("audit", "select * from eventstream.grants"),
    ("audit", "select * from es_verify_stream('a-1')"),
    ("audit", "select * from es_verify()"),
    ("audit", "select * from es_chain_heads()"),
    ("manage", "select * from es_maintain()"),
    ("admin", "select es_create_tenant('another')"),
    ("admin", "select es_grant('public', 'read')"),
    ("admin", "select es_revoke('public', 'read')"),
];

fn one_event() {
    run(
        "select es_append('a-1', 'T', '{\"n\": 1}', event_id => '00000000-0000-0000-0000-000000000001', subject => 'p')",
    );
}

/// Tenants `x` and `y`, each with a stream a-1.
fn two_tenants() {
    for tenant in ["x", "y"] {
        run(&format!("select es_create_tenant('{tenant}')"));
        run(&format!("select es_use_tenant('{tenant}')"));
        run(&format!(
            "select es_append('a-1', 'T', '\"{tenant}\"', event_id => '00000000-0000-0000-0000-00000000000{}', subject => 'p')",
            if tenant == "x" { 1 } else { 2 }
        ));
    }
    run("set local eventstream.tenant = ''");
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn without_a_grant_nothing_is_readable_or_appendable() {
        one_event();
        run("create role t_nothing");
        as_role("t_nothing", || {
            for (privilege, call) in CALLS {
                let error = refused("42501", call);
                let detail = detail(&error);
                assert_eq!(
                    (&detail["role"], &detail["privilege"], &detail["tenant"]),
                    (&"t_nothing".into(), &(*privilege).into(), &"default".into()),
                    "{call}"
                );
                for named in ["t_nothing", privilege, "default"] {
                    assert!(error.message.contains(named), "{call}: {}", error.message);
                }
                assert!(error.hint.contains("es_grant"), "{call}: {}", error.hint);
            }
            refused("42501", "select * from eventstream.horizon_holders");
        });
        assert_eq!(rows("select stream, version from eventstream.streams"), "(a-1,1)");
    }

    #[pg_test]
    fn the_hint_of_a_refusal_is_the_grant_that_mends_it() {
        one_event();
        run("create role t_hinted");
        for (_, call) in CALLS.iter().filter(|(privilege, _)| *privilege != "admin") {
            let hint = as_role("t_hinted", || refused("42501", call)).hint;
            let statement = hint.split_once(": ").expect("a statement").1;
            run(statement);
            let after = as_role("t_hinted", || caught(call));
            assert!(after.is_none_or(|error| error.code != "42501"), "{call} after {statement}");
            run(&statement.replace("es_grant", "es_revoke"));
        }
    }

    #[pg_test]
    fn each_privilege_opens_its_calls_and_no_others() {
        one_event();
        for granted in ["read", "append", "manage", "audit", "admin"] {
            let role = format!("t_only_{granted}");
            run(&format!("create role {role}"));
            run(&format!("select es_grant('{role}', '{granted}')"));
            as_role(&role, || {
                for (needed, call) in CALLS {
                    let code = caught(call).map(|error| error.code);
                    if *needed == granted {
                        assert!(code.as_deref() != Some("42501"), "{granted} must allow {call}");
                    } else {
                        assert_eq!(code.as_deref(), Some("42501"), "{granted} must not allow {call}");
                    }
                }
            });
        }
    }

    #[pg_test]
    fn what_shows_nothing_of_a_tenant_needs_no_grant() {
        run("create role t_nobody");
        as_role("t_nobody", || {
            for call in [
                "select es_new_event_id()",
                "select es_last_append()",
                "select es_ulid(gen_random_uuid())",
                "select es_ulid_to_uuid('01H455VB4PEX5VSKNK084SN02Q')",
                "select es_stream_name('a', '1')",
            ] {
                run(call);
            }
        });
    }

    #[pg_test]
    fn a_grant_for_a_category_gives_just_that_one() {
        run("select es_append('a-1', 'T', '1', subject => 'p'), es_append('b-1', 'T', '2', subject => 'p')");
        let of_b = value("select event_id from es_read('b-1')");
        run("create role t_narrow");
        run("select es_grant('t_narrow', 'read', category => 'a'), es_grant('t_narrow', 'append', category => 'a')");
        as_role("t_narrow", || {
            assert_eq!(rows("select payload from es_read('a-1')"), "(1)");
            assert_eq!(value("select es_append('a-1', 'T', '3')"), "2");
            for call in [
                "select * from es_read('b-1')",
                "select es_stream_version('b-1')",
                "select es_stream('b-1')",
                "select es_append('b-1', 'T', '{}')",
                "select es_append('ab-1', 'T', '{}')",
                r#"select * from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]},
                                                     {"stream": "b-1", "events": [{"type": "T", "payload": {}}]}]')"#,
            ] {
                let error = refused("42501", call);
                assert!(!detail(&error)["category"].is_null(), "{call}: {error:?}");
            }
            for query in [
                "select distinct category from eventstream.events",
                "select distinct category from eventstream.streams",
                "select distinct category from es_read_backward()",
                "select distinct category from es_read_backward(categories => '{a,b}')",
                "select distinct category from es_read_subject('p')",
            ] {
                assert_eq!(rows(query), "(a)", "{query}");
            }
            assert_eq!(rows("select * from es_read_backward(categories => '{b}')"), "");
            assert_eq!(rows(&format!("select * from es_event('{of_b}')")), "");
            // Horizon and log info concern the whole tenant, but show no event.
            run("select es_horizon()");
        });
        assert_eq!(value("select es_stream_version('a-1')"), "2");
    }

    #[pg_test]
    fn a_privilege_for_a_category_is_no_other_privilege_there() {
        run("select es_append('a-1', 'T', '1')");
        run("create role t_reader; create role t_writer");
        run("select es_grant('t_reader', 'read', category => 'a'), es_grant('t_writer', 'append', category => 'a')");
        as_role("t_reader", || {
            refused("42501", "select es_append('a-1', 'T', '{}')");
            assert_eq!(value("select es_stream_version('a-1')"), "1");
        });
        as_role("t_writer", || {
            refused("42501", "select es_read('a-1')");
            refused("42501", "select * from eventstream.events");
            refused("42501", "select * from es_read_backward()");
            assert_eq!(value("select es_append('a-1', 'T', '{}')"), "2");
        });
    }

    #[pg_test]
    fn a_leaky_function_in_where_sees_only_what_the_role_may_read() {
        run("select es_append('a-1', 'T', '\"open\"'), es_append('b-1', 'T', '\"secret\"')");
        run("create role t_leaky");
        run("select es_grant('t_leaky', 'read', category => 'a')");
        run("create schema leak; grant usage, create on schema leak to t_leaky");
        as_role("t_leaky", || {
            run("create function leak.look(text) returns bool language plpgsql cost 0.0000001 as \
                 $$ begin if $1 like '%secret%' or $1 like 'b-%' then raise 'seen: %', $1; end if; return true; end $$");
            assert_eq!(
                rows("select payload from eventstream.events where leak.look(payload::text)"),
                "(\"\"\"open\"\"\")"
            );
            assert_eq!(rows("select stream from eventstream.events where leak.look(stream)"), "(a-1)");
            assert_eq!(rows("select stream from eventstream.streams where leak.look(stream)"), "(a-1)");
        });
    }

    #[pg_test]
    fn grants_come_through_membership_and_through_public() {
        one_event();
        run(
            "create role t_group; create role t_member in role t_group; create role t_outside; create role t_noinherit noinherit in role t_group",
        );
        run("select es_grant('t_group', 'read')");
        assert_eq!(as_role("t_member", || value("select es_stream_version('a-1')")), "1");
        as_role("t_outside", || refused("42501", "select es_stream_version('a-1')"));
        as_role("t_noinherit", || refused("42501", "select es_stream_version('a-1')"));
        run("select es_grant('public', 'read')");
        assert_eq!(as_role("t_outside", || value("select es_stream_version('a-1')")), "1");
    }

    #[pg_test]
    fn a_revoked_grant_ends_at_once() {
        one_event();
        run("create role t_revoked");
        run("select es_grant('t_revoked', 'read'), es_grant('t_revoked', 'read', category => 'a')");
        assert_eq!(as_role("t_revoked", || value("select es_stream_version('a-1')")), "1");
        run("select es_revoke('t_revoked', 'read')");
        assert_eq!(as_role("t_revoked", || value("select es_stream_version('a-1')")), "1");
        run("select es_revoke('t_revoked', 'read', category => 'a')");
        as_role("t_revoked", || refused("42501", "select es_stream_version('a-1')"));
        let error = refused("ES005", "select es_revoke('t_revoked', 'read')");
        assert!(error.message.contains("t_revoked") && error.message.contains("read"), "{}", error.message);
    }

    #[pg_test]
    fn a_rolled_back_grant_was_never_given() {
        one_event();
        run("create role t_undone");
        refused(
            "P0001",
            "do $$ begin perform es_grant('t_undone', 'read'); set local role t_undone; perform es_stream_version('a-1'); raise 'no'; end $$",
        );
        as_role("t_undone", || refused("42501", "select es_stream_version('a-1')"));
    }

    #[pg_test]
    fn a_role_that_lost_its_membership_lost_the_grant() {
        one_event();
        run("create role t_team; create role t_left in role t_team");
        run("select es_grant('t_team', 'read')");
        assert_eq!(as_role("t_left", || value("select es_stream_version('a-1')")), "1");
        run("revoke t_team from t_left");
        as_role("t_left", || refused("42501", "select es_stream_version('a-1')"));
    }

    #[pg_test]
    fn grants_follow_a_roles_name() {
        one_event();
        run("create role t_name; create role t_other");
        run("select es_grant('t_name', 'read')");
        assert_eq!(as_role("t_name", || value("select es_stream_version('a-1')")), "1");
        run("alter role t_name rename to t_renamed");
        as_role("t_renamed", || refused("42501", "select es_stream_version('a-1')"));
        run("alter role t_other rename to t_name");
        assert_eq!(as_role("t_name", || value("select es_stream_version('a-1')")), "1");
    }

    #[pg_test]
    fn members_of_pg_monitor_see_who_holds_the_horizon() {
        one_event();
        run("create role t_monitor in role pg_monitor");
        as_role("t_monitor", || {
            assert_eq!(value("select count(*) from eventstream.horizon_holders where pid = pg_backend_pid()"), "1");
            refused("42501", "select * from eventstream.events");
        });
    }

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
    fn the_effective_role_counts_and_the_session_role_is_recorded() {
        run("create role t_caller; create role t_definer");
        run("select es_grant('t_definer', 'append')");
        run("create schema app; grant usage on schema app to public");
        run(
            "create function app.post() returns bigint language sql security definer as $$ select es_append('a-1', 'T', '{}') $$",
        );
        run("alter function app.post() owner to t_definer");
        as_role("t_caller", || {
            refused("42501", "select es_append('a-1', 'T', '{}')");
            assert_eq!(value("select app.post()"), "1");
        });
        assert_eq!(rows("select recorded_by = session_user from es_read('a-1')"), "(t)");
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

    #[pg_test]
    fn es_grant_twice_is_one_grant() {
        run("create role t_twice");
        run("select es_grant('t_twice', 'read'), es_grant('t_twice', 'read')");
        run("select es_grant('t_twice', 'read', category => 'a'), es_grant('t_twice', 'read', category => 'a')");
        assert_eq!(
            rows(
                "select role, privilege, tenant, category, role_exists, granted_by = current_user from eventstream.grants order by category"
            ),
            "(t_twice,read,default,a,t,t) (t_twice,read,default,,t,t)"
        );
    }

    #[pg_test]
    fn the_view_grants_tells_of_roles_that_are_gone() {
        run("create role t_gone");
        run("select es_grant('t_gone', 'read'), es_grant('public', 'append')");
        run("drop role t_gone");
        assert_eq!(rows("select role, role_exists from eventstream.grants order by role"), "(public,t) (t_gone,f)");
        run("select es_revoke('t_gone', 'read')");
    }

    #[pg_test]
    fn no_role_has_a_privilege_on_the_tables() {
        run("create role t_peeper");
        run(
            "select es_grant('t_peeper', privilege) from unnest(array['read', 'append', 'manage', 'audit', 'admin']) privilege",
        );
        as_role("t_peeper", || {
            for table in ["events", "events_1", "streams", "stream_segments", "tenants", "grants", "log_identities"] {
                refused("42501", &format!("select * from _eventstream.{table}"));
                refused("42501", &format!("delete from _eventstream.{table}"));
            }
            for sequence in ["positions", "stream_ids", "tenant_ids", "recorded_floor"] {
                refused("42501", &format!("select nextval('_eventstream.{sequence}')"));
                refused("42501", &format!("select * from _eventstream.{sequence}"));
            }
            refused("42501", "select _eventstream.make_partition(1, 2)");
            refused("42501", "select * from _eventstream.horizon_holders()");
        });
        assert_eq!(
            rows(
                "select c.relname, a.grantee::regrole, a.privilege_type from pg_class c, aclexplode(c.relacl) a \
                 where c.relnamespace = '_eventstream'::regnamespace and a.grantee <> c.relowner"
            ),
            ""
        );
    }
}
