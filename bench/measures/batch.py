"""es_append_events of 1,000 against one INSERT … SELECT of the same JSON text into the plain table; one client, flushed commits."""
import itertools
import time
from statistics import median

from databases import APPEND_BATCH, BATCH, INSERT_BATCH, batch

STREAMS = 100
LEAST_EVENTS_A_SECOND = 50_000


def measure(bench):
    database = bench.database("bench")
    number = itertools.count(1)
    text = batch()
    with bench.connect(database, "bench_client") as connection:

        def repeat(seconds, once):
            began = time.perf_counter()
            events = 0
            while time.perf_counter() - began < seconds:
                once(next(number))
                events += BATCH
            return events / (time.perf_counter() - began)

        def append(n):
            connection.execute(APPEND_BATCH, {"stream": f"batch-{n % STREAMS}", "batch": text}, prepare=True)

        def insert(n):
            row = {"stream": 2_000_000 + n % STREAMS, "version": 1_000_000 + n * BATCH, "batch": text}
            connection.execute(INSERT_BATCH, row, prepare=True)

        rates = bench.interleave(lambda seconds: repeat(seconds, append), lambda seconds: repeat(seconds, insert))
    bench.report.add_ratio(f"es_append_events of {BATCH:,}, events", "INSERT … SELECT from jsonb_to_recordset", 0.6, *rates)
    bench.report.add(
        "es_append_events, events a second", "", f"≥ {LEAST_EVENTS_A_SECOND:,}", rates[0], "one client",
        median(rates[0]) >= LEAST_EVENTS_A_SECOND, "/s",
    )
