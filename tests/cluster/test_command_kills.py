"""A session that dies with kill -9 at any step of es_command, from its begin to its commit: whoever sends the command again is answered once and for all, and it was executed once.

The server is the build with test points (src/pg/process/test_point.rs). `KILLS` (22) sessions die, and as many more as make each step's turn whole. Asked of the kinds: death (each step, by itself and among other statements of a transaction), transaction, verification."""

from __future__ import annotations

import itertools
import os

import psycopg
import pytest
import server as servers
from database import Database, rows, value, verify
from deciding import TRANSFER, open_bank, send
from server import wait_until
from test_live_kills import deaths, survives

#: What a session comes to on its way with a command, and whether it is executed by then, whoever is told so.
STEPS = {
    "command at the gate": False,
    "command's turn": False,
    "command locked": False,
    "users' code": False,
    "command decided": False,
    "in the turn of an entry": False,
    "command appended": False,
    "command kept": False,
    "command answered": False,
    "append before the flush": False,
    "append committed": True,
}

KILLS = int(os.environ.get("KILLS", "1"))

#: How the command is sent: in a transaction of its own, or among others.
WAYS = {"by itself": False, "in a transaction": True}


def killed(database: Database, step: str, key: str, is_among_others: bool) -> None:
    """Sends the command, and dies at the step."""
    with pytest.raises(psycopg.OperationalError), database.connect() as session:
        session.execute("select set_config('eventstream_test.kill_at', %s, false)", (step,))
        if is_among_others:
            with session.transaction():
                session.execute("insert into beside values (%s)", (key,))
                transfer(session, key)
        else:
            transfer(session, key)
    # Whoever is left is ended by the postmaster, which starts anew.


def transfer(session: psycopg.Connection, key: str):
    return send(session, "Transfer", {"to": "account-2", "amount": 1}, command_key=key, decider="transfer")


def test_a_command_is_executed_once_at_whatever_step_its_session_dies(new_server):
    assert servers.PROGRAMS_WITH_TEST_POINTS.exists(), "run `tools/test MAJOR backend` first: it makes the build with test points"
    server = new_server("command_kills", programs=servers.PROGRAMS_WITH_TEST_POINTS)
    database = Database(server, "bank").create()
    with database.connect() as session:
        open_bank(session)
        session.execute(TRANSFER)
        session.execute("create table beside (key text primary key)")
        for stream in ("account-1", "account-2"):
            send(session, payload={"amount": 1000}, stream=stream)
    died = 0
    rounds = -(-KILLS // (len(STEPS) * len(WAYS)))
    for number, (step, is_executed) in itertools.product(range(rounds), STEPS.items()):
        for way, is_among_others in WAYS.items():
            key, before = f"{step} {way} {number}", deaths(server)
            killed(database, step, key, is_among_others)
            wait_until(lambda before=before: deaths(server) > before, 60, f"the session to die at {step!r}")
            assert survives(database, lambda session, key=key: value(session, "select count(*) from _eventstream.command_answers where command_key = %s", key)) == is_executed, key
            answer = survives(database, lambda session, key=key: transfer(session, key))
            died += 1
            assert answer["replayed"] == is_executed, key
            # As often as it is asked.
            for _ in range(2):
                assert survives(database, lambda session, key=key: transfer(session, key)) == answer | {"replayed": True}, key
            with database.connect() as session:
                recorded = rows(session, "select stream, version, event_type from eventstream.events where metadata -> 'command' ->> 'key' = %s order by global_position", key)
                assert recorded == [("account-1", died + 1, "Debited"), ("account-2", died + 1, "Credited")], key
                assert answer["versions"] == {"account-1": died + 1, "account-2": died + 1}
                # What stands beside it in its transaction is there with it, or gone.
                assert value(session, "select count(*) from beside where key = %s", key) == (is_executed and is_among_others), key
    assert died == rounds * len(STEPS) * len(WAYS) == deaths(server)
    print(f"{died} sessions died")
    with database.connect() as session:
        balances = rows(session, "select stream, (state ->> 'balance')::int from es_category_state('account') order by 1")
        assert balances == [("account-1", 1000 - died), ("account-2", 1000 + died)]
        assert verify(session) == []
