"""One-event es_append against a prepared one-row INSERT into a plain table, at 8, 1 and 32 clients; and its percentiles."""
from statistics import median

from databases import STREAMS
from pgbench import percentile

# Rate compared with the plain table's; requirements.md P1 for the milliseconds.
LEAST_RATIO = {8: 0.75, 1: 0.70, 32: None}
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
                "" if most is None else f"≤ {most:.0f} ms (P1)",
                mine,
                f"plain INSERT {median(theirs):.2f} ms",
                None if most is None else median(mine) <= most,
                " ms",
            )
