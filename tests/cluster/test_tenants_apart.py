"""No tenant, and no stream, waits for or is hidden by what is none of its business: what an append locks, and in which order; the gate of a
tenant; the horizon of a tenant. Asked with paused transactions, savepoints, racers, kills, and one tenant beside another."""

import contextlib
import json
import random
import threading
import time

import psycopg
import pytest
from database import all_at_once, gaps, raised, rows, value, verify
from psycopg.types.json import Jsonb


@pytest.mark.parametrize("count", [1, 3, 100])
def test_racers_that_begin_the_same_streams_begin_each_once_and_leave_no_gap(quiet, count):
    """More than 64 names are not kept: there the unique index decides."""
    sessions = 6

    def race(number):
        order = random.Random(number)
        with quiet.connect() as session:
            for turn in range(10):
                streams = [f"account-{turn}-{stream}" for stream in range(count)]
                order.shuffle(streams)
                appends = [{"stream": stream, "events": [{"type": "Begun", "payload": number}]} for stream in streams]
                session.execute("select * from es_append_streams(%s)", (Jsonb(appends),))

    assert raised(all_at_once(sessions, race)) == []
    with quiet.connect() as session:
        assert (gaps(session), verify(session)) == ([], [])
        assert value(session, "select count(*) from eventstream.streams where version = %s", sessions) == 10 * count
        last, events = rows(session, "select last_position, (select count(*) from _eventstream.events) from es_log_info()")[0]
        assert last == events or count > 64


# --- the gate ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(quiet):
    """Two tenants; a: with a handler that does nothing."""
    with quiet.connect() as session:
        session.execute("select es_create_tenant('a'), es_create_tenant('b')")
        session.execute("create function on_event(event eventstream.event) returns void language sql as ''")
        session.execute(f"alter database \"{quiet.name}\" set eventstream.gate_timeout = '800ms'")
    return quiet


@contextlib.contextmanager
def in_tenant(database, tenant, **options):
    with database.connect(**options) as session:
        session.execute(f"set eventstream.tenant = '{tenant}'")
        if not session.autocommit:
            session.commit()
        yield session


MAKE = "select es_create_projection('p', 'on_event(eventstream.event)', mode => 'inline')"
LATENCY = "select es_append('account-' || %s, 'Moved', '{}')"


def longest(session, seconds, turn=lambda: None):
    """The slowest of the appends of so many seconds, in seconds."""
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        session.execute(LATENCY, (random.randrange(1000),))
        slowest = max(slowest, time.monotonic() - began)
        turn()
    return slowest


def test_who_waits_for_a_gate_stops_nobody_for_long_and_gives_up_with_the_holders(two):
    with in_tenant(two, "a", autocommit=False) as holder, in_tenant(two, "a") as appender, in_tenant(two, "b") as other:
        holder.execute("select es_append('account-held', 'Moved', '{}')")
        with in_tenant(two, "a") as manager:
            failure = []

            def make():
                try:
                    manager.execute(MAKE)
                except psycopg.Error as error:
                    failure.append(error)

            waiting = threading.Thread(target=make)
            waiting.start()
            slowest = longest(appender, 0.7), longest(other, 0.05)
            waiting.join(20)
            pid = holder.info.backend_pid
            holder.commit()
    # eventstream.gate_wait is 100 ms; the machine may be busy.
    assert slowest[0] < 0.6 and slowest[1] < 0.6, slowest
    error = failure[0]
    assert error.sqlstate == "55P03"
    assert "tenant \"a\" did not come to rest within 800 ms" in error.diag.message_primary
    detail = json.loads(error.diag.message_detail)
    assert [found["pid"] for found in detail["holders"]] == [pid]
    assert detail["holders"][0]["since"].startswith("20")
    assert f"pg_terminate_backend({pid})" in error.diag.message_hint
    with in_tenant(two, "a") as session:
        assert value(session, "select count(*) from eventstream.projections") == 0
        session.execute(MAKE)


def test_a_session_that_idles_with_a_gate_closed_is_ended_and_appends_go_on(two):
    with in_tenant(two, "a", autocommit=False) as manager, in_tenant(two, "b") as other:
        manager.execute(MAKE)
        assert longest(other, 0.2) < 0.6
        with in_tenant(two, "a") as appender:
            began = time.monotonic()
            assert value(appender, "select es_append('account-1', 'Moved', '{}')") == 1
            assert 0.2 < time.monotonic() - began < 5
            assert value(appender, "select count(*) from eventstream.projections") == 0
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            manager.execute("select 1")
        manager.close()


def test_the_lock_timeout_of_whoever_closes_a_gate_counts_where_it_is_shorter(two):
    with in_tenant(two, "a", autocommit=False) as holder, in_tenant(two, "a") as manager:
        holder.execute("select es_append('account-held', 'Moved', '{}')")
        manager.execute("set lock_timeout = '50ms'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable, match="within 50 ms"):
            manager.execute(MAKE)
        assert time.monotonic() - began < 0.6
        assert value(manager, "show lock_timeout") == "50ms"
        holder.rollback()


def test_a_fold_of_an_inline_table_is_registered_beside_appends_without_a_deadlock(two):
    """Each append folds, and takes a snapshot, which wants the row that es_register_fold writes."""
    two.make_partitions_small()
    with in_tenant(two, "a") as session:
        session.execute("set eventstream.gate_timeout = '10s'")
        register = "select es_register_fold('total', 'account', rules => %s, initial_state => '{\"n\": 0}', snapshot_every => 1)"
        rules = [Jsonb({"on": {"Moved": [{"increment": "/n"}, {"set": {"/step": {"value": step}}}]}}) for step in (1, 2)]
        session.execute(register, (rules[0],))
        columns = [{"name": "n", "type": "numeric", "path": "/n"}]
        session.execute("select es_create_state_table('totals', 'account', %s, mode => 'inline')", (Jsonb(columns),))
        stop = threading.Event()

        def append(number):
            with in_tenant(two, "a") as own:
                own.execute("set statement_timeout = '20s'")
                while not stop.is_set():
                    own.execute(LATENCY, (number,))
                    own.execute("select es_snapshot(%s)", (f"account-{number}",))

        def registers(number):
            if number > 0:
                return append(number)
            try:
                for turn in range(20):
                    session.execute(register, (rules[turn % 2],))
            finally:
                stop.set()

        assert raised(all_at_once(4, registers)) == []
        session.execute(register, (rules[0],))
        assert rows(session, "select n = version, count(*) from totals group by 1") == [(True, 3)]
