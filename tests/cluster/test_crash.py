"""Nothing acknowledged is lost, and nothing is seen twice or skipped, whatever is killed (invariants 1, 3 and 4).

Read models of every kind follow the log meanwhile, and equal it after every crash, up to their checkpoints; consumers of a
subscription process each event once, in the order of its stream.

`CYCLES` (20) crash cycles: clients append and note each acknowledgement in a file before their next call, half of them
with synchronous_commit off; then the postmaster with all its children, or one backend, is killed with -9. Unflushed WAL
is made to stay unflushed (wal_writer_delay = 10 s), so an append that did not flush by itself would be lost.
`make crash CYCLES=1000` runs it for long.
"""

import os
import pathlib
import random
import signal
import threading
import time
import uuid

import psycopg
import pytest
from database import Database, gaps, near_edge, partitions, rows, value, verify
from models import Consumers, Models
from psycopg.types.json import Jsonb
from server import children_of, kill_9, wait_until

CYCLES = int(os.environ.get("CYCLES", "20"))
CLIENTS = 8
STREAMS = 12

#: How a client asks for less durability than the product gives: (before the append, inside its transaction afterwards).
LAX = [
    ("set synchronous_commit = off", None),
    ("set synchronous_commit = on", "set synchronous_commit = off"),
    ("set synchronous_commit = local", "set local synchronous_commit = off"),
    ("set synchronous_commit = off", "set local synchronous_commit = off"),
]


class Client:
    """Appends until told to stop, comes back after every crash, and notes in a file what was acknowledged."""

    def __init__(self, number: int, database: Database, folder: pathlib.Path):
        self.number = number
        self.database = database
        self.file = open(folder / f"acknowledged-{number}", "ab", buffering=0)
        self.choice = random.Random(number)
        self.before, self.after = LAX[(number // 2) % len(LAX)] if number % 2 else ("select 1", None)
        self.acknowledged: dict[uuid.UUID, tuple[str, str]] = {}
        self.versions: dict[uuid.UUID, int] = {}
        #: Appends whose outcome a crash left open: the client tries them again under the same event id.
        self.open_outcome: list[tuple[uuid.UUID, str, str]] = []
        self.unexpected: list[BaseException] = []
        self.go = threading.Event()
        self.done = threading.Event()
        self.idle = threading.Event()
        self.only_retries = threading.Event()
        self.counter = 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.done.is_set():
            if not self.go.wait(0.1):
                self.idle.set()
                continue
            self.idle.clear()
            try:
                with self.database.connect(connect_timeout=5) as session:
                    session.execute(self.before)
                    while self.go.is_set() and not self.done.is_set():
                        self.once(session)
            except psycopg.OperationalError:
                time.sleep(0.05)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.unexpected.append(error)
                return

    def once(self, session: psycopg.Connection) -> None:
        if self.open_outcome:
            # Whether the server had committed it or not: after this it is there, once.
            event_id, stream, token = self.open_outcome[0]
            self.append(session, event_id, stream, token)
            self.open_outcome.pop(0)
            return
        if self.only_retries.is_set():
            self.done.set()
            return
        self.counter += 1
        event_id, stream = uuid.uuid4(), f"account-{self.choice.randrange(STREAMS)}"
        token = f"{self.number}-{self.counter}"
        if self.choice.random() < 0.1:
            # Takes positions that nobody will ever use.
            with session.transaction(force_rollback=True):
                session.execute("select es_append(%s, 'Undone', %s)", (stream, Jsonb({"token": "undone"})))
            return
        self.open_outcome.append((event_id, stream, token))
        self.append(session, event_id, stream, token)
        self.open_outcome.pop()

    def append(self, session: psycopg.Connection, event_id: uuid.UUID, stream: str, token: str) -> None:
        statement = "select es_append(%s, 'Moved', %s, event_id => %s)"
        parameters = (stream, Jsonb({"token": token}), event_id)
        if self.after is None and self.choice.random() < 0.7:
            version = value(session, statement, *parameters)
        else:
            with session.transaction():
                version = value(session, statement, *parameters)
                if self.after is not None:
                    session.execute(self.after)
        # Acknowledged: from here on the server may not lose it.
        os.write(self.file.fileno(), f"{event_id} {stream} {version} {token}\n".encode())
        self.acknowledged[event_id] = (stream, token)
        self.versions[event_id] = version


class Consumer:
    """A tailing reader that keeps what it saw and its checkpoint outside the database, in a file, and survives every crash.

    It reads one event type as a filtered consumer does: its checkpoint runs ahead of the events it saw, up to the horizon.
    A position handed out twice, or a horizon noted before its WAL was flushed, would make it skip events.
    """

    def __init__(self, database: Database, folder: pathlib.Path):
        self.database = database
        self.path = folder / "consumer"
        self.path.write_text("")
        self.seen: list[tuple[int, str, int, str]] = []
        self.checkpoint = 0
        self.unexpected: list[BaseException] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with self.database.connect(connect_timeout=5) as session:
                    while not self.done.is_set():
                        self.once(session)
                        time.sleep(0.002)
            except psycopg.OperationalError:
                time.sleep(0.05)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.unexpected.append(error)
                return

    def once(self, session: psycopg.Connection) -> None:
        up_to = value(session, "select es_horizon()")
        found = rows(
            session,
            "select global_position, stream, version, payload->>'token'"
            " from es_read_all(%s, 200, event_types => '{Moved}', up_to => %s)",
            self.checkpoint,
            up_to,
        )
        checkpoint = found[-1][0] if len(found) == 200 else max(up_to, self.checkpoint)
        with self.path.open("a") as file:
            for event in found:
                print(*event, file=file)
            print("checkpoint", checkpoint, file=file)
        self.seen += found
        self.checkpoint = checkpoint


@pytest.fixture
def crashing(new_server, tmp_path):
    server = new_server(
        "crash",
        fsync=True,
        wal_writer_delay="10s",
        restart_after_crash="on",
        checkpoint_timeout="30s",
        **{"eventstream.partition_size": 4096},
    )
    database = Database(server, "ledger").create()
    with database.connect() as session:
        near_edge(session, 1000)
    return database


def kill_postmaster(database: Database, choice: random.Random) -> None:
    database.server.kill_everything()
    database.server.start()


def kill_backend(database: Database, choice: random.Random) -> None:
    """One client's backend dies, in the middle of whatever it does; the postmaster restarts all the others."""
    server = database.server
    with server.connect("postgres") as admin:
        started = value(admin, "select pg_postmaster_start_time()")
        victims = [
            pid
            for (pid,) in rows(
                admin,
                "select pid from pg_stat_activity where datname = 'ledger' and backend_type = 'client backend'"
                " and query like '%es_append%'",
            )
        ]
    assert victims, "no client was there to be killed"
    family = children_of(server.process.pid)
    kill_9(choice.choice(victims))
    # The crash takes every child with it; only then do new connections mean something.
    wait_until(lambda: not set(children_of(server.process.pid)) & set(family), 30, "the crash restart")
    server.wait_for_connections()
    with server.connect("postgres") as admin:
        assert value(admin, "select pg_postmaster_start_time()") == started, "the postmaster itself went down"


def test_nothing_acknowledged_is_lost_in_many_crashes(crashing, tmp_path):
    database = crashing
    choice = random.Random(int(os.environ.get("EVENTSTREAM_SEED", "1")))
    clients = [Client(number, database, tmp_path) for number in range(CLIENTS)]
    consumer = Consumer(database, tmp_path)
    models = Models(database).create()
    consumers = Consumers(database).start()
    checked = 0
    owners: dict[int, tuple] = {}
    try:
        for cycle in range(CYCLES):
            for client in clients:
                client.go.set()
            acknowledged = sum(len(client.acknowledged) for client in clients)
            wait_until(
                lambda: sum(len(client.acknowledged) for client in clients) > acknowledged + 50, 60, "clients to append"
            )
            time.sleep(choice.uniform(0.2, 2))
            # No checks while the clients write: they go on until the very moment of the kill.
            (kill_postmaster if cycle % 2 == 0 else kill_backend)(database, choice)
            for client in clients:
                client.go.clear()
            wait_until(
                lambda: all(client.idle.is_set() or client.unexpected for client in clients), 60, "the clients to rest"
            )
            with database.connect() as session:
                check(session, clients, consumer, owners, checked, f"cycle {cycle}")
                assert models.differences(session) == {}, f"cycle {cycle}"
                assert consumers.differences(session) == [], f"cycle {cycle}"
                checked = max(owners, default=0)
        for client in clients:
            client.only_retries.set()
            client.go.set()
        for client in clients:
            client.thread.join(30)
            assert not client.thread.is_alive() and not client.open_outcome, "the last retries"
        with database.connect() as session:
            last = value(session, "select last_position from es_log_info()")
            wait_until(lambda: consumer.checkpoint >= last or consumer.unexpected, 30, "the consumer to catch up")
            check(session, clients, consumer, owners, 0, "the end")
            stored = rows(
                session,
                "select global_position, stream, version, payload->>'token' from eventstream.events"
                " order by global_position",
            )
            assert consumer.seen == stored, "the consumer did not see every event exactly once, in order"
            assert len(partitions(session)) > 1, "the test did not leave the first partition"
        models.assert_exact()
        consumers.assert_exact()
    finally:
        consumers.stop()
        consumer.done.set()
        for client in clients:
            client.done.set()
    acknowledged = sum(len(client.acknowledged) for client in clients)
    assert acknowledged > CYCLES * 50
    print(f"{CYCLES} crashes, {acknowledged} acknowledged events, {len(stored)} stored")


def check(session, clients, consumer, owners, after, when) -> None:
    for who in [*clients, consumer]:
        assert not who.unexpected, f"{when}: {who.unexpected}"
    stored = {}
    for position, event_id, stream, version, token in rows(
        session,
        "select global_position, event_id, stream, version, payload->>'token' from eventstream.events"
        " where global_position > %s",
        after,
    ):
        # A position belongs to one event for ever.
        assert owners.setdefault(position, (event_id, stream, version)) == (event_id, stream, version), when
        stored[event_id] = (stream, token)
    kept = {event_id for event_id, _, _ in owners.values()} if after else stored.keys()
    for client in clients:
        for event_id, what in client.acknowledged.items():
            assert event_id in kept, f"{when}: {what}, acknowledged, is lost (client {client.number}: {client.before})"
            if event_id in stored:
                assert stored[event_id] == what, f"{when}: {event_id} is there with other content"
    assert len({event_id for event_id, _, _ in owners.values()}) == len(owners), f"{when}: an event is there twice"
    assert gaps(session) == [], when
    assert verify(session) == [], when
    assert value(session, "select last_position from es_log_info()") >= consumer.checkpoint, (
        f"{when}: the log fell back behind a checkpoint that a consumer has"
    )


def test_an_append_is_flushed_before_it_is_acknowledged_whatever_synchronous_commit_says(crashing):
    """Deterministic: the WAL writer sleeps for 10 s, so the commit's WAL is on disk only if the append saw to that. No worker writes any."""
    crashing.server.configure(**{"eventstream.max_workers": 0})
    crashing.server.reload()
    workers = "select count(*) from pg_stat_activity where backend_type like 'eventstream%' and backend_type <> 'eventstream launcher'"
    with crashing.connect() as session:
        wait_until(lambda: value(session, workers) == 0, 30, "the workers' end")
        # CREATE EXTENSION leaves dead rows in the catalogs; whoever reads them next prunes them, which is WAL of nobody's commit.
        session.execute("vacuum")
    for before, after in [("set synchronous_commit = on", None), *LAX]:
        with crashing.connect() as session:
            session.execute(before)
            with session.transaction():
                session.execute("select es_append('account-1', 'Moved', '{}')")
                if after is not None:
                    session.execute(after)
            unflushed = value(session, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn())")
            assert unflushed <= 0, f"{unflushed} bytes of WAL unflushed after the commit with {before}, {after}"


def test_session_durability_is_what_the_superuser_gets_for_asking(crashing):
    """Shows that the test above can fail: with durability = session an asynchronous commit leaves its WAL unflushed."""
    server = crashing.server
    server.configure(**{"eventstream.durability": "session"})
    server.reload()
    with crashing.connect() as session:
        session.execute("set synchronous_commit = off")
        unflushed = []
        for _ in range(5):
            session.execute("select es_append('account-1', 'Moved', '{}')")
            unflushed.append(
                value(session, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn())")
            )
        assert max(unflushed) > 0


@pytest.mark.parametrize("narrower", ["select es_unprotect('Named')", "select es_protect('Named', pointers => '{}')", "savepoint s; select es_unprotect('Named'); release s"])
def test_what_opens_protected_fields_is_flushed_whatever_durability_says(crashing, narrower):
    """From the commit on they are shown: a crash that took the act back would leave no trace of who looked."""
    crashing.server.configure(**{"eventstream.durability": "session", "eventstream.max_workers": 0})
    crashing.server.reload()
    with crashing.connect() as session:
        session.execute("set client_min_messages = error; set synchronous_commit = off")
        for _ in range(5):
            session.execute("select es_protect('Named', pointers => '{/name}')")
            session.execute(f"begin; {narrower}")
            before = value(session, "select pg_current_wal_insert_lsn()")
            session.execute("commit")
            assert value(session, "select pg_current_wal_flush_lsn() > %s", before)
            assert value(session, "show synchronous_commit") == "off"


def test_transactions_that_do_not_append_keep_the_sessions_own_synchronous_commit(crashing):
    """What an append raises for its own commit ends with it, also when that commit failed."""
    with crashing.connect() as session:
        session.execute("create table own (n int check (n < 100))")
        session.execute("set synchronous_commit = off")
        for ending in ("commit", "rollback"):
            session.execute("begin")
            session.execute("select es_append('account-1', 'Moved', '{}')")
            session.execute(ending)
            assert value(session, "show synchronous_commit") == "off"
            unflushed = []
            for n in range(5):
                session.execute("insert into own values (%s)", (n,))
                unflushed.append(
                    value(session, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn())")
                )
            assert max(unflushed) > 0, f"after a {ending} every commit of the session waits for the disk"


@pytest.mark.parametrize("shown", ["es_horizon()", "(es_log_info()).last_position"])
def test_a_position_that_was_shown_is_never_taken_back_by_a_crash(crashing, shown):
    """A rolled-back append leaves nothing but positions; whoever noted the horizon behind them must not skip what follows."""
    with crashing.connect() as session:
        session.execute("checkpoint")
        for _ in range(40):
            with session.transaction(force_rollback=True):
                session.execute("select es_append('account-1', 'Undone', '{}')")
        # Read-only, so that nothing but the call itself could flush the positions.
        with session.transaction():
            session.execute("set transaction read only")
            noted = value(session, f"select {shown}")
    crashing.server.kill_everything()
    crashing.server.start()
    with crashing.connect() as session:
        session.execute("select es_append('account-2', 'Moved', '{}')")
        assert value(session, "select global_position from es_last_append()") > noted
        assert value(session, "select count(*) from es_read_all(%s)", noted) == 1


# -- with a synchronous standby -----------------------------------------------------------------------------------


@pytest.fixture
def pair(new_server):
    """A primary that waits for its standby, and the standby."""
    primary = new_server("primary", fsync=True, wal_writer_delay="10s", max_wal_senders=4, wal_level="replica")
    database = Database(primary, "ledger").create()
    standby = new_server.adopt(primary.make_standby("standby"))
    primary.configure(synchronous_standby_names="*")
    primary.reload()
    with primary.connect("postgres") as admin:
        wait_until(
            lambda: value(admin, "select count(*) from pg_stat_replication where sync_state = 'sync'") == 1,
            30,
            "the standby to be synchronous",
        )
    return database, Database(standby, "ledger")


def test_nothing_acknowledged_is_lost_when_the_primary_dies_and_the_standby_takes_over(pair, tmp_path):
    database, successor = pair
    clients = [Client(number, database, tmp_path) for number in range(CLIENTS)]
    for client in clients:
        client.go.set()
    wait_until(lambda: all(len(client.acknowledged) > 20 for client in clients), 60, "clients to append")
    time.sleep(2)
    with database.connect() as session:
        horizon = value(session, "select es_horizon()")
    database.server.kill_everything()
    for client in clients:
        client.done.set()
    successor.server.promote()
    for client in clients:
        client.thread.join(30)
        assert not client.unexpected
    with successor.connect() as session:
        check(session, clients, Nobody(), {}, 0, "after the failover")
        # It goes on where the primary was: no position or version is used again.
        last = value(session, "select max(global_position) from eventstream.events")
        version = value(session, "select es_append('account-0', 'Moved', '{}')")
        assert version == value(session, "select count(*) from es_read('account-0')")
        assert value(session, "select global_position from es_last_append()") > max(last, horizon)
        assert verify(session) == []


class Nobody:
    unexpected: list = []
    checkpoint = 0


@pytest.mark.parametrize(
    ("before", "after"), [(None, "off"), ("off", None), ("local", None), (None, "local"), ("local", "local")]
)
def test_an_append_waits_for_the_standby_whatever_synchronous_commit_says(pair, before, after):
    """Deterministic: while the standby's receiver stands still, a commit does not return; once it goes on, it does."""
    database, successor = pair
    with successor.connect() as session:
        receiver = value(session, "select pid from pg_stat_wal_receiver")
    returned = append_in_thread(database, before, after, receiver)
    assert returned == ("waited", "returned")


def test_session_durability_does_not_wait_for_the_standby(pair):
    """Shows that the test above can fail."""
    database, successor = pair
    database.server.configure(**{"eventstream.durability": "session"})
    database.server.reload()
    with successor.connect() as session:
        receiver = value(session, "select pid from pg_stat_wal_receiver")
    assert append_in_thread(database, "local", None, receiver)[0] == "did not wait"


def append_in_thread(database: Database, before, after, receiver: int) -> tuple[str, str]:
    """Commits an append while the standby's WAL receiver is stopped; says whether it waited and whether it returned later."""
    failure = []

    def append():
        try:
            with database.connect() as session:
                session.execute("begin")
                if before is not None:
                    session.execute(f"set local synchronous_commit = {before}")
                session.execute("select es_append('account-1', 'Moved', '{}')")
                if after is not None:
                    session.execute(f"set local synchronous_commit = {after}")
                session.execute("commit")
        except BaseException as error:  # noqa: BLE001 - raised below
            failure.append(error)

    os.kill(receiver, signal.SIGSTOP)
    try:
        thread = threading.Thread(target=append, daemon=True)
        thread.start()
        thread.join(1)
        first = "waited" if thread.is_alive() else "did not wait"
    finally:
        os.kill(receiver, signal.SIGCONT)
    thread.join(20)
    if failure:
        raise failure[0]
    return first, "hangs" if thread.is_alive() else "returned"
