"""What becomes of roles beside acts: names that several roles had one after the other, and what is done to a role before the log has begun.

Kinds: role (dropped and made again, renamed twice, in this database and in another, in the log's first transaction), two sessions, a session whose role changes or is
gone by its COMMIT, a projection's handler.
"""

import pytest

from database import rows, value
from test_audit import differences, log  # noqa: F401 - a fixture

GRANTED = "select role, role_oid is null from _eventstream.grants order by role"


def elsewhere(database, *statements: str) -> None:
    with database.server.connect("postgres") as admin:
        for statement in statements:
            admin.execute(statement)


def at_once(database, *between: str, then: str) -> None:
    """Two sessions grant, neither of which sees the other's: in between a role becomes another."""
    with database.connect() as first, database.connect() as second:
        first.execute("begin; select es_grant('twice', 'read')")
        elsewhere(database, *between)
        second.execute(f"select es_grant('{then}', 'read')")
        first.execute("commit")


def test_several_roles_of_one_name_whose_end_is_seen_at_once_leave_one_grant_behind(log):  # noqa: F811
    log.role("twice")
    at_once(log, "drop role twice", "create role twice", then="twice")
    elsewhere(log, "drop role twice")
    with log.connect() as session:
        assert rows(session, GRANTED) == [("twice", False)] * 2
        for _ in range(2):
            session.execute("select * from es_maintain()")
            assert rows(session, GRANTED) == [("twice", True)] and differences(session) == []
        # The next of that name takes its place.
        log.role("twice")
        session.execute("select es_grant('twice', 'read'); select es_revoke('twice', 'read')")
        assert rows(session, GRANTED) == [] and differences(session) == []


def test_a_role_that_was_granted_something_under_two_names_has_it_once(log):  # noqa: F811
    log.role("twice")
    at_once(log, "alter role twice rename to twice_2", then="twice_2")
    elsewhere(log, "alter role twice_2 rename to twice_3")
    log.roles.append("twice_3")
    with log.connect() as session:
        assert rows(session, GRANTED) == [("twice", False), ("twice_2", False)]
        session.execute("select * from es_maintain()")
        assert rows(session, GRANTED) == [("twice_3", False)] and differences(session) == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_is_done_to_a_role_in_the_logs_first_transaction_is_seen(log, end):  # noqa: F811
    log.role("first")
    log.roles.append("second")
    with log.connect() as session:
        session.execute("begin; select es_grant('first', 'read'); alter role first rename to second")
        assert rows(session, GRANTED) == [("second", False)]
        session.execute("select es_revoke('second', 'read'); select es_grant('second', 'append')")
        # Another one of the old name has nothing, and takes nothing.
        session.execute("create role first; select es_grant('first', 'append'); drop role first")
        assert rows(session, GRANTED) == [("first", True), ("second", False)]
        session.execute("create role first; select es_grant('first', 'append'); drop role first")
        session.execute(end)
        assert rows(session, GRANTED) == ([("first", True), ("second", False)] if end == "commit" else [])
        session.execute("select * from es_maintain()")
        assert differences(session) == []


def test_a_role_is_not_noted_where_its_grant_was_rolled_back_before_the_log_began(log):  # noqa: F811
    """What is there then may be a restore's."""
    log.role("first")
    log.roles.append("second")
    with log.connect() as session:
        session.execute("begin; savepoint s; select es_grant('first', 'read'); rollback to s; alter role first rename to second; commit")
        assert value(session, "select count(*) from _eventstream.first_appends") == 0


def test_an_act_is_recorded_by_who_was_in_the_session_when_it_was_done(log):  # noqa: F811
    recorded = "select recorded_by from eventstream.administration order by global_position"
    log.role("bob")
    log.role("passing")
    with log.connect() as session:
        user = value(session, "select session_user")
        session.execute("begin; select es_grant('clerk', 'read'); set session authorization bob; commit")
        session.execute("reset session authorization")
        assert rows(session, recorded) == [(user,)]
        session.execute("alter role passing superuser")
        with log.connect("passing") as passing:
            passing.execute("begin; select es_grant('clerk', 'append')")
            session.execute("drop role passing")
            passing.execute("commit")
        assert rows(session, recorded) == [(user,), ("passing",)]
        assert differences(session) == [] and rows(session, "select * from es_verify()") == []


@pytest.mark.parametrize("mode", ["async", "inline"])
def test_an_act_of_a_handlers_says_whose_it_is_and_what_caused_it(log, mode):  # noqa: F811
    log.role("registrant")
    with log.connect() as session:
        session.execute("grant all on schema public to public")
        session.execute("select es_grant('registrant', p) from unnest('{read,append,manage,admin}'::text[]) p")
        with log.connect("registrant") as registrant:
            registrant.execute("""create function grants(event eventstream.event) returns void language plpgsql as $$
                begin
                    perform es_grant('clerk', 'read', category => 'k' || event.version);
                    perform es_append('granted-' || event.version, 'Granted', '{}');
                end $$""")
            registrant.execute(f"select es_create_projection('ph', 'grants(eventstream.event)', categories => '{{account}}', mode => '{mode}')")
        event = "00000000-0000-0000-0000-00000000000a"
        session.execute(
            "select es_append('account-1', 'Happened', '{}', event_id => %s, metadata => '{\"actor\": \"ada\", \"correlation_id\": \"c-1\"}')", (event,)
        )
        session.execute("select es_run_projection('ph')" if mode == "async" else "select 1")
        ((by, metadata),) = rows(session, "select recorded_by, metadata from eventstream.events where category = 'granted'")
        ((act, act_by, act_metadata),) = rows(
            session, "select event_type, recorded_by, metadata from eventstream.administration order by global_position desc limit 1"
        )
        assert act == "PrivilegeGranted" and (act_by, act_metadata) == (by, metadata)
        assert by == "registrant" and metadata == {"actor": "projection ph", "causation_id": event, "correlation_id": "c-1"}
        assert differences(session) == []
