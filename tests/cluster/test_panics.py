"""A panic, which is a mistake of ours, ends one statement: the session goes on, no lock stays taken, and no later error speaks of what panicked.

The server is the build with test points (src/pg/process/test_point.rs), which panics where `eventstream_test.panic_at` says: at any place where
PostgreSQL calls us (src/pg/error/entry.rs), and at points between.
"""

import psycopg
import pytest
import server as servers
from database import Database, value, verify
from server import wait_until


@pytest.fixture(scope="module")
def panicking():
    """A database of the build with test points, with a fold and a few events."""
    assert servers.PROGRAMS_WITH_TEST_POINTS.exists(), "run `tools/test MAJOR backend` first: it makes the build with test points"
    server = servers.Server("panics", programs=servers.PROGRAMS_WITH_TEST_POINTS, **{"eventstream.max_workers": 0}).create()
    database = Database(server, "panics").create()
    with database.connect() as session:
        session.execute(
            """create function public.count_up(state jsonb, event eventstream.event) returns jsonb immutable language sql
               as $$ select to_jsonb((state #>> '{}')::bigint + 1) $$"""
        )
        session.execute("select es_register_fold('count', 'account', 'public.count_up(jsonb, eventstream.event)', initial_state => '0')")
        session.execute("select es_append('account-1', 'Deposited', '{}') from generate_series(1, 3)")
    yield database
    server.destroy()


#: The place, and a statement that comes to it.
PLACES = {
    "eventstream_append": "select es_append('account-2', 'Deposited', '{}')",
    "users' code": "select es_state('account-1')",
    "a row of a result": "select * from es_verify_stream('account-1')",
    "in the turn of an entry": "select es_append('account-3', 'Deposited', '{}')",
    "alone on the board": "create database one_more template panics_template",
    "the planner": "select * from eventstream.events order by global_position limit 1",
    "the planner of events in order": "select * from eventstream.events order by global_position limit 1",
    "the choice of an index": "select * from eventstream.events order by global_position limit 1",
    "the choice of paths": "select * from eventstream.events where stream = 'account-1'",
    "an estimate": "select * from _eventstream.streams where category = 'account'",
    "what happens to an object": "drop table public.thing",
    "the search of a schema": "set search_path = eventstream_pinned, public; select 1 from thing",
    "the start of a utility statement": "create table public.other (id int)",
    "a change of roles": "drop role somebody",
    "before the end of a transaction": "begin; set local eventstream_test.panic_at = 'before the end of a transaction'; commit",
}


def setting_of(session, place: str) -> None:
    session.execute("select set_config('eventstream_test.panic_at', %s, false)", [place])


@pytest.mark.parametrize("place", PLACES)
def test_a_panic_ends_one_statement_and_the_session_goes_on(panicking, place):
    with panicking.connect() as session:
        session.execute("create table if not exists public.thing (id int)")
        session.execute("drop role if exists somebody")
        session.execute("create role somebody")
        if value(session, "select 1 from pg_database where datname = 'panics_template'") is None:
            session.execute("create database panics_template")
        pid = value(session, "select pg_backend_pid()")
        before = value(session, "select setting from pg_settings where name = 'enable_indexscan'"), value(session, "show client_min_messages")
        # The commit of a SET would come to it at once.
        if place != "before the end of a transaction":
            setting_of(session, place)
        with pytest.raises(psycopg.Error) as raised:
            session.execute(PLACES[place])
        assert raised.value.sqlstate == "XX000", raised.value
        assert f"a panic in {place}" in str(raised.value) or "a test wants it" in str(raised.value)
        # By a statement that does not come to the place.
        if "utility" in place:
            setting_of(session, "")
        else:
            session.execute("reset eventstream_test.panic_at")
        # The session goes on, and an error says nothing of what panicked.
        assert value(session, "select pg_backend_pid()") == pid
        with pytest.raises(psycopg.errors.DivisionByZero) as other:
            session.execute("select 1 / 0")
        assert other.value.diag.context is None
        after = value(session, "select setting from pg_settings where name = 'enable_indexscan'"), value(session, "show client_min_messages")
        assert after == before
        assert value(session, "select current_user = session_user and count(*) = 0 from pg_locks where pid = pg_backend_pid() and locktype = 'object'")
        appended = value(session, "select es_append('account-5', 'Deposited', '{}')")
        assert value(session, "select es_state('account-5')") == appended
    # So does everybody else: the server did not restart, the horizon moves, the board is free.
    with panicking.connect() as session:
        assert value(session, "select es_horizon() is not null")
        session.execute("create database free_board")
        session.execute("drop database free_board")
        verify(session)


@pytest.mark.parametrize("place", ["after the end of a transaction", "a change of a relation", "a change of a catalog", "the end of the process"])
def test_where_nothing_may_be_raised_a_panic_is_a_line_in_the_log(panicking, place):
    with panicking.connect() as session:
        pid = value(session, "select pg_backend_pid()")
        setting_of(session, place)
        session.execute("select es_append('account-6', 'Deposited', '{}')")
        session.execute("create table public.passing (id int)")
        session.execute("drop table public.passing")
        session.execute("create role passing")
        session.execute("drop role passing")
        assert value(session, "select pg_backend_pid()") == pid
    wait_until(lambda: f"a panic in {place}" in panicking.server.log.read_text(errors="replace"), 10, "a line of it")
    with panicking.connect() as session:
        assert value(session, "select 1") == 1
    assert "terminated by signal" not in panicking.server.log.read_text(errors="replace")


def test_a_panic_while_an_error_is_written_leaves_the_error(panicking):
    with panicking.connect() as session:
        setting_of(session, "the log hook")
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.execute("select 1 / 0")
        session.execute("set eventstream_test.panic_at = 'the context of an error'")
        assert value(session, "select es_state('account-1')") is not None
