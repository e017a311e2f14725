"""Consumers of a subscription: fetch and acknowledge, in batches of 100, four at a time, until the log is consumed."""
import time
from statistics import median

from clock import connected, in_processes
from databases_live import events_of

CONSUMERS, BATCH = 4, 100
LEAST = 20_000


def consume(address, name, began):
    """Fetches and acknowledges, each batch in a transaction, until nothing is left. Events, and when the last ones were acknowledged."""
    with connected(address) as connection:
        time.sleep(max(0.0, began - time.perf_counter()))
        events, last, idle_since = 0, began, None
        while idle_since is None or time.perf_counter() - idle_since < 0.5:
            with connection.transaction():
                rows = connection.execute(
                    "select lease_id, (event).global_position, (event).stream, (event).event_type, (event).payload::text from es_fetch('measured', %s, %s)",
                    (name, BATCH),
                ).fetchall()
                if rows:
                    connection.execute("select es_ack(%s)", (rows[0][0],))
            if rows:
                events, last, idle_since = events + len(rows), time.perf_counter(), None
            else:
                idle_since = idle_since or time.perf_counter()
                time.sleep(0.002)
    return events, last


def measure(bench):
    database = bench.database("live")
    rates = []
    with bench.connect(database) as connection:
        connection.execute("select es_create_subscription('measured', categories => '{counter}')")
        wanted = connection.execute("select count(*) from _eventstream.events where category = 'counter'").fetchone()[0]
        for number in range(bench.rounds + 1):
            connection.execute("select es_seek_subscription('measured', 0)")
            began = time.perf_counter() + 0.5
            with bench.watched():
                address = bench.server.address(database)
                ends = in_processes(consume, [(address, f"consumer-{each}", began) for each in range(CONSUMERS)])
            events = sum(each for each, _ in ends)
            if events != wanted:
                raise SystemExit(f"{events} events were acknowledged, and not {wanted}")
            if number > 0:  # the first one warms up
                rates.append(events / (max(last for _, last in ends) - began))
                shares = [each / events for each, _ in ends]
        connection.execute("select es_drop_subscription('measured')")
    bench.report.add(
        f"es_fetch + es_ack, batches of {BATCH}, {CONSUMERS} consumers, {events:,} events", "", f"≥ {LEAST:,}/s", rates,
        "shares " + ", ".join(f"{share:.0%}" for share in shares), median(rates) >= LEAST, "/s",
    )
