"""Read models of every kind that follow the log, and how tests compare them with it.

Whatever is compared is compared in one snapshot, up to the checkpoint that this snapshot shows: effects and checkpoint are committed
together, so each model equals the log at any moment, also between two crashes, and not only at the end.
"""

from __future__ import annotations

import random
import threading
import time

import psycopg
from psycopg.types.json import Jsonb

from database import Database, rows, value
from server import wait_until

#: Each kind notes what it was shown in the order in which it was shown it; `sums` doubles where a batch is applied twice.
HANDLERS = """
create table {name}_seen (n bigint generated always as identity, position bigint, stream text, version bigint, token text);
create table {name}_sums (stream text primary key, events bigint not null, versions numeric not null);
create function {name}(event eventstream.event) returns void language plpgsql as $$ begin
    insert into public.{name}_seen (position, stream, version, token)
    values (event.global_position, event.stream, event.version, event.payload ->> 'token');
    insert into public.{name}_sums as s values (event.stream, 1, event.version)
    on conflict (stream) do update set events = s.events + 1, versions = s.versions + excluded.versions;
end $$;
create function {name}(events eventstream.event[]) returns void language plpgsql as $$ begin
    insert into public.{name}_seen (position, stream, version, token)
    select e.global_position, e.stream, e.version, e.payload ->> 'token' from unnest(events) e order by e.global_position;
    insert into public.{name}_sums as s select e.stream, count(*), sum(e.version) from unnest(events) e group by 1
    on conflict (stream) do update set events = s.events + excluded.events, versions = s.versions + excluded.versions;
end $$;
create function {name}_reset() returns void language plpgsql as $$ begin
    delete from public.{name}_seen;
    delete from public.{name}_sums;
end $$
"""
ARGUMENT = {"event": "eventstream.event", "batch": "eventstream.event[]"}

TALLY = {"on": {"Moved": [{"increment": "/events"}, {"set": {"/last": "/token"}}]}}
COLUMNS = [{"name": "events", "type": "bigint", "path": "/events"}, {"name": "last", "type": "text", "path": "/last"}]


class Model:
    """A projection with a handler for one event or a batch."""

    def __init__(self, name: str, kind: str = "event", mode: str = "async", before: str = "", **settings):
        self.name, self.kind, self.mode, self.before, self.settings = name, kind, mode, before, settings

    def create(self, session: psycopg.Connection) -> "Model":
        session.execute(HANDLERS.format(name=self.name).replace("begin\n", f"begin\n{self.before}\n", 2))
        arguments = {"mode": self.mode, **self.settings}
        session.execute(
            "select es_create_projection(%s, %s::regprocedure, reset => %s::regprocedure"
            + "".join(f", {key} => %s" for key in arguments)
            + ")",
            (self.name, f"{self.name}({ARGUMENT[self.kind]})", f"{self.name}_reset()", *arguments.values()),
        )
        return self

    def differences(self, session: psycopg.Connection, checkpoint: int, after: int = 0) -> list[tuple]:
        """Where what it has seen is not the log but for its dead letters, in the log's order; [] is exact."""
        wanted = (
            "from eventstream.events where global_position <= %(to)s"
            " and (%(categories)s::text[] is null or category = any (%(categories)s))"
            " and (%(types)s::text[] is null or event_type = any (%(types)s))"
            " and global_position not in (select d.global_position from eventstream.dead_letters d where d.projection = %(name)s)"
        )
        parameters = {
            "after": after,
            "to": checkpoint,
            "categories": self.settings.get("categories"),
            "types": self.settings.get("event_types"),
            "name": self.name,
        }
        # Appends side by side apply theirs side by side: of an inline one only the order within a stream is certain.
        order = "s.position" if self.mode == "inline" else "s.n"
        found = session.execute(
            "select log.*, seen.* from"
            f" (select row_number() over (order by global_position) as n, global_position, stream, version, payload ->> 'token' as token"
            f" {wanted} and global_position > %(after)s) log"
            f" full join (select row_number() over (order by {order}) as n, position, stream, version, token"
            f" from {self.name}_seen s where position > %(after)s) seen on seen.n = log.n"
            " where (log.global_position, log.stream, log.version, log.token)"
            " is distinct from (seen.position, seen.stream, seen.version, seen.token) order by coalesce(log.n, seen.n) limit 3",
            parameters,
        ).fetchall()
        if self.mode == "inline":
            found += rows(
                session,
                "select * from (select stream, position, lag(position) over (partition by stream order by n) as before"
                f" from {self.name}_seen) s where before >= position limit 3",
            )
        if after == 0:
            found += session.execute(
                f"select * from (select stream, count(*) as events, sum(version) as versions {wanted} group by stream) log"
                f" full join {self.name}_sums seen using (stream)"
                " where (log.events, log.versions) is distinct from (seen.events, seen.versions) limit 3",
                parameters,
            ).fetchall()
        return found


class Table:
    """A state table of the streams of category account, by rules."""

    kind = "table"

    def __init__(self, name: str = "totals", mode: str = "async"):
        self.name, self.mode = name, mode

    def create(self, session: psycopg.Connection) -> "Table":
        if value(session, "select count(*) from eventstream.folds where name = 'tally'") == 0:
            session.execute("select es_register_fold('tally', 'account', rules => %s, initial_state => '{}')", (Jsonb(TALLY),))
        session.execute(
            "select es_create_state_table(%s, 'account', %s, mode => %s)", (self.name, Jsonb(COLUMNS), self.mode)
        )
        return self

    def differences(self, session: psycopg.Connection, checkpoint: int, after: int = 0) -> list[tuple]:
        if after > 0:
            return []
        return session.execute(
            "select * from (select stream, max(version) as version, nullif(count(*) filter (where event_type = 'Moved'), 0) as events,"
            " (array_agg(payload ->> 'token' order by version desc) filter (where event_type = 'Moved'))[1] as last"
            " from eventstream.events where category = 'account' and global_position <= %s group by stream) log"
            f" full join {self.name} seen using (stream)"
            " where (log.version, log.events, log.last) is distinct from (seen.version, seen.events, seen.last) limit 3",
            (checkpoint,),
        ).fetchall()


class Models:
    """Several of them in one database."""

    def __init__(self, database: Database, *models: Model | Table):
        self.database = database
        self.models = models or (Model("one"), Model("many", "batch"), Table(), Model("inside", mode="inline"))

    def create(self) -> "Models":
        with self.database.connect() as session:
            for model in self.models:
                model.create(session)
        return self

    def differences(self, session: psycopg.Connection, after: int = 0) -> dict[str, list]:
        """By model; {} where each equals the log up to its checkpoint, an inline one up to the end."""
        found = {}
        with session.transaction():
            session.execute("set transaction isolation level repeatable read, read only")
            checkpoints = dict(rows(session, "select p.name, case when p.mode = 'inline' and g.status = 'running' then 9e18::bigint"
                                             " else g.global_position end from _eventstream.projections p"
                                             " join _eventstream.projection_progress g on g.projection_id = p.id"))  # fmt: skip
            for model in self.models:
                if wrong := model.differences(session, checkpoints[model.name], after):
                    found[model.name] = wrong
        return found

    def wait(self, session: psycopg.Connection, seconds: float = 60) -> None:
        """Until each has passed the last position that was handed out before."""
        last = value(session, "select last_position from es_log_info()")
        for model in self.models:
            session.execute("select es_wait_for(%s, up_to => %s, timeout => %s)", (model.name, last, f"{seconds} seconds"))

    def assert_exact(self, seconds: float = 60) -> None:
        """Each is current, stands at the last settled position, and equals the log."""
        with self.database.connect() as session:
            self.wait(session, seconds)
            assert self.differences(session) == {}
            end = value(session, "select es_horizon()")
            checkpoints = dict(rows(session, "select name, global_position from eventstream.projections where mode = 'async'"))
            names = {model.name for model in self.models}
            assert {name for name, at in checkpoints.items() if at < end and name in names} == set(), (checkpoints, end)


class Crowd:
    """Threads that run `_run(number)` from `with` until its end, where what went wrong in them is raised."""

    def __init__(self, count: int):
        self.done = threading.Event()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]

    def _run(self, number: int) -> None:
        raise NotImplementedError

    def __enter__(self) -> Crowd:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), f"one of the {type(self).__name__.lower()} hangs"
        assert self.errors == []


class Appenders(Crowd):
    """Clients that append at a pace, some transactions held open or rolled back, and come back after every crash."""

    def __init__(self, database: Database, count: int = 4, streams: int = 25, pause: float = 0.002, category: str = "account"):
        super().__init__(count)
        self.database, self.streams, self.pause, self.category = database, streams, pause, category
        self.rest = threading.Event()
        self.appended = [0] * count

    def wait_for(self, more: int, seconds: float = 60) -> None:
        until = sum(self.appended) + more
        wait_until(lambda: sum(self.appended) >= until or self.errors, seconds, "the clients to append")
        assert self.errors == []

    def _run(self, number: int) -> None:
        choice = random.Random(number)
        while not self.done.is_set():
            try:
                with self.database.connect(connect_timeout=5) as session:
                    while not self.done.is_set():
                        self._once(session, choice, number)
            except (psycopg.OperationalError, psycopg.errors.AdminShutdown):
                time.sleep(0.02)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)
                return

    def _once(self, session: psycopg.Connection, choice: random.Random, number: int) -> None:
        if self.rest.is_set():
            time.sleep(0.02)
            return
        how = choice.random()
        streams = [f"{self.category}-{choice.randrange(self.streams)}" for _ in range(1 if how < 0.7 else 3)]
        # In one order for all clients: what is tested is not deadlocks of theirs.
        with session.transaction(force_rollback=0.7 < how < 0.75):
            for stream in sorted(streams):
                token = f"{number}-{self.appended[number]}-{choice.randrange(10**9)}"
                session.execute("select es_append(%s, 'Moved', %s)", (stream, Jsonb({"token": token})))
                if how > 0.97:
                    time.sleep(choice.uniform(0, 0.05))
        self.appended[number] += len(streams)
        time.sleep(choice.uniform(0, 2 * self.pause))


class Consumers:
    """Consumers of a subscription to everything, who keep what they process in the database, in the transaction that acknowledges it;
    they come back after every crash, each under its old name."""

    def __init__(self, database: Database, count: int = 3):
        self.database = database
        self.done = threading.Event()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(f"consumer-{number}",), daemon=True) for number in range(count)]

    def start(self) -> "Consumers":
        with self.database.connect() as session:
            session.execute("create table consumed (n bigint generated always as identity, position bigint, stream text, version bigint)")
            session.execute("select es_create_subscription('consumed')")
        for thread in self.threads:
            thread.start()
        return self

    def stop(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a consumer hangs"

    def _run(self, name: str) -> None:
        choice = random.Random(name)
        while not self.done.is_set():
            try:
                with self.database.connect(connect_timeout=5) as session:
                    while not self.done.is_set():
                        self._once(session, name, choice)
            except (psycopg.OperationalError, psycopg.errors.AdminShutdown):
                time.sleep(0.02)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)
                return

    def _once(self, session: psycopg.Connection, name: str, choice: random.Random) -> None:
        fetch = "select lease_id, (event).global_position, (event).stream, (event).version from es_fetch('consumed', %s, 40, '2 seconds', %s)"
        batch = rows(session, fetch, name, "100 ms")
        if not batch:
            return
        time.sleep(choice.uniform(0, 0.02))
        with session.transaction():
            session.cursor().executemany("insert into consumed (position, stream, version) values (%s, %s, %s)", [row[1:] for row in batch])
            try:
                session.execute("select es_ack(%s)", (batch[0][0],))
            except psycopg.Error as error:
                # The lease ended before, in a crash: others have the events.
                if error.sqlstate != "ES024":
                    raise
                raise psycopg.Rollback from None

    def differences(self, session: psycopg.Connection) -> list[tuple]:
        """What was processed twice, or out of its stream's order, or a gap in what a stream has: [] is exact as far as it goes."""
        assert self.errors == []
        return rows(
            session,
            "select * from (select stream, version, lag(version, 1, 0::bigint) over (partition by stream order by n) as before from consumed) c"
            " where version <> before + 1 limit 3",
        )

    def assert_exact(self, seconds: float = 60) -> None:
        """Everything that is in the log was processed once."""
        with self.database.connect() as session:
            left = "select count(*) from eventstream.events e where not exists (select from consumed c where c.position = e.global_position)"
            wait_until(lambda: value(session, left) == 0 or self.errors, seconds, "the consumers to catch up", every=0.2)
            assert self.differences(session) == []
            assert value(session, "select count(*) from consumed") == value(session, "select count(*) from eventstream.events")
            assert value(session, "select count(*) from eventstream.dead_letters") == 0
