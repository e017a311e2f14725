"""Nothing that was written changes: not by UPDATE, DELETE, TRUNCATE or MERGE, not on any partition, not for a superuser, and
not when the session claims to be a replica (invariant 6)."""

import psycopg
import pytest
from database import assert_immutable, contents, near_edge, partitions, rows, value


@pytest.fixture
def session(database):
    database.make_partitions_small()
    with database.connect() as connection:
        for edge in (2**24, 2**24 + 1024):
            near_edge(connection, 3, edge)
            for _ in range(6):
                connection.execute("select es_append('account-1', 'Moved', '{}')")
        assert len(partitions(connection)) == 3
        yield connection


def test_update_delete_and_truncate_are_refused_on_every_partition_whoever_asks(session):
    before = contents(session)
    assert_immutable(session)
    assert contents(session) == before


def test_also_on_a_partition_that_es_maintain_makes_later(session):
    count = len(partitions(session))
    rows(session, "select * from es_maintain()")
    assert len(partitions(session)) > count
    assert_immutable(session)


def test_a_refusal_says_what_it_refused(session):
    with pytest.raises(psycopg.Error) as refused:
        session.execute("delete from _eventstream.events")
    assert refused.value.sqlstate == "ES050"
    assert refused.value.diag.message_hint


@pytest.mark.parametrize(
    "statement",
    [
        "insert into _eventstream.events_1 select * from _eventstream.events_1 on conflict (stream_id, version)"
        " do update set payload = '\"changed\"'",
        "truncate _eventstream.events_1, _eventstream.streams",
        "truncate _eventstream.events cascade",
        "with gone as (delete from _eventstream.events returning *) select count(*) from gone",
        "update _eventstream.events set global_position = global_position + 100000",
    ],
)
def test_roundabout_ways_are_refused_as_well(session, statement):
    before = contents(session)
    for role in ("origin", "replica"):
        session.execute(f"set session_replication_role = {role}")
        with pytest.raises(psycopg.Error) as refused:
            session.execute(statement)
        assert refused.value.sqlstate == "ES050"
    assert contents(session) == before


def test_copies_of_the_events_are_free_to_change(session):
    session.execute("create table copied as select * from eventstream.events")
    session.execute("update copied set version = 0")
    assert value(session, "select count(*) from copied where version = 0") == 12
