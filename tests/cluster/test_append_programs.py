"""The programs of docs/append.md, in every language: posted once however often it is sent, exact to the last digit, a conflict told by its SQLSTATE
and DETAIL, a withdrawal decided on what was read and done once; what they wrote is the same in all of them, and the fold of README.md, which
every other page uses, makes the balance of it that the programs print."""

import concurrent.futures
import decimal
import pathlib
import re
import shutil
import subprocess
import tempfile
import uuid

import psycopg
import pytest
from clients import build, reach, snippets
from database import rows, value, verify
from server import ROOT

PAGE = ROOT / "docs/append.md"
README = ROOT / "README.md"
#: language: the fence's word, the program's file name.
PROGRAMS = {
    "python": ("python", "payments.py"),
    "node": ("js", "payments.mjs"),
    "java": ("java", "Payments.java"),
    "go": ("go", "payments.go"),
    "rust": ("rust", "payments.rs"),
}
#: How each says that there was not enough.
NOTHING = {"python": "None", "node": "null", "java": "null", "go": "0", "rust": "NotEnough"}


def fold_of_the_readme(session):
    """Registers the fold exactly as README.md does."""
    (statement,) = re.findall(r"^select es_register_fold\(.*?\);$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    session.execute(statement)


@pytest.fixture
def payments():
    """The module that the page's Python block is."""
    (text,) = snippets("python", PAGE)
    module = {"__name__": "payments"}
    exec(text, module)  # noqa: S102: our own page
    return module


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_program_posts_once_and_withdraws_what_is_there(language, database):
    with database.connect() as session:
        fold_of_the_readme(session)
    fence, file = PROGRAMS[language]
    (text,) = snippets(fence, PAGE)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-append-"))
    try:
        command, more = build(language, folder, file, text)
        environment, arguments = reach(language, database.server, database.name)
        done = subprocess.run([*command, *arguments], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    with database.connect() as session:
        # The first thing to be true: the state of the stream is what the program says.
        assert printed[-1] == "balance " + value(session, "select es_state('account-9') ->> 'balance'")
        stored = "select version, event_type, payload ->> 'amount', occurred_at = '2024-10-31T12:00:00Z', event_id::text from es_read('account-9')"
        assert rows(session, stored)[0] == (1, "AccountCredited", "1234567890123456.78", True, "018f3f5e-0000-7000-8000-000000000009")
        assert [row[1:3] + row[4:] for row in rows(session, stored)[1:]] == [
            ("AccountDebited", "0.08", "018f3f5e-0000-7000-8000-00000000000a"),
            ("AccountDebited", "1234567890123456.00", "018f3f5e-0000-7000-8000-00000000000b"),
        ]
        assert value(session, "select es_stream_version('account-9')") == 3 and verify(session) == []
    assert printed == [
        "posted 1",
        "posted 1",
        "refused ES001 1",
        "withdrew 2",
        "withdrew 3",
        "withdrew 3",  # sent again: it is there, though there would no longer be enough
        f"withdrew {NOTHING[language]}",
        "refused -5.00",
        "balance 0.70",
    ]


def test_python_keeps_decimals_both_ways(payments, database):
    exact = decimal.Decimal("1234567890123456.780")
    with database.connect() as session:
        fold_of_the_readme(session)
        payments["append"](session, "account-8", "AccountCredited", {"amount": exact}, expected=0)
        assert value(session, "select payload::text from es_read('account-8')") == '{"amount": 1234567890123456.780}'
        payments["exact"](session)
        assert str(value(session, "select payload from es_read('account-8')")["amount"]) == str(exact)
        assert str(value(session, "select es_state('account-8')")["balance"]) == str(exact)
        with pytest.raises(ValueError, match="not above zero"):
            payments["withdraw"](session, "account-8", decimal.Decimal(0), uuid.uuid4())


def test_eight_who_withdraw_from_one_account_come_through(payments, database):
    with database.connect() as session:
        fold_of_the_readme(session)
        payments["append"](session, "account-8", "AccountCredited", {"amount": decimal.Decimal("150.00")})

    def client(_):
        with database.connect() as session:
            return [payments["withdraw"](session, "account-8", decimal.Decimal("1.00"), uuid.uuid4()) for _ in range(20)]

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        versions = [version for answers in clients.map(client, range(8)) for version in answers]
    assert sorted(version for version in versions if version) == list(range(2, 152)) and versions.count(None) == 10
    with database.connect() as session:
        assert value(session, "select es_state('account-8') ->> 'balance'") == "0.00"


def test_a_withdrawal_whose_connection_breaks_is_done_once(payments, database):
    with database.connect() as session:
        fold_of_the_readme(session)
        payments["append"](session, "account-8", "AccountCredited", {"amount": decimal.Decimal("10.00")})
    broken = []

    def withdraw(session):
        """Breaks after the commit at first: nobody has the answer."""
        version = payments["withdraw"](session, "account-8", decimal.Decimal("10.00"), uuid.UUID(int=8))
        if not broken:
            broken.append(version)
            with pytest.raises(psycopg.OperationalError):
                session.execute("select pg_terminate_backend(pg_backend_pid())")
            session.execute("select 1")
        return version

    assert payments["surely"](database.connect, withdraw) == 2 == broken[0]
    with database.connect() as session:
        assert value(session, "select es_state('account-8') ->> 'balance'") == "0.00"
