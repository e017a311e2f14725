"""Read models beside appends: how soon after its commit an event is seen, what projections cost those who append, how far they lag, and
what workers do in a database where nothing happens."""
import threading
import time
from contextlib import contextmanager
from statistics import median

from clock import connected, in_processes, ticks, until_current
from databases_live import BALANCE, STREAMS
from pgbench import percentile

# Commit to visible: appends a second over so many clients, every second of which waits for its own event.
RATE, CLIENTS = 500, 4
MOST_P50_MS, MOST_P99_MS = 5, 25

LOAD, LOAD_CLIENTS = 2_000, 8
MOST_P95, MOST_LAG_MS = 1.3, 100

MOST_WAKE_UPS = 1.0
# "No measurable CPU": a thousandth of a core.
MOST_CORES = 0.001

APPEND = "select es_append(%s, 'AccountCredited', '{\"amount\": 1234.50}')"
POSITIONS = "select global_position from _eventstream.projection_progress order by projection_id"
SAMPLE = f"select (select last_value from _eventstream.positions), array({POSITIONS})"

FIVE = """
    create table plain.seen (position bigint primary key, stream text not null);
    create table plain.types (event_type text primary key, events bigint not null);
    create function plain.on_seen(event eventstream.event) returns void language plpgsql as $$
    begin
        insert into plain.seen values (event.global_position, event.stream);
    end $$;
    create function plain.on_types(events eventstream.event[]) returns void language plpgsql as $$
    begin
        insert into plain.types as t select e.event_type, count(*) from unnest(events) as e group by e.event_type
        on conflict (event_type) do update set events = t.events + excluded.events;
    end $$;
"""
HANDLERS = {
    "events": "plain.on_event(eventstream.event)",
    "batches": "plain.on_batch(eventstream.event[])",
    "seen": "plain.on_seen(eventstream.event)",
    "types": "plain.on_types(eventstream.event[])",
}
TABLE = "plain.balances"


def measure(bench):
    database = bench.database("tailed")
    with bench.connect(database) as connection:
        connection.execute("select es_create_state_table(%s, 'account', %s)", (TABLE, BALANCE))
        until_current(connection)
        visible(bench, database)
        connection.execute(FIVE)
        for name, handler in HANDLERS.items():
            connection.execute("select es_create_projection(%s, %s::regprocedure)", (name, handler))
        until_current(connection)
        loaded(bench, database, connection)
        until_current(connection)
        idle(bench, database, connection)
        for name in (TABLE, *HANDLERS):
            connection.execute("select es_drop_projection(%s)", (name,))


# -- commit to visible


def append_steadily(address, stream, seconds, waits, phase):
    """Appends by the clock. For each event: its version, when its commit returned and, where it waits, when es_wait_for did."""
    moments = []
    with connected(address) as connection:
        version = connection.execute(APPEND, (stream,)).fetchone()[0]
        connection.execute("select es_wait_for(%s)", (TABLE,))
        for number in ticks(time.perf_counter() + 0.2, RATE / CLIENTS, seconds, phase):
            connection.execute(APPEND, (stream,))
            committed = time.perf_counter()
            if waits:
                connection.execute("select es_wait_for(%s)", (TABLE,))
            moments.append((version + number + 1, committed, time.perf_counter()))
    return moments


def poll(address, streams, end, seen):
    """Looks at the table again and again: when each version of a stream was first seen."""
    with connected(address) as connection:
        versions = {}
        while time.perf_counter() < end():
            rows = connection.execute(f"select stream, version from {TABLE} where stream = any(%s)", (streams,)).fetchall()
            now = time.perf_counter()
            for stream, version in rows:
                for new in range(versions.get(stream, version) + 1, version + 1):
                    seen[stream, new] = now
                versions[stream] = version
            time.sleep(0.0003)


def visible(bench, database):
    seconds = bench.seconds * 2
    streams = [f"account-visible{number}" for number in range(CLIENTS)]
    percentiles = {"waited": [], "polled": []}
    for _ in range(bench.rounds):
        seen, is_over = {}, []
        poller = threading.Thread(target=poll, args=(bench.server.address(database), streams, lambda: is_over[0] if is_over else float("inf"), seen))
        poller.start()
        address = bench.server.address(database, "bench_client")
        with bench.watched():
            arguments = [(address, stream, seconds, number % 2 == 0, number / CLIENTS) for number, stream in enumerate(streams)]
            clients = in_processes(append_steadily, arguments)
        is_over.append(time.perf_counter() + 0.5)
        poller.join()
        waited = [1000 * (done - committed) for client in clients[::2] for _, committed, done in client]
        polled = [
            1000 * max(0.0, seen[stream, version] - committed)
            for stream, client in list(zip(streams, clients))[1::2]
            for version, committed, _ in client
        ]
        for name, values in (("waited", waited), ("polled", polled)):
            percentiles[name].append([percentile(values, per_cent) for per_cent in (50, 99, 100)])
    for name, how in (("waited", "es_wait_for after each commit"), ("polled", "a poller of the table, for clients that do not wait")):
        for place, per_cent, most in ((0, "p50", MOST_P50_MS), (1, "p99", MOST_P99_MS)):
            values = [each[place] for each in percentiles[name]]
            worst = max(each[2] for each in percentiles[name])
            bench.report.add(
                f"commit to visible in a state table, {RATE} appends/s, {per_cent}", how, f"< {most} ms", values, f"worst {worst:.0f} ms", median(values) < most, " ms"
            )


# -- what projections cost, and how far they lag


@contextmanager
def sampled(bench, database, samples):
    """Notes (time, last position, position of each projection) all the while."""
    is_over = threading.Event()

    def sample():
        with connected(bench.server.address(database)) as connection:
            while not is_over.is_set():
                last, positions = connection.execute(SAMPLE).fetchone()
                samples.append((time.perf_counter(), last, positions))
                time.sleep(0.004)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        is_over.set()
        sampler.join()


def lags(samples):
    """For each projection, and each position that was the log's last one: how long until it was passed, in ms."""
    found = []
    for which in range(len(samples[0][2])):
        passed, mine = 0, []
        for when, last, _ in samples:
            while passed < len(samples) and samples[passed][2][which] < last:
                passed += 1
            if passed == len(samples):
                break
            mine.append(1000 * max(0.0, samples[passed][0] - when))
        found.append(mine)
    return found


def loaded(bench, database, connection):
    worst_lags = []

    def append(seconds):
        """Their p95, and what was sampled: on both sides, for that takes its part of the processors."""
        samples = []
        with sampled(bench, database, samples):
            outcome = bench.pgbench.run(database, "bench_client", ["append"], LOAD_CLIENTS, seconds, rate=LOAD, streams=STREAMS)
            time.sleep(0.3)
        return percentile(outcome.latencies(), 95), samples

    def beside(seconds):
        for name in (TABLE, *HANDLERS):
            connection.execute("select es_resume_projection(%s)", (name,))
        until_current(connection)
        p95, samples = append(seconds)
        worst_lags.append(max(percentile(each, 99) for each in lags(samples)))
        return p95

    def without(seconds):
        for name in (TABLE, *HANDLERS):
            connection.execute("select es_pause_projection(%s)", (name,))
        p95, _ = append(seconds)
        return p95

    ours, theirs = bench.interleave(beside, without)
    ratios = [one / other for one, other in zip(ours, theirs)]
    sides = f"{median(ours):.2f} : {median(theirs):.2f} ms"
    bench.report.add(
        f"p95 of {LOAD:,} appends/s, 5 projections running", "paused", f"≤ {MOST_P95} × its time", ratios, sides, median(ratios) <= MOST_P95, " ×"
    )
    lag = worst_lags[1:]  # the first one warmed up
    bench.report.add("lag of the slowest of the 5, p99", "", f"< {MOST_LAG_MS} ms", lag, "", median(lag) < MOST_LAG_MS, " ms")
    for name in (TABLE, *HANDLERS):
        connection.execute("select es_resume_projection(%s)", (name,))


# -- an idle database


def usage_of(pids):
    """Voluntary context switches and CPU seconds of these processes."""
    switches, nanoseconds = 0, 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            switches += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
        with open(f"/proc/{pid}/schedstat") as schedstat:
            nanoseconds += int(schedstat.read().split()[0])
    return switches, nanoseconds / 1e9


def idle(bench, database, connection):
    seconds = 20 if bench.is_quick else 60
    time.sleep(6)  # what the load left behind for upkeep
    found = connection.execute(
        "select pid, backend_type from pg_stat_activity where backend_type like 'eventstream%%' and (datname is null or datname = %s)", (database,)
    ).fetchall()
    pids = [pid for pid, _ in found]
    before = usage_of(pids)
    time.sleep(seconds)
    switches, cpu = (after - earlier for after, earlier in zip(usage_of(pids), before))
    kinds = ", ".join(sorted(kind.removeprefix("eventstream ") for _, kind in found))
    bench.report.add(
        f"idle database with 5 projections, wake-ups a second over {seconds} s", kinds, f"< {MOST_WAKE_UPS:.0f}", [switches / seconds], "", switches / seconds < MOST_WAKE_UPS, "/s"
    )
    bench.report.add("the same, thousandths of a core", "", "< 1", [1000 * cpu / seconds], f"{1000 * cpu:.1f} ms of CPU", cpu / seconds < MOST_CORES)
