//! What a privilege opens, for every category or for one, and what stays closed without it.
use super::{CALLS, as_role, detail, one_event};
use crate::pg_test::sql::{caught, refused, rows, run, value};

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
                let privilege = privilege.split(" or ").next().unwrap_or_default();
                assert_eq!(
                    (&detail["role"], &detail["privilege"], &detail["tenant"]),
                    (&"t_nothing".into(), &privilege.into(), &"default".into()),
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
            // What is enough for one category comes behind it.
            let statement = hint.split_once(": ").expect("a statement").1.split_inclusive(';').next().expect("one");
            run(statement);
            let after = as_role("t_hinted", || caught(call));
            assert!(after.is_none_or(|error| error.code != "42501"), "{call} after {statement}");
            run(&statement.replace("es_grant", "es_revoke"));
        }
    }

    #[pg_test]
    fn each_privilege_opens_its_calls_and_no_others() {
        one_event();
        for granted in ["read", "append", "command", "consume", "manage", "upkeep", "reveal", "audit", "admin"] {
            let role = format!("t_only_{granted}");
            run(&format!("create role {role}"));
            run(&format!("select es_grant('{role}', '{granted}')"));
            as_role(&role, || {
                for (needed, call) in CALLS {
                    let code = caught(call).map(|error| error.code);
                    if needed.split(" or ").any(|one| one == granted) {
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
                r#"select stream, version from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]},
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
    fn members_of_pg_monitor_see_who_holds_the_horizon() {
        one_event();
        run("create role t_monitor in role pg_monitor");
        as_role("t_monitor", || {
            assert_eq!(value("select count(*) from eventstream.horizon_holders where pid = pg_backend_pid()"), "1");
            refused("42501", "select * from eventstream.events");
        });
    }

    #[pg_test]
    fn no_role_has_a_privilege_on_the_tables() {
        run("create role t_peeper");
        run(
            "select es_grant('t_peeper', privilege) from unnest(array['read', 'append', 'command', 'consume', 'manage', 'upkeep', 'audit', 'admin']) privilege",
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
