"""The programs of docs/clients.md keep the page's promises: killed with -9 between fetch and acknowledgement, across restarts of the server, past
their lease: nothing is lost, nothing comes twice beyond what was not acknowledged, and each stream stays in order."""

import collections
import signal
import threading
import time

import pytest
from clients import BATCH, LEASE, PROGRAMS, Client, snippets
from database import Database
from server import Server, wait_until

STREAMS = 40


#: What is promised by the programs in every language, and what is gone through with two of them.
in_every_language = pytest.mark.parametrize("program", PROGRAMS, indirect=True)
in_two_languages = pytest.mark.parametrize("program", ["python", "node"], indirect=True)


@pytest.fixture(scope="module")
def program(request):
    built = Client(request.param)
    yield built
    built.remove()


@pytest.fixture
def client(program):
    """The program in one of the languages; what a test started of it ends with the test."""
    yield program
    program.end()


@pytest.fixture(scope="module")
def server():
    made = Server("clients", max_worker_processes=30).create()
    yield made
    made.destroy()


@pytest.fixture
def mail(server, request):
    """A database with the subscription of the page; every event of it is for the consumer."""
    database = Database(server, f"mail_{abs(hash(request.node.name)) % 10**9}").create()
    with database.connect() as session:
        session.execute("select es_create_subscription('mailer')")
    yield database
    if server.process is None:
        server.start()
    database.drop()


def append(database, count, first=0, kind="Numbered"):
    """One event each to the streams in turn; their positions."""
    with database.connect() as session:
        for number in range(first, first + count):
            session.execute("select es_append(%s, %s, '{\"amount\": 1.50}')", (f"account-{number % STREAMS}", kind))
        return [position for (position,) in session.execute("select global_position from eventstream.events order by 1 offset %s", (first,))]


def positions(consumer):
    return [position for position, _, _ in consumer.processed]


def assert_each_stream_in_order(*consumers):
    """Each consumer saw ascending versions of each stream, and a later one began where an earlier one had stopped, or before."""
    last = collections.Counter()
    for consumer in consumers:
        seen = collections.Counter()
        for _, stream, version in consumer.processed:
            assert version == seen[stream] + 1 if seen[stream] else version <= last[stream] + 1, f"{stream}: {version}"
            seen[stream] = version
        last |= seen


@in_every_language
@pytest.mark.parametrize("restart", ["a restart", "a crash"])
def test_killed_between_fetch_and_ack_nothing_is_lost_and_only_the_unacknowledged_comes_twice(client, mail, restart):
    expected = append(mail, 4 * BATCH)
    first = client.start(mail.server, mail.name)
    first.wait_for(BATCH + BATCH // 3)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    # It had printed more than one batch, so it had acknowledged that one; of the second it had processed a part.
    acknowledged, begun = positions(first)[:BATCH], positions(first)[BATCH:]
    assert 0 < len(begun) < BATCH
    if restart == "a restart":
        mail.server.restart()
    else:
        mail.server.kill_everything()
        mail.server.start()
    second = client.start(mail.server, mail.name)
    second.wait_for(len(expected) - BATCH)
    assert second.end() == 0, second.errors
    assert sorted(acknowledged + positions(second)) == expected
    assert set(begun) <= set(positions(second))
    assert_each_stream_in_order(first, second)


@in_every_language
def test_told_to_stop_it_finishes_and_acknowledges_its_batch(client, mail):
    expected = append(mail, 2 * BATCH)
    first = client.start(mail.server, mail.name)
    first.wait_for(BATCH // 3)
    assert first.end(signal.SIGTERM) == 0, first.errors
    assert len(first.processed) == BATCH
    second = client.start(mail.server, mail.name)
    second.wait_for(BATCH)
    began = time.monotonic()
    assert second.end(signal.SIGINT) == 0, second.errors
    assert time.monotonic() - began < 10
    assert sorted(positions(first) + positions(second)) == expected


@in_two_languages
def test_it_lives_through_restarts_of_the_server(client, mail):
    expected = append(mail, 2 * BATCH)
    consumer = client.start(mail.server, mail.name)
    consumer.wait_for(BATCH // 3)
    mail.server.restart()
    consumer.wait_for(2 * BATCH)
    expected += append(mail, BATCH, first=len(expected))
    consumer.wait_for(2 * BATCH + BATCH // 3)
    mail.server.kill_everything()
    mail.server.start()
    wait_until(lambda: set(positions(consumer)) == set(expected), 30, "all events")
    assert consumer.end() == 0, consumer.errors
    doubles = [position for position, times in collections.Counter(positions(consumer)).items() if times > 1]
    assert set(positions(consumer)) == set(expected)
    # One batch at each of the two restarts, at most.
    assert len(doubles) <= 2 * BATCH


@in_two_languages
def test_frozen_past_its_lease_it_does_not_acknowledge_for_its_successor(client, mail):
    expected = append(mail, 3 * BATCH)
    frozen = client.start(mail.server, mail.name)
    frozen.wait_for(BATCH // 3)
    frozen.process.send_signal(signal.SIGSTOP)
    other = client.start(mail.server, mail.name)
    other.wait_for(3 * BATCH, 20 + LEASE)
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for_error("lease")
    assert frozen.end() == 0, frozen.errors
    assert other.end() == 0, other.errors
    # What the frozen one could not acknowledge the other one had whole, and nothing came a third time.
    assert sorted(positions(other)) == expected
    assert len(frozen.processed) <= BATCH


@in_every_language
def test_what_fails_is_put_aside_with_its_stream_and_comes_again(client, mail):
    append(mail, BATCH // 2)
    append(mail, 3, first=BATCH // 2, kind="Fails")
    expected = append(mail, BATCH, first=BATCH // 2 + 3)
    consumer = client.start(mail.server, mail.name)
    consumer.wait_for(BATCH // 2 + 3 + BATCH)
    assert consumer.end() == 0, consumer.errors
    with mail.connect() as session:
        everything = [position for (position,) in session.execute("select global_position from eventstream.events")]
        failing = [position for (position,) in session.execute("select global_position from eventstream.events where event_type = 'Fails'")]
    assert sorted(positions(consumer)) == sorted(everything)
    assert len(failing) == 3 and any("it fails the first time" in line for line in consumer.errors)
    assert_each_stream_in_order(consumer)
    # The other streams went on meanwhile.
    assert positions(consumer).index(failing[0]) > positions(consumer).index(expected[STREAMS // 2])


@in_every_language
def test_a_mistake_ends_it_with_an_error(client, server):
    database = Database(server, "without_subscription").create()
    consumer = client.start(server, database.name)
    assert consumer.process.wait(20) != 0
    consumer.kill()
    database.drop()
    assert any("mailer" in line for line in consumer.errors), consumer.errors


def test_the_reader_of_the_page_is_woken_by_listen_and_sees_every_event_once(mail):
    defined = {}
    exec(snippets("python")[1], defined)  # noqa: S102: our own page
    seen, kept = [], []

    def follow():
        with mail.connect() as session:
            defined["tail"](session, 0, lambda event: seen.append((event[0], time.monotonic())), kept.append, lambda: len(seen) < 25)

    expected = append(mail, 20)
    reader = threading.Thread(target=follow)
    reader.start()
    wait_until(lambda: len(seen) == 20, 10, "what is there already")
    for number in range(20, 25):
        time.sleep(0.3)
        expected += append(mail, 1, first=number)
        appended = time.monotonic()
        wait_until(lambda: len(seen) > number, 10, "the event")
        # Far below the page's time-out, so it was the notification.
        assert seen[number][1] - appended < 2
    reader.join(10)
    assert [position for position, _ in seen] == expected
    assert kept[-1] == expected[-1]
