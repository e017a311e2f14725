"""One-event es_append against message-db's write_message, 8 clients: in one category (which message-db locks), and each stream in its own."""
from databases import MESSAGE_DB, STREAMS


def measure(bench):
    ours = bench.database("bench")
    theirs = bench.database("message_store")
    if theirs is None:
        bench.report.note(f"not measured: there is no npm to fetch {MESSAGE_DB} with")
        return
    for what, suffix, least in (("one category", "", 2.5), ("every stream a category", "_own_category", 1.2)):

        def append(seconds):
            return bench.pgbench.run(ours, "bench_client", ["append" + suffix], 8, seconds, streams=STREAMS).tps

        def write_message(seconds):
            return bench.pgbench.run(theirs, "message_store", ["write_message" + suffix], 8, seconds, streams=STREAMS).tps

        ratios = bench.interleave(append, write_message)
        bench.report.add_ratio(f"es_append, 8 clients, {what}", "message-db write_message", least, *ratios)
