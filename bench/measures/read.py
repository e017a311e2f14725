"""es_read of 1,000 events against a plain SELECT of the same columns, in order of version; one client, all rows fetched as text."""
from statistics import median

from databases import LEDGERS
from pgbench import percentile

MOST_MS = 5.0


def measure(bench):
    database = bench.database("bench")

    def side(script):
        return lambda seconds: bench.pgbench.run(database, "bench_client", [script], 1, seconds, streams=LEDGERS)

    ours, plain = bench.interleave(side("read_stream"), side("read_plain"))
    bench.report.add_ratio("es_read of 1,000 events", "SELECT … ORDER BY version", 0.75, [each.tps for each in ours], [each.tps for each in plain])
    p50, theirs = ([percentile(each.latencies(), 50) for each in side] for side in (ours, plain))
    bench.report.add(
        "es_read of 1,000 events, p50", "", f"< {MOST_MS:.0f} ms", p50, f"plain SELECT {median(theirs):.2f} ms",
        median(p50) < MOST_MS, " ms",
    )
