"""p50 of es_append in a log of 10 million events over 50 partitions and more, against one of 100 thousand in one partition.

Old streams (their newest event lies anywhere in the log) and new ones, each with and without an event id of the client's."""
from statistics import median

from pgbench import percentile

MOST_RATIO = 1.15
SCRIPTS = {
    "append_old": "old streams",
    "append_old_with_id": "old streams, client's event id",
    "append_new": "new streams",
    "append_new_with_id": "new streams, client's event id",
}


def measure(bench):
    small, big = bench.database("small"), bench.database("big")
    for log in (small, big):
        bench.report.note(f"{log['name']}: {log['events']:,} events, {log['streams']:,} streams, {log['partitions']} partitions")

    def side(log):
        return lambda seconds: bench.pgbench.run(log["name"], "bench_client", list(SCRIPTS), 1, seconds, streams=log["streams"])

    of_big, of_small = bench.interleave(side(big), side(small))
    size = f"{big['events']:,} events in {big['partitions']} partitions"
    for number, what in [(None, "all kinds together"), *enumerate(SCRIPTS.values())]:
        slow, fast = ([percentile(each.latencies(number), 50) for each in side] for side in (of_big, of_small))
        ratios = [one / other for one, other in zip(slow, fast)]
        bench.report.add(
            f"es_append p50, {what}: {size}", f"{small['events']:,} in one", f"≤ {MOST_RATIO:.2f} ×", ratios,
            f"{median(slow):.3f} : {median(fast):.3f} ms", median(ratios) <= MOST_RATIO, " ×",
        )
