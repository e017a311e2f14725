"""The live stream: every event once and in order, over restarts of either side."""

from __future__ import annotations

import http.client
import json
import threading
import time

from companion import Companion
from database import value


class Follower(threading.Thread):
    """A client that reads the live stream and comes back where it ended, as EventSource does."""

    def __init__(self, address, token, query=""):
        super().__init__(daemon=True)
        self.address, self.token, self.query = address, token, query
        self.seen: list[dict] = []
        self.last_id = None
        self.connections = 0
        self.statuses: list[int] = []
        self.goes_on = True

    def run(self):
        while self.goes_on:
            try:
                self.once()
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.2)

    def once(self):
        connection = http.client.HTTPConnection(*self.address(), timeout=20)
        headers = {"Authorization": f"Bearer {self.token()}"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        connection.request("GET", f"/v1/log/live?{self.query}", headers=headers)
        answer = connection.getresponse()
        self.statuses.append(answer.status)
        if answer.status != 200:
            answer.read()
            return
        self.connections += 1
        found = {}
        for line in answer:
            line = line.decode().rstrip("\n")
            if line.startswith(("id: ", "event: ", "data: ")):
                name, _, text = line.partition(": ")
                found[name] = text
            elif line == "" and found.get("event") == "event":
                self.last_id = found["id"]
                self.seen.append(json.loads(found["data"]))
            if line == "":
                found = {}


def appended(ledger, count, category="account"):
    with ledger.connect() as session:
        for n in range(count):
            with session.transaction():
                session.execute("select es_use_token(%s)", (ledger.token(),))
                session.execute("select es_append(%s, 'Credited', %s)", (f"{category}-{n % 7}", json.dumps({"n": n})))


def wait_until(holds, seconds=20):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)


def test_every_event_is_seen_once_and_in_order_over_restarts_of_both_sides(ledger):
    programs = [Companion(ledger.database)]
    follower = Follower(lambda: programs[-1].address, ledger.token, "after=0&category=tail")
    follower.start()
    try:
        appended(ledger, 20, "tail")
        wait_until(lambda: len(follower.seen) == 20)
        programs[-1].kill()
        appended(ledger, 20, "tail")
        programs.append(Companion(ledger.database))
        wait_until(lambda: len(follower.seen) == 40)
        ledger.database.server.restart()
        appended(ledger, 20, "tail")
        wait_until(lambda: len(follower.seen) == 60)
        programs[-1].stop()
        appended(ledger, 5, "tail")
        programs.append(Companion(ledger.database))
        wait_until(lambda: len(follower.seen) == 65)
    finally:
        follower.goes_on = False
        for program in programs:
            program.kill()
    with ledger.admin() as session:
        wanted = [row[0] for row in session.execute("select global_position from eventstream.events where category = 'tail' order by 1")]
    assert [seen["global_position"] for seen in follower.seen] == wanted
    assert follower.connections >= 3


def test_an_event_is_there_soon_after_its_commit(ledger):
    follower = Follower(lambda: ledger.companion.address, ledger.token, "category=soon")
    follower.start()
    wait_until(lambda: follower.connections == 1)
    began = time.monotonic()
    appended(ledger, 1, "soon")
    wait_until(lambda: follower.seen)
    follower.goes_on = False
    assert time.monotonic() - began < 5


def test_a_stream_ends_with_its_token(ledger):
    connection = http.client.HTTPConnection(*ledger.companion.address, timeout=40)
    connection.request("GET", "/v1/log/live", headers={"Authorization": f"Bearer {ledger.dying(seconds=3)}"})
    answer = connection.getresponse()
    assert answer.status == 200
    time.sleep(3)
    appended(ledger, 1, "late")
    text = answer.read().decode()
    assert "event: problem" in text and "ES04" in text and "late-0" not in text


def test_another_logs_place_is_gone(ledger):
    answer = ledger.companion.request("GET", "/v1/log/live", token=ledger.token(), Last_Event_ID="00000000-0000-4000-8000-000000000000:5")
    assert answer.status == 410 and answer.json["code"] == "ES025", answer
    assert value(ledger.admin(), "select 1") == 1

def test_nothing_is_skipped_while_many_commit_at_once(ledger):
    """A look that took the horizon after its snapshot would go on behind events that it had not seen."""
    writers, each = 6, 150
    follower = Follower(lambda: ledger.companion.address, ledger.token, "after=0&event_type=Rare")
    follower.start()
    wait_until(lambda: follower.connections == 1)
    pages: list[int] = []
    done = threading.Event()

    def page():
        position = 0
        while True:
            is_last = done.is_set()
            found = ledger.get(f"/v1/log?after={position}&event_type=Rare&max_count=50").json
            pages.extend(event["global_position"] for event in found["events"])
            position = found["next"]
            if is_last and not found["events"]:
                return

    def write(number):
        with ledger.connect() as session:
            for n in range(each):
                with session.transaction():
                    session.execute("select es_use_token(%s)", (ledger.token(),))
                    session.execute("select es_append(%s, %s, '{}')", (f"crowd-{number}", "Rare" if n % 3 else "Common"))

    paging = threading.Thread(target=page)
    writing = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    paging.start()
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    paging.join()
    with ledger.admin() as session:
        wanted = [row[0] for row in session.execute("select global_position from eventstream.events where event_type = 'Rare' order by 1")]
    try:
        wait_until(lambda: len(follower.seen) >= len(wanted))
    finally:
        follower.goes_on = False
    assert [seen["global_position"] for seen in follower.seen] == wanted
    assert pages == wanted
