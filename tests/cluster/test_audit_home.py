"""Where the log is at home decides what a role is. Nothing changes that but es_activate, which adds a place: each act says where it was, and a row of
log_identities that was edited by hand is found, for ever once an act met it.

Kinds: verification (edited, doubled, edited back, before an activation, in a copy); copies (template, dump, a copy of a copy, each before and after es_activate,
acts in all of them); a log that has appended before its first act; a tenant's own auditor.
"""

import contextlib

import pytest

from database import Database, rows, value
from server import WORK, run
from test_audit import by_hand, copy_of, log  # noqa: F401 - a fixture

HERE = "(select oid from pg_database where datname = current_database())"
EDITS = {
    "another database": "update _eventstream.log_identities set database_oid = 1",
    "another cluster": "update _eventstream.log_identities set system_identifier = 1",
    "another id": "update _eventstream.log_identities set log_id = gen_random_uuid()",
    "a row that counts before": "insert into _eventstream.log_identities select log_id, 1, database_oid, '2001-01-01', true from _eventstream.this_log()",
}
BACK = f"update _eventstream.log_identities set database_oid = {HERE}"


def found_in(session) -> list[tuple]:
    return rows(session, "select kind, problem from es_verify_audit()")


@pytest.mark.parametrize("edit", EDITS)
def test_a_home_that_was_edited_is_found(log, edit):  # noqa: F811
    with log.connect() as session:
        session.execute("select es_append('account-1', 'Happened', '{}')")
        session.execute("select es_grant('clerk', 'read')")
        assert found_in(session) == []
        by_hand(session, EDITS[edit])
        kind, problem = found_in(session)[0]
        assert kind == "log" and "is not what the last act met: other " in problem and "by hand" in problem


def test_an_activation_of_the_home_that_was_edited_launders_nothing(log):  # noqa: F811
    """It made names count, bound a namesake to a grant, and was taken for the reason why a grant was not there."""
    log.role("passing")
    with log.connect() as session:
        session.execute("select es_grant('clerk', 'read'); select es_grant('clerk', 'append')")
        by_hand(session, "delete from _eventstream.grants where privilege = 'read'")
        by_hand(session, EDITS["another database"])
        session.execute("select es_activate(); select es_grant('clerk', 'read')")
        by_hand(session, BACK)
        session.execute("select es_grant('clerk', 'consume')")
        found = found_in(session)
        assert [kind for kind, _ in found] == ["activation", "log", "log", "grant"]
        assert "at home there already" in found[0][1] and all("before this act: other database_oid" in problem for _, problem in found[1:3])
        assert "it was gone" in found[3][1]


def test_an_edit_that_was_taken_back_is_found_in_the_acts_that_met_it(log):  # noqa: F811
    with log.connect() as session:
        session.execute("select es_create_tenant('b'); select es_grant('clerk', 'read', tenant => 'b'); select es_grant('clerk', 'audit', tenant => 'b')")
        session.execute("select es_grant('clerk', 'read', tenant => 'default')")
        by_hand(session, EDITS["another database"])
        session.execute("select es_grant('clerk', 'append', tenant => 'b')")
        by_hand(session, BACK)
        for then in ("is not what the last act met", "before this act"):
            found = rows(session, "select tenant, kind, problem from es_verify_audit()")
            assert [(tenant, kind) for tenant, kind, _ in found] == [("default", "log")] * 2
            assert "before this act: other database_oid" in found[0][2] and f"{then}: other database_oid" in found[1][2]
            session.execute("select es_grant('clerk', 'append', tenant => 'default')")
    with log.connect("clerk") as auditor:
        # Of its own acts.
        auditor.execute("set eventstream.tenant = 'b'")
        assert rows(auditor, "select tenant, kind from es_verify_audit()") == [("b", "log")] * 2


def test_a_copy_that_was_made_to_look_like_home_is_found(log):  # noqa: F811
    with log.connect() as session:
        session.execute("select es_grant('clerk', 'read')")
    copy = copy_of(log)
    try:
        with copy.connect() as session:
            by_hand(session, BACK)
            assert value(session, "select _eventstream.is_home()")
            # Also before anything was appended to it.
            assert [kind for kind, _ in found_in(session)] == ["log"]
            session.execute("select es_grant('clerk', 'append')")
            assert [kind for kind, _ in found_in(session)] == ["log"]
    finally:
        copy.drop()


def work(session, number: int) -> None:
    session.execute(f"select es_append('account-{number}', 'Happened', '{{}}'); select es_grant('clerk', 'read', category => 'k{number}', tenant => 'b')")
    session.execute(f"select es_create_subscription('s{number}')")


@pytest.mark.parametrize("by", ["template", "dump"])
def test_a_copy_gives_no_false_alarm_before_and_after_it_is_activated(log, by):  # noqa: F811
    with log.connect() as session:
        session.execute("select es_append('account-1', 'Happened', '{}'); select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'default'")
        work(session, 1)
    with contextlib.ExitStack() as ends:
        database, number = log, 1
        # A copy that was not activated, a copy of a copy, one of one that was.
        for activated in (False, True, True, False):
            database = copied(database, by, ends)
            with database.connect() as session:
                session.execute("set eventstream.tenant = 'default'")
                assert found_in(session) == []
                work(session, number := number + 1)
                assert found_in(session) == []
                if activated:
                    session.execute("select es_activate(); select es_activate()")
                    assert found_in(session) == []
                work(session, number := number + 1)
                assert found_in(session) == []
        with log.connect() as session:
            assert found_in(session) == []


def copied(source: Database, by: str, ends: contextlib.ExitStack) -> Database:
    copy = Database(source.server, f"c{len(source.name)}_{source.name}"[:60])
    if by == "template":
        with source.server.connect("postgres") as admin:
            admin.execute(f'create database "{copy.name}" template "{source.name}"')
    else:
        dump = WORK / f"{copy.name}.sql"
        run("pg_dump", "-f", dump, env=source.server.address(source.name))
        copy.create(extension=False)
        run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, env=source.server.address(copy.name))
        dump.unlink()
    ends.callback(copy.drop)
    return copy
