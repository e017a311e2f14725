"""A state table made again from 1 million events, while others read it: how long that takes, and how long a reader waits at worst."""
import threading
import time

from clock import connected
from databases_live import BALANCE

MOST_SECONDS, MOST_BLOCKED_MS = 20, 100


class Reader(threading.Thread):
    """Reads one row again and again, and all of them now and then, which must be one rebuild's or the other's."""

    def __init__(self, address, streams):
        super().__init__()
        self.address, self.streams = address, streams
        self.worst_ms, self.reads, self.sums, self.is_over = 0.0, 0, set(), False

    def run(self):
        with connected(self.address) as connection:
            while not self.is_over:
                began = time.perf_counter()
                connection.execute("select balance from plain.balances where stream = %s", (f"account-{self.reads % self.streams}",)).fetchone()
                self.worst_ms = max(self.worst_ms, 1000 * (time.perf_counter() - began))
                if self.reads % 500 == 0:
                    self.sums.add(connection.execute("select count(*), sum(version), sum(balance) from plain.balances").fetchone())
                self.reads += 1
                time.sleep(0.001)


def until_rebuilt(connection):
    while connection.execute("select status <> 'running' from _eventstream.projection_progress").fetchone()[0]:
        time.sleep(0.01)


def measure(bench):
    database = bench.database("rebuilt")
    with bench.connect(database) as connection:
        connection.execute("create schema plain")
        began = time.perf_counter()
        connection.execute("select es_create_state_table('plain.balances', 'account', %s)", (BALANCE,))
        until_rebuilt(connection)
        filled = time.perf_counter() - began
        events, streams = connection.execute("select sum(version), count(*) from plain.balances").fetchone()
        bench.report.note(f"first fill: {filled:.1f} s for {events:,} events of {streams:,} streams")
        taken, worst, alone = [], [], []
        for _ in range(min(3, bench.rounds)):
            reader = Reader(bench.server.address(database), streams)
            reader.start()
            time.sleep(3)
            alone.append(reader.worst_ms)
            reader.worst_ms = 0.0
            with bench.watched():
                began = time.perf_counter()
                connection.execute("select es_rebuild_projection('plain.balances')")
                until_rebuilt(connection)
                taken.append(time.perf_counter() - began)
            reader.is_over = True
            reader.join()
            worst.append(reader.worst_ms)
            if len(reader.sums) != 1:
                raise SystemExit(f"a reader saw {reader.sums}")
        connection.execute("select es_drop_projection('plain.balances')")
    millions = float(events) / 1e6
    bench.report.add(
        f"rebuild of a state table from {events:,} events", "", f"< {MOST_SECONDS * millions:.0f} s", taken, f"{float(events) / min(taken):,.0f} events/s at best",
        sorted(taken)[len(taken) // 2] < MOST_SECONDS * millions, " s",
    )
    bench.report.add(
        "the longest that a reader of one row waited meanwhile", f"without a rebuild, 3 s: {max(alone):.0f} ms", f"< {MOST_BLOCKED_MS} ms", worst, "",
        max(worst) < MOST_BLOCKED_MS, " ms",
    )
