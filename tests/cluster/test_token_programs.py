"""The programs of docs/tokens.md: a token as the page mints it is one, and it is brought as the page says, in Python and in Node."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import uuid

import pytest
from clients import build, reach, snippets
from database import rows
from minting import ISSUER, Bank, mint_token
from psycopg.types.json import Jsonb
from server import ROOT

PAGE = ROOT / "docs/tokens.md"
APPENDED = "select stream, event_type, payload, metadata ->> 'actor' from es_read('account-1')"


@pytest.fixture
def bank(database):
    made = Bank(database)
    with made.admin() as session:
        # As the page's tokens call it.
        session.execute("select es_add_token_key('2026-01', %s, 'acme', %s)", (mint_token.public(made.keys["acme"]), ISSUER))
    return made


def token_of_the_page(bank) -> str:
    mint, _ = snippets("python", PAGE)
    defined = {}
    exec(mint, defined)  # noqa: S102: our own page
    return defined["token"](bank.keys["acme"], bank.audience, "acme", "clerk-9")


def test_a_token_is_minted_and_brought_in_a_pipeline_as_the_page_says_in_python(bank, capsys):
    _, bring = snippets("python", PAGE)
    with bank.connect() as connection:
        given = {"connection": connection, "token": token_of_the_page(bank), "stream": "account-1", "payload": {"owner": 7}, "Jsonb": Jsonb}
        exec(bring, given)  # noqa: S102: our own page
    assert capsys.readouterr().out == "1\n"
    with bank.admin() as session:
        assert rows(session, APPENDED) == [("account-1", "Opened", {"owner": 7}, "clerk-9")]


def test_a_token_is_brought_in_a_pipeline_as_the_page_says_in_node(bank):
    (bring,) = snippets("js", PAGE)
    text = f"""import postgres from "postgres"
const [token, stream, payload] = JSON.parse(process.argv[2])
const sql = postgres({{ host: process.env.PGHOST, database: process.env.PGDATABASE, user: process.env.PGUSER, max: 1 }})
{bring}
console.log(version)
await sql.end()
"""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-token-"))
    try:
        command, more = build("node", folder, f"bring-{uuid.uuid4()}.mjs", text)
        environment, _ = reach("node", bank.database.server, bank.database.name)
        arguments = json.dumps([token_of_the_page(bank), "account-1", {"owner": 7}])
        done = subprocess.run([*command, arguments], env=environment | more | {"PGUSER": bank.role}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        shutil.rmtree(folder)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    with bank.admin() as session:
        assert rows(session, APPENDED) == [("account-1", "Opened", {"owner": 7}, "clerk-9")]
