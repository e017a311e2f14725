"""What others ask of an event store with dynamic consistency boundaries: the public suite of Python eventsourcing through a thin recorder over our functions, and the scenarios of
dcb.events (consistency, positions that rise, appends side by side; from a position, limited, backward, the last position returned), and what the generic test of UmaDB's event stores asks beside
them: its cases, each against what Python finds in a list."""

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


#: Of each event its type and tags.
LOG = [
    ("Offered", ["course:sql"]), ("Joined", ["course:sql", "student:ann"]), ("Joined", ["course:sql", "student:ben"]), ("Offered", ["course:c"]),
    ("Joined", ["course:c", "student:ann"]), ("Left", ["course:sql", "student:ann"]), ("Closed", []),
]  # fmt: skip
#: Of each query its items, as types and tags; None: everything.
QUERIES = [
    None, [("Offered",), ()], [("Nothing",), ()], [(), ("course:sql",)], [(), ("course:none",)], [(), ("course:sql", "student:ann")], [(), ("student:ann", "student:ben")],
    [("Joined",), ("student:ann",)], [("Closed",), ("course:sql",)], [("Joined", "Left"), ("course:sql",)], [(), ("course:c",), ("Left",), ()], [("Joined",), ("course:sql",), ("Joined",), ("student:ann",)],
]  # fmt: skip


def items_of(query):
    return None if query is None else list(zip(query[::2], query[1::2]))


def is_found(query, event) -> bool:
    kind, tags = event
    return query is None or any((not types or kind in types) and set(wanted) <= set(tags) for types, wanted in items_of(query))


@pytest.mark.parametrize("at_once", [True, False], ids=["in one append", "one after the other"])
def test_reads_by_query_position_limit_and_direction_are_those_of_a_list(session, at_once):
    pytest.importorskip("eventsourcing.dcb.api", reason="eventsourcing needs Python 3.11")
    from dcb_recorder import DCBAppendCondition, Recorder
    from eventsourcing.dcb.api import DCBEvent, DCBQuery, DCBQueryItem
    from eventsourcing.persistence import IntegrityError

    recorder = Recorder(session)

    def asked(query):
        return None if query is None else DCBQuery(items=[DCBQueryItem(types=list(types), tags=list(tags)) for types, tags in items_of(query)])

    def read(query, start, limit, backward):
        """Forward from that position on, itself included, or backward."""
        if backward:
            response = recorder.read_back(asked(query), at=start, limit=limit)
        else:
            response = recorder.read(asked(query), after=start and start - 1, limit=limit)
        return [(event.position, event.event.type, sorted(event.event.tags)) for event in response], response.head

    for query in QUERIES:
        for limit in (None, 0, 1, 10):
            assert read(query, None, limit, True) == ([], None) and read(query, None, limit, False)[0] == [], "an empty log"
    assert recorder.head() is None
    events = [DCBEvent(type=kind, data=b'"x"', tags=tags) for kind, tags in LOG]
    last = recorder.append(events) if at_once else [recorder.append([event]) for event in events][-1]
    assert recorder.head() == last
    positions = [position for position, *_ in read(None, None, None, False)[0]]
    assert len(positions) == len(LOG) and positions == sorted(positions) and positions[-1] == last
    log = list(zip(positions, LOG))
    for query in QUERIES:
        for backward in (False, True):
            for start in (None, 1, *positions, *([last + 1000] if backward else [])):
                for limit in (None, 0, 1, 2, 100):
                    found = [(position, kind, sorted(tags)) for position, (kind, tags) in log
                             if is_found(query, (kind, tags)) and (start is None or (position <= start if backward else position >= start))]  # fmt: skip
                    found = found[::-1] if backward else found
                    found = found if limit is None else found[:limit]
                    head = None if limit == 0 else found[-1][0] if limit and found else last
                    assert read(query, start, limit, backward) == (found, head), (query, start, limit, backward)
    # A reader of another log, or of one that was cut short, is told so.
    with pytest.raises(psycopg.Error) as error:
        read(None, last + 1000, 10, False)
    assert error.value.sqlstate == "ES025"
    for query in QUERIES[1:]:
        for after in (0, *positions):
            condition = DCBAppendCondition(fail_if_events_match=asked(query), after=after)
            if any(position > after and is_found(query, event) for position, event in log):
                with pytest.raises(IntegrityError):
                    recorder.append([DCBEvent(type="Beside", data=b'"x"', tags=["beside"])], condition)
            else:
                recorder.append([DCBEvent(type="Beside", data=b'"x"', tags=["beside"])], condition)
    assert verify(session) == []


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
