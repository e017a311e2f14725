"""The private server that the benchmarks run on, made and thrown away by tools/server."""
import os
import shlex
import subprocess
from pathlib import Path

import psycopg

# Durable as a server is that keeps books. Nothing that starts by the clock during a run but autovacuum.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "max_connections": "100",
    "max_locks_per_transaction": "64",
}


class Server:
    def __init__(self, root, major):
        self.root, self.major = root, major
        self.programs = root / f"target/pg/{major}/bin"

    def start(self):
        name = f"bench-{os.getpid()}"
        command = [self.root / "tools/server", "start", "--pg", self.major, "--name", name]
        for setting, value in SETTINGS.items():
            command += ["--conf", f"{setting} = '{value}'"]
        started = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if started.returncode != 0:
            raise SystemExit(f"the server did not start (see above); was the extension installed? make install-private PG={self.major}")
        exported = dict(word.split("=", 1) for word in shlex.split(started.stdout) if "=" in word)
        self.directory = exported["SERVER"]
        self.socket, self.port = exported["PGHOST"], exported["PGPORT"]
        self.postmaster = int((Path(exported["PGDATA"]) / "postmaster.pid").read_text().split("\n")[0])
        with psycopg.connect(self.address("postgres")) as connection:
            self.version = connection.execute("show server_version").fetchone()[0]

    def stop(self):
        subprocess.run([self.root / "tools/server", "stop", self.directory], check=True)

    def address(self, database, user="postgres"):
        return f"host={self.socket} port={self.port} dbname={database} user={user}"

    def environment(self, database, user="postgres"):
        """For programs that find the server through libpq's variables."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PGHOST": self.socket,
            "PGPORT": self.port,
            "PGUSER": user,
            "PGDATABASE": database,
        }

    def program(self, name):
        """Of the private copy; where that has none (the wheels lack pgbench), Debian's of any version."""
        debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
        return next((path for path in (self.programs / name, *debian) if path.exists()), None)
