"""Tests of the companion program from outside: the program itself, a real server, HTTP. Each test's name is the promise it checks.

`tools/test 15 companion` builds the program and runs them. EVENTSTREAM_COMPANION names another program.
"""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cluster"))

import server as servers  # noqa: E402
from companion import Companion, Ledger  # noqa: E402
from database import Database  # noqa: E402


@pytest.fixture(scope="session")
def database_server():
    servers.remove_what_dead_runs_left()
    server = servers.Server("companion", max_worker_processes=20).create()
    yield server
    server.destroy()


@pytest.fixture(scope="module")
def ledger(database_server, request):
    """A database with two tenants, a login role for tokens, the schema of the companion, and a program that serves it."""
    made = Database(database_server, request.module.__name__.rpartition(".")[2]).create()
    world = Ledger(made)
    yield world
    world.close()
    made.drop()


@pytest.fixture
def companion(ledger):
    """A program of the test's own, beside the one of the module."""
    made = Companion(ledger.database)
    yield made
    made.kill()
