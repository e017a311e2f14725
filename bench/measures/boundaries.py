"""Decisions behind dynamic consistency boundaries, from Python, 8 processes: an append under a condition on one of 10,000 tags, of which each has its own, by es_append_streams and by the recorder for PostgreSQL of
Python eventsourcing (the one with a table of tags), also without fsync. Both are given the same event."""
import time

from clock import connected, in_processes
from databases import create
from pgbench import PAYLOAD
from psycopg.types.json import Jsonb

from .append import without_fsync

CLIENTS, TAGS = 8, 10_000
LEAST = 5.0
OURS, THEIRS = "boundaries", "eventsourcing"


APPEND = "select positions from es_append_streams(%s, condition => %s)"


class Ours:
    """What a client in Python would write."""

    def __init__(self, address):
        self.connection = connected(address)
        self.head = self.connection.execute("select es_horizon()").fetchone()[0]

    def append(self, tag, after):
        event = {"type": "AccountCredited", "payload": PAYLOAD, "tags": [tag]}
        elements = Jsonb([{"stream": f"dcb-{tag}", "events": [event]}])
        condition = Jsonb({"query": {"items": [{"tags": [tag]}]}, "after": after})
        return self.connection.execute(APPEND, (elements, condition)).fetchone()[0][-1]


class Theirs:
    def __init__(self, server):
        self.recorder = their_recorder(server)
        with self.recorder.datastore.cursor() as cursor:
            cursor.execute(f"select coalesce(max(id), 0) as head from {self.recorder.events_table_name}")
            self.head = cursor.fetchone()["head"]

    def append(self, tag, after):
        from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem

        condition = DCBAppendCondition(DCBQuery([DCBQueryItem(tags=[tag])]), after=after)
        return self.recorder.append([DCBEvent(type="AccountCredited", data=PAYLOAD.encode(), tags=[tag])], condition)


def their_recorder(server):
    from eventsourcing.dcb.postgres_tt import PostgresDCBRecorderTT
    from eventsourcing.postgres import PostgresDatastore

    datastore = PostgresDatastore(dbname=THEIRS, host=server.socket, port=server.port, user="postgres", password="")
    return PostgresDCBRecorderTT(datastore)


def append_for(side, place, number, seconds):
    """How often it appended; each tag's next append is under the condition that nothing came since its last one, or since the start."""
    one, last, done, until = side(place), {}, 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        tag = f"seat:{number + CLIENTS * (done % (TAGS // CLIENTS))}"
        last[tag] = one.append(tag, last.get(tag, one.head))
        done += 1
    return done


def measure(bench):
    try:
        import eventsourcing  # noqa: F401
    except ImportError:
        bench.report.note("not measured: Python eventsourcing needs Python 3.11")
        return
    create(bench, OURS).close()
    with bench.connect("postgres") as connection:
        connection.execute(f"create database {THEIRS}")
    their_recorder(bench.server).create_table()

    def rate(side, place):
        def run(seconds):
            return sum(in_processes(append_for, [(side, place, number, seconds) for number in range(CLIENTS)])) / seconds

        return run

    sides = (rate(Ours, bench.server.address(OURS, "bench_client")), rate(Theirs, bench.server))
    for suffix in ("", ", fsync off"):
        if suffix:
            with without_fsync(bench):
                rates = bench.interleave(*sides)
        else:
            rates = bench.interleave(*sides)
        bench.report.add_ratio(f"an append under a condition on one tag, from Python, 8 processes{suffix}", "eventsourcing's PostgresDCBRecorderTT", LEAST, *rates)
