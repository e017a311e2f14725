"""Elements of es_append_streams without events: what they answer, what they refuse, that they take no part in recognising a retry, and that
each event was decided on what was there (sessions side by side, at all levels, over streams that exist and that do not).

Interleavings one by one are in tests/isolation (empty_elements). EVENTSTREAM_SEED=<number> draws the same decisions again.
"""

import os
import random
import uuid

import psycopg
import pytest
from database import all_at_once, contents, raised, rows, value, verify
from psycopg.types.json import Jsonb

SEED = int(os.environ.get("EVENTSTREAM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
LEVELS = ("read committed", "repeatable read", "serializable")


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def check(stream, version):
    return {"stream": stream, "expected_version": version, "events": []}


def paid(stream, version=None, event_id=None, **payload):
    event = {"type": "Paid", "payload": payload, "event_id": event_id and str(event_id)}
    return {"stream": stream, "expected_version": version, "events": [event]}


def append(session, *elements, must_exist=False):
    statement = "select stream, version, cardinality(positions) from es_append_streams(%s, must_exist => %s)"
    return rows(session, statement, Jsonb(list(elements)), must_exist)


def refused(session, *elements, must_exist=False):
    with pytest.raises(psycopg.Error) as error:
        append(session, *elements, must_exist=must_exist)
    return error.value


def test_a_stream_that_is_only_checked_is_answered_with_its_version_and_no_positions(session):
    append(session, paid("account-1"), paid("account-2"))
    assert append(session, check("account-1", 1), paid("account-3"), check("account-4", 0)) == [
        ("account-1", 1, 0), ("account-3", 1, 1), ("account-4", 0, 0)
    ]
    assert value(session, "select stream from es_last_append()") == "account-3"
    before = contents(session)
    assert append(session, check("account-2", 1), check("account-4", 0)) == [("account-2", 1, 0), ("account-4", 0, 0)]
    assert contents(session) == before
    assert value(session, "select stream from es_last_append()") == "account-3"


def test_another_version_is_a_conflict_and_nothing_is_written(session):
    append(session, paid("account-1"), paid("account-2"))
    before = contents(session)
    for wrong in (check("account-1", 2), check("account-1", 0), check("account-9", 1)):
        for elements in ([wrong], [wrong, paid("account-2")], [paid("account-2"), wrong]):
            assert refused(session, *elements).sqlstate == "ES001"
    assert contents(session) == before


def test_without_a_version_or_beside_events_of_its_own_it_is_refused(session):
    error = refused(session, paid("account-1"), {"stream": "account-2", "events": []})
    assert error.sqlstate == "ES005" and str(error).startswith("appends[1].events must have at least one element where there is no expected_version")
    assert "keeps it there until the end of the transaction" in error.diag.message_hint
    assert refused(session, {"stream": "account-2", "expected_version": None, "events": []}).sqlstate == "ES005"
    for elements in ([check("account-1", 0), paid("account-1")], [paid("account-1"), check("account-1", 0)], [check("account-1", 0)] * 2):
        error = refused(session, *elements)
        assert error.sqlstate == "ES005" and "must name a stream once, not twice" in str(error)
    with pytest.raises(psycopg.Error) as error:
        session.execute("select es_append_events('account-1', '[]', 0)")
    assert error.value.sqlstate == "ES005"


def test_no_more_absent_streams_are_checked_than_names_can_be_kept(session):
    assert len(append(session, *[check(f"account-{n}", 0) for n in range(64)])) == 64
    error = refused(session, *[check(f"account-{n}", 0) for n in range(65)])
    assert error.sqlstate == "ES005" and "must not check the absence of more than 64 streams, and checks that of 65" in str(error)


def test_a_closed_stream_can_be_checked_and_must_exist_is_about_those_with_events(session):
    append(session, paid("account-1"))
    value(session, "select es_close_stream('account-1', 'over')")
    assert append(session, check("account-1", 2), check("account-5", 0)) == [("account-1", 2, 0), ("account-5", 0, 0)]
    append(session, paid("account-2"))
    assert append(session, check("account-5", 0), paid("account-2"), must_exist=True)[1] == ("account-2", 2, 1)
    assert refused(session, check("account-1", 2), paid("account-5"), must_exist=True).sqlstate == "ES002"


def test_a_retry_is_recognised_however_the_checked_streams_went_on(session):
    one, two = uuid.uuid4(), uuid.uuid4()
    append(session, paid("account-1"))
    call = [check("account-1", 1), paid("account-2", 0, one), check("account-4", 0), paid("account-3", None, two)]
    append(session, *call)
    append(session, paid("account-1"), paid("account-4"), paid("account-2"))
    before = contents(session)
    assert append(session, *call) == [("account-1", 2, 0), ("account-2", 1, 1), ("account-4", 1, 0), ("account-3", 1, 1)]
    assert value(session, "select replayed from es_last_append()")
    assert contents(session) == before
    # Half of it is no retry, whatever is checked beside it; and what is new is judged.
    error = refused(session, check("account-1", 2), paid("account-2", 0, one), paid("account-3", None, uuid.uuid4()))
    assert error.sqlstate == "ES006" and "only 1 of these 2 streams" in str(error)
    assert refused(session, check("account-1", 1), paid("account-2", None, uuid.uuid4())).sqlstate == "ES001"
    assert contents(session) == before


def test_who_checks_needs_the_right_to_append_there(database, session):
    append(session, paid("account-1"), paid("secret-1"))
    session.execute("create role writer login")
    session.execute("select es_grant('writer', 'append', category => 'account')")
    with database.connect(user="writer") as writer:
        assert append(writer, check("account-1", 1)) == [("account-1", 1, 0)]
        assert refused(writer, check("secret-1", 1)).sqlstate == "42501"


@pytest.mark.parametrize("level", LEVELS)
def test_each_event_was_decided_on_what_was_there(database, session, level):
    """Each names the versions that its writer saw. In the order of positions, which is that of the locks, they are what was there."""
    writers, calls, streams = 5, 60, [f"account-{n}" for n in range(6)]

    def write(number):
        rng, done = random.Random(SEED + number), 0
        with database.connect(autocommit=False) as connection:
            for _ in range(calls):
                try:
                    connection.execute(f"set transaction isolation level {level}")
                    among = rng.sample(streams, rng.randint(2, 4))
                    seen = {stream: value(connection, "select es_stream_version(%s)", stream) for stream in among}
                    written = among[: rng.randint(1, 2)]
                    elements = [
                        paid(stream, seen[stream], seen=seen) if stream in written else check(stream, seen[stream]) for stream in among
                    ]
                    rng.shuffle(elements)
                    append(connection, *elements)
                    if rng.random() < 0.1:
                        connection.rollback()
                        continue
                    connection.commit()
                    done += 1
                except psycopg.Error as error:
                    connection.rollback()
                    expected = ("ES001", "40001") if level == "serializable" else ("ES001",)
                    assert error.sqlstate in expected, f"{error} (seed {SEED})"
        return done

    results = all_at_once(writers, write, seconds=120)
    assert not raised(results), (raised(results), SEED)
    assert sum(results) > 10
    there, calls = dict.fromkeys(streams, 0), {}
    for position, stream, version, xid, seen in rows(
        session,
        "select v.global_position, v.stream, v.version, e.xmin::text, v.payload -> 'seen'"
        " from eventstream.events v join _eventstream.events e using (global_position) order by 1",
    ):
        calls.setdefault(xid, []).append((position, stream, version, seen))
    for written in sorted(calls.values()):
        for _, stream, version, seen in written:
            assert {name: there[name] for name in seen} == seen, f"{stream} {version} (seed {SEED})"
            assert version == seen[stream] + 1
        there.update({stream: version for _, stream, version, _ in written})
    assert verify(session) == []


def test_a_writer_gets_its_turn_among_those_who_check(database, session):
    """A row that is shared again and again by one more of many is never free."""
    checkers, is_over = 12, []
    append(session, paid("period-1"))

    def work(number):
        with database.connect() as connection:
            if number == checkers:
                value(connection, "select pg_sleep(0.3)")
                connection.execute("set statement_timeout = '10s'")
                try:
                    return append(connection, paid("period-1"))
                finally:
                    is_over.append(True)
            while not is_over:
                with connection.transaction():
                    seen = value(connection, "select es_stream_version('period-1')")
                    append(connection, check("period-1", seen), paid(f"account-{number}"))
                    value(connection, "select pg_sleep(0.02)")
            return None

    results = all_at_once(checkers + 1, work, seconds=60)
    assert results[-1] == [("period-1", 2, 1)]
    # They read before the writer, and check behind it.
    assert {error.sqlstate for error in raised(results)} <= {"ES001"}


@pytest.mark.parametrize("held_by", ["es_load('period-1', for_update => true)", "es_append('period-1', 'Paid', '{}')"])
def test_who_has_the_stream_checks_it_though_others_wait_for_it(database, session, held_by):
    """The writer that waits has the stream's name, and the row is the checker's: to wait for the name would be a deadlock."""
    append(session, paid("period-1"))
    session.execute("select es_register_fold('paid', 'period', rules => '{\"on\": {\"Paid\": []}}')")

    def work(number):
        with database.connect() as connection:
            if number == 1:
                value(connection, "select pg_sleep(0.5)")
                return append(connection, paid("period-1"))
            with connection.transaction():
                value(connection, f"select {held_by}")
                seen = value(connection, "select es_stream_version('period-1')")
                value(connection, "select pg_sleep(1.5)")
                return append(connection, check("period-1", seen), paid("account-1"))

    results = all_at_once(2, work, seconds=60)
    assert raised(results) == []
    last = 2 if "es_load" in held_by else 3
    assert results[1] == [("period-1", last, 1)]


def test_a_call_with_many_checks_does_not_make_what_another_found_absent(database, session):
    """The names of those that are checked must not use up those of the streams that are made."""
    append(session, *(paid(f"a-{number:02}") for number in range(64)))

    def work(number):
        with database.connect() as connection:
            if number == 1:
                value(connection, "select pg_sleep(0.5)")
                append(connection, *(check(f"a-{number:02}", 1) for number in range(64)), paid("z-1"))
                return value(connection, "select clock_timestamp()")
            with connection.transaction():
                append(connection, check("z-1", 0))
                value(connection, "select pg_sleep(1.5)")
                return value(connection, "select clock_timestamp()")

    until, made = all_at_once(2, work, seconds=60)
    assert until < made
