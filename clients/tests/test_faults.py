"""What a client is for: the answer that was lost, the server that was killed, eight who send the same."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from database import Database, rows, value, verify
from deciding import balance, bank
from faces import Refused
from server import Server, wait_until

STREAMS = 20
CLIENTS = 8


@pytest.fixture(scope="module")
def killable():
    made = Server("killed", max_worker_processes=30).create()
    yield made
    made.destroy()


@pytest.fixture
def own(killable, request):
    """The bank's database, on a server that the test may kill."""
    made = bank(Database(killable, f"bank_{abs(hash(request.node.name)) % 10**9}").create())
    yield made
    if killable.process is None:
        killable.start()
    made.drop()


@pytest.fixture
def banked(database):
    return bank(database)


def call_whose_answer_is_lost(face, proxy, server, words, name, **given):
    """The server is killed with -9, all of it, between the commit and the answer, and started again."""
    proxy.lose_answer_to(words, server.kill_everything)
    face.send(name, **given)
    wait_until(lambda: server.process is None, 20, "the kill")
    server.start()
    return face.answer()


DEPOSIT = {"stream": "account-1", "command_type": "Deposit", "payload": {"amount": 10}, "key": "order-1"}


def test_a_command_whose_answer_the_server_took_to_its_grave_is_executed_once(faces, own, proxies):
    proxy = proxies(own.server.address(own.name))
    face = faces(proxy.address)
    assert face.call("command", **DEPOSIT | {"key": "order-0"})["replayed"] is False
    answer = call_whose_answer_is_lost(face, proxy, own.server, b"es_command", "command", **DEPOSIT)
    # It was committed, and the client was not told: it sent the same again, and this is the answer of then.
    assert answer["replayed"] is True and answer["version"] == 2
    with own.connect() as session:
        assert balance(session, "account-1") == 20
        assert value(session, "select count(*) from eventstream.events") == 2 and verify(session) == []


@pytest.mark.parametrize("how", ["append", "append_streams", "transaction"])
def test_events_whose_answer_was_lost_are_recorded_once(faces, own, proxies, how):
    proxy = proxies(own.server.address(own.name))
    face = faces(proxy.address)
    event = {"type": "Credited", "payload": {"amount": 1}}
    append = {"stream": "account-1", "events": [event, event], "expected_version": 0}
    calls = {
        "append": ("append", append, 2),
        "append_streams": ("append_streams", {"appends": [append, {"stream": "account-2", "events": [event]}]}, [["account-1", 2], ["account-2", 1]]),
        "transaction": ("transaction", {"calls": [["append", append | {"key": "order-1"}]]}, [2]),
    }
    name, given, expected = calls[how]
    if how == "transaction":  # of which nobody knows: the program does it again, and the key makes the same ids
        with pytest.raises(Refused, match="closed|terminated"):
            call_whose_answer_is_lost(face, proxy, own.server, b"commit", name, **given)
        answer = face.call(name, **given)
    else:
        answer = call_whose_answer_is_lost(face, proxy, own.server, b"es_append", name, **given)
    if how == "append_streams":
        assert all(isinstance(position, int) for one in answer for position in one["positions"])
        answer = [[one["stream"], one["version"]] for one in answer]
    assert answer == expected
    with own.connect() as session:
        assert value(session, "select count(*) from eventstream.events") == (3 if how == "append_streams" else 2)


def test_without_a_key_nothing_is_sent_again_of_which_nobody_knows(faces, banked, proxies, address):
    proxy = proxies(address)
    face = faces(proxy.address)
    proxy.lose_answer_to(b"es_command")
    with pytest.raises(Refused) as error:
        face.call("command", **DEPOSIT | {"key": None})
    assert error.value.kind == "driver"
    with banked.connect() as session:
        assert balance(session, "account-1") == 10


def test_eight_clients_that_send_one_key_have_one_answer(faces, banked, address):
    racing = [faces(address) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for n in range(15):
            asked = DEPOSIT | {"key": f"order-{n}"}
            answers = list(pool.map(lambda one: one.call("command", **asked), racing))
            assert [answer.pop("replayed") for answer in answers].count(False) == 1
            assert all(answer == answers[0] for answer in answers)
    with banked.connect() as session:
        assert balance(session, "account-1") == 150


def test_eight_clients_that_append_under_one_key_append_once(faces, banked, address):
    racing = [faces(address) for _ in range(CLIENTS)]
    event = {"type": "Credited", "payload": {"amount": 1}}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for n in range(10):
            asked = {"stream": "account-1", "events": [event], "key": f"payment-{n}"}
            assert set(pool.map(lambda one: one.call("append", **asked), racing)) == {n + 1}


def test_eight_clients_that_expect_the_same_version_decide_anew(faces, banked, address):
    racing = [faces(address) for _ in range(CLIENTS)]
    event = {"type": "Credited", "payload": {"amount": 1}}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for n in range(5):
            asked = {"stream": "account-1", "events": [event], "expected_version": n * CLIENTS, "anew": True}
            versions = list(pool.map(lambda one: one.call("append", **asked), racing))
            assert sorted(versions) == list(range(n * CLIENTS + 1, (n + 1) * CLIENTS + 1))
    with pytest.raises(Refused) as error:
        racing[0].call("append", stream="account-1", events=[event], expected_version=3)
    assert error.value.kind == "VersionConflict"
    assert [error.value.said[name] for name in ("stream", "expected", "actual", "sqlstate")] == ["account-1", 3, 5 * CLIENTS, "ES001"]
    answer = racing[0].call("command", **DEPOSIT | {"expected_version": 7, "anew": True})
    assert answer["version"] == 5 * CLIENTS + 1 and answer["replayed"] is False


def test_what_was_rolled_back_for_others_sake_is_sent_again(face, banked):
    """A lock that was not had in time, twice."""
    with banked.connect() as session:
        session.execute(f'alter database "{banked.name}" set lock_timeout = \'300ms\'')
        face.call("append", stream="account-1", events=[{"type": "Credited", "payload": {"amount": 5}}])
        with session.transaction():
            session.execute("select es_load('account-1', for_update => true)")
            face.send("command", **DEPOSIT)
            time.sleep(1)
        assert face.answer()["version"] == 2


def append(database, count, **payload):
    with database.connect() as session:
        for number in range(count):
            session.execute("select es_append(%s, 'Numbered', %s::jsonb)", (f"account-{number % STREAMS}", '{"n": 1.50}'))
        return [position for (position,) in rows(session, "select global_position from eventstream.events order by 1")]


def assert_in_order(events):
    """A repetition begins at a version that was there before, and nothing is left out."""
    last: dict[str, int] = {}
    for _, stream, version, _ in events:
        assert version <= last.get(stream, 0) + 1, f"{stream}: {version} after {last.get(stream)}"
        last[stream] = max(version, last.get(stream, 0))


def test_a_consumer_lives_through_a_restart_and_a_crash_of_the_server(faces, own):
    with own.connect() as session:
        session.execute("select es_create_subscription('mailer')")
    expected = append(own, 200)
    face = faces(own.server.address(own.name))
    face.send("consume", subscription="mailer", max_count=50, lease=5, wait=1, work_seconds=0.005)
    wait_until(lambda: len(face.events) > 70, 20, "a part")
    own.server.restart()
    wait_until(lambda: len(face.events) > 130, 30, f"more; {face.errors[-4:]}")
    own.server.kill_everything()
    time.sleep(1)
    own.server.start()
    expected = append(own, 100)
    wait_until(lambda: {event[0] for event in face.events} == set(expected), 30, f"all; {face.errors[-4:]}")
    assert face.stop() == 0
    assert_in_order(face.events)
    # At most the batch that was under way at each of the two.
    assert len(face.events) <= len(expected) + 100
    with own.connect() as session:
        assert value(session, "select count(*) from es_fetch('mailer', 'another')") == 0


def test_killed_in_the_middle_another_goes_on_where_it_had_acknowledged(faces, own):
    with own.connect() as session:
        session.execute("select es_create_subscription('mailer')")
    expected = append(own, 100)
    first, second = (faces(own.server.address(own.name)) for _ in range(2))
    given = {"subscription": "mailer", "max_count": 40, "lease": 3, "wait": 1, "work_seconds": 0.005}
    first.send("consume", **given)
    wait_until(lambda: len(first.events) > 50, 20, "more than a batch")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second.send("consume", **given)
    wait_until(lambda: len(second.events) >= 60, 30, "the rest")
    assert second.stop() == 0
    assert sorted([event[0] for event in first.events[:40]] + [event[0] for event in second.events]) == expected
    assert_in_order(first.events + second.events)
