"""The programs of docs/outside.md: they charge once a key, whoever asks again, and what they recorded is there once."""

import pathlib
import shutil
import subprocess
import tempfile

import pytest
from clients import build, reach, snippets
from database import all_at_once, raised, rows, value, verify
from server import ROOT

PAGE = ROOT / "docs/outside.md"
PROGRAMS = {"python": ("python", "charge.py"), "node": ("js", "charge.mjs")}
PRINTED = ["201 R-a", "201 R-a", "422 the key was used for another request", "402 limit", "402 limit", "400 no stream can have the key in its name"]


def program() -> tuple[dict, list]:
    """The page's functions, and with which keys the bank is asked."""
    (text,) = snippets("python", PAGE)
    module, asked = {"__name__": "charge"}, []
    exec(text, module)  # noqa: S102: our own page
    at_the_bank = module["at_the_bank"]
    module["at_the_bank"] = lambda request, key: asked.append(key) or at_the_bank(request, key)
    return module, asked


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_program_charges_once(language, database):
    fence, file = PROGRAMS[language]
    (text,) = snippets(fence, PAGE)
    assert "\n".join(f"    {line}" for line in PRINTED) in PAGE.read_text()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-outside-"))
    try:
        command, more = build(language, folder, file, text)
        environment, arguments = reach(language, database.server, database.name)
        for _ in range(2):
            done = subprocess.run([*command, *arguments], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines() == PRINTED
    finally:
        shutil.rmtree(folder)
    with database.connect() as session:
        assert rows(session, "select stream, version, payload ->> 'receipt' from eventstream.events") == [("payment-a", 1, "R-a")]
        assert rows(session, "select command_key, stage, attempt from eventstream.commands order by 1") == [("a", "completed", 1), ("b", "failed", 1)]
        assert verify(session) == []


def test_eight_services_that_get_the_same_requests_charge_each_once(database):
    module, asked = program()

    def serve(number):
        with database.connect() as session:
            return [module["charge"](session, f"k-{(n + number) % 20}", {"card": "tok_1", "amount": 1}) for n in range(20)]

    answers = all_at_once(8, serve)
    assert raised(answers) == []
    assert {status for served in answers for status, _ in served} == {201}
    assert sorted(asked) == sorted(f"k-{n}" for n in range(20))
    with database.connect() as session:
        assert value(session, "select count(*) from eventstream.events") == 20


def test_nothing_is_charged_that_cannot_be_recorded(database):
    module, asked = program()
    with database.connect() as session:
        for key in ("k" * 505, "k" * 600, "k" * 1024):
            assert module["charge"](session, key, {"card": "tok_1", "amount": 1})[0] == 400
        assert asked == [] and rows(session, "select from eventstream.commands") == []
        longest = "k" * 504
        assert module["charge"](session, longest, {"card": "tok_1", "amount": 1})[0] == 201
        assert asked == [longest]


def test_whose_lease_ran_out_says_in_progress_and_records_nothing_twice(database):
    """Somebody else takes over while the bank is asked."""
    module, asked = program()
    request = {"card": "tok_1", "amount": 1}
    module["BEGIN"] = module["BEGIN"].replace("1 min", "1 ms")
    at_the_bank = module["at_the_bank"]
    answers = []

    def slow(request, key):
        if not asked:
            asked.append(key)
            with database.connect() as other:
                answers.append(module["charge"](other, key, request))
        return at_the_bank(request, key)

    module["at_the_bank"] = slow
    with database.connect() as session:
        assert module["charge"](session, "k", request) == (409, {"error": "in progress"})
        assert answers == [(201, {"receipt": "R-k"})]
        assert module["charge"](session, "k", request) == answers[0]
        assert rows(session, "select stream, version from eventstream.events") == [("payment-k", 1)]
