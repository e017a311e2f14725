"""The programs of docs/append.md, in every language: posted once however often it is sent, exact to the last digit, a conflict told by its SQLSTATE
and DETAIL, a withdrawal decided on what was read; and what they wrote is the same in all of them."""

import pathlib
import shutil
import subprocess
import tempfile

import pytest
from clients import build, reach, snippets
from database import rows, value, verify
from server import ROOT

PAGE = ROOT / "docs/append.md"
#: language: the fence's word, the program's file name.
PROGRAMS = {
    "python": ("python", "payments.py"),
    "node": ("js", "payments.mjs"),
    "java": ("java", "Payments.java"),
    "go": ("go", "payments.go"),
    "rust": ("rust", "payments.rs"),
}
#: How each says that there was not enough.
NOTHING = {"python": "None", "node": "null", "java": "null", "go": "0", "rust": "None"}
WITHDREW = {"rust": "Some(2)"}


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_program_posts_once_and_withdraws_what_is_there(language, database):
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
    assert done.stdout.splitlines() == [
        "posted 1",
        "posted 1",
        "refused ES001 1",
        f"withdrew {WITHDREW.get(language, '2')}",
        f"withdrew {NOTHING[language]}",
        "balance 1234567890123456.70",
    ]
    with database.connect() as session:
        stored = "select version, event_type, payload ->> 'amount', occurred_at = '2024-10-31T12:00:00Z', event_id::text from es_read('account-9')"
        assert rows(session, stored)[0] == (1, "AccountCredited", "1234567890123456.78", True, "018f3f5e-0000-7000-8000-000000000009")
        assert rows(session, stored)[1][:3] == (2, "AccountDebited", "-0.08")
        assert value(session, "select es_stream_version('account-9')") == 2 and verify(session) == []
