"""A retry under the same event id writes nothing and returns what the first try returned, however late and from wherever it
comes; anything else under that id is refused (section "Idempotent append" of the SQL API)."""

import random
import uuid

import psycopg
import pytest
from database import all_at_once, contents, near_edge, partitions, raised, rows, value
from psycopg.types.json import Jsonb


@pytest.fixture
def session(database):
    database.make_partitions_small()
    with database.connect() as connection:
        yield connection


def append(session, stream, event_id, payload=None, expected=None, event_type="Paid"):
    return value(
        session,
        "select es_append(%s, %s, %s, expected_version => %s, event_id => %s)",
        stream,
        event_type,
        Jsonb(payload if payload is not None else {"amount": 10}),
        expected,
        event_id,
    )


def batch(*ids, event_type="Paid"):
    return Jsonb(
        [{"type": event_type, "payload": {"n": number}, "event_id": str(event_id)} for number, event_id in enumerate(ids)]
    )


def replayed(session):
    return value(session, "select replayed from es_last_append()")


def cross(session, times, stream="account-filler"):
    """Fills the log over so many partition edges, with the given stream in each partition."""
    for _ in range(times):
        edge = value(
            session,
            "select max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''?(\\d+)')::bigint)"
            " from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = '_eventstream.events'::regclass",
        )
        near_edge(session, 2, edge)
        for _ in range(4):
            session.execute("select es_append(%s, 'Filler', '{}')", (stream,))


def test_a_retry_with_the_exact_version_is_recognised_after_many_partitions(session):
    first, second, third = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    assert append(session, "account-1", first, expected=0) == 1
    assert value(session, "select es_append_events('account-1', %s, 1)", batch(second, third)) == 3
    assert not replayed(session)
    cross(session, 6, "account-1")
    assert len(partitions(session)) >= 7
    before = contents(session)
    assert append(session, "account-1", first, expected=0) == 1
    assert replayed(session)
    assert value(session, "select es_append_events('account-1', %s, 1)", batch(second, third)) == 3
    assert replayed(session)
    assert rows(
        session,
        "select version from es_append_streams(%s)",
        Jsonb([{"stream": "account-1", "expected_version": 1, "events": batch(second, third).obj}]),
    ) == [(3,)]
    assert replayed(session)
    assert contents(session) == before


def test_a_retry_with_any_version_is_recognised_in_the_streams_newest_two_partitions(session):
    event_id = uuid.uuid4()
    for crossings in (0, 1):
        assert append(session, "account-1", event_id) == 1
        assert replayed(session) == (crossings == 1)
        cross(session, 1, "account-1")
    # Partitions that only other streams filled do not push it out.
    other = uuid.uuid4()
    assert append(session, "account-2", other) == 1
    cross(session, 4)
    assert append(session, "account-2", other) == 1
    assert replayed(session)


def test_a_retry_under_a_stale_version_is_still_a_retry(session):
    event_id = uuid.uuid4()
    assert append(session, "account-1", event_id, expected=0) == 1
    append(session, "account-1", uuid.uuid4())
    assert append(session, "account-1", event_id, expected=0) == 1
    with pytest.raises(psycopg.Error) as conflict:
        append(session, "account-1", uuid.uuid4(), expected=0)
    assert conflict.value.sqlstate == "ES001"


def test_metadata_may_differ_in_a_retry_and_the_first_is_kept(session):
    event_id = uuid.uuid4()
    statement = "select es_append('account-1', 'Paid', '1', event_id => %s, metadata => %s)"
    assert value(session, statement, event_id, Jsonb({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"})) == 1
    assert value(session, statement, event_id, Jsonb({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})) == 1
    assert rows(session, "select metadata->>'traceparent' from es_read('account-1')") == [("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",)]


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"amount": 11}},
        {"event_type": "Refunded"},
        {"schema_version": 2},
        {"occurred_at": "2020-01-01"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_id_with_other_content_is_refused(session, change):
    base = {
        "event_type": "Paid",
        "payload": {"amount": 10},
        "event_id": uuid.uuid4(),
        "occurred_at": "2024-01-01",
        "schema_version": 1,
    }
    statement = (
        "select es_append('account-1', %(event_type)s, %(payload)s, event_id => %(event_id)s,"
        " occurred_at => %(occurred_at)s, schema_version => %(schema_version)s)"
    )

    def call(arguments):
        return session.execute(statement, arguments | {"payload": Jsonb(arguments["payload"])}).fetchone()[0]

    assert call(base) == 1
    assert call(base) == 1
    with pytest.raises(psycopg.Error) as reused:
        call(base | change)
    assert reused.value.sqlstate == "ES006"
    assert value(session, "select es_stream_version('account-1')") == 1


def test_a_part_of_a_batch_or_another_order_is_refused(session):
    first, second, third = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    statement = "select es_append_events('account-1', %s)"
    assert value(session, statement, batch(first, second)) == 2
    for wrong in (batch(second, first), batch(first, second, third), batch(third, first)):
        with pytest.raises(psycopg.Error) as reused:
            value(session, statement, wrong)
        assert reused.value.sqlstate == "ES006"
    assert value(session, "select es_stream_version('account-1')") == 2


def test_the_same_id_in_another_stream_is_another_event(session):
    event_id = uuid.uuid4()
    assert append(session, "account-1", event_id) == 1
    assert append(session, "account-2", event_id) == 1
    assert not replayed(session)


def test_one_of_several_sessions_with_the_same_id_writes_and_all_get_its_version(database):
    sessions = [database.connect() for _ in range(8)]
    for round_ in range(25):
        event_id = uuid.uuid4()
        stream = f"account-{round_ % 5}"
        # On streams that exist and on new ones, beside appends with other ids.
        results = all_at_once(8, lambda n: (append(sessions[n], stream, event_id), replayed(sessions[n])))
        assert raised(results) == []
        assert len({version for version, _ in results}) == 1
        assert sorted(was_replayed for _, was_replayed in results) == [False] + [True] * 7
        assert value(sessions[0], "select count(*) from eventstream.events where event_id = %s", event_id) == 1
    for connection in sessions:
        connection.close()


def test_one_of_several_sessions_with_the_same_batch_over_several_streams_writes(database):
    sessions = [database.connect() for _ in range(6)]
    for round_ in range(15):
        ids = [str(uuid.uuid4()) for _ in range(4)]
        streams = ["account-1", "account-2"]

        def call(number):
            appends = [
                {"stream": stream, "events": batch(*ids[2 * place : 2 * place + 2]).obj}
                for place, stream in enumerate(streams)
            ]
            if number % 2:
                appends.reverse()
            return sorted(rows(sessions[number], "select stream, version from es_append_streams(%s)", Jsonb(appends)))

        results = all_at_once(6, call)
        assert raised(results) == []
        assert all(result == results[0] for result in results)
        assert results[0] == [("account-1", 2 * round_ + 2), ("account-2", 2 * round_ + 2)]
    for connection in sessions:
        connection.close()


class Model:
    """What was appended, and where each of a stream's events lies."""

    def __init__(self, session, chance):
        self.session = session
        self.chance = chance
        self.calls: list[list[tuple[str, int | None, list[dict], int]]] = []
        self.versions: dict[str, int] = {}

    def append(self):
        appends = []
        for stream in self.chance.sample(["fast-1", "slow-1", "slow-2"], self.chance.choice([1, 1, 1, 2, 3])):
            size = self.chance.choice([1, 2, 5, 60, 150, 320] if stream == "fast-1" else [1, 2, 5])
            events = [
                {"type": "Paid", "payload": {"n": number}, "event_id": str(uuid.UUID(int=self.chance.getrandbits(128)))}
                for number in range(size)
            ]
            version = self.versions.get(stream, 0)
            appends.append((stream, self.chance.choice([None, version]), events, version + size))
        assert self.send(appends) == [version for *_, version in appends]
        self.versions.update({stream: version for stream, _, _, version in appends})
        self.calls.append(appends)

    def send(self, appends):
        if len(appends) == 1:
            [(stream, expected, events, _)] = appends
            return [value(self.session, "select es_append_events(%s, %s, %s)", stream, Jsonb(events), expected)]
        elements = [
            {"stream": stream, "expected_version": expected, "events": events} for stream, expected, events, _ in appends
        ]
        return [version for (version,) in rows(self.session, "select version from es_append_streams(%s)", Jsonb(elements))]

    def is_recognised(self, appends):
        """Each stream's by its exact version, or by an event in its newest two partitions; the others of the call with it."""
        places = dict(
            rows(
                self.session,
                "select s.name || '/' || e.version, dense_rank() over (partition by s.name order by p.lower desc)"
                " from _eventstream.events e join _eventstream.streams s on s.id = e.stream_id join (select c.oid,"
                " substring(c.relname from '\\d+$')::bigint as lower from pg_class c) p on p.oid = e.tableoid",
            )
        )
        return any(
            expected is not None or any(places[f"{stream}/{last - back}"] <= 2 for back in range(len(events)))
            for stream, expected, events, last in appends
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_retry_is_recognised_whatever_partitions_it_spans(database, seed):
    chance = random.Random(seed)
    spans = 0
    with database.connect() as session:
        near_edge(session, 3)
        model = Model(session, chance)
        for _ in range(40):
            session.execute(f"set eventstream.partition_size = {chance.choice([100, 130, 250])}")
            model.append()
            for appends in [model.calls[-1], *chance.sample(model.calls, min(4, len(model.calls)))]:
                if not model.is_recognised(appends):
                    continue
                spans += any(len(events) > 130 for _, _, events, _ in appends)
                before = value(session, "select count(*) from _eventstream.events")
                assert model.send(appends) == [version for *_, version in appends]
                assert replayed(session)
                # All of it, and nothing else.
                for changed in altered(chance, appends):
                    with pytest.raises(psycopg.Error) as refused:
                        model.send(changed)
                    assert refused.value.sqlstate == "ES006", refused.value
                assert value(session, "select count(*) from _eventstream.events") == before
        assert len(partitions(session)) > 3 and spans > 3


def altered(chance, appends):
    """The same call with one event more, with one that is another, in another order."""
    place = chance.randrange(len(appends))
    stream, expected, events, version = appends[place]
    other = events[-1] | {"event_id": str(uuid.UUID(int=chance.getrandbits(128)))}
    changes = [[*events, other]]
    if len(events) > 1:
        number = chance.randrange(len(events))
        changes.append([*events[:number], events[number] | {"payload": "other"}, *events[number + 1 :]])
        changes.append([*events[:-2], events[-1], events[-2]])
    return [[*appends[:place], (stream, expected, change, version), *appends[place + 1 :]] for change in changes]
