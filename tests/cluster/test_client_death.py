"""Clients die, hang and give up in the middle of a transaction, and nobody else is held up longer than that transaction."""

import signal
import subprocess
import sys
import time

import psycopg
import pytest
from database import Database, rows, value, verify
from server import wait_until

DYING_CLIENT = """
import sys, time, psycopg
session = psycopg.connect(sys.argv[1])
session.execute("select es_append('account-1', 'Opened', '{}')")
print("appended", flush=True)
time.sleep(600)
"""


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def other(database):
    with database.connect(autocommit=False) as connection:
        yield connection
        connection.close()


def settled(session):
    return value(session, "select horizon = last_position from es_log_info()")


def readable(session):
    return [stream for (stream,) in rows(session, "select stream from es_read_all()")]


def test_the_horizon_moves_on_when_a_client_is_killed_after_an_append(database, session):
    address = f"host={database.server.socket} port=5432 dbname={database.name} user=postgres"
    client = subprocess.Popen([sys.executable, "-c", DYING_CLIENT, address], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "appended\n"
        session.execute("select es_append('account-2', 'Opened', '{}')")
        assert readable(session) == []
        assert not settled(session)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    wait_until(lambda: settled(session), 10, "the horizon to pass the dead client")
    assert readable(session) == ["account-2"]
    assert value(session, "select es_stream_version('account-1')") == 0


@pytest.mark.parametrize("how", ["pg_terminate_backend", "an error", "idle_in_transaction_session_timeout"])
def test_the_horizon_moves_on_when_a_transaction_is_ended_from_outside(session, other, how):
    if how == "idle_in_transaction_session_timeout":
        other.execute("set idle_in_transaction_session_timeout = 300")
    other.execute("select es_append('account-1', 'Opened', '{}')")
    session.execute("select es_append('account-2', 'Opened', '{}')")
    assert readable(session) == []
    if how == "pg_terminate_backend":
        session.execute("select pg_terminate_backend(%s)", (other.info.backend_pid,))
    elif how == "an error":
        with pytest.raises(psycopg.errors.DivisionByZero):
            other.execute("select 1 / 0")
        # Aborted, but not ended: nothing of it can commit any more.
        wait_until(lambda: settled(session), 10, "the horizon to pass an aborted transaction")
    wait_until(lambda: settled(session), 10, "the horizon to pass the ended transaction")
    assert readable(session) == ["account-2"]


def test_horizon_holders_names_who_holds_consumers_back(session, other):
    assert rows(session, "select pid from eventstream.horizon_holders") == []
    session.execute("select es_append('account-0', 'Opened', '{}')")
    last = value(session, "select last_position from es_log_info()")
    other.execute("select es_append('account-1', 'Opened', '{}')")
    session.execute("select es_append('account-2', 'Opened', '{}')")
    held = rows(
        session,
        "select pid, global_position, since <= clock_timestamp() and since > clock_timestamp() - interval '1 minute'"
        " from eventstream.horizon_holders",
    )
    assert [pid for pid, *_ in held] == [other.info.backend_pid]
    assert all(recent for *_, recent in held)
    assert held[0][1] in (last, last + 1)
    other.rollback()
    assert rows(session, "select pid from eventstream.horizon_holders") == []


def test_a_transaction_that_only_reads_holds_nobody_back(session, other):
    other.execute("select count(*) from es_read('account-1')")
    other.execute("select count(*) from es_read_all()")
    session.execute("select es_append('account-2', 'Opened', '{}')")
    assert settled(session)
    assert readable(session) == ["account-2"]


def test_a_timeout_while_waiting_for_a_stream_leaves_nothing_behind(database, session, other):
    session.execute("select es_append('account-1', 'Opened', '{}')")
    other.execute("select es_append('account-1', 'Held', '{}')")
    for setting, sqlstate in (("statement_timeout", "57014"), ("lock_timeout", "55P03")):
        with database.connect() as waiting:
            waiting.execute(f"set {setting} = 300")
            began = time.monotonic()
            with pytest.raises(psycopg.Error) as timeout:
                waiting.execute("select es_append('account-1', 'Waits', '{}')")
            assert timeout.value.sqlstate == sqlstate
            assert time.monotonic() - began < 5
            waiting.execute(f"set {setting} = 0")
            # The session that gave up goes on and holds nobody back.
            assert value(
                waiting,
                "select es_append('account-2', 'Opened', '{}', expected_version => %s)",
                0 if setting == "statement_timeout" else 1,
            )
            assert [pid for (pid,) in rows(session, "select pid from eventstream.horizon_holders")] == [
                other.info.backend_pid
            ]
    other.commit()
    assert settled(session)
    assert [event_type for (event_type,) in rows(session, "select event_type from es_read('account-1')")] == [
        "Opened",
        "Held",
    ]
    assert verify(session) == []


def test_a_waiting_append_that_is_cancelled_gives_up_its_place(database, session, other):
    session.execute("select es_append('account-1', 'Opened', '{}')")
    other.execute("select es_append('account-1', 'Held', '{}')")
    with database.connect(autocommit=False) as waiting:
        waiting.execute("set statement_timeout = 300")
        waiting.execute("savepoint before")
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiting.execute("select es_append('account-1', 'Waits', '{}')")
        waiting.execute("rollback to before")
        waiting.execute("select es_append('account-2', 'Opened', '{}')")
        waiting.commit()
    other.rollback()
    assert settled(session)
    assert readable(session) == ["account-1", "account-2"]


def test_fast_shutdown_does_not_hang_on_an_open_append(new_server):
    server = new_server("stopping")
    database = Database(server, "ledger").create()
    left_open = database.connect(autocommit=False)
    left_open.execute("select es_append('account-1', 'Opened', '{}')")
    began = time.monotonic()
    server.restart()
    assert time.monotonic() - began < 20
    with database.connect() as session:
        assert value(session, "select es_stream_version('account-1')") == 0
        assert value(session, "select es_append('account-1', 'Opened', '{}')") == 1
        assert readable(session) == ["account-1"]
