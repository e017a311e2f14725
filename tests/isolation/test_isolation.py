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

import minting  # noqa: E402
import server as servers  # noqa: E402
from database import value  # noqa: E402

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
        **{"eventstream.partition_size": 4096, "eventstream.max_workers": 0},
    ).create()
    yield server
    server.destroy()


def test_every_spec_has_expected_output():
    assert SPECS == sorted(out.stem for out in (HERE / "expected").glob("*.out"))


def mint(setup):
    """For specs that use tokens: one for each tenant that permutations make, t1, t2, ..., and the key that speaks for them; and the role that works by them."""
    key = minting.mint_token.new_key()
    log = value(setup, "select log_id || '/' || incarnation from es_log_info()")
    setup.execute("create table minted (tenant text primary key, token text not null, key bytea not null)")
    for tenant in (f"t{number}" for number in range(1, 51)):
        claims = {"iss": minting.ISSUER, "aud": log, "tenant": tenant, "sub": "clerk-7"}
        token = minting.mint_token.mint(key, "k1", 300, **claims)
        setup.execute("insert into minted values (%s, %s, %s)", (tenant, token, minting.mint_token.public(key)))
    setup.execute(f"revoke temp on database {setup.info.dbname} from public")
    setup.execute("create role spec_web login")
    setup.execute("grant select on minted, runs to spec_web")


@pytest.mark.parametrize("spec", SPECS)
def test_interleaving(spec, isolation_server):
    database = "spec_" + re.sub(r"\W", "_", spec)
    with isolation_server.connect("postgres") as admin:
        admin.execute(f'create database "{database}"')
    with isolation_server.connect(database) as setup:
        setup.execute((HERE / "prelude.sql").read_text())
        if spec == "tokens":
            mint(setup)
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
