"""States: folds against an aggregate with the same function, snapshots and the cache against a plain SELECT, moments far back, a category
against one SUM, and the memory of a long fold."""
import time
from statistics import median

from databases import ACCOUNTS, LONG, SHORT
from machine import Watch
from measures.verify import PeakMemory
from pgbench import percentile

BY_HANDLER, BY_RULES = "select es_state_at_version('counter-1', 10000, 'counter-handler')", "select es_state_at_version('counter-1', 10000, 'counter-rules')"
AGGREGATE = "select plain.balance(event) from plain.counter"
CATEGORY = "select count(*) from es_category_state('customer', 'infinity', now(), 'customers')"
SUM_BY_HAND = """
    select count(*) from (
        select stream_id, sum((payload ->> 'amount')::numeric) as balance from _eventstream.events
        where category = 'customer' group by stream_id) as balances
"""
MOST_P95_MS = 1.0
MOST_FROM_MIDDLE = 1.5
MOST_GROWTH_MB = 8


def measure(bench):
    database = bench.database("states")
    folds(bench, database)
    one_row(bench, database)
    middles(bench, database)
    long_fold(bench, database)


def repeated(bench, database, statement, settings=()):
    """A side: runs a statement again and again in a backend of its own; times a second."""

    def run(seconds):
        with bench.connect(database) as connection:
            for setting in ("jit = off", "max_parallel_workers_per_gather = 0", "eventstream.state_cache_size = 0", *settings):
                connection.execute(f"set {setting}")
            connection.execute(statement)
            began, times = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                connection.execute(statement)
                times += 1
            return times / (time.perf_counter() - began)

    return run


def folds(bench, database):
    for name, ours, theirs, against, target in (
        ("es_state_at_version over 10,000 events, PL/pgSQL handler", BY_HANDLER, AGGREGATE, "aggregate, same function, same rows", 0.9),
        ("es_state_at_version over 10,000 events, rules", BY_RULES, AGGREGATE, "aggregate, same function, same rows", 2.0),
        (f"es_category_state, {ACCOUNTS:,} streams, 47,527 events, rules", CATEGORY, SUM_BY_HAND, "SUM … GROUP BY by hand", 1 / 3),
    ):
        sides = bench.interleave(repeated(bench, database, ours), repeated(bench, database, theirs))
        milliseconds = [1000 / median(side) for side in sides]
        bench.report.add_ratio(name, against, target, *sides, what=f"/s ({milliseconds[0]:.1f} : {milliseconds[1]:.1f} ms)")


def one_row(bench, database):
    """A snapshot 50 events back, without the cache; and the cache; each against a SELECT of one jsonb row by primary key."""

    def side(user, script):
        return lambda seconds: bench.pgbench.run(database, user, [script], 1, seconds)

    for name, user, target in (("from a snapshot 50 events back", "bench_uncached", None), ("from the cache", "bench_client", 0.5)):
        ours, plain = bench.interleave(side(user, "state"), side(user, "state_plain"))
        rates = [[each.tps for each in side] for side in (ours, plain)]
        bench.report.add_ratio(f"es_state of 10,000 events, {name}", "SELECT of one jsonb row by primary key", target, *rates)
        if target is None:
            p95 = [percentile(each.latencies(), 95) for each in ours]
            bench.report.add("the same, p95", "", f"< {MOST_P95_MS:.0f} ms", p95, "", median(p95) < MOST_P95_MS, " ms")


def middles(bench, database):
    """The state as of the middle of a long stream with snapshots and late events, and of a short one: 50 events behind a snapshot."""
    sides = [
        repeated(bench, database, f"select es_state_at('{stream}', timestamptz '2024-01-01Z' + {events // 2 + 50} * (interval '366 days' / {events}))")
        for stream, events in (("long-1", LONG), ("short-1", SHORT))
    ]
    long, short = bench.interleave(*sides)
    times = [other / one for one, other in zip(long, short)]
    bench.report.add(
        f"es_state_at in the middle of {LONG:,} events, snapshots, 1 % late", f"in the middle of {SHORT:,} events", f"≤ {MOST_FROM_MIDDLE} × its time",
        times, f"{1000 / median(long):.2f} : {1000 / median(short):.2f} ms", median(times) <= MOST_FROM_MIDDLE, " ×",
    )


def long_fold(bench, database):
    """One fold of a million events, by rules and by handler: what the backend's own memory grows to."""
    for fold in ("rules", "handler"):
        peaks = []
        for version in (10_000, 1_000_000 if not bench.is_quick else 100_000):
            with bench.connect(database) as connection, Watch(bench.server) as watch:
                with PeakMemory(connection.info.backend_pid) as memory:
                    began = time.perf_counter()
                    connection.execute("select es_state_at_version('million-1', %s, %s)", (version, f"million-{fold}"))
                    seconds = time.perf_counter() - began
            bench.report.others(watch)
            peaks.append(memory.megabytes)
        bench.report.add(
            f"one fold of {version:,} events by {fold}, peak memory", "of 10,000", f"≤ {MOST_GROWTH_MB} MB more (flat)", [peaks[1] - peaks[0]],
            f"{peaks[0]:.0f} → {peaks[1]:.0f} MB; {version / seconds:,.0f} events/s", peaks[1] - peaks[0] <= MOST_GROWTH_MB, " MB",
        )
