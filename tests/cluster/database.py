"""A database with the extension, and what the tests ask of it: the contents of the log in forms that can be compared."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from server import SUPERUSER, Server

FIRST_PARTITION_END = 2**24


class Database:
    def __init__(self, server: Server, name: str):
        self.server = server
        self.name = name
        self.roles: list[str] = []

    def create(self, extension: bool = True) -> "Database":
        with self.server.connect("postgres") as admin:
            admin.execute(f'create database "{self.name}"')
        if extension:
            with self.connect() as connection:
                connection.execute("create extension eventstream")
        return self

    def make_partitions_small(self, size: int = 1024) -> None:
        """For sessions and workers that start from now on; the first partition keeps its hard-coded range."""
        with self.connect() as session:
            session.execute(f'alter database "{self.name}" set eventstream.partition_size = {size}')

    def drop(self) -> None:
        with self.server.connect("postgres") as admin:
            admin.execute(f'drop database if exists "{self.name}" with (force)')
            for role in reversed(self.roles):
                admin.execute(f'drop role if exists "{role}"')

    def connect(self, user: str = SUPERUSER, **options) -> psycopg.Connection:
        return self.server.connect(self.name, user, **options)

    def role(self, name: str, attributes: str = "login", *memberships: str) -> str:
        """A role of this database's tests; dropped with it."""
        with self.server.connect("postgres") as admin:
            admin.execute(f'create role "{name}" {attributes}')
            for membership in memberships:
                admin.execute(f'grant "{membership}" to "{name}"')
        self.roles.append(name)
        return name


def value(connection: psycopg.Connection, statement: str, *parameters):
    """The first column of the first row, or None."""
    row = connection.execute(statement, parameters or None).fetchone()
    return None if row is None else row[0]


def rows(connection: psycopg.Connection, statement: str, *parameters) -> list[tuple]:
    return connection.execute(statement, parameters or None).fetchall()


#: Positions of the events that users appended. Acts of administration have positions, too, in between.
POSITIONS = "select global_position from _eventstream.events where tenant_id > 0 order by 1"


def numbers(connection: psycopg.Connection, positions: list[int]) -> list[int]:
    """Which events of the log have these positions: 1 is the first. Needs a superuser."""
    number_of = {position: number for number, (position,) in enumerate(rows(connection, POSITIONS), start=1)}
    return [number_of[position] for position in positions]


def passed(connection: psycopg.Connection, position: int | None) -> int | None:
    """How many events of the log are at or below a position. Needs a superuser."""
    return None if position is None else sum(of <= position for (of,) in rows(connection, POSITIONS))


def position_of(connection: psycopg.Connection, number: int) -> int:
    """Of the log's event of that number: 1 is the first. Needs a superuser."""
    return rows(connection, POSITIONS)[number - 1][0]


def last_position(connection: psycopg.Connection) -> int:
    """The last one handed out. Needs a superuser."""
    return value(connection, "select case when is_called then last_value else 0 end from _eventstream.positions")


def near_edge(connection: psycopg.Connection, distance: int, edge: int = FIRST_PARTITION_END) -> None:
    """The next position handed out lies `distance` before the partition edge. Needs a superuser."""
    connection.execute("select setval('_eventstream.positions', %s, true)", (edge - distance - 1,))


def partitions(connection: psycopg.Connection) -> list[str]:
    """The partitions of the log in the order of their positions."""
    return [
        name
        for (name,) in rows(
            connection,
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where i.inhparent = '_eventstream.events'::regclass"
            " order by substring(c.relname from '\\d+$')::bigint",
        )
    ]


def log_tables(connection: psycopg.Connection) -> list[str]:
    """The tables of events and of their tags: parents and partitions."""
    parts = partitions(connection)
    return ["events", *parts, "event_tags", *(part.replace("events_", "event_tags_") for part in parts)]


def verify(connection: psycopg.Connection) -> list[tuple]:
    """What es_verify finds; [] is an intact log."""
    return rows(connection, "select stream, version, problem from es_verify()")


def gaps(connection: psycopg.Connection) -> list[tuple]:
    """Streams whose versions are not 1..n, found without the product's own verification."""
    return rows(
        connection,
        "select stream_id, count(*), min(version), max(version), count(distinct version) from _eventstream.events"
        " group by stream_id having min(version) <> 1 or max(version) <> count(*) or count(distinct version) <> count(*)",
    )


CONTENTS = (
    "select tenant, stream, version, global_position, event_id, event_type, schema_version, payload::text, metadata::text,"
    " subject, occurred_at, recorded_at, category, recorded_by, salt, chain_hash, tags from eventstream.events order by global_position"
)


def contents(connection: psycopg.Connection) -> list[tuple]:
    """Every event with everything that a restore must keep."""
    return rows(connection, CONTENTS)


def all_at_once(count: int, work, seconds: float = 60) -> list:
    """Runs work(0) … work(count - 1) in threads that start together; their results in order, or their exceptions."""
    barrier = threading.Barrier(count)
    results: list = [None] * count

    def one(number):
        try:
            barrier.wait(seconds)
            results[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            results[number] = error

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), f"a session was still busy after {seconds:.0f} s"
    return results


def raised(results: list) -> list[BaseException]:
    return [result for result in results if isinstance(result, BaseException)]


def refusals(connection: psycopg.Connection) -> dict[tuple[str, str, str], str | None]:
    """What SQLSTATE each way to change events gives, on the parent and every partition, also for replication; None: it worked."""
    found = {}
    for role in ("origin", "replica"):
        for table in log_tables(connection):
            for statement in (
                "update _eventstream.{} set global_position = global_position + 1",
                "delete from _eventstream.{}",
                "delete from _eventstream.{} where false",
                "truncate _eventstream.{}",
                "merge into _eventstream.{} e using (values (1)) v(n) on e.tenant_id = v.n when matched then update set tenant_id = 2",
            ):
                if statement.startswith("merge") and connection.info.server_version < 150000:
                    continue
                try:
                    with connection.transaction(force_rollback=True):
                        connection.execute(f"set local session_replication_role = {role}")
                        connection.execute(statement.format(table))
                    found[role, table, statement] = None
                except psycopg.Error as error:
                    found[role, table, statement] = error.sqlstate
    return found


#: The tables besides the events that only our own functions write.
REGISTERS = (
    "log_identities",
    "first_appends",
    "tenants",
    "grants",
    "token_keys",
    "page_keys",
    "streams",
    "stream_segments",
    "tag_partitions",
    "folds",
    "upcasters",
    "event_types",
    "protections",
    "category_rules",
    "periods",
    "operations",
    "event_counts",
    "event_count_progress",
    "deciders",
    "invariants",
    "command_answers",
    "scheduled_commands",
    "activations",
    "projections",
    "subscriptions",
)


@contextlib.contextmanager
def unguarded(connection: psycopg.Connection):
    """A superuser says that the log may be altered, or go; until the end of the block."""
    connection.execute("set eventstream.allow_drop = on")
    try:
        yield
    finally:
        connection.execute("set eventstream.allow_drop = off")


@contextlib.contextmanager
def forced(connection: psycopg.Connection):
    """What a superuser can do who owns the machine: the guard and the triggers of every table off, and on again afterwards."""
    tables = [*log_tables(connection), *REGISTERS]
    guards = {
        table: rows(
            connection,
            "select tgname, tgenabled from pg_trigger where tgrelid = %s::regclass and not tgisinternal",
            f"_eventstream.{table}",
        )
        for table in tables
    }
    with unguarded(connection):
        with connection.transaction():
            for table in tables:
                connection.execute(f"alter table only _eventstream.{table} disable trigger all")
            yield
        with connection.transaction():
            for table, triggers in guards.items():
                for trigger, _ in triggers:
                    # A partition that was detached or dropped meanwhile has none of its parent's any more.
                    if value(
                        connection,
                        "select count(*) from pg_trigger where tgrelid = to_regclass(%s) and tgname = %s",
                        f"_eventstream.{table}",
                        trigger,
                    ):
                        connection.execute(f"alter table only _eventstream.{table} enable always trigger {trigger}")


def assert_immutable(connection: psycopg.Connection) -> None:
    """Nobody, not even a superuser who says replica, changes an event of any partition without going around the triggers."""
    assert {what: state for what, state in refusals(connection).items() if state != "ES050"} == {}
