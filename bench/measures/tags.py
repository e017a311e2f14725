"""What tags and conditions cost, 8 clients: one event with two tags against one without; an append under a condition on one of 10,000 tags, of which each client has its own, against a plain es_append; and a
whole decision over three tags (the condition, three reads, the append under it) against the same reads and a plain append."""
from databases import STREAMS

CLIENTS = 8
TAGS = 10_000
#: What has no target yet is only told.
LEAST = None


def measure(bench):
    database = bench.database("bench")

    def side(script):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", [script], CLIENTS, seconds, streams=STREAMS, tags=TAGS, sessions=CLIENTS)

        return run

    for name, ours, against, theirs in (
        ("es_append of an event with two tags", "append_tagged", "without tags", "append"),
        ("es_append_streams under a condition on one tag", "append_conditional", "es_append without tags", "append"),
        ("a decision over three tags: condition, reads, append", "decide", "the same reads, and es_append", "read_and_append"),
    ):
        mine, others = bench.interleave(side(ours), side(theirs))
        bench.report.add_ratio(name, against, LEAST, [each.tps for each in mine], [each.tps for each in others])
