"""A throw-away server for the tests of documents and examples, and a fresh database for each test that asks for one."""

import itertools
import os
import pathlib
import subprocess

import psycopg
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    """The environment for clients of a running server that preloads eventstream."""
    start = (
        'eval "$(tools/server start --pg "${PG:-15}" --conf "fsync = off" --conf "max_worker_processes = 30"'
        ' --conf "eventstream.idle_interval = 1h")" && env -0'
    )
    printed = subprocess.run(["bash", "-c", start], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode()
    environment = dict(entry.split("=", 1) for entry in printed.split("\0") if entry)
    yield environment
    subprocess.run([ROOT / "tools/server", "stop", environment["SERVER"]], check=True)


class Database:
    """A database of its own, and how to ask it."""

    def __init__(self, server, name):
        self.name = name
        self.environment = server | {"PGDATABASE": name}
        self.dsn = psycopg.conninfo.make_conninfo(
            host=server["PGHOST"], port=server["PGPORT"], user=server["PGUSER"], dbname=name
        )

    def ask(self, sql):
        """The rows of one statement, as psql prints them unaligned: values separated by |."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout.strip()

    def run(self, *command, **environment):
        """Runs a program against this database; its output and errors in one text."""
        return subprocess.run(
            [os.fspath(word) for word in command],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )


@pytest.fixture
def empty_database(server):
    """A fresh database, without the extension."""
    name = f"docs_{next(_numbers)}"
    subprocess.run(["createdb", "-T", "template0", "-E", "UTF8", name], env=server, check=True)
    yield Database(server, name)
    # Its workers go with it: the server has room for those of a few databases.
    subprocess.run(["dropdb", "--force", name], env=server, check=True)


@pytest.fixture
def database(empty_database):
    """A fresh database with the extension."""
    empty_database.ask("create extension eventstream")
    return empty_database
