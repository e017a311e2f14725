"""One suite for all clients: each test asks the same of Python's, of Python's for asyncio, and of Node's, as they are installed from wheel and tarball, on a live server.

`tools/test MAJOR clients` runs it. Servers, pooler and tokens are those of tests/cluster.
"""

import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/cluster"), str(ROOT / "clients/tests")]

from faces import COMMANDS, NODE, Face, Proxy  # noqa: E402

_spec = importlib.util.spec_from_file_location("cluster_fixtures", ROOT / "tests/cluster/conftest.py")
cluster_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cluster_fixtures)
pytest_sessionstart = cluster_fixtures.pytest_sessionstart
pytest_runtest_makereport = cluster_fixtures.pytest_runtest_makereport
bounded, shared_server, database = (getattr(cluster_fixtures, name) for name in ("bounded", "shared_server", "database"))


@pytest.fixture(params=COMMANDS)
def language(request):
    if request.param == "node" and not NODE:
        pytest.skip("there is no Node on this machine")
    return request.param


@pytest.fixture
def faces(language):
    """Makes workers in the test's language, which end with it."""
    made = []

    def make(address):
        made.append(Face(language, address))
        return made[-1]

    yield make
    for face in made:
        face.kill()


@pytest.fixture
def address(database):
    return database.server.address(database.name)


@pytest.fixture
def face(faces, address):
    return faces(address)


@pytest.fixture
def proxies():
    made = []

    def make(address):
        made.append(Proxy(address))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
