"""Items that are reserved for a while, and other commands for later: what the tests of scheduled commands have in common."""

from __future__ import annotations

from database import rows, value
from deciding import send
from psycopg.types.json import Jsonb
from server import ROOT, wait_until

#: What is reserved comes back by itself, unless it was bought before: what the example declares, before it does anything.
SHELF = (ROOT / "examples/reservation/reservation.sql").read_text(encoding="utf-8")
SHELF = SHELF[SHELF.index("create schema") : SHELF.index("select es_command(")]


def open_shelf(session, quantity=10) -> None:
    session.execute(SHELF)
    send(session, "Receive", {"quantity": quantity}, "shelf-pump")


def reserve(session, order="r-1", quantity=3, seconds=0.5) -> dict:
    return send(session, "Reserve", {"order": order, "quantity": quantity, "seconds": seconds}, "shelf-pump")


def buy(session, order="r-1") -> dict:
    return send(session, "Buy", {"order": order}, "shelf-pump")


def available(session) -> int:
    return int(value(session, "select es_state('shelf-pump') ->> 'available'"))


def schedule(session, key=None, command_type="Deposit", payload=None, stream="account-1", after="0", **more) -> dict:
    names = "".join(f", {name} => %s" for name in more)
    given = Jsonb({"amount": 10} if payload is None else payload)
    values = [Jsonb(each) if isinstance(each, dict) else each for each in more.values()]
    return value(
        session, f"select es_schedule_command(%s, %s, %s, clock_timestamp() + %s::interval, command_key => %s{names})",
        stream, command_type, given, after, key, *values,
    )  # fmt: skip


def unschedule(session, key, reason="not wanted", **more) -> str | None:
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_unschedule_command(%s, %s{names})", key, reason, *more.values())


def stage(session, key) -> str | None:
    return value(session, "select stage from _eventstream.scheduled_commands where command_key = %s", key)


def wait_for(session, key, wanted="done", seconds=20) -> tuple:
    """The row of a scheduled command once it has come to that stage."""
    wait_until(lambda: stage(session, key) == wanted, seconds, f"{key} to be {wanted}")
    columns = "attempts, error_sqlstate, error_message, finished_at is not null, payload is null"
    return rows(session, f"select {columns} from _eventstream.scheduled_commands where command_key = %s", key)[0]


def wait_for_all(session, count, wanted="done", seconds=60) -> None:
    statement = "select count(*) from _eventstream.scheduled_commands where stage = %s"
    wait_until(lambda: value(session, statement, wanted) == count, seconds, f"{count} commands to be {wanted}")
