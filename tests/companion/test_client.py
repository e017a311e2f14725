"""The client library in Rust: its calls against a server, and its loop through kills and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time

import pytest
from companion import connection_of
from database import Database, rows, value
from server import ROOT

BUILT = ROOT / "target" / "build-companion"
CONSUME = BUILT / "companion" / "examples" / "consume"

SETUP = """
select es_register_fold('till', 'till', initial_state => '{"balance": 0}', rules => '{"on": {"Deposited": [{"add": {"/balance": "/amount"}}]}}');
create function decide_till(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
    perform es_require((command.payload ->> 'amount')::numeric > 0, 'not_positive', 'an amount must be positive');
    return jsonb_build_object('events', jsonb_build_array(es_make_event('Deposited', command.payload)), 'result', jsonb_build_object('balance', (state ->> 'balance')::numeric + (command.payload ->> 'amount')::numeric));
end $$;
select es_register_decider('till', 'till', 'decide_till(jsonb, eventstream.command)', '{"Deposit": {}}');
"""


@pytest.fixture
def database(database_server, request):
    made = Database(database_server, request.node.name[:50]).create()
    yield made
    made.drop()


def test_its_calls_against_a_server(database):
    database.role("client_without_rights")
    with database.connect() as session:
        session.execute(SETUP)
    command = ["cargo", "test", "--locked", "--quiet", "--profile", "companion", "--package", "eventstream-client", "--test", "against_a_server"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(BUILT), "EVENTSTREAM_TEST_DATABASE": connection_of(database, "postgres")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout, done.stdout
    with database.connect() as session:
        # They skip themselves where no server is named.
        assert value(session, "select count(distinct category) from eventstream.events where not starts_with(category, '$')") >= 6


class Consuming:
    """The example `consume` as a process, and what it printed."""

    def __init__(self, database, name="c-1"):
        self.process = subprocess.Popen([CONSUME, connection_of(database, "postgres"), "all", name], stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def seen(self) -> list[tuple[int, str, int, int]]:
        split = [line.split() for line in self.lines if not line.startswith("handled")]
        return [(int(position), stream, int(version), int(attempt)) for position, stream, version, attempt in split]


def wait_until(holds, seconds=60):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)


def appended(database, count, event_type="Credited", stream="account"):
    with database.connect() as session:
        for n in range(count):
            session.execute("select es_append(%s, %s, %s)", (f"{stream}-{n % 5}", event_type, json.dumps({"n": n})))


def test_nothing_is_skipped_and_streams_stay_in_order_through_kills_and_restarts(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('all')")
    appended(database, 40)
    consuming = [Consuming(database)]
    wait_until(lambda: len(consuming[0].seen()) >= 15)
    consuming[0].process.kill()
    appended(database, 40)
    consuming.append(Consuming(database))
    wait_until(lambda: len(consuming[1].seen()) >= 20)
    database.server.restart()
    appended(database, 40)
    with database.connect() as session:
        wanted = rows(session, "select global_position, stream, version from eventstream.events where stream like 'account-%' order by 1")

    def handled():
        return {seen[:3] for each in consuming for seen in each.seen()}

    wait_until(lambda: handled() == set(wanted))
    consuming[1].process.send_signal(signal.SIGINT)
    assert consuming[1].process.wait(20) == 0
    for each in consuming:
        newest: dict[str, int] = {}
        for _, stream, version, attempt in each.seen():
            # A repetition begins anew where its batch began; never is a version left out.
            assert version <= newest.get(stream, version - 1) + 1, (stream, version)
            newest[stream] = max(newest.get(stream, 0), version)


def test_what_fails_waits_alone_and_what_is_slow_keeps_its_lease(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('all', max_deliveries => 20)")
        for stream, event_type in (("bad-1", "Fails"), ("bad-1", "Credited"), ("dead-1", "Poison"), ("dead-1", "Credited"), ("slow-1", "Slow"), ("good-1", "Credited")):
            session.execute("select es_append(%s, %s, '{}')", (stream, event_type))
    consuming = Consuming(database)
    wait_until(lambda: {("good-1", 1), ("slow-1", 1), ("bad-1", 2), ("dead-1", 2)} <= {seen[1:3] for seen in consuming.seen()})
    consuming.process.send_signal(signal.SIGINT)
    assert consuming.process.wait(20) == 0
    attempts = [seen[3] for seen in consuming.seen() if seen[1:3] == ("bad-1", 1)]
    assert attempts == [1, 2, 3]
    assert [seen for seen in consuming.seen() if seen[1] == "slow-1"][0][3] == 1 and len([1 for seen in consuming.seen() if seen[1] == "slow-1"]) == 1
    with database.connect() as session:
        assert rows(session, "select stream, version, reason from eventstream.dead_letters") == [("dead-1", 1, "it cannot be")]
