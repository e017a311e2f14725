"""Logical replication of the log, as docs/operate.md says it: into plain tables, where names stand instead of ids, and into a database
with the extension that has never appended and takes over. A log that has appended takes no rows from elsewhere."""

import re

import psycopg
import pytest
from database import Database, contents, near_edge, partitions, rows, value, verify
from psycopg.types.json import Jsonb
from server import ROOT, wait_until


def blocks() -> list[str]:
    """The statements of the chapter, in its order."""
    guide = (ROOT / "docs" / "operate.md").read_text()
    chapter = guide.partition("## Logical replication")[2].partition("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", chapter, re.DOTALL | re.MULTILINE)
    assert len(found) == 4
    return found


@pytest.fixture
def publisher(new_server):
    server = new_server(
        "replicated", wal_level="logical", max_wal_senders=6, max_replication_slots=6, **{"eventstream.partition_size": 1024}
    )
    books = Database(server, "books").create()
    with books.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'default'")
        append(session, "account-1", 3)
        with session.transaction():
            session.execute("select es_use_tenant('acme')")
            append(session, "account-1", 2)
        near_edge(session, 2)
        append(session, "account-2", 4)
        session.execute(blocks()[0])
    return books


def append(session, stream: str, count: int) -> None:
    session.execute("select es_append(%s, 'Moved', jsonb_build_object('n', n)) from generate_series(1, %s) n", (stream, count))


def subscribe(session, publisher: Database, statement: str, slot: str) -> None:
    """Subscriber and publisher are one server here: the slot is made first, or both would wait for each other."""
    with publisher.connect() as source:
        source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    statement = statement.replace("host=… dbname=… user=…", f"host={publisher.server.socket} port=5432 user=postgres dbname=books")
    session.execute(f"{statement.rstrip().rstrip(';')} with (create_slot = false, slot_name = '{slot}')")


def everything(publisher: Database) -> list[tuple]:
    with publisher.connect() as session:
        return rows(
            session,
            "select e.global_position, t.name, s.name, e.version, e.payload, e.chain_hash from _eventstream.events e"
            " join _eventstream.streams s on s.id = e.stream_id join _eventstream.tenants t on t.id = e.tenant_id order by 1",
        )


def test_into_plain_tables_with_names_instead_of_ids(publisher):
    warehouse = Database(publisher.server, "warehouse").create(extension=False)
    tables, subscription = blocks()[1].split("create subscription", 1)
    with warehouse.connect() as session:
        session.execute(tables)
        subscribe(session, publisher, "create subscription" + subscription, "plain")
        seen = "select global_position, tenant, stream, version, payload, chain_hash from events order by 1"
        wait_until(lambda: rows(session, seen) == everything(publisher), 40, "the copy")
        with publisher.connect() as source:
            source.execute("set eventstream.tenant = 'default'")
            source.execute(
                "select es_append_streams(%s)",
                (
                    Jsonb(
                        [
                            {"stream": "order-1", "events": [{"type": "Placed", "payload": 1}]},
                            {"stream": "account-3", "events": [{"type": "Opened", "payload": 1}, {"type": "Moved", "payload": 2}]},
                        ]
                    ),
                ),
            )
            append(source, "account-1", 1100)
            assert len(partitions(source)) == 3
        wait_until(lambda: rows(session, seen) == everything(publisher), 40, "what came later")
        assert {stream for _, _, stream, *_ in rows(session, seen)} == {"account-1", "account-2", "account-3", "order-1"}
        session.execute("drop subscription log")


def test_into_a_database_that_has_never_appended_and_takes_over(publisher):
    heir = Database(publisher.server, "heir").create()
    with publisher.connect() as source:
        makers = [statement for (statement,) in rows(source, blocks()[2])]
    assert len(makers) == 1
    with heir.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        for maker in makers:
            session.execute(maker)
        subscribe(session, publisher, "create subscription log connection 'host=… dbname=… user=…' publication log", "heir")
        wait_until(lambda: everything(heir) == everything(publisher), 40, "the copy")
        with publisher.connect() as source:
            source.execute("set eventstream.tenant = 'default'")
            append(source, "account-9", 3)
            append(source, "account-1", 3)
        wait_until(lambda: everything(heir) == everything(publisher), 40, "what came later")
        assert value(session, "select count(*) from es_read('account-1')") == 6
        for statement in filter(str.strip, blocks()[3].split(";\n")):
            last = rows_or_none(session, statement)
        assert last == [(0,)]
        assert verify(session) == []
        version = value(session, "select es_stream_version('account-9')")
        assert value(session, "select es_append('account-9', 'Moved', '{}')") == version + 1
        assert value(session, "select es_append('account-new', 'Opened', '{}', 0)") == 1
        session.execute("select es_create_tenant('umbrella')")
        assert verify(session) == []


def rows_or_none(session, statement: str):
    cursor = session.execute(statement)
    return cursor.fetchall() if cursor.description else None


def test_a_log_that_has_appended_takes_no_rows_from_elsewhere(publisher):
    own = Database(publisher.server, "own").create()
    with own.connect() as session:
        append(session, "account-7", 1)
        before = contents(session)
        with publisher.connect() as source:
            makers = [statement for (statement,) in rows(source, blocks()[2])]
        with pytest.raises(psycopg.Error) as refused:
            session.execute(makers[0])
        assert refused.value.sqlstate == "ES051"
        subscribe(session, publisher, "create subscription log connection 'host=… dbname=… user=…' publication log", "own")
        wait_until(lambda: "written by eventstream's own functions only: INSERT is refused" in publisher.server.log.read_text(), 30, "a refusal")
        session.execute("alter subscription log disable")
        session.execute("alter subscription log set (slot_name = none)")
        session.execute("drop subscription log")
        assert contents(session) == before
        assert verify(session) == []
