"""One-event es_append against a prepared one-row INSERT into a plain table, at 8, 1 and 32 clients, its percentiles, and 8 clients without fsync; and
what an event costs in a loop of single appends, without flushes, against batches of 1,000."""
import time
from contextlib import contextmanager
from statistics import median

from databases import BATCH, STREAMS, batch
from pgbench import METADATA, PAYLOAD, percentile

# Rate compared with the plain table's, by clients.
LEAST_RATIO = {8: 0.85, 1: 0.70, 32: None}
LEAST_WITHOUT_FSYNC = 0.75
# A single append may cost so many times what an event of a batch costs.
MOST_OF_BATCH = 1.5
# No target hangs on 32 clients, so fewer rounds will do.
ROUNDS_WITHOUT_TARGET = 3
MOST_P95_MS = {8: 2.0}


def measure(bench):
    database = bench.database("bench")

    def side(script, clients):
        return lambda seconds: bench.pgbench.run(database, "bench_client", [script], clients, seconds, streams=STREAMS)

    for clients, least in LEAST_RATIO.items():
        rounds = bench.rounds if least else min(bench.rounds, ROUNDS_WITHOUT_TARGET)
        ours, plain = bench.interleave(side("append", clients), side("insert_plain", clients), rounds)
        name = f"es_append, {clients} client{'s' * (clients > 1)}"
        bench.report.add_ratio(name, "INSERT into the plain table", least, [each.tps for each in ours], [each.tps for each in plain])
        for per_cent in (50, 95, 99):
            mine, theirs = ([percentile(each.latencies(), per_cent) for each in side] for side in (ours, plain))
            most = MOST_P95_MS.get(clients) if per_cent == 95 else None
            bench.report.add(
                f"es_append p{per_cent}, {clients} client{'s' * (clients > 1)}",
                "",
                "" if most is None else f"≤ {most:.0f} ms",
                mine,
                f"plain INSERT {median(theirs):.2f} ms",
                None if most is None else median(mine) <= most,
                " ms",
            )
    with without_fsync(bench):
        ours, plain = bench.interleave(side("append", 8), side("insert_plain", 8))
    bench.report.add_ratio(
        "es_append, 8 clients, fsync off", "INSERT into the plain table", LEAST_WITHOUT_FSYNC, [each.tps for each in ours], [each.tps for each in plain]
    )
    fixed_cost(bench, database)


@contextmanager
def without_fsync(bench):
    """What remains where flushing costs nothing."""

    def say(value):
        with bench.connect("postgres") as connection:
            connection.execute(f"alter system set fsync = {value}")
            connection.execute("select pg_reload_conf()")

    say("off")
    try:
        yield
    finally:
        say("on")


# In one backend and one transaction: no round trip and no commit is in it.
LOOP = """
    do $$ begin
        for s in 1..{streams} loop
            perform es_append('account-' || s, 'AccountCredited', '{payload}', metadata => '{metadata}');
        end loop;
    end $$
"""


def fixed_cost(bench, database):
    loop = LOOP.format(streams=STREAMS, payload=PAYLOAD, metadata=METADATA)
    text = batch()
    with bench.connect(database) as connection:
        connection.execute("set eventstream.durability = 'session'")
        connection.execute("set synchronous_commit = off")

        def microseconds(seconds, events, once):
            began, count = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                once()
                count += events
            return (time.perf_counter() - began) / count * 1e6

        def single(seconds):
            return microseconds(seconds, STREAMS, lambda: connection.execute(loop))

        def batched(seconds):
            call = "select es_append_events('batch-1', %s)"
            return microseconds(seconds, BATCH, lambda: connection.execute(call, (text,), prepare=True))

        singles, batches = bench.interleave(single, batched)
    ratios = [one / other for one, other in zip(singles, batches)]
    bench.report.add(
        "an event of es_append in a loop", f"an event of a batch of {BATCH:,}", f"≤ {MOST_OF_BATCH} ×", ratios,
        f"{median(singles):.1f} : {median(batches):.1f} µs", median(ratios) <= MOST_OF_BATCH, " ×",
    )
