"""Reads that return little of a long log: of a rare category, by a tenant with few events, by pages of a view, by followers that have nothing to
do; the history of a stream that was recorded newest first; and temporal views of fresh streams, joined. Each against the same in a log
of a tenth, where there is one: it is to cost the same."""
import time
from statistics import median

from databases import create
from databases_live import BALANCE, append_at_random, register_fold

MOST_MS, MOST_GROWTH = 3.0, 1.5
EVENTS, FALLING, FRESH = 2_000_000, 100_000, 10_000
MOST_SECONDS = 1.0

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
    "es_fetch that finds nothing": "select count(*) from es_fetch('idle', 'consumer', 100)",
    "eventstream.subscriptions": "select count(lag) from eventstream.subscriptions",
    "eventstream.health": "select count(*) from eventstream.health",
    "eventstream.events order by global_position desc limit 1": "select global_position from eventstream.events order by global_position desc limit 1",
    "the same by a tenant with few events": "select global_position from eventstream.events order by global_position desc limit 1",
}


def milliseconds(connection, statement, runs=15):
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        connection.execute(statement).fetchall()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken[2:])


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


def costs(bench, database):
    found = {}
    for name, statement in READS.items():
        with bench.connect(database) as connection:
            tenant = "small" if "few events" in name else "default"
            connection.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            found[name] = milliseconds(connection, statement)
    return found


def measure(bench):
    events = EVENTS // (10 if bench.is_quick else 1)
    with create(bench, "filtered") as connection:
        fill_rare(connection)
        append_at_random(connection, "account", events // 10)
        connection.execute("vacuum analyze")
        before = [costs(bench, "filtered") for _ in range(bench.rounds)]
        append_at_random(connection, "account", events - events // 10)
        connection.execute("vacuum analyze")
    with bench.watched():
        after = [costs(bench, "filtered") for _ in range(bench.rounds)]
    for name in READS:
        small, large = [each[name] for each in before], [each[name] for each in after]
        bench.report.add(
            f"{name}, {events:,} events", f"{events // 10:,} events: {min(small):.2f} ms", f"< {MOST_MS:.0f} ms, < {MOST_GROWTH} ×", large, "",
            min(large) < MOST_MS and min(large) < MOST_GROWTH * min(small) + 0.2, " ms",
        )
    in_falling_order(bench)
    joined(bench)


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
