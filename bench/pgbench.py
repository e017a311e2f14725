"""Runs pgbench with prepared statements, and reads its log of single transactions."""
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "sql"

# What every side writes: a booking, and what a service notes about it. Sent as text each time, as clients do.
PAYLOAD = (
    '{"account": "1000", "amount": 1234.50, "currency": "EUR", "counterparty": "CZ6508000000192000145399", '
    '"text": "Invoice 2024-10-0815"}'
)
METADATA = (
    '{"correlation_id": "0192b1f0-6c5e-7d3a-9f0e-3f1c2b4a5d6e", "actor": "clerk-17", '
    '"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'
)


@dataclass
class Outcome:
    """One run. tps: transactions a second. logged: (seconds since the start, script number, latency in ms), by end."""

    tps: float
    logged: list

    def latencies(self, script=None):
        return [ms for _, number, ms in self.logged if script is None or number == script]


class Pgbench:
    def __init__(self, server, directory):
        self.server, self.directory = server, directory

    def run(self, database, user, scripts, clients, seconds, log=True, rate=None, **variables):
        """Runs the scripts (names in bench/sql, chosen in turn at random) from so many clients. rate: transactions a second that are due,
        however late the ones before (an open loop); latencies then count from when a transaction was due."""
        program = self.server.program("pgbench")
        if program is None:
            raise SystemExit("there is no pgbench: install Debian's postgresql-15 (it is in postgresql-contrib)")
        logs = Path(tempfile.mkdtemp(dir=self.directory))
        command = [program, "-n", "-M", "prepared", "-T", str(seconds), "-c", str(clients)]
        command += ["-j", str(min(clients, os.cpu_count()))]
        command += ["--log", f"--log-prefix={logs}/transactions"] if log else []
        command += ["--rate", str(rate)] if rate else []
        for script in scripts:
            command += ["-f", SCRIPTS / f"{script}.sql"]
        for name, value in {"payload": PAYLOAD, "metadata": METADATA, **variables}.items():
            command += ["-D", f"{name}={value}"]
        ran = subprocess.run(command, env=self.server.environment(database, user), capture_output=True, text=True)
        tps = re.search(r"^tps = ([\d.]+)", ran.stdout, re.MULTILINE)
        if ran.returncode != 0 or tps is None or "aborted" in ran.stderr:
            raise SystemExit(f"pgbench failed on {', '.join(scripts)}:\n{ran.stdout}{ran.stderr}")
        outcome = Outcome(float(tps[1]), read_log(logs))
        shutil.rmtree(logs)
        return outcome


def read_log(directory):
    """client, transaction, latency in µs, script, epoch seconds, µs: one line a transaction."""
    rows = []
    for path in directory.iterdir():
        with open(path) as lines:
            for line in lines:
                _, _, latency, script, second, microsecond = line.split()[:6]
                rows.append((int(second) + int(microsecond) / 1e6, int(script), int(latency) / 1e3))
    rows.sort()
    return [(when - rows[0][0], script, latency) for when, script, latency in rows]


def percentile(values, per_cent):
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * per_cent // 100) - 1)]
