"""Projections that background workers move, and the workers themselves, as tests see them."""

import time

import psycopg
from database import Database, rows, value
from server import Server, wait_until

#: Nothing that workers are in the way of may take longer (issue 4). Half of it is what they are waited for at most.
PATIENCE = 5


def workers(server: Server, kind: str, database: str | None = None) -> list[int]:
    """Process ids of the launcher, the schedulers or the runners."""
    with server.connect("postgres") as admin:
        found = rows(admin, "select pid, datname from pg_stat_activity where backend_type = %s order by pid", f"eventstream {kind}")
    return [pid for pid, datname in found if database in (None, datname)]


def wait_for_workers(database: Database, kind: str, count: int, seconds: float = 15) -> list[int]:
    def found():
        there = workers(database.server, kind, database.name)
        return (there or [0]) if len(there) == count else None

    return wait_until(found, seconds, f"{count} {kind}s in {database.name}")


def make_projection(database: Database, name: str = "seen", body: str = "", **settings) -> None:
    """A projection that notes the position of each event in a table of its name, after `body`; `at`: in which order it did."""
    with database.connect() as session:
        session.execute(f"create table {name} (position bigint not null, at bigint generated always as identity)")
        session.execute(
            f"create function {name}(event eventstream.event) returns void language plpgsql as $$ begin {body}"
            f" insert into public.{name} values ((event).global_position); end $$"
        )
        arguments = "".join(f", {key} => {value}" for key, value in settings.items())
        session.execute(f"select es_create_projection('{name}', '{name}(eventstream.event)'{arguments})")


def append(database: Database, count: int = 1, stream: str = "account-1") -> None:
    with database.connect() as session:
        for _ in range(count):
            session.execute("select es_append(%s, 'Opened', '{}')", (stream,))


def is_exact(session: psycopg.Connection, name: str = "seen") -> bool:
    """Whether each event is in the projection's table once, in the order of the log."""
    return value(
        session,
        f"select array(select position from {name} order by at) = array(select global_position from eventstream.events order by 1)",
    )


def wait_until_exact(database: Database, *names: str, seconds: float = 20) -> None:
    with database.connect() as session:
        for name in names or ("seen",):
            wait_until(lambda: is_exact(session, name), seconds, f"{name} to be the log")


def is_sleeping(database: Database) -> bool:
    """Whether a runner is in the middle of a handler."""
    with database.server.connect("postgres") as admin:
        return value(
            admin,
            "select exists (select from pg_stat_activity where backend_type = 'eventstream runner' and wait_event = 'PgSleep')",
        )


def quickly(statement, *arguments):
    """Runs it, and fails where it took longer than anybody should wait."""
    began = time.monotonic()
    result = statement(*arguments)
    took = time.monotonic() - began
    assert took < PATIENCE, f"took {took:.1f} s"
    print(f"{getattr(statement, '__name__', statement)} took {took:.2f} s")
    return result
