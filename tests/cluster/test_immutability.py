"""Nothing that was written changes: not by UPDATE, DELETE, TRUNCATE or MERGE, not on any partition, not for a superuser, and
not when the session claims to be a replica (invariant 6)."""

import psycopg
import pytest
from database import Database, assert_immutable, contents, near_edge, partitions, rows, value
from server import wait_until


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


def refusals_logged(server) -> int:
    return server.log.read_text().count("ES050")


def test_logical_replication_changes_no_event(new_server):
    """Its apply worker fires no statement triggers for rows, and runs as a replica: only row triggers ENABLE ALWAYS stop it."""
    server = new_server(
        "replicated", wal_level="logical", max_wal_senders=4, max_replication_slots=4, log_error_verbosity="verbose"
    )
    books, source = Database(server, "books").create(), Database(server, "source").create(extension=False)
    with books.connect() as session, source.connect() as publisher:
        for _ in range(3):
            session.execute("select es_append('account-1', 'Moved', '{}')")
        before = contents(session)
        publisher.execute("create schema _eventstream")
        publisher.execute(
            "create table _eventstream.events_1 (stream_id bigint, version bigint, payload jsonb, primary key (stream_id, version))"
        )
        stream_id = value(session, "select id from _eventstream.streams")
        publisher.execute("insert into _eventstream.events_1 select %s, n, '1' from generate_series(1, 3) n", (stream_id,))
        # The worker finds rows by their key, which somebody has to declare: the log has none that it would use.
        key = value(
            session,
            "select indexrelid::regclass::name from pg_index where indrelid = '_eventstream.events_1'::regclass and indisunique",
        ).partition(".")[2]
        session.execute(f"alter table _eventstream.events_1 replica identity using index {key}")
        publisher.execute("create publication everything for all tables")
        publisher.execute("select pg_create_logical_replication_slot('forged', 'pgoutput')")
        session.execute(
            f"create subscription forged connection 'host={server.socket} port=5432 user=postgres dbname=source'"
            " publication everything with (create_slot = false, slot_name = 'forged', copy_data = false)"
        )
        for statement in (
            "update _eventstream.events_1 set payload = '\"forged\"' where version = 2",
            "delete from _eventstream.events_1 where version = 2",
            "truncate _eventstream.events_1",
        ):
            seen = refusals_logged(server)
            publisher.execute(statement)
            wait_until(lambda: refusals_logged(server) > seen, 20, f"the apply worker to be refused: {statement}")
            assert contents(session) == before
            # The next change is tried only once this one is skipped.
            session.execute("alter subscription forged disable")
            wait_until(
                lambda: not value(session, "select count(*) from pg_stat_subscription where pid is not null"), 20, "its end"
            )
            publisher.execute("select pg_replication_slot_advance('forged', pg_current_wal_flush_lsn())")
            session.execute("alter subscription forged enable")
        session.execute("alter subscription forged disable")
        session.execute("alter subscription forged set (slot_name = none)")
        session.execute("drop subscription forged")


def test_copies_of_the_events_are_free_to_change(session):
    session.execute("create table copied as select * from eventstream.events")
    session.execute("update copied set version = 0")
    assert value(session, "select count(*) from copied where version = 0") == 12
