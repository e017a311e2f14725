"""A clock that jumps back moves nothing back: not recorded_at along a stream, not what was said to be settled (invariant 2).

The server runs under libfaketime.
"""

import datetime
import os
import pathlib
import time

import psycopg
import pytest
from database import Database, all_at_once, raised, rows, value, verify
from debian import unpacked
from minting import Bank, use
from psycopg.types.json import Jsonb
from server import ACCOUNT, WORK


def faketime_library() -> pathlib.Path:
    installed = next(pathlib.Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
    return installed or next(unpacked("libfaketime").glob("**/faketime/libfaketime.so.1"))


class Clock:
    """The time that a server sees: the real one, moved."""

    def __init__(self, library: pathlib.Path):
        self.file = WORK / f"clock-{os.getpid()}"
        self.library = library
        WORK.mkdir(parents=True, exist_ok=True)
        self.set("+0")

    def set(self, offset: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        if ACCOUNT is not None:
            os.chown(fresh, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        fresh.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }


@pytest.fixture
def ticking(new_server):
    clock = Clock(faketime_library())
    # The WAL writer sleeps: what must be durable at once has to see to that itself.
    server = new_server("clock", environment=clock.environment, wal_writer_delay="10s")
    yield clock, Database(server, "ledger").create()
    clock.file.unlink(missing_ok=True)


def now(session) -> datetime.datetime:
    return value(session, "select clock_timestamp()")


def append(session, stream="account-1") -> datetime.datetime:
    session.execute("select es_append(%s, 'Moved', '{}')", (stream,))
    return value(session, "select recorded_at from es_read(%s, backward => true, max_count => 1)", stream)


def settled(session) -> datetime.datetime:
    return value(session, "select settled_until from es_log_info()")


def assert_times_rise(session) -> None:
    for stream, version, recorded_at, before in rows(
        session,
        "select * from (select stream, version, recorded_at, lag(recorded_at) over (partition by stream order by version)"
        " from eventstream.events) e where lag is not null",
    ):
        assert recorded_at >= before, f"{stream} version {version}"
    assert verify(session) == []


def test_the_servers_clock_can_be_moved_here(ticking):
    """Without this the others prove nothing."""
    clock, database = ticking
    with database.connect() as session:
        before = now(session)
        clock.set("-3600")
        assert before - now(session) > datetime.timedelta(minutes=59)


@pytest.mark.parametrize("warm", [True, False], ids=["in the same session", "in a new session"])
def test_recorded_at_never_falls_along_a_stream_when_the_clock_goes_back(ticking, warm):
    clock, database = ticking
    with database.connect() as session:
        first = append(session)
        clock.set("-3600")
        with database.connect() as fresh:
            used = session if warm else fresh
            assert append(used) >= first
            used.execute(
                "select es_append_events('account-1', %s)", (Jsonb([{"type": "Moved", "payload": n} for n in range(5)]),)
            )
            used.execute(
                "select * from es_append_streams(%s)",
                (Jsonb([{"stream": s, "events": [{"type": "Moved", "payload": 1}]} for s in ("account-1", "account-2")]),),
            )
        clock.set("+0")
        assert append(session) >= first
        assert_times_rise(session)


def test_what_was_settled_stays_settled_when_the_clock_goes_back(ticking):
    clock, database = ticking
    with database.connect() as session:
        append(session)
        until = value(session, "select es_settled_until()")
        assert abs(now(session) - until) < datetime.timedelta(seconds=30), "an idle log is settled until now"
        clock.set("-7200")
        assert value(session, "select es_settled_until()") >= until
        assert settled(session) >= until
        # Also a stream that has no event yet is recorded after it: nothing appears in a past that was final.
        assert append(session, "account-9") > until
        with database.connect() as fresh:
            assert append(fresh, "account-10") > until
        assert_times_rise(session)


@pytest.mark.parametrize("how", ["fast", "kill -9"])
def test_what_was_settled_stays_settled_across_a_restart_with_the_clock_set_back(ticking, how):
    clock, database = ticking
    session = database.connect()
    last = append(session)
    if how == "kill -9":
        # Told before the transaction ends, which no commit will make durable.
        session.execute("begin")
    until = value(session, "select es_settled_until()")
    if how == "fast":
        database.server.stop()
    else:
        database.server.kill_everything()
    session.close()
    clock.set("-7200")
    database.server.start()
    with database.connect() as session:
        assert append(session, "account-9") > until
        assert append(session) >= last
        assert value(session, "select es_settled_until()") >= until
        assert settled(session) >= until
        assert_times_rise(session)


def test_settled_time_stays_behind_open_appends_and_no_later_event_is_recorded_before_it(ticking):
    clock, database = ticking
    with database.connect(autocommit=False) as held, database.connect() as session:
        held.execute("select es_append('account-1', 'Held', '{}')")
        time.sleep(0.05)
        append(session, "account-2")
        until = value(session, "select es_settled_until()")
        held.commit()
        assert value(held, "select recorded_at from es_read('account-1')") > until
        assert value(session, "select es_settled_until()") >= until


def test_known_at_stays_final_beside_writers_and_a_clock_that_jumps(ticking):
    """Whoever read everything recorded up to a settled time finds the same events when reading again."""
    clock, database = ticking
    rounds = 25

    def write(number):
        with database.connect() as session:
            for turn in range(120):
                with session.transaction(force_rollback=turn % 7 == 0):
                    session.execute("select es_append(%s, 'Moved', '{}')", (f"account-{(number + turn) % 20}",))
                    if turn % 5 == 0:
                        time.sleep(0.01)

    def jump(_):
        with database.connect() as session:
            known = []
            for turn in range(rounds):
                until = value(session, "select es_settled_until()")
                known.append((until, frozenset(rows(session, READ_KNOWN, until))))
                clock.set(f"{'-' if turn % 3 else '+'}{(turn * 977) % 600}")
                time.sleep(0.02)
            return known

    READ_KNOWN = "select stream, version from eventstream.events where recorded_at <= %s"
    results = all_at_once(6, lambda number: jump(number) if number == 0 else write(number), seconds=60)
    assert raised(results) == []
    known = results[0]
    with database.connect() as session:
        assert [until for until, _ in known] == sorted(until for until, _ in known)
        for until, events in known:
            assert frozenset(rows(session, READ_KNOWN, until)) == events
        assert_times_rise(session)


@pytest.mark.parametrize("jump", ["+3600", "-3600"])
def test_a_token_counts_by_the_servers_clock_wherever_that_jumps(ticking, jump):
    clock, database = ticking
    bank = Bank(database)
    with bank.connect() as session, session.transaction():
        use(session, bank.token())
        append(session)
        session.execute("declare c cursor for select stream from eventstream.events, generate_series(1, 9)")
        statements = ["fetch 1 from c", "select stream from es_read('account-1')", "table eventstream.events", "select es_last_append()"]
        for statement in statements:
            assert len(rows(session, statement)) == 1
        clock.set(jump)
        for statement in statements:
            with pytest.raises(psycopg.Error) as refused, session.transaction():
                session.execute(statement)
            assert refused.value.sqlstate == "ES042", statement
        for token in (bank.token(), bank.token(jti="another")):
            with pytest.raises(psycopg.Error) as refused, session.transaction():
                use(session, token)
            assert refused.value.sqlstate == "ES043"
        clock.set("+0")
        # A cursor that was refused is closed.
        for statement in statements[1:]:
            assert len(rows(session, statement)) == 1
