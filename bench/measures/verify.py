"""es_verify: events a second in one backend, and whether its memory stays flat from 100 thousand events to 10 million.

In small partitions it costs more: streams that go on in the next one are taken up there anew."""
import threading
import time
from statistics import median

from databases import FIRST_PARTITION_END
from machine import Watch, cpu_seconds_of, private_memory_kb

LEAST_RATE = 400_000
# What the backend's own memory may grow from the smallest log to the largest.
MOST_GROWTH_MB = 32
PAUSE_SECONDS = 0.02


class PeakMemory:
    """The most private memory that a backend had during a `with` block, in MB, sampled."""

    def __init__(self, pid):
        self.pid, self.peak_kb, self.is_over = pid, 0, threading.Event()

    def sample(self):
        while not self.is_over.wait(PAUSE_SECONDS):
            self.peak_kb = max(self.peak_kb, private_memory_kb(self.pid))

    def __enter__(self):
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()
        self.megabytes = self.peak_kb / 1024


def verify(bench, database, up_to=None):
    """One es_verify in a backend of its own: events, seconds, seconds of CPU, peak memory in MB."""
    with bench.connect(database) as connection:
        connection.execute("set max_parallel_workers_per_gather = 0")
        events = connection.execute(
            "select count(*) from _eventstream.events where global_position <= coalesce(%s, 9223372036854775807)", (up_to,)
        ).fetchone()[0]
        with Watch(bench.server) as watch, PeakMemory(connection.info.backend_pid) as memory:
            began, cpu_before = time.perf_counter(), cpu_seconds_of(connection.info.backend_pid)
            problems = connection.execute("select * from es_verify(0, %s)", (up_to,)).fetchall()
            seconds = time.perf_counter() - began
            cpu_seconds = cpu_seconds_of(connection.info.backend_pid) - cpu_before
        bench.report.others(watch)
    if problems:
        raise SystemExit(f"es_verify found {len(problems)} problems in {database}, the first: {problems[0]}")
    return events, seconds, cpu_seconds, memory.megabytes


def measure(bench):
    small, big = bench.database("small"), bench.database("big")
    peaks = []
    for database, up_to, partitions, times in (
        (small["name"], None, 1, 3),
        (big["name"], FIRST_PARTITION_END, 1, 3),
        (big["name"], None, big["partitions"], 1),
    ):
        runs = [verify(bench, database, up_to) for _ in range(times)]
        events = runs[0][0]
        rates = [events / seconds for _, seconds, _, _ in runs]
        cpu_rate = median(events / cpu_seconds for _, _, cpu_seconds, _ in runs)
        peaks.append(max(memory for *_, memory in runs))
        bench.report.add(
            f"es_verify, {events:,} events in {partitions} partition{'s' * (partitions > 1)}", "", f"≥ {LEAST_RATE:,}/s on one core",
            rates, f"{cpu_rate:,.0f} a second of CPU; peak memory {peaks[-1]:.0f} MB", median(rates) >= LEAST_RATE, "/s",
        )
    growth = peaks[-1] - peaks[0]
    bench.report.add(
        "es_verify, peak memory at the most events", "at the fewest", f"≤ {MOST_GROWTH_MB} MB more (flat)", [growth],
        " → ".join(f"{peak:.0f}" for peak in peaks) + " MB", growth <= MOST_GROWTH_MB, " MB",
    )
