//! Whose grants count: membership, public, renamed, dropped and replaced roles, SECURITY DEFINER; giving and taking back.
use super::{as_role, one_event};
use crate::pg_test::sql::{refused, rows, run, value};

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

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
    fn grants_stay_with_their_role_whatever_its_name() {
        one_event();
        run("create role t_name; create role t_other");
        run("select es_grant('t_name', 'read')");
        assert_eq!(as_role("t_name", || value("select es_stream_version('a-1')")), "1");
        run("alter role t_name rename to t_renamed; alter role t_other rename to t_name");
        as_role("t_name", || refused("42501", "select es_stream_version('a-1')"));
        assert_eq!(as_role("t_renamed", || value("select es_stream_version('a-1')")), "1");
        assert_eq!(rows("select role, role_exists from eventstream.grants"), "(t_renamed,t)");
        // The grants of a role that is gone are nobody's, whoever is called as it was. They stand under the name last seen.
        run("select * from es_maintain()");
        run("drop role t_renamed; create role t_renamed");
        as_role("t_renamed", || refused("42501", "select es_stream_version('a-1')"));
        assert_eq!(rows("select role, role_exists from eventstream.grants"), "(t_renamed,f)");
        run("select es_grant('t_renamed', 'read')");
        assert_eq!(as_role("t_renamed", || value("select es_stream_version('a-1')")), "1");
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
}
