"""Third tier: every interleaving that matters, as golden output of PostgreSQL's own isolationtester.

Each spec in specs/ runs in a fresh database (prelude.sql) on one preloaded server, and its output is compared with expected/.
After a deliberate change: `EVENTSTREAM_ACCEPT=1 target/venv/bin/pytest tests/isolation`, then read the difference.
"""

import difflib
import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster"))

import server as servers  # noqa: E402

SPECS = sorted(spec.stem for spec in (HERE / "specs").glob("*.spec"))


def isolation_programs() -> pathlib.Path:
    """The folder of isolationtester, which pgxs holds."""
    makefile = subprocess.run(
        [str(servers.BIN / "pg_config"), "--pgxs"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return pathlib.Path(makefile).parents[1] / "test" / "isolation"


@pytest.fixture(scope="module")
def isolation_server():
    server = servers.Server(
        "isolation",
        max_prepared_transactions=5,
        deadlock_timeout="200ms",
        **{"eventstream.partition_size": 4096, "eventstream.idle_interval": "1h"},
    ).create()
    yield server
    server.destroy()


def test_every_spec_has_expected_output():
    assert SPECS == sorted(out.stem for out in (HERE / "expected").glob("*.out"))


@pytest.mark.parametrize("spec", SPECS)
def test_interleaving(spec, isolation_server):
    database = "spec_" + re.sub(r"\W", "_", spec)
    with isolation_server.connect("postgres") as admin:
        admin.execute(f'create database "{database}"')
    with isolation_server.connect(database) as setup:
        setup.execute((HERE / "prelude.sql").read_text())
    done = subprocess.run(
        [
            str(isolation_programs() / "isolationtester"),
            f"host={isolation_server.socket} port={servers.PORT} user={servers.SUPERUSER} dbname={database}",
        ],
        stdin=(HERE / "specs" / f"{spec}.spec").open(),
        env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning", "PG_TEST_TIMEOUT_DEFAULT": "20"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = HERE / "expected" / f"{spec}.out"
    if os.environ.get("EVENTSTREAM_ACCEPT"):
        expected.write_text(done.stdout)
    difference = difflib.unified_diff(
        expected.read_text().splitlines(), done.stdout.splitlines(), "expected", "result", lineterm="", n=10
    )
    assert done.stdout == expected.read_text(), "\n".join(difference)
