"""What tags and conditions cost, 8 clients: one event with two tags against one without; an append under a condition on one of 10,000 tags, of which each client has its own, against a plain es_append, also
without fsync; a whole decision over three tags (the condition, three reads, the append under it) against the same reads and a plain append; and the same condition in a log of 5 million events with a million tags."""
from statistics import median

from databases import STREAMS, create
from pgbench import percentile

from .append import without_fsync

CLIENTS = 8
TAGS = 10_000
LEAST_TAGGED, LEAST_CONDITIONAL, LEAST_WITHOUT_FSYNC, LEAST_LONG = 0.80, 0.60, 0.50, 0.85
MOST_P50_MS = 2.0

# A log with so many events and tags, and the small one that it is compared with.
SIZES = {"long": (5_000_000, 1_000_000), "short": (100_000, 10_000)}
BATCH = 10_000
FILL = """
    select count(*) from es_append_streams((
        select jsonb_agg(jsonb_build_object('stream', stream, 'events', events)) from (
            select 'account-' || n %% %(streams)s + 1 as stream,
                   jsonb_agg(jsonb_build_object('type', 'AccountCredited', 'payload', jsonb_build_object('amount', n %% 1000),
                       'tags', jsonb_build_array('seat:' || n %% %(tags)s + 1)) order by n) as events
            from generate_series(%(first)s::int, %(last)s::int) n group by 1) s))
"""


def measure(bench):
    database = bench.database("bench")

    def side(script, database=database, tags=TAGS):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", [script], CLIENTS, seconds, streams=STREAMS, tags=tags, sessions=CLIENTS)

        return run

    def compare(name, ours, against, theirs, least):
        mine, others = bench.interleave(side(ours), side(theirs))
        bench.report.add_ratio(name, against, least, [each.tps for each in mine], [each.tps for each in others])
        return mine

    compare("es_append of an event with two tags", "append_tagged", "without tags", "append", LEAST_TAGGED)
    condition = ("append_conditional", "es_append without tags", "append")
    compare("es_append_streams under a condition on one tag", *condition, LEAST_CONDITIONAL)
    with without_fsync(bench):
        compare("es_append_streams under a condition on one tag, fsync off", *condition, LEAST_WITHOUT_FSYNC)
    decisions = compare("a decision over three tags: condition, reads, append", "decide", "the same reads, and es_append", "read_and_append", None)
    p50 = [percentile(each.latencies(), 50) for each in decisions]
    bench.report.add("p50 of a decision over three tags", "", f"< {MOST_P50_MS:.0f} ms", p50, "", median(p50) < MOST_P50_MS, " ms")
    for name in SIZES:
        fill(bench, name)
    long, short = bench.interleave(*(side("append_conditional", f"tagged_{name}", tags) for name, (_, tags) in SIZES.items()))
    (events, tags), (few_events, few_tags) = SIZES["long"], SIZES["short"]
    bench.report.add_ratio(
        f"es_append_streams under a condition on one tag, {events:,} events with {tags:,} tags", f"{few_events:,} events with {few_tags:,} tags",
        LEAST_LONG, [each.tps for each in long], [each.tps for each in short],
    )  # fmt: skip


def fill(bench, name):
    events, tags = SIZES[name]
    if bench.is_quick:
        events, tags = events // 10, tags // 10
    with create(bench, f"tagged_{name}") as connection:
        connection.execute("set eventstream.durability = session; set synchronous_commit = off")
        for first in range(1, events, BATCH):
            connection.execute(FILL, {"streams": STREAMS, "tags": tags, "first": first, "last": first + BATCH - 1})
        connection.execute("vacuum analyze")
