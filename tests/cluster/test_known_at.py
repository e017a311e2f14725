"""An answer for a known_at is final once es_settled_until() has passed it: whatever transactions are still open, however they end, and also
when the clock steps back (libfaketime, as in test_clock)."""

import random
import threading
import time

from database import Database, raised, all_at_once, rows, value
from states import append, register
from test_clock import ticking  # noqa: F401 - a fixture

STREAMS = 6
ANSWERS = "select stream, es_state_at(stream, 'infinity', %s) ->> 'sum' from eventstream.stream_names order by 1"


def begin(session):
    for number in range(STREAMS):
        append(session, f"account-{number}", 1)


def appended_slowly(database, number, until, moved=lambda chance: None):
    """Appends in transactions that stay open for a while; one in four is rolled back."""
    chance = random.Random(number)
    with database.connect() as session:
        while time.monotonic() < until:
            session.execute("begin")
            append(session, f"account-{chance.randrange(STREAMS)}", 1)
            time.sleep(chance.random() * 0.05)
            session.execute("rollback" if chance.random() < 0.25 else "commit")
            moved(chance)


def watched(database, until):
    """What was answered for moments that were settled: (moment, answers)."""
    seen = []
    with database.connect() as session:
        while time.monotonic() < until:
            settled = value(session, "select es_settled_until()")
            seen.append((settled, rows(session, ANSWERS, settled)))
            time.sleep(0.01)
    return seen


def assert_final(database, seen):
    with database.connect() as session:
        changed = [(moment, answers) for moment, answers in seen if rows(session, ANSWERS, moment) != answers]
        assert changed == []
        assert [moment for moment, _ in seen] == sorted(moment for moment, _ in seen)


def test_no_late_committer_changes_an_answer_that_was_settled(shared_server):
    database = Database(shared_server, "settled").create()
    with database.connect() as session:
        register(session)
        begin(session)
    until = time.monotonic() + 6
    results = all_at_once(9, lambda number: watched(database, until) if number == 8 else appended_slowly(database, number, until))
    assert raised(results) == []
    assert len(results[8]) > 50
    assert_final(database, results[8])
    database.drop()


def test_an_open_append_holds_back_what_is_settled(database):
    with database.connect() as session, database.connect() as late:
        register(session)
        begin(session)
        late.execute("begin")
        append(late, "account-0", 1)
        recorded = value(late, "select recorded_at from es_read('account-0', backward => true, max_count => 1)")
        append(session, "account-1", 1)
        settled = value(session, "select es_settled_until()")
        assert settled < recorded
        before = rows(session, ANSWERS, settled)
        late.execute("commit")
        assert rows(session, ANSWERS, settled) == before
        assert value(session, "select es_settled_until()") > recorded


def test_a_clock_that_steps_back_changes_no_answer_that_was_settled(ticking):  # noqa: F811
    clock, database = ticking
    with database.connect() as session:
        register(session)
        begin(session)
    lock = threading.Lock()

    def step(chance):
        if chance.random() < 0.1:
            with lock:
                clock.set(f"{chance.randrange(-3600, 3600):+d}")

    until = time.monotonic() + 6
    results = all_at_once(5, lambda number: watched(database, until) if number == 4 else appended_slowly(database, number, until, step))
    assert raised(results) == []
    assert len(results[4]) > 30
    assert_final(database, results[4])
