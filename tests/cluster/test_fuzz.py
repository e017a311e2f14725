"""Every function that SQL can call, with boundary values in every argument, as roles with and without rights: an answer or an error that
was meant, never an internal one (class XX), never a session that is spoilt, never a server that is gone; and the log is whole afterwards.

`make fuzz SECONDS=600` goes on for longer; FUZZ_SEED repeats a run. Kinds: role (five), size (megabytes, 20,000 elements,
deep documents), time (both ends of each type), number and text (boundaries), session (our settings at random values), death (a restart is seen).
"""

import os
import random
import time

import psycopg
import pytest

import fuzzing
from database import Database, gaps, value, verify

SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))
SEED = int(os.environ.get("FUZZ_SEED", str(random.SystemRandom().randrange(10**9))))


#: SQLSTATEs that a caller must never see: internal errors and corruption, a system error of ours, a session or server that is gone.
FORBIDDEN = ("XX", "58", "08", "57P", "25P02", "session gone")


class Sessions:
    """One session a role; what each call gives is judged here."""

    def __init__(self, database: Database):
        self.database = database
        self.sessions: dict[str, psycopg.Connection] = {}
        self.calls = 0
        self.outcomes: dict[str | None, int] = {}
        self.faults: list[str] = []

    def of(self, role: str) -> psycopg.Connection:
        if role not in self.sessions or self.sessions[role].closed:
            session = self.database.connect(role, autocommit=False)
            session.execute("set statement_timeout = '3s'; set lock_timeout = '1s'; set client_min_messages = error")
            session.commit()
            self.sessions[role] = session
        return self.sessions[role]

    def call(self, role: str, statement: str, values: list, keep: bool = False, before: str | None = None) -> None:
        """Makes the call and notes an outcome that no caller may see."""
        session = self.of(role)
        self.calls += 1
        state = None
        try:
            if before:
                session.execute(before)
            session.execute(statement, values)
            session.commit() if keep else session.rollback()
        except psycopg.Error as error:
            state = error.sqlstate or "session gone"
            text = f"{error} {error.diag.message_detail or ''}"
            if state.startswith(FORBIDDEN) or "panick" in text or ".rs:" in text:
                called = f"as {role}: {before or ''} {statement} {[shorten(one) for one in values]}"
                self.faults.append(f"{state} {shorten(text)}\n    {called}")
            if not session.closed:
                session.rollback()
        self.outcomes[state] = self.outcomes.get(state, 0) + 1

    def assert_no_fault(self) -> None:
        shown = "\n".join(self.faults[:20])
        assert not self.faults, f"{len(self.faults)} of {self.calls} calls (FUZZ_SEED={SEED}):\n{shown}"

    def assert_usable(self) -> None:
        """What went before spoilt no session: the same statements work as in a fresh one."""
        for role in ("postgres", "fuzz_admin"):
            session = self.of(role)
            assert value(session, "select es_append('usable-1', 'Asked', '{}')") >= 1
            assert value(session, "select es_stream_version('usable-1')") >= 1
            session.commit()


def shorten(one):
    text = repr(one)
    return text if len(text) < 120 else f"{text[:100]}… ({len(text)})"


@pytest.fixture
def fuzzed(new_server):
    server = new_server("fuzz", max_connections=30, **{"eventstream.handler_timeout": "2s"})
    database = Database(server, "fuzzed").create()
    with database.connect() as admin:
        admin.execute("alter database fuzzed set eventstream.tenant = 'default'; set eventstream.tenant = 'default'")
        admin.execute(fuzzing.SCENARIO)
        for role in fuzzing.ROLES[:-1]:
            database.role(role)
        for (privilege,) in admin.execute("select unnest(array['read', 'append', 'command', 'consume', 'manage', 'upkeep', 'audit', 'admin'])").fetchall():
            admin.execute("select es_grant('fuzz_admin', %s)", (privilege,))
        admin.execute("select es_grant('fuzz_reader', 'read'); grant pg_monitor to fuzz_monitor; grant create on schema public to fuzz_admin")
    began = database_started(database)
    yield database
    assert database_started(database) == began, f"the server was restarted by a crash (FUZZ_SEED={SEED})"
    with database.connect() as admin:
        assert verify(admin) == []
        assert gaps(admin) == []


def database_started(database: Database):
    """When shared memory was last made: a crash of any backend makes it anew, and the log says so."""
    return database.server.log.read_text(errors="replace").count("all server processes terminated; reinitializing")


def test_no_boundary_value_gives_an_internal_error(fuzzed):
    sessions = Sessions(fuzzed)
    with fuzzed.connect() as admin:
        functions = fuzzing.functions(admin)
    assert len(functions) >= 67
    for function in functions:
        for given in fuzzing.sweep(function):
            for role in ("postgres", "fuzz_nobody"):
                sessions.call(role, *function.call(given))
        sessions.assert_usable()
    sessions.assert_no_fault()
    print(f"{sessions.calls} calls of {len(functions)} functions: {sessions.outcomes}")
    assert sessions.outcomes[None] > 1000 and sessions.outcomes["42501"] > 1000


def test_no_random_call_spoils_a_session_or_the_log(fuzzed):
    chance = random.Random(SEED)
    sessions = Sessions(fuzzed)
    with fuzzed.connect() as admin:
        functions, settings = fuzzing.functions(admin), fuzzing.settings(admin)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for _ in range(200):
            function = chance.choice(functions)
            before = None
            if chance.random() < 0.3:
                level = chance.choice(("read committed", "repeatable read", "serializable", "serializable, read only"))
                before = f"set transaction isolation level {level}"
            elif chance.random() < 0.3:
                before = psycopg.sql.SQL("set local {} = {}").format(
                    psycopg.sql.Identifier(*chance.choice(settings).split(".")), psycopg.sql.Literal(str(chance.choice(fuzzing.TEXTS + fuzzing.LONGS)))
                ).as_string(sessions.of("postgres"))
            role = chance.choice(fuzzing.ROLES)
            # What changes what others find (a fold unregistered, a tenant made) is kept now and then.
            sessions.call(role, *function.call(fuzzing.draw(chance, function)), keep=chance.random() < 0.1, before=before)
        sessions.assert_usable()
    sessions.assert_no_fault()
    print(f"{sessions.calls} calls, FUZZ_SEED={SEED}: {sessions.outcomes}")
