"""One-event es_append, 8 clients: in a category without rules, in a log where ten others have some, against one in a log without; in a category with rules, and in one whose default fold
must take what is appended, against the same in one without."""
from databases import STREAMS

CLIENTS = 8
LEAST_WITHOUT = 0.97
LEAST_JUDGED = 0.95
LEAST_FOLDED = 0.60


def measure(bench):
    without, ruled = bench.database("bench"), bench.database("ruled")

    def side(database, category):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", ["append_to"], CLIENTS, seconds, streams=STREAMS, category=category)

        return run

    for name, ours, against, theirs, least in (
        ("es_append in a category without rules beside ten with", side(ruled, "account"), "in a log without rules", side(without, "account"), LEAST_WITHOUT),
        ("es_append in a category with five rules", side(ruled, "ruled"), "in one without", side(ruled, "account"), LEAST_JUDGED),
        ("es_append in a category that must be foldable, by rules", side(ruled, "folded"), "in one without", side(ruled, "account"), LEAST_FOLDED),
    ):
        mine, others = bench.interleave(ours, theirs)
        bench.report.add_ratio(name, against, least, [each.tps for each in mine], [each.tps for each in others])
