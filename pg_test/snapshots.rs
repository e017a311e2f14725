//! Snapshots: what es_snapshot, es_snapshot_state, es_verify_snapshots and es_prune_snapshots give and refuse, and who sees what of
//! folds, upcasters, snapshots and counts. What takes other sessions is tested in tests/cluster.
use crate::pg_test::sql::{refused, rows, run, value};

/// A fold of category a that counts, and stream a-1 with three events.
fn counted() {
    run(
        "create function tests.counted(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin \
             return jsonb_build_object('n', (state ->> 'n')::int + 1); end $$",
    );
    run("grant execute on function tests.counted to public");
    register("count", "a");
    for _ in 0..3 {
        run("select es_append('a-1', 'T', '{}')");
    }
}

fn register(name: &str, category: &str) {
    run(&format!(
        "select es_register_fold('{name}', '{category}', 'tests.counted(jsonb, eventstream.event)', initial_state => '{{\"n\": 0}}')"
    ));
}

fn as_role<T>(role: &str, work: impl FnOnce() -> T) -> T {
    run(&format!("set local role {role}"));
    let done = work();
    run("reset role");
    done
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn es_snapshot_keeps_the_state_now_and_says_its_version() {
        counted();
        assert_eq!(value("select es_snapshot('a-1')"), "3");
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(value("select es_snapshot('a-1', 'count')"), "4");
        assert_eq!(value("select es_snapshot('a-1')"), "4");
        assert_eq!(
            rows("select stream, fold, version, is_current from eventstream.snapshots order by version"),
            "(a-1,count,3,t) (a-1,count,4,t)"
        );
        assert_eq!(value("select es_snapshot_state('a-1', 3)"), r#"{"n": 3}"#);
        assert_eq!(value("select es_snapshot_state('a-1')"), r#"{"n": 4}"#);
        assert_eq!(value("select (es_stream('a-1')).snapshots"), "2");
    }

    #[pg_test]
    fn es_snapshot_replaces_a_damaged_one_at_the_same_version() {
        counted();
        run("select es_snapshot('a-1')");
        run("update _eventstream.snapshots set state = '{\"n\": 9}'");
        assert_eq!(value("select count(*) from es_verify_snapshots()"), "1");
        run("select es_snapshot('a-1')");
        assert_eq!(value("select count(*) from es_verify_snapshots(thorough => true)"), "0");
    }

    #[pg_test]
    fn snapshots_of_what_is_not_there_are_refused_by_name() {
        counted();
        refused("ES004", "select es_snapshot('a')");
        refused("ES002", "select es_snapshot('a-2')");
        refused("ES010", "select es_snapshot('a-1', 'other')");
        refused("ES010", "select es_snapshot('b-1')");
        refused("ES002", "select es_snapshot_state('a-2')");
        refused("ES010", "select es_snapshot_state('a-1', fold => 'other')");
        refused("ES010", "select * from es_verify_snapshots('other')");
        let error = refused("ES012", "select es_snapshot_state('a-1')");
        assert_eq!(error.message, "stream \"a-1\" has no snapshot by fold \"count\"");
        let error = refused("ES012", "select es_snapshot_state('a-1', 2)");
        assert_eq!(error.message, "stream \"a-1\" has no snapshot at version 2 by fold \"count\"");
        assert!(error.hint.contains("eventstream.snapshots"), "{error:?}");
        for (argument, call) in [
            ("version", "es_snapshot_state('a-1', 0)"),
            ("keep", "es_prune_snapshots(-1)"),
            ("keep", "es_prune_snapshots(null)"),
            ("older_than", "es_prune_snapshots(1, interval '-1 second')"),
            ("stream", "es_snapshot(null)"),
            ("thorough", "es_verify_snapshots(null, null)"),
        ] {
            let error = refused("ES005", &format!("select {call}"));
            assert!(error.message.starts_with(argument), "{call}: {error:?}");
        }
    }

    #[pg_test]
    fn es_unregister_fold_takes_the_snapshots_along() {
        counted();
        run("select es_snapshot('a-1')");
        run("select es_unregister_fold('count')");
        assert_eq!(value("select count(*) from _eventstream.snapshots"), "0");
    }

    #[pg_test]
    fn a_snapshot_whose_fold_is_gone_is_named() {
        counted();
        run("select es_snapshot('a-1')");
        run("set eventstream.allow_drop = on");
        run("alter table _eventstream.folds disable trigger all");
        run("delete from _eventstream.folds");
        register("another", "a");
        assert_eq!(
            rows("select * from es_verify_snapshots()"),
            "(a-1,count,3,\"its fold is not registered for the stream's category\")"
        );
    }

    #[pg_test]
    fn snapshots_need_manage_and_read_to_be_taken_and_read_to_be_read() {
        counted();
        run("create role t_taker; create role t_reader; create role t_other");
        run(
            "select es_grant('t_taker', 'manage'), es_grant('t_taker', 'read', category => 'a'), es_grant('t_reader', 'read', category => 'a'), es_grant('t_other', 'read', category => 'b')",
        );
        as_role("t_taker", || {
            assert_eq!(value("select es_snapshot('a-1')"), "3");
            refused("42501", "select * from es_verify_snapshots()");
        });
        as_role("t_reader", || {
            assert_eq!(value("select es_snapshot_state('a-1')"), r#"{"n": 3}"#);
            assert_eq!(rows("select stream, version, is_current from eventstream.snapshots"), "(a-1,3,t)");
            assert_eq!(rows("select name, category, registrant = session_user from eventstream.folds"), "(count,a,t)");
            refused("42501", "select es_snapshot('a-1')");
            refused("42501", "select es_prune_snapshots()");
        });
        as_role("t_other", || {
            refused("42501", "select es_snapshot_state('a-1')");
            assert_eq!(rows("select * from eventstream.snapshots"), "");
            assert_eq!(rows("select * from eventstream.folds"), "");
        });
    }

    #[pg_test]
    fn a_tenant_sees_and_prunes_its_own_only() {
        counted();
        run("select es_snapshot('a-1')");
        run("select es_create_tenant('x')");
        run("select es_use_tenant('x')");
        register("count", "a");
        run("select es_append('a-1', 'T', '{}')");
        assert_eq!(value("select es_snapshot('a-1')"), "1");
        run("update _eventstream.snapshots set checksum = '\\x00'");
        assert_eq!(rows("select stream, version from es_verify_snapshots()"), "(a-1,1)");
        assert_eq!(rows("select stream, version, tenant from eventstream.snapshots"), "(a-1,1,x)");
        assert_eq!(rows("select name, tenant from eventstream.folds"), "(count,x)");
        assert_eq!(value("select es_prune_snapshots(0)"), "1");
        run("select es_use_tenant('default')");
        assert_eq!(rows("select stream, version, tenant from eventstream.snapshots"), "(a-1,3,default)");
    }

    #[pg_test]
    fn the_view_of_upcasters_shows_what_is_registered() {
        run(
            "create function tests.same(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select payload'",
        );
        run("select es_register_upcaster('T', 2, 'tests.same(jsonb, jsonb)', 'U')");
        assert_eq!(
            rows(
                "select event_type, from_schema_version, to_event_type, handler, registrant = session_user, tenant from eventstream.upcasters"
            ),
            "(T,2,U,tests.same,t,default)"
        );
    }

    #[pg_test]
    fn counts_are_for_pg_monitor_and_tell_what_happened() {
        counted();
        let count = |name: &str| -> i64 {
            value(&format!("select value from eventstream.stats where name = '{name}'")).parse().expect("a number")
        };
        let names = [
            "appends",
            "events_appended",
            "conflicts",
            "cache_hits",
            "cache_misses",
            "snapshot_hits",
            "events_folded",
            "cache_entries",
        ];
        let before = names.map(count);
        run("select es_append_events('a-2', '[{\"type\": \"T\", \"payload\": 1}, {\"type\": \"T\", \"payload\": 2}]')");
        refused("ES001", "select es_append('a-2', 'T', '{}', expected_version => 1)");
        run("select es_state('a-2'), es_state('a-2')");
        let after = names.map(count);
        let grown: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(grown, [1, 2, 1, 1, 1, 0, 2, 1], "{names:?}");
        run("create role t_nobody; create role t_monitor in role pg_monitor");
        as_role("t_nobody", || refused("42501", "select * from eventstream.stats"));
        as_role("t_monitor", || run("select * from eventstream.stats"));
    }

    #[pg_test]
    fn whoever_has_manage_takes_snapshots_with_the_registrants_rights() {
        counted();
        run("create role t_upkeep");
        run("select es_grant('t_upkeep', p) from unnest('{manage,read,upkeep}'::text[]) p");
        run("revoke execute on function tests.counted from public");
        as_role("t_upkeep", || {
            assert_eq!(value("select es_snapshot('a-1')"), "3");
            assert_eq!(
                rows("select * from es_maintain() where task like 'snapshots%'"),
                "(\"snapshots taken\",0) (\"snapshots failed\",0) (\"snapshots removed\",0)"
            );
        });
    }
}
