"""What becomes of grants whose roles are seen to have changed at once.

Kinds: role (dropped and made again, renamed twice, in another database), two sessions.
"""

from database import rows
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
