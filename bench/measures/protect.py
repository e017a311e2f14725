"""es_read of 1,000 events of which two fields are protected, one client, all rows fetched as text; and an append of such an event, against the same of a type without rules, in one log."""
from databases import LEDGERS, STREAMS

CLIENTS = 8
LEAST_READ = 0.70
LEAST_APPEND = 0.90
LEAST_WITHOUT = 0.97


def measure(bench):
    without, hidden = bench.database("bench"), bench.database("hidden")

    def read(database, category):
        return lambda seconds: bench.pgbench.run(database, "bench_client", ["read_of"], 1, seconds, streams=LEDGERS, category=category)

    def append(database, event_type):
        return lambda seconds: bench.pgbench.run(database, "bench_client", ["append_type"], CLIENTS, seconds, streams=STREAMS, event_type=event_type)

    for name, ours, against, theirs, least in (
        ("es_read of 1,000 events with two protected fields", read(hidden, "hidden"), "without rules", read(hidden, "ledger"), LEAST_READ),
        ("es_read of 1,000 events without rules beside a type that has some", read(hidden, "ledger"), "in a log without rules", read(without, "ledger"), LEAST_WITHOUT),
        ("es_append with two protected fields", append(hidden, "Hidden"), "without rules", append(hidden, "AccountCredited"), LEAST_APPEND),
        ("es_append of a type without rules beside one that has some", append(hidden, "AccountCredited"), "in a log without rules", append(without, "AccountCredited"), LEAST_WITHOUT),
    ):
        mine, others = bench.interleave(ours, theirs)
        bench.report.add_ratio(name, against, least, [each.tps for each in mine], [each.tps for each in others])
