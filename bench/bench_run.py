"""One run of the benchmarks: its server, its databases, its report. Measures get this object and nothing else."""
import shutil
import sys
import time
from contextlib import contextmanager

import psycopg

import databases
import databases_live
from machine import Watch, flush_microseconds, load_average
from pgbench import Pgbench
from report import Report
from server import Server


MAKERS = {**vars(databases), **vars(databases_live)}


def say(line):
    print(line, file=sys.stderr, flush=True)


class Bench:
    """Owns the server for the time of a `with` block; databases are made when a measure first asks for them."""

    def __init__(self, root, chosen):
        self.root = root
        self.seconds, self.rounds, self.is_quick = chosen.seconds, chosen.rounds, chosen.quick
        self.events = chosen.events
        self.keep = chosen.keep
        self.directory = root / "target/bench"
        shutil.rmtree(self.directory / "logs", ignore_errors=True)
        (self.directory / "logs").mkdir(parents=True)
        self.server = Server(root, chosen.pg)
        self.pgbench = Pgbench(self.server, self.directory / "logs")
        self.report = Report(root, chosen)
        self.made = {}

    def __enter__(self):
        say(f"==> starting a PostgreSQL {self.server.major} server of its own in target/run")
        self.server.start()
        self.report.describe(self.server)
        return self

    def __exit__(self, *_):
        if self.keep:
            say(f"the server is left running: tools/server stop {self.server.directory}")
        else:
            self.server.stop()

    def measure(self, name, function):
        """Runs one measure, and notes how busy others kept the machine meanwhile."""
        flush = flush_microseconds(self.directory)
        say(f"\n==> {name}   (load average {load_average()}; one write and fdatasync {flush:.0f} µs)")
        began = time.monotonic()
        self.report.begin(name)
        function(self)
        say(f"    {name} took {time.monotonic() - began:.0f} s")

    def database(self, name):
        """The name of a database, filled as `databases` says; made once a run."""
        if name not in self.made:
            began = time.monotonic()
            say(f"    filling database {name} …")
            self.made[name] = MAKERS[f"make_{name}"](self)
            with psycopg.connect(self.server.address("postgres"), autocommit=True) as connection:
                connection.execute("checkpoint")
            say(f"    database {name} filled in {time.monotonic() - began:.0f} s")
        return self.made[name]

    def connect(self, database, user="postgres"):
        return psycopg.connect(self.server.address(database, user), autocommit=True)

    @contextmanager
    def watched(self):
        """Notes how busy others kept the machine during the block."""
        with Watch(self.server) as watch:
            yield
        self.report.others(watch)

    def interleave(self, one, other, rounds=None, warm_up=True):
        """Runs the two sides in turn, `rounds` times, changing who goes first: what drifts hits both alike.

        Each side is a function of the seconds to run. Returns two lists of what they returned, round by round.
        """
        rounds = rounds or self.rounds
        with self.connect("postgres") as connection:
            connection.execute("checkpoint")
        if warm_up:
            for side in (one, other):
                side(max(1, self.seconds // 4))
        outcomes = [], []
        for number in range(rounds):
            for place in (0, 1) if number % 2 == 0 else (1, 0):
                with self.watched():
                    outcomes[place].append((one, other)[place](self.seconds))
        return outcomes
