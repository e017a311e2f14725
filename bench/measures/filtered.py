"""Reads that return little of a long log of many categories: of a rare category, by a tenant with few events, by pages of a view, by followers that
have nothing to do; the history of a stream that was recorded newest first; and temporal views of fresh streams, joined. Each against the same in a
log of a tenth, where there is one: it is to cost the same. Reads by a rare type, which have no index, for what they cost."""
import threading
import time
from statistics import median

from databases import create
from databases_live import BALANCE, append_at_random, register_fold
from machine import cpu_seconds_of

MOST_MS, MOST_GROWTH = 3.0, 1.5
EVENTS, FALLING, FRESH = 2_000_000, 100_000, 10_000
MOST_SECONDS = 1.0
# The log's categories beside the rare ones: half of the events are of the first.
CATEGORIES = ["account", *(f"kind{number}" for number in range(14))]
# Percent of a core, by a consumer that waits.
MOST_IDLE = 0.2

# One event a stream, of so many streams of a category; and a stream whose events occurred ever earlier.
FRESH_STREAMS = """
    select count(*) from es_append_streams((select jsonb_agg(jsonb_build_object('stream', %s || '-' || n, 'events',
        jsonb_build_array(jsonb_build_object('type', 'AccountCredited', 'payload', jsonb_build_object('amount', n)))))
        from generate_series(%s::int, %s::int) n))
"""
FALLING_EVENTS = """
    select es_append_events('falling-1', (select jsonb_agg(jsonb_build_object('type', 'AccountCredited',
        'payload', jsonb_build_object('amount', n), 'occurred_at', '2024-01-01Z'::timestamptz - n * interval '1 minute') order by n)
        from generate_series(%s::int, %s::int) n))
"""

READS = {
    "es_read_all of a rare category": "select count(*) from es_read_all(0, 100, '{rare}')",
    "es_read_all of 15 rare categories": "select count(*) from es_read_all(0, 100, '{rare,rare1,rare2,rare3,rare4,rare5,rare6,rare7,rare8,rare9,rare10,rare11,rare12,rare13,rare14}')",
    "es_read_all by a tenant with few events": "select count(*) from es_read_all(0, 100)",
    "es_read_backward of a rare category": "select count(*) from es_read_backward(null, 100, '{rare}')",
    "es_fetch that finds nothing": "select count(*) from es_fetch('idle', 'consumer', 100)",
    "eventstream.subscriptions": "select count(lag) from eventstream.subscriptions",
    "eventstream.projections": "select count(lag) from eventstream.projections",
    "eventstream.health": "select count(*) from eventstream.health",
    "eventstream.events order by global_position desc limit 1": "select global_position from eventstream.events order by global_position desc limit 1",
    "the same by a tenant with few events": "select global_position from eventstream.events order by global_position desc limit 1",
    "eventstream.events from the middle, order by global_position limit 10": "select global_position from eventstream.events where global_position > 100000 order by 1 limit 10",
}
BY_TYPE = {
    "es_read_all of a rare type": "select count(*) from es_read_all(0, 100, null, '{Rare}')",
    "es_read_all of a rare type in a category of a half": "select count(*) from es_read_all(0, 100, '{account}', '{Rare}')",
    "eventstream.events of a rare type": "select count(*) from eventstream.events where event_type = 'Rare'",
}


def milliseconds(connection, statement, runs=15):
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        connection.execute(statement).fetchall()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken[2:])


def pages(connection, statement):
    """Pages of shared buffers that it looks at, the second time."""
    for _ in range(2):
        ((plan,),) = connection.execute(f"explain (analyze, buffers, format json) {statement}").fetchall()
    found = plan[0]["Plan"]
    return found["Shared Hit Blocks"] + found["Shared Read Blocks"]


def seconds(connection, statement):
    began = time.perf_counter()
    connection.execute(statement).fetchall()
    return time.perf_counter() - began


def fill_rare(connection):
    connection.execute("select es_create_tenant('small')")
    for tenant in ("small", "default"):
        connection.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
        for number in range(12):
            connection.execute("select es_append(%s, 'Seen', '{}')", (f"rare-{number}",))
    connection.execute("select es_create_subscription('idle', categories => '{none}')")
    connection.execute("select es_create_subscription('far', categories => '{rare}')")
    # Nobody moves them: each has the whole log before it.
    connection.execute("create function sees(event eventstream.event) returns void language sql as ''")
    for name in ("one", "other"):
        connection.execute("select es_create_projection(%s, 'sees(eventstream.event)')", (name,))
        connection.execute("select es_pause_projection(%s)", (name,))


def append_everywhere(connection, events):
    for category in CATEGORIES:
        part = events // 2 if category == "account" else events // (2 * len(CATEGORIES[1:]))
        append_at_random(connection, category, part)


def costs(bench, database, reads=READS, cost=milliseconds):
    found = {}
    for name, statement in reads.items():
        with bench.connect(database) as connection:
            tenant = "small" if "few events" in name else "default"
            connection.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            found[name] = cost(connection, statement)
    return found


def measure(bench):
    events = bench.events or EVENTS // (10 if bench.is_quick else 1)
    with create(bench, "filtered") as connection:
        fill_rare(connection)
        append_everywhere(connection, events // 10)
        connection.execute("vacuum analyze")
        before = [costs(bench, "filtered") for _ in range(bench.rounds)]
        append_everywhere(connection, events - events // 10)
        for number in range(12):
            connection.execute("select es_append('account-1', 'Rare', '{}')")
        connection.execute("vacuum analyze")
    with bench.watched():
        after = [costs(bench, "filtered") for _ in range(bench.rounds)]
        by_type = [costs(bench, "filtered", BY_TYPE, lambda *asked: 1000 * seconds(*asked)) for _ in range(bench.rounds)]
    looked_at = costs(bench, "filtered", READS | BY_TYPE, pages)
    for name in READS:
        small, large = [each[name] for each in before], [each[name] for each in after]
        bench.report.add(
            f"{name}, {events:,} events", f"{events // 10:,} events: {min(small):.2f} ms", f"< {MOST_MS:.0f} ms, < {MOST_GROWTH} ×", large,
            f"{looked_at[name]:,} pages", min(large) < MOST_MS and min(large) < MOST_GROWTH * min(small) + 0.2, " ms",
        )
    for name in BY_TYPE:
        bench.report.add(f"{name}, {events:,} events", "", "", [each[name] for each in by_type], f"{looked_at[name]:,} pages", None, " ms")
    idle(bench, "filtered")
    in_falling_order(bench)
    joined(bench)


def idle(bench, database):
    """What a consumer without anything to do takes of a core, while others append what is not for it."""
    with bench.connect(database) as consumer, bench.connect(database) as writer:
        for connection in (consumer, writer):
            connection.execute("set eventstream.tenant = 'default'")
        pid, is_over = consumer.info.backend_pid, threading.Event()

        def consume():
            while not is_over.is_set():
                consumer.execute("select count(*) from es_fetch('idle', 'waiting', 100, wait => interval '1 s')").fetchall()

        waiting = threading.Thread(target=consume)
        waiting.start()
        shares = []
        for _ in range(bench.rounds):
            time.sleep(1)
            began, before = time.perf_counter(), cpu_seconds_of(pid)
            while time.perf_counter() - began < bench.seconds:
                writer.execute("select es_append('account-1', 'AccountCredited', '{\"amount\": 1}')")
                time.sleep(0.1)
            shares.append(100 * (cpu_seconds_of(pid) - before) / (time.perf_counter() - began))
        is_over.set()
        waiting.join()
    bench.report.add(
        "a consumer that waits, beside 10 appends a second that are not for it", "", f"< {MOST_IDLE} % of a core", shares, "", median(shares) < MOST_IDLE, " %",
    )


def in_falling_order(bench):
    events = FALLING // (10 if bench.is_quick else 1)
    with create(bench, "falling") as connection:
        connection.execute("set eventstream.durability = session")
        register_fold(connection, "falling")
        for first in range(1, events, 1_000):
            connection.execute(FALLING_EVENTS, (first, first + 999))
        for call in ("es_history", "es_timeline"):
            taken = [seconds(connection, f"select count(*) from {call}('falling-1')") for _ in range(bench.rounds)]
            bench.report.add(
                f"{call} of {events:,} events in falling order", "", f"< {MOST_SECONDS:.0f} s", taken, "", median(taken) < MOST_SECONDS, " s"
            )


def joined(bench):
    streams = FRESH // (10 if bench.is_quick else 1)
    with create(bench, "joined") as connection:
        connection.execute("alter table _eventstream.streams set (autovacuum_enabled = off)")
        connection.execute("set eventstream.durability = session")
        for category in ("account", "limit"):
            register_fold(connection, category)
            connection.execute("select es_create_temporal_view(%s, %s, %s)", (f"{category}s", category, BALANCE))
            for first in range(1, streams, 1_000):
                connection.execute(FRESH_STREAMS, (category, first, first + 999))
        join = "select count(*) from accounts a join limits l on substr(l.stream, 7) = substr(a.stream, 9)"
        taken = [seconds(connection, join) for _ in range(bench.rounds)]
        bench.report.add(
            f"two temporal views of {streams:,} fresh streams, joined", "", f"< {MOST_SECONDS:.0f} s", taken, "", median(taken) < MOST_SECONDS, " s"
        )
