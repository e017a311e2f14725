"""One-event es_append, 8 clients: of a type that nobody has declared, in a log that declares others, against one in a log that declares none; and of a type with a JSON
Schema of ten properties against the same payload of one that nobody has declared."""
from databases import STREAMS, TEN_PROPERTIES

CLIENTS = 8
LEAST_UNDECLARED = 0.97
LEAST_JUDGED = 0.80


def measure(bench):
    without, declared = bench.database("bench"), bench.database("declared")

    def side(database, event_type):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", ["append_as"], CLIENTS, seconds, streams=STREAMS, type=event_type, payload=TEN_PROPERTIES)

        return run

    for name, ours, against, theirs, least in (
        ("es_append of an undeclared type beside ten declared ones", side(declared, "Free"), "in a log that declares none", side(without, "Free"), LEAST_UNDECLARED),
        ("es_append judged by a JSON Schema of ten properties", side(declared, "Judged"), "the same payload, undeclared", side(declared, "Free"), LEAST_JUDGED),
    ):
        mine, others = bench.interleave(ours, theirs)
        bench.report.add_ratio(name, against, least, [each.tps for each in mine], [each.tps for each in others])
