"""The loop of a consumer: what fails is put aside with its stream, leases last as long as the work, told to stop it ends after the batch."""

import time

import pytest
from database import rows, value
from faces import Refused
from server import wait_until


@pytest.fixture
def mail(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('mailer')")
    return database


def append(database, stream, *payloads):
    with database.connect() as session:
        for payload in payloads:
            session.execute("select es_append(%s, 'Any', %s::jsonb)", (stream, payload))


def seen(face):
    return [(stream, version) for _, stream, version, _ in face.events]


@pytest.mark.parametrize("takes_all", [False, True])
def test_what_fails_is_put_aside_with_its_stream_and_comes_again(face, mail, takes_all):
    append(mail, "account-1", '{"n": 1}', '{"fails": "once"}', '{"n": 3}')
    append(mail, "account-2", '{"n": 1}', '{"fails": "dead"}', '{"n": 3}')
    append(mail, "account-3", '{"n": 1}')
    face.send("consume", subscription="mailer", wait=1, takes_all=takes_all, retry_after=[0.2, 1])
    wait_until(lambda: {("account-1", 3), ("account-2", 3)} <= set(seen(face)), 20, f"all of it; {face.events}, {face.errors[-4:]}")
    assert face.stop() == 0
    expected = [("account-1", n) for n in (1, 2, 3)], [("account-2", n) for n in (1, 3)], [("account-3", 1)]
    for number, versions in enumerate(expected, start=1):
        got = [one for one in seen(face) if one[0] == f"account-{number}"]
        # Whoever takes a batch at once, and raises, gets the events again one by one.
        assert list(dict.fromkeys(got)) == versions and (takes_all or got == versions)
    attempts = {(stream, version): attempt for _, stream, version, attempt in face.events}
    assert attempts["account-1", 2] == 2 and attempts["account-3", 1] == 1
    with mail.connect() as session:
        dead = rows(session, "select stream, version, attempts, reason from eventstream.dead_letters")
    assert dead == [("account-2", 2, 1, "for good")]
    assert any("it fails the first time" in line for line in face.errors)


@pytest.mark.parametrize("payload", ['{"fails": "once"}', '{"fails": "unsaid"}'])
def test_a_mistake_in_giving_back_skips_nothing(face, mail, payload):
    """A pause that is none, or a reason without words: the event is not acknowledged for it."""
    append(mail, "account-1", payload, '{"n": 2}')
    append(mail, "account-2", '{"n": 1}')
    face.send("consume", subscription="mailer", wait=1, lease=1, retry_after=[-1] if "once" in payload else [0.1])
    if "once" in payload:
        with pytest.raises(Refused) as error:
            face.answer(20)
        assert error.value.kind == "Invalid"
        face.send("consume", subscription="mailer", wait=1, retry_after=[0.1])
    wait_until(lambda: {("account-1", 1), ("account-1", 2), ("account-2", 1)} == set(seen(face)), 20, f"all of it; {face.events}, {face.errors[-4:]}")
    assert face.stop() == 0


def test_a_handler_that_takes_nothing_ends_it(face, mail):
    append(mail, "account-1", '{"n": 1}')
    with pytest.raises(Refused, match="none of its events"):
        face.call("consume", subscription="mailer", takes_none=True)
    with mail.connect() as session:
        assert rows(session, "select from eventstream.dead_letters") == []


def test_a_pause_that_the_handler_asks_for_is_kept(face, mail):
    append(mail, "account-1", '{"fails": "later"}')
    face.send("consume", subscription="mailer", wait=1, retry_after=[0.1])
    began = time.monotonic()
    wait_until(lambda: seen(face), 20, "the event")
    assert 0.9 < time.monotonic() - began < 10
    assert face.stop() == 0


def test_a_lease_lasts_as_long_as_the_work(face, faces, mail, address):
    append(mail, "account-1", *['{"n": 1}'] * 4)
    other = faces(address)
    face.send("consume", subscription="mailer", lease=1.5, wait=1, work_seconds=1.2)
    wait_until(lambda: face.events, 20, "the first event")
    other.send("consume", subscription="mailer", lease=1.5, wait=1)
    wait_until(lambda: len(face.events) == 4, 20, "all")
    time.sleep(1.5)
    assert face.stop() == 0 and other.stop() == 0
    assert [event[3] for event in face.events] == [1] * 4 and other.events == []


def test_whose_lease_is_lost_stops_handling_what_is_somebody_elses(face, mail):
    append(mail, "account-1", *['{"n": 1}'] * 3)
    face.send("consume", subscription="mailer", lease=1.5, wait=1, work_seconds=1.2)
    wait_until(lambda: face.events, 20, "the first event")
    with mail.connect() as session:
        session.execute("select es_seek_subscription('mailer', 0)")
    wait_until(lambda: len(face.events) >= 4, 20, f"it to begin again; {face.errors[-4:]}")
    assert face.stop() == 0
    assert any("lease" in line for line in face.errors)
    # After the loss no more than the event that was in hand, then from the beginning.
    assert [event[2] for event in face.events][:5] in ([1, 1, 2, 3], [1, 2, 1, 2, 3]), face.events


def test_told_to_stop_it_finishes_and_acknowledges_the_batch(face, mail):
    append(mail, "account-1", *['{"n": 1}'] * 20)
    face.send("consume", subscription="mailer", max_count=10, wait=1, work_seconds=0.1)
    wait_until(lambda: len(face.events) > 2, 20, "some")
    assert face.stop() == 0 and len(face.events) == 10
    with mail.connect() as session:
        assert value(session, "select min((event).version) from es_fetch('mailer', 'another')") == 11


def test_it_is_woken_by_what_is_appended(face, mail):
    face.send("consume", subscription="mailer", wait=30)
    time.sleep(1.5)
    for number in range(3):
        append(mail, "account-1", '{"n": 1}')
        began = time.monotonic()
        wait_until(lambda: len(face.events) == number + 1, 10, "the event")
        assert time.monotonic() - began < 3


def test_a_mistake_ends_it_with_an_error(face, database):
    with pytest.raises(Refused) as error:
        face.call("consume", subscription="nobody")
    assert (error.value.kind, error.value.sqlstate) == ("NotFound", "ES020")
