"""A part of a dump is not a log, and its copy says so: pg_dump leaves out what its options do not name, without a word (requirement R4).

Kinds: copies (every option of pg_dump that chooses objects or data), verification (what should exist, by a glance and by es_verify), time (also after
the copy has appended, when its newest events are its own).
"""

import subprocess
import uuid

import psycopg
import pytest
from database import Database, near_edge, partitions, rows, value, verify
from server import BIN, WORK, Server, as_account, run

SIZE = 1024
FIRST, SECOND, THIRD = "events_1", "events_16777216", "events_16778240"
ALL = {FIRST, SECOND, THIRD}


@pytest.fixture(scope="module")
def source():
    """A log in three partitions, with streams that begin in each and some that go through all, of two tenants; and a table beside it."""
    server = Server("whole", **{"eventstream.partition_size": SIZE, "eventstream.max_workers": 0}).create()
    database = Database(server, "books").create()
    with database.connect() as session:
        session.execute("create table public.beside (n int)")
        for round_ in range(3):
            for number in range(12):
                session.execute(f"select es_append('account-{number + round_ * 4}', 'Moved', '{{}}', tags => '{{n:{number},all}}')")
            if round_ < 2:
                near_edge(session, 3, 2**24 + round_ * SIZE)
                for _ in range(6):
                    session.execute("select es_append('account-0', 'Moved', '{}')")
        session.execute("select es_create_tenant('acme')")
        with session.transaction():
            session.execute("select es_use_tenant('acme')")
            session.execute("select es_append('account-1', 'Moved', '{}')")
        assert set(partitions(session)) == ALL and verify(session) == []
    yield database
    server.destroy()


def dump(source, *options) -> str:
    file = WORK / f"part-{uuid.uuid4().hex[:8]}"
    try:
        run("pg_dump", "-f", file, *options, env=source.server.address("books"))
        return file.read_text()
    finally:
        file.unlink(missing_ok=True)


def copied(text: str) -> set[str]:
    return {line.split()[1].removeprefix("_eventstream.") for line in text.splitlines() if line.startswith("COPY _eventstream.events_")}


@pytest.fixture
def restored(source):
    """Restores a text into a new database of the server, which has the extension where the text does not make it."""
    made = []

    def restore(text):
        copy = Database(source.server, f"copy_{uuid.uuid4().hex[:8]}").create(extension="CREATE EXTENSION" not in text)
        made.append(copy)
        file = WORK / f"{copy.name}.sql"
        file.write_text(text)
        try:
            run("psql", "-X", "-q", "-f", file, env=source.server.address(copy.name), check=False)
        finally:
            file.unlink()
        return copy

    yield restore
    for copy in made:
        copy.drop()


def health(session):
    return rows(session, "select status, detail, fix from eventstream.health where name = 'log'")[0]


#: What of the log came along: all events of these partitions.
PARTS = {
    "-n _eventstream": {SECOND, THIRD},
    "-n public -n _eventstream": {SECOND, THIRD},
    "-t _eventstream.streams": set(),
    "-t _eventstream.events_16777216": {SECOND},
    "--data-only": ALL,
    "--data-only -T _eventstream.events_1": {SECOND, THIRD},
    "-T _eventstream.events_1": {SECOND, THIRD},
    "--exclude-table=_eventstream.events_16777216": {FIRST, THIRD},
    "-T _eventstream.events_16778240": {FIRST, SECOND},
    "-T _eventstream.events_16*": {FIRST},
    "-T _eventstream.events*": set(),
    "--exclude-table-data=_eventstream.events_1": {SECOND, THIRD},
    "--exclude-table-data=_eventstream.events_16778240": {FIRST, SECOND},
    "--exclude-table-data=_eventstream.events_*": set(),
    "-T _eventstream.streams": ALL,
    "--exclude-table-data=_eventstream.streams": ALL,
    "-T _eventstream.stream_segments": ALL,
    "-T _eventstream.positions": ALL,
    "-T _eventstream.stream_ids": ALL,
    "-T _eventstream.tenants": ALL,
    "-T _eventstream.event_tags_1": ALL,
    "--exclude-table-data=_eventstream.event_tags_1": ALL,
    "-T _eventstream.event_tags_16777216": ALL,
    "--exclude-table-data=_eventstream.event_tags_16777216": ALL,
    "-T _eventstream.event_tags*": ALL,
    "-T _eventstream.tag_partitions": ALL,
    "--exclude-table-data=_eventstream.tag_partitions": ALL,
}


@pytest.mark.parametrize("options", PARTS)
def test_a_copy_from_a_part_of_a_dump_says_that_something_is_missing(source, restored, options):
    text = dump(source, *options.split())
    assert copied(text) == PARTS[options]
    copy = restored(text)
    with copy.connect() as session:
        status, detail, fix = health(session)
        assert status == "critical" and "missing" in detail and "es_verify" in fix, detail
        # Sequences of ids are no events': what they lead to is refused, and nothing is lost.
        assert verify(session) != [] or "stream_ids" in options or "tenants" in options
        # Also once events of its own are the newest.
        session.execute("set eventstream.tenant = 'default'")
        for number in range(3):
            try:
                session.execute("select es_append(%s, 'Moved', '{}')", (f"own-{number}",))
            except psycopg.Error:
                break
        assert health(session)[0] == "critical"


WHOLE = ["", "-N public", "-N eventstream", "-e eventstream", "-e eventstream -n _eventstream", "-e eventstream -t _eventstream.*"]


@pytest.mark.parametrize("options", [*WHOLE, "--load-via-partition-root"])
def test_a_copy_of_the_whole_log_is_healthy(source, restored, options):
    copy = restored(dump(source, *options.split()))
    with copy.connect() as session, source.connect() as original:
        assert health(session)[0] == "ok" and verify(session) == []
        count = "select count(*) from _eventstream.events"
        assert value(session, count) == value(original, count)
        session.execute("set eventstream.tenant = 'default'")
        session.execute("select es_append('account-0', 'Moved', '{}')")
        assert health(session)[0] == "ok" and verify(session) == []


@pytest.mark.parametrize("options", ["-N _eventstream", "-n public", "--schema-only"])
def test_where_nothing_of_the_log_came_along_the_copy_is_an_empty_log(source, restored, options):
    """As the guide says: nothing is left to tell by."""
    text = dump(source, *options.split())
    assert copied(text) == set()
    with restored(text).connect() as session:
        assert value(session, "select count(*) from _eventstream.events") == 0
        assert value(session, "select es_append('account-0', 'Moved', '{}', 0)") == 1


def test_pg_dump_of_the_first_partition_by_name_fails_and_never_leaves_a_part_that_looks_whole(source):
    """pg_dump follows a partition that belongs to an extension to its parent, which it has not looked up where the extension is not dumped (15 dies of it)."""
    done = subprocess.run(
        [str(BIN / "pg_dump"), "-t", "_eventstream.*"], capture_output=True, text=True, **as_account(env=source.server.address("books"))
    )
    assert done.returncode != 0 or copied(done.stdout) == ALL


def test_no_column_asks_for_a_compression_that_a_server_may_lack(source):
    """pg_upgrade to a server without lz4 fails on a column that names it; what default_toast_compression says is the server's own affair."""
    with source.connect() as session:
        asked = """select c.oid::regclass::text, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
                   where c.relnamespace in ('_eventstream'::regnamespace, 'eventstream'::regnamespace) and a.attcompression <> ''"""
        assert rows(session, asked) == []
        assert rows(session, "select setting from pg_db_role_setting, unnest(setconfig) setting where setting ~ 'compression'") == []
        assert rows(session, "select proname from pg_proc, unnest(proconfig) setting where setting ~ 'toast_compression'") == []
        # What is written, large enough to be compressed, follows the setting alone.
        session.execute("set eventstream.tenant = 'default'; set default_toast_compression = pglz")
        session.execute("select es_append('large-1', 'Wrote', jsonb_build_object('text', repeat('x', 100000)))")
        how = "select distinct pg_column_compression(payload) from _eventstream.events where pg_column_compression(payload) is not null"
        assert rows(session, how) == [("pglz",)]
