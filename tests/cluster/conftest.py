"""Fourth tier of tests: real servers, real kills, real clients. Each test's name is the promise it checks.

`make test` runs them; by hand `target/venv/bin/pytest tests/cluster` after `make install-private`. `PG=16` or `PG=18` picks the
server, EVENTSTREAM_PG_BIN names another one's programs. A failure prints the tail of every log of a server that ran.
"""

import itertools
import re

import pytest

import server as servers
from database import Database

numbers = itertools.count(1)


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


@pytest.fixture(scope="session")
def shared_server():
    """One preloaded server for all tests that only need a database of their own."""
    # Workers do upkeep, which would come in between, only after that long; everything else they are woken for.
    server = servers.Server("shared", **{"eventstream.idle_interval": "1h"}).create()
    yield server
    server.destroy()


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
