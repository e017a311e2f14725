"""Eight writers to one stream, with and without an idle REPEATABLE READ transaction that keeps every old row version alive."""
from contextlib import contextmanager
from statistics import mean

from machine import Watch

LEAST_RATIO = 0.8
# The last third of the run beside the idle transaction against its first: less than this is falling.
LEAST_STEADINESS = 0.9


@contextmanager
def idle_transaction(bench, database):
    with bench.connect(database) as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select count(*) from pg_class")
        yield
        connection.execute("rollback")


def measure(bench):
    database = bench.database("bench")
    length, window = (15, 3) if bench.is_quick else (60, 10)

    def run(seconds):
        with Watch(bench.server) as watch:
            outcome = bench.pgbench.run(database, "bench_client", ["append_hot"], 8, seconds)
        bench.report.others(watch)
        return outcome

    run(3)
    without = [run(length // 3)]
    beside = []
    for _ in range(1 if bench.is_quick else 2):
        with idle_transaction(bench, database):
            beside.append(run(length))
        without.append(run(length // 3))
    # Each run beside it is compared with the mean of the two around it.
    around = [mean((before.tps, after.tps)) for before, after in zip(without, without[1:])]
    bench.report.add_ratio(
        f"hot stream, 8 writers, beside an idle transaction, {length} s", "without it", LEAST_RATIO, [each.tps for each in beside], around
    )
    steadiness = []
    for each in beside:
        rates = windows(each, window, length)
        bench.report.note(f"appends/s in windows of {window} s beside the idle transaction: " + ", ".join(f"{rate:,.0f}" for rate in rates))
        third = max(1, len(rates) // 3)
        steadiness.append(mean(rates[-third:]) / mean(rates[:third]))
    bench.report.add(
        "the same, last third of the run", "its first third", f"≥ {LEAST_STEADINESS} × (not falling)", steadiness, "",
        min(steadiness) >= LEAST_STEADINESS, " ×",
    )


def windows(outcome, window, length):
    counts = [0] * (length // window)
    for when, _, _ in outcome.logged:
        if when < length // window * window:
            counts[int(when // window)] += 1
    return [count / window for count in counts]
