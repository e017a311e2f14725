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
PRINTED = ["201 R-a", "201 R-a", "422 the key was used for another request", "402 limit", "402 limit"]


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
    (text,) = snippets("python", PAGE)
    module = {"__name__": "charge"}
    exec(text, module)  # noqa: S102: our own page
    asked = []
    at_the_bank = module["at_the_bank"]
    module["at_the_bank"] = lambda request, key: asked.append(key) or at_the_bank(request, key)

    def serve(number):
        with database.connect() as session:
            return [module["charge"](session, f"k-{(n + number) % 20}", {"card": "tok_1", "amount": 1}) for n in range(20)]

    answers = all_at_once(8, serve)
    assert raised(answers) == []
    assert {status for served in answers for status, _ in served} == {201}
    assert sorted(asked) == sorted(f"k-{n}" for n in range(20))
    with database.connect() as session:
        assert value(session, "select count(*) from eventstream.events") == 20
