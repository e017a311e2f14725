"""What others ask of an event store with dynamic consistency boundaries: the public suite of Python eventsourcing through a thin recorder over our functions, and the scenarios of
dcb.events (consistency, positions that rise, appends side by side; from a position, limited, backward, the last position returned)."""

import threading

import psycopg
import pytest
from database import all_at_once, raised, rows, value, verify
from psycopg.types.json import Jsonb


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def suite():
    pytest.importorskip("eventsourcing.dcb.tests", reason="eventsourcing needs Python 3.11")
    from eventsourcing.dcb.tests import DCBRecorderTestCase

    return DCBRecorderTestCase()


@pytest.mark.parametrize("before", [0, 3])
def test_the_suite_of_python_eventsourcing_appends_and_reads(session, suite, before):
    from dcb_recorder import Recorder

    for _ in range(before):
        session.execute("select es_append('before-1', 'Before', '1')")
    suite._test_append_read(Recorder(session), before)
    assert verify(session) == []


def test_the_suite_of_python_eventsourcing_subscribes(session, suite):
    from dcb_recorder import Recorder

    suite._test_append_subscribe(Recorder(session))


def decide(session, stream, tags, query, after, kind="Happened"):
    element = {"stream": stream, "events": [{"type": kind, "payload": {}, "tags": tags}]}
    condition = None if query is None else Jsonb({"query": query, "after": after})
    return value(session, "select positions[1] from es_append_streams(%s, condition => %s)", Jsonb([element]), condition)


def test_positions_that_are_returned_rise_and_are_those_that_are_read(session):
    positions = [decide(session, f"s-{number}", ["t"], None, 0) for number in range(5)]
    assert positions == sorted(set(positions))
    read = "select global_position from es_read_all(tags => '{t}', after_position => %s, max_count => %s)"
    assert rows(session, read, 0, 100) == [(position,) for position in positions]
    assert rows(session, read, positions[1], 2) == [(positions[2],), (positions[3],)]
    back = "select global_position from es_read_backward(tags => '{t}', before_position => %s, max_count => %s)"
    assert rows(session, back, positions[3], 2) == [(positions[2],), (positions[1],)]
    assert value(session, back, None, 1) == positions[-1]


def test_an_append_is_whole_or_not_at_all(session):
    elements = [
        {"stream": "a-1", "events": [{"type": "T", "payload": {}, "tags": ["t"]}]},
        {"stream": "b-1", "expected_version": 7, "events": [{"type": "T", "payload": {}, "tags": ["t"]}]},
    ]
    with pytest.raises(psycopg.Error) as error:
        session.execute("select es_append_streams(%s)", (Jsonb(elements),))
    assert error.value.sqlstate == "ES001"
    assert value(session, "select count(*) from es_read_all(tags => '{t}')") == 0
    assert value(session, "select count(*) from _eventstream.event_tags") == 0


def test_a_name_is_taken_once_however_many_claim_it(database, session):
    """The unique username of dcb.events: no event with the tag may have been there."""

    def claim(number):
        with database.connect() as racer:
            return decide(racer, f"user-{number}", ["username:ann"], {"items": [{"event_types": ["Registered"], "tags": ["username:ann"]}]}, 0, "Registered")

    results = all_at_once(16, claim)
    assert len(raised(results)) == 15 and {error.sqlstate for error in raised(results)} == {"ES015"}


def test_invoice_numbers_follow_one_another_without_a_gap(database, session):
    """The gapless sequence of dcb.events: each takes the number after the last."""
    query = {"items": [{"event_types": ["InvoiceCreated"], "tags": ["invoices"]}]}

    def create(_):
        made = 0
        with database.connect() as racer:
            while made < 5:
                condition = value(racer, "select es_condition(%s)", Jsonb(query))
                last = value(racer, "select coalesce(max((payload ->> 'number')::int), 0) from es_read_backward(tags => '{invoices}', max_count => 1)")
                element = {"stream": f"invoice-{last + 1}", "events": [{"type": "InvoiceCreated", "payload": {"number": last + 1}, "tags": ["invoices"]}]}
                try:
                    racer.execute("select es_append_streams(%s, condition => %s)", (Jsonb([element]), Jsonb(condition)))
                    made += 1
                except psycopg.Error as error:
                    assert error.sqlstate == "ES015", error

    assert raised(all_at_once(8, create, 120)) == []
    numbers = [number for (number,) in rows(session, "select (payload ->> 'number')::int from es_read_all(tags => '{invoices}')")]
    assert numbers == list(range(1, 41))


def test_appends_side_by_side_are_all_there_and_a_reader_skips_none(database, session):
    done = threading.Event()
    seen = []

    def follow():
        with database.connect() as reader:
            after = 0
            while True:
                last_round = done.is_set()
                for (position,) in rows(reader, "select global_position from es_read_all(after_position => %s, tags => '{all}')", after):
                    seen.append(position)
                    after = position
                if last_round:
                    return

    reader = threading.Thread(target=follow)
    reader.start()

    def write(number):
        with database.connect() as racer:
            return [decide(racer, f"s-{number}", ["all", f"n:{number}"], None, 0) for _ in range(25)]

    written = all_at_once(8, write)
    done.set()
    reader.join(30)
    assert raised(written) == [] and seen == sorted(position for positions in written for position in positions)
