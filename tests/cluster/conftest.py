"""Fourth tier of tests: real servers, real kills, real clients. Each test's name is the promise it checks.

`make test` runs them; by hand `target/venv/bin/pytest tests/cluster` after `make install-private`. `PG=16`, `PG=17` or `PG=18` picks the
server, EVENTSTREAM_PG_BIN names another one's programs. A failure prints the tail of every log of a server that ran.
"""

import itertools
import os
import re
import signal

import pytest

import server as servers
from database import Database

numbers = itertools.count(1)

#: A test that hangs fails by name after so many seconds; those that are asked to run for long may.
LONGEST = 0 if {"CYCLES", "KILLS", "ROUNDS"} & set(os.environ) else 300


def pytest_sessionstart(session):
    servers.remove_what_dead_runs_left()
    for program in ("postgres", "initdb", "pg_config"):
        if not (servers.BIN / program).exists():
            pytest.exit(f"no {program} in {servers.BIN}: run `make install-private PG={servers.MAJOR}` first", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for server in servers.running:
            report.sections.append((f"log of server {server.name}", server.log_tail()))


@pytest.fixture(autouse=True)
def bounded():
    def too_long(*_):
        raise TimeoutError(f"the test took longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def shared_server():
    """One preloaded server for all tests that only need a database of their own."""
    server = servers.Server("shared").create()
    yield server
    server.destroy()


@pytest.fixture(scope="session")
def quiet_server():
    """As shared_server, without workers, whose upkeep would come in between; impatient in what health calls late."""
    server = servers.Server(
        "quiet",
        **{
            "eventstream.max_workers": 0,
            "eventstream.lag_threshold": "200ms",
            "eventstream.max_append_transaction": "200ms",
        },
    ).create()
    yield server
    server.destroy()


@pytest.fixture
def quiet(quiet_server, request):
    """A fresh database with the extension on a server without workers."""
    name = re.sub(r"\W", "_", request.node.name)[:40] + f"_{next(numbers)}"
    made = Database(quiet_server, name).create()
    yield made
    made.drop()


@pytest.fixture
def new_server():
    """Makes servers that end with the test."""
    made = []

    def make(name, **settings):
        server = servers.Server(name, **settings)
        made.append(server)
        return server.create()

    make.adopt = lambda server: made.append(server) or server
    yield make
    for server in reversed(made):
        server.destroy()


@pytest.fixture
def database(shared_server, request):
    """A fresh database with the extension on the shared server."""
    name = re.sub(r"\W", "_", request.node.name)[:40] + f"_{next(numbers)}"
    made = Database(shared_server, name).create()
    yield made
    made.drop()
