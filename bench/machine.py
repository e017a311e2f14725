"""The machine: its facts, and how much of it others used while we measured."""
import os
import re
import resource
import statistics
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def load_average():
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def facts(server):
    """Lines of what a reader needs to compare these numbers with theirs."""
    memory_kb = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": f"{os.cpu_count()} ({model[1] if model else 'unknown'})",
        "memory": f"{memory_kb / 2**20:.0f} GiB",
        "kernel": os.uname().release,
        "one 8 kB write and fdatasync": fsync_latency(server),
    }


def fsync_latency(server):
    """What pg_test_fsync says of fdatasync where the server's data lies. It would go on for a quarter of a minute."""
    program = server.program("pg_test_fsync")
    if program is None:
        return "not measured (no pg_test_fsync)"
    probe = server.root / "target/bench/fsync-probe"
    with subprocess.Popen([program, "-s", "1", "-f", probe], stdout=subprocess.PIPE, text=True) as running:
        found = next(filter(None, (re.search(r"fdatasync\s+[\d.]+ ops/sec\s+(\d+) usecs/op", line) for line in running.stdout)))
        running.terminate()
    probe.unlink(missing_ok=True)
    return f"{found[1]} µs"


def flush_microseconds(directory, times=100):
    """The median time of one 8 kB write and fdatasync, now: other programs' writing shows here."""
    probe = directory / "flush-probe"
    taken = []
    with open(probe, "wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"\0" * 8192, 0)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    probe.unlink()
    return statistics.median(taken) * 1e6


class Watch:
    """Measures, over a `with` block, the cores that neither the server nor this process and its children used."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.before = self.readings()
        return self

    def __exit__(self, *_):
        then, busy, stolen, ours = (after - before for after, before in zip(self.readings(), self.before))
        self.others_cores = max(0.0, (busy - ours) / then)
        self.stolen_cores = stolen / then

    def readings(self):
        user, nice, system, _, _, _, _, stolen = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(each.ru_utime + each.ru_stime for each in usage) + cpu_seconds_below(self.server.postmaster)
        return time.monotonic(), (user + nice + system) / TICKS, stolen / TICKS, ours


def cpu_seconds_below(pid):
    """CPU time of a process, of its children, and of those that it has waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile: its parent's sums have it
            continue
        if int(stat.parent.name) == pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / TICKS


def cpu_seconds_of(pid):
    """To the nanosecond: what hardly works at all would be lost in the ticks of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def private_memory_kb(pid):
    """Memory of a backend that is its own: resident, and not shared buffers."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
