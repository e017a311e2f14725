"""The programs of the READMEs and of docs/clients.md and docs/outside.md with the client, taken from the pages and run on what was installed."""

import os
import re
import signal
import subprocess
import sys

import pytest
from database import rows, value
from faces import NODE
from server import ROOT, wait_until

LANGUAGES = {"python": ("python", "py"), "node": ("js", "mjs")}


@pytest.fixture(params=LANGUAGES)
def language(request):
    if request.param == "node" and not NODE:
        pytest.skip("there is no Node on this machine")
    return request.param


@pytest.fixture
def program(language, address, tmp_path):
    """Starts a page's program with the client."""
    fence, suffix = LANGUAGES[language]
    started = []

    def start(page, name):
        found = re.findall(rf"^```{fence}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        (text,) = [text for text in found if re.search("eventstream[_-]client", text) and f"{name}.{suffix}" in text.splitlines()[0]]
        file = tmp_path / f"{name}.{suffix}"
        file.write_text(text)
        if language == "node":
            (tmp_path / "node_modules").symlink_to(f"{NODE}/node_modules")
        command = [sys.executable if language == "python" else f"{NODE}/bin/node", file]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | address
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def printed_by(page):
    """The indented lines of a page, which its programs print."""
    (block,) = re.findall(r"\bprints?\n\n((?:    .*\n)+)", (ROOT / page).read_text())
    return [line[4:] for line in block.splitlines()]


def test_the_first_five_minutes_print_what_the_readme_says(language, program, database):
    (sql, *_) = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs/decide.md").read_text(), re.MULTILINE | re.DOTALL)
    with database.connect() as session:
        session.execute(sql)
    page = f"clients/{language}/README.md"
    told, errors = program(page, "bank").communicate(timeout=60)
    assert told.splitlines() == printed_by(page) and errors == ""


def test_the_service_of_the_page_charges_once(program, database):
    told, errors = program("docs/outside.md", "charge").communicate(timeout=60)
    assert told.splitlines() == printed_by("docs/outside.md") and errors == ""
    with database.connect() as session:
        assert rows(session, "select stream, version, payload ->> 'receipt' from eventstream.events") == [("payment-a", 1, "R-a")]
        assert rows(session, "select command_key, stage, attempt from eventstream.commands order by 1") == [("a", "completed", 1), ("b", "failed", 1)]


def test_the_consumer_of_the_page_mails_and_stops_when_it_is_told(program, database):
    with database.connect() as session:
        session.execute("select es_create_subscription('mailer')")
        session.execute("select es_append_events('account-1', '[{\"type\": \"AccountOpened\", \"payload\": {\"owner\": \"Ada\"}}, {\"type\": \"AccountOpened\", \"payload\": {\"owner\": \"\"}}]')")
    process = program("docs/clients.md", "mailer")
    assert process.stdout.readline().split(maxsplit=4)[1:4] == ["account-1", "1", "AccountOpened"]
    with database.connect() as session:
        wait_until(lambda: rows(session, "select reason from eventstream.dead_letters") == [("nobody to write to",)], 20, "the dead letter")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert value(session, "select count(*) from es_fetch('mailer', 'another')") == 0
