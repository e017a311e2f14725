"""Dump, restore, upgrade and failover keep the log: the same events and hashes, a clean verification, appends that go on, and
no version or position used twice (requirement R4)."""

import re
import shutil
import threading
import uuid
from types import SimpleNamespace

import psycopg
import pytest
from database import Database, assert_immutable, contents, near_edge, partitions, refusals, rows, value, verify
from psycopg.types.json import Jsonb
from server import BIN, PORT, ROOT, SUPERUSER, WORK, Server, run, wait_until

SIZE = {"eventstream.partition_size": 1024}
#: No upkeep between two looks that are compared: it takes the snapshots that are due.
STILL = {"eventstream.max_workers": 0}
NUMBERS = "[1234567890123456.78, 1.00, 1e400, -0.0, 1e2, 0.1000]"
RETRIED = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def make_states(session) -> None:
    """Folds, an upcaster and snapshots. What they call lies in a schema of the user's, which sorts after the extension's."""
    session.execute("create schema ledger")
    session.execute(
        "create function ledger.moves(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as"
        " $$ begin return jsonb_set(state, '{moves}', to_jsonb((state ->> 'moves')::numeric + 1)); end $$"
    )
    session.execute(
        "create function ledger.placed_2(payload jsonb, metadata jsonb) returns jsonb immutable language sql"
        " begin atomic select jsonb_build_object('was', payload); end"
    )
    session.execute(
        "create function ledger.last(state jsonb, event eventstream.event) returns jsonb immutable language sql"
        " begin atomic select coalesce(event.payload, 'null'); end"
    )
    session.execute("select es_register_upcaster('Placed', 1, 'ledger.placed_2(jsonb, jsonb)')")
    for name, category, handler in (("moves", "account", "moves"), ("last", "order", "last")):
        session.execute(
            "select es_register_fold(%s, %s, %s::regprocedure, initial_state => '{\"moves\": 0}', snapshot_every => 5)",
            (name, category, f"ledger.{handler}(jsonb, eventstream.event)"),
        )
    for stream in ("account-1", "account-2", "order-1"):
        session.execute("select es_snapshot(%s)", (stream,))


def fill(database: Database) -> None:
    """A log in four partitions with everything a dump could forget."""
    for role in ("clerk", "auditor"):
        database.role(role)
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'default'")
        session.execute("select es_grant('clerk', 'append', 'default', 'account')")
        session.execute("select es_grant('clerk', 'read', 'acme')")
        session.execute("select es_grant('auditor', 'audit', 'default')")
        session.execute(
            'select es_append(\'account-1\', \'Opened\', %s::jsonb, 0, \'{"actor": "ann", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}\', %s,'
            " '2024-01-01', 3, 'customer-7')",
            (NUMBERS, RETRIED),
        )
        for round_ in range(3):
            near_edge(session, 10, 2**24 + round_ * 1024)
            for number in range(30):
                session.execute(
                    "select es_append(%s, 'Moved', %s, occurred_at => '2024-02-01'::timestamptz + %s * interval '1 day')",
                    (f"account-{number % 7}", Jsonb({"n": number, "text": 'snow ☃ \\ \t\n"quoted"'}), number % 5),
                )
        with session.transaction():
            session.execute("select es_use_tenant('acme')")
            session.execute("select es_append('account-1', 'Opened', '{\"tenant\": \"acme\"}')")
        session.execute("select es_append('order-1', 'Placed', 'null')")
        session.execute("select es_close_stream('order-1', 'done')")
        make_states(session)
        assert len(partitions(session)) == 4
        assert verify(session) == []


def everything(database: Database) -> SimpleNamespace:
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        default = contents(session)
        grants = rows(
            session, "select role, privilege, tenant, category, granted_by from eventstream.grants order by 1, 2, 3, 4"
        )
        streams = rows(session, "select * from eventstream.streams order by stream")
        folds = rows(session, "select * from eventstream.folds order by name")
        upcasters = rows(session, "select * from eventstream.upcasters")
        snapshots = rows(session, "select * from eventstream.snapshots order by stream, fold, version")
        states = rows(session, "select stream, version, state from es_category_state('account')")
        session.execute("set eventstream.tenant = 'acme'")
        return SimpleNamespace(
            folds=folds,
            upcasters=upcasters,
            snapshots=snapshots,
            states=states,
            default=default,
            acme=contents(session),
            grants=grants,
            grants_acme=rows(
                session, "select role, privilege, tenant, category from eventstream.grants order by 1, 2, 3, 4"
            ),
            streams=streams,
            heads=sorted(rows(session, "select * from es_chain_heads()")),
            log_id=value(session, "select log_id from es_log_info()"),
            last=value(session, "select last_position from es_log_info()"),
            partitions=partitions(session),
            bounds=rows(
                session,
                "select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_inherits i join pg_class c on c.oid = i.inhrelid"
                " where i.inhparent = '_eventstream.events'::regclass order by 1",
            ),
        )


def assert_same_and_going_on(before: SimpleNamespace, database: Database) -> None:
    after = everything(database)
    assert after.default == before.default
    assert after.acme == before.acme
    assert after.grants == before.grants
    assert after.grants_acme == before.grants_acme
    assert after.streams == before.streams
    assert after.folds == before.folds and len(after.folds) == 2
    assert after.upcasters == before.upcasters and len(after.upcasters) == 1
    assert after.snapshots == before.snapshots and len(after.snapshots) >= 3
    assert after.states == before.states
    assert after.heads == before.heads
    assert after.log_id == before.log_id
    assert after.bounds == before.bounds
    assert after.last >= before.last
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []
        assert_immutable(session)
        # Snapshots still serve: they are of the folds as they came back.
        assert {is_current for *_, is_current, _ in after.snapshots} == {True}
        assert rows(session, "select * from es_verify_snapshots(thorough => true)") == []
        hits = value(session, "select value from eventstream.stats where name = 'snapshot_hits'")
        assert value(session, "select es_state_at_version('account-1', es_stream_version('account-1'))")
        assert value(session, "select value from eventstream.stats where name = 'snapshot_hits'") == hits + 1
        assert value(session, "select es_state_at_version('order-1', 1)") == {"was": None}
        assert value(session, "select payload::text from es_event(%s)", RETRIED) == value(
            session, "select %s::jsonb::text", NUMBERS
        )
        # A retry of what was written before is recognised; a conflict is one; a closed stream is closed.
        version = value(session, "select es_stream_version('account-1')")
        assert (
            value(
                session,
                "select es_append('account-1', 'Opened', %s::jsonb, 0, event_id => %s, schema_version => 3, subject => 'customer-7')",
                NUMBERS,
                RETRIED,
            )
            == 1
        )
        assert value(session, "select replayed from es_last_append()")
        for statement, sqlstate in (
            ("select es_append('account-1', 'Moved', '1', expected_version => 0)", "ES001"),
            ("select es_append('order-1', 'Moved', '1')", "ES003"),
        ):
            with pytest.raises(psycopg.Error) as refused:
                session.execute(statement)
            assert refused.value.sqlstate == sqlstate
        # Appends go on: the next version, a position beyond all others, a stream id and a tenant id of their own.
        assert value(session, "select es_append('account-1', 'Moved', '{}')") == version + 1
        assert value(session, "select global_position from es_last_append()") > before.last
        assert value(session, "select es_append('account-new', 'Opened', '{}', 0)") == 1
        session.execute("select es_create_tenant('umbrella')")
        # And over the next edge, ahead of need and at the last moment.
        rows(session, "select * from es_maintain()")
        for _ in range(2):
            edge = value(
                session,
                "select max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''?(\\d+)')::bigint)"
                " from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = '_eventstream.events'::regclass",
            )
            near_edge(session, 3, edge)
            for _ in range(6):
                session.execute("select es_append('account-1', 'Moved', '{}')")
        assert len(partitions(session)) >= len(before.partitions) + 2
        assert verify(session) == []
        assert_immutable(session)


@pytest.fixture(scope="module")
def source():
    """The filled database, on a server that every test of this file only reads."""
    server = Server("source", **SIZE, **STILL).create()
    database = Database(server, "books").create()
    fill(database)
    yield database
    server.destroy()


@pytest.fixture
def target(new_server):
    """Another cluster, which lacks the role auditor and all others but clerk."""
    server = new_server("target", **SIZE, **STILL)
    with server.connect("postgres") as admin:
        admin.execute("create role clerk login")
    return server


@pytest.mark.parametrize("form", ["plain", "custom -j 2", "directory -j 2"])
def test_a_dump_restores_whole_into_a_cluster_that_lacks_a_granted_role(source, target, form):
    before = everything(source)
    dump = WORK / f"dump-{target.name}-{uuid.uuid4().hex[:6]}"
    database = Database(target, "books").create(extension=False)
    to_source, to_target = source.server.address("books"), target.address("books")
    try:
        if form == "plain":
            run("pg_dump", "-f", dump, env=to_source)
            run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, env=to_target)
        else:
            run("pg_dump", f"-F{form[0]}", "-f", dump, *(["-j", "2"] if form.startswith("d") else []), env=to_source)
            run("pg_restore", "-d", "books", "--exit-on-error", "-j", "2", dump, env=to_target)
    finally:
        if dump.is_dir():
            shutil.rmtree(dump)
        else:
            dump.unlink(missing_ok=True)
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        assert value(session, "select role_exists from eventstream.grants where role = 'auditor'") is False
        # A copy can be told from the original.
        with source.connect() as original:
            original.execute("set eventstream.tenant = 'default'")
            statement = "select system_identifier from es_log_info()"
            assert value(session, statement) != value(original, statement)
    with database.connect("clerk") as clerk:
        clerk.execute("set eventstream.tenant = 'acme'")
        assert len(rows(clerk, "select * from es_read('account-1')")) == 1
    assert_same_and_going_on(before, database)


@pytest.fixture(scope="module")
def three_parts():
    """Streams that begin in the first partition and in the second; in the third they only go on."""
    server = Server("parts", **SIZE, **STILL).create()
    database = Database(server, "books").create()
    with database.connect() as session:
        session.execute("create schema ledger")
        session.execute("select es_append('account-1', 'Opened', '{}')")
        for number in range(2):
            near_edge(session, 1, 2**24 + number * 1024)
            for _ in range(2):
                session.execute("select es_append('account-1', 'Moved', '{}')")
            if number == 0:
                session.execute("select es_append('order-1', 'Placed', '{}')")
        assert partitions(session) == ["events_1", "events_16777216", "events_16778240"]
    yield database
    server.destroy()


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("-T _eventstream.events_16777216", "no partition holds the positions from 16777216 to 16778239"),
        ("-T _eventstream.events_16778240", 'stream "account-1" goes on at position 16778240, which no partition holds'),
        ("-n ledger -e eventstream", 'stream "order-1" begins at position 16777217, where no event is'),
        ("-n _eventstream", "belongs to no stream"),
        ("-t _eventstream.streams", 'stream "account-1" begins at position 1, where no event is'),
        ("-T _eventstream.positions", "the sequence of positions stands at 0, behind the event at 16778240"),
    ],
)
def test_health_tells_of_events_that_a_part_of_a_dump_left_out(three_parts, part, why):
    dump = run("pg_dump", *part.split(), env=three_parts.server.address(three_parts.name))
    copy = Database(three_parts.server, f"copy_{uuid.uuid4().hex[:6]}").create(extension="create extension" not in dump.lower())
    try:
        with three_parts.connect() as session:
            assert value(session, LOG) == "ok"
        run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", env=copy.server.address(copy.name), input=dump)
        with copy.connect() as session:
            ((status, detail, fix),) = rows(session, LOG)
            assert (status, why in detail) == ("critical", True), detail
            assert rows(session, fix)
    finally:
        copy.drop()


LOG = "select status, detail, fix from eventstream.health where name = 'log'"


def test_a_copy_within_the_server_is_told_by_the_oid_of_its_database(source):
    identity = (
        "select log.log_id, log.system_identifier, log.timeline, here.oid from es_log_info() log, pg_database here"
        " where here.datname = current_database()"
    )
    copy = Database(source.server, "books_copy")
    with source.server.connect("postgres") as admin:
        admin.execute(f'create database "{copy.name}" template "{source.name}"')
    try:
        with source.connect() as original, copy.connect() as copied:
            for session in (original, copied):
                session.execute("set eventstream.tenant = 'default'")
            (before,), (after,) = rows(original, identity), rows(copied, identity)
            assert before[:3] == after[:3]
            assert before[3] != after[3]
            # Nothing of the original's is held back or let through by what the copy does.
            copied.execute("begin")
            copied.execute("select es_append('order-2', 'Placed', '{}')")
            assert rows(original, "select * from eventstream.horizon_holders") == []
            assert len(rows(copied, "select * from eventstream.horizon_holders")) == 1
            copied.execute("rollback")
            assert verify(copied) == []
            copied.execute("select es_append('order-2', 'Placed', '{}')")
            assert verify(copied) == []
    finally:
        copy.drop()


def test_a_dump_taken_while_clients_append_restores_to_a_log_that_verifies(source, target):
    """pg_dump reads positions' sequence after its snapshot: what it dumps must still be beyond every event it dumps."""
    done = threading.Event()

    written = [0] * 4

    def write(number):
        with source.connect() as session:
            session.execute("set eventstream.tenant = 'default'")
            while not done.is_set():
                session.execute("select es_append(%s, 'Moved', '{}')", (f"busy-{number}",))
                written[number] += 1

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(written) > 20, 20, "the clients to append")
    dump = WORK / f"dump-busy-{uuid.uuid4().hex[:6]}"
    try:
        run("pg_dump", "-Fc", "-f", dump, env=source.server.address("books"))
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    database = Database(target, "books").create(extension=False)
    try:
        run("pg_restore", "-d", "books", "--exit-on-error", dump, env=target.address("books"))
    finally:
        dump.unlink(missing_ok=True)
    with database.connect() as session:
        assert verify(session) == []
        assert all(written)
        last = value(session, "select max(global_position) from _eventstream.events")
        session.execute("set eventstream.tenant = 'default'")
        version = value(session, "select es_stream_version('busy-0')")
        assert value(session, "select es_append('busy-0', 'Moved', '{}')") == version + 1
        assert value(session, "select global_position from es_last_append()") > last


def test_what_the_docs_say_about_a_data_only_restore_is_true_and_mends_it(source, target):
    """pg_dump --data-only --disable-triggers leaves guards that a replica role silences; docs/operate.md has the cure."""
    database = Database(target, "books").create(extension=False)
    schema, data = (WORK / f"dump-{part}-{uuid.uuid4().hex[:6]}" for part in ("schema", "data"))
    to_source, to_target = source.server.address("books"), target.address("books")
    try:
        run("pg_dump", "--schema-only", "-f", schema, env=to_source)
        run("pg_dump", "--data-only", "--disable-triggers", "-f", data, env=to_source)
        for dump in (schema, data):
            run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, env=to_target)
    finally:
        schema.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
    guide = (ROOT / "docs" / "operate.md").read_text()
    (cure,) = [block for block in re.findall(r"```sql\n(.*?)```", guide, re.DOTALL) if "enable always trigger" in block]
    with database.connect() as session:
        assert contents_of_all(session) == contents_of_all(source.connect())
        assert None in refusals(session).values(), "the docs warn of something that does not happen any more"
        session.execute(cure)
        assert_immutable(session)
        assert verify(session) == []


def contents_of_all(session) -> list[tuple]:
    return rows(session, "select global_position, stream_id, version, chain_hash from _eventstream.events order by 1")


@pytest.mark.parametrize("mode", ["--copy", "--link"])
def test_pg_upgrade_to_itself_keeps_the_log(new_server, mode):
    old = new_server("old", **SIZE)
    database = Database(old, "books").create()
    fill(database)
    before = everything(database)
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        settled = value(session, "select es_settled_until()")
    old.stop()
    new = Server("new", **SIZE)
    new_server.adopt(new)
    run("initdb", "-D", new.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    new.configure()
    arguments = [
        "-b",
        BIN,
        "-B",
        BIN,
        "-d",
        old.data,
        "-D",
        new.data,
        "-U",
        SUPERUSER,
        "-s",
        new.socket,
        "-p",
        PORT,
        "-P",
        PORT + 1,
    ]
    run("pg_upgrade", *arguments, *([mode] if mode != "--copy" else []), cwd=new.home)
    new.start()
    database = Database(new, "books")
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        assert value(session, "select es_settled_until()") >= settled
    assert_same_and_going_on(before, database)


# -- standby --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(new_server):
    primary = new_server("primary", wal_level="replica", max_wal_senders=4, **SIZE)
    database = Database(primary, "books").create()
    fill(database)
    standby = new_server.adopt(primary.make_standby("standby"))
    return database, Database(standby, "books")


def caught_up(primary: Database, standby: Database) -> None:
    with primary.connect() as session:
        target = value(session, "select pg_current_wal_flush_lsn()")
    with standby.connect() as session:
        wait_until(lambda: value(session, "select pg_last_wal_replay_lsn() >= %s", target), 30, "the standby to catch up")


READS = [
    "select * from es_read('account-1')",
    "select * from es_read('account-1', 3, 2)",
    "select * from es_read('account-1', backward => true)",
    "select * from es_read('account-1', until => '2024-02-02')",
    "select * from es_read_backward(max_count => 20)",
    "select * from es_read_backward(categories => '{order}')",
    "select * from es_read_subject('customer-7')",
    f"select * from es_event('{RETRIED}')",
    "select es_stream_version('account-1')",
    "select * from es_stream('account-1')",
    "select * from es_verify()",
    "select * from es_verify_stream('account-1')",
    "select * from es_chain_heads() order by 1, 2",
    "select * from eventstream.events order by global_position",
    "select * from eventstream.streams order by stream",
    "select log_id from es_log_info()",
    "select es_state('account-1')",
    "select * from eventstream.snapshots order by stream, fold, version",
    "select es_ulid('01890a5d-ac96-774b-bcce-b302099a8057')",
]


def test_a_hot_standby_serves_stream_reads_and_says_what_needs_the_primary(pair):
    primary, standby = pair
    caught_up(primary, standby)
    with primary.connect() as left, standby.connect() as right:
        for session in (left, right):
            session.execute("set eventstream.tenant = 'default'")
        for statement in READS:
            assert rows(right, statement) == rows(left, statement), statement
        assert value(right, "select horizon from es_log_info()") is None
        for statement in (
            "select * from es_read_all()",
            "select es_horizon()",
            "select es_settled_until()",
            "select * from eventstream.horizon_holders",
        ):
            with pytest.raises(psycopg.Error) as refused:
                right.execute(statement)
            assert refused.value.sqlstate == "ES009", statement
        for statement in (
            "select es_append('account-1', 'Moved', '{}')",
            """select es_append_events('account-1', '[{"type": "Moved", "payload": 1}]')""",
            "select es_create_tenant('late')",
            "select es_grant('clerk', 'read')",
            "select * from es_maintain()",
        ):
            with pytest.raises(psycopg.Error) as refused:
                right.execute(statement)
            assert refused.value.sqlstate in ("ES009", "25006"), statement
        # A partition that the primary makes appears in the standby's open session.
        before = partitions(right)
        near_edge(left, 3, 2**24 + 3 * 1024)
        for _ in range(6):
            left.execute("select es_append('account-1', 'Moved', '{}')")
        caught_up(primary, standby)
        assert len(partitions(right)) == len(before) + 1
        assert rows(right, READS[0]) == rows(left, READS[0])


@pytest.mark.parametrize("clean", [False, True], ids=["primary killed", "primary stopped"])
def test_a_promoted_standby_goes_on_without_reusing_a_version_or_a_position(pair, clean):
    primary, standby = pair
    with primary.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        # Positions that nobody used, shown to a consumer: they may not be used by the successor.
        for _ in range(40):
            with session.transaction(force_rollback=True):
                session.execute("select es_append('account-2', 'Undone', '{}')")
        noted = value(session, "select es_horizon()")
        settled = value(session, "select es_settled_until()")
    caught_up(primary, standby)
    before = everything(primary)
    caught_up(primary, standby)
    with standby.connect() as reader:
        reader.execute("set eventstream.tenant = 'default'")
        assert rows(reader, "select version from es_read('account-1')")
        if clean:
            primary.server.stop()
        else:
            primary.server.kill_everything()
        standby.server.promote()
        # A session that was there before the promotion appends after it.
        version = value(reader, "select es_stream_version('account-2')")
        assert value(reader, "select es_append('account-2', 'Moved', '{}')") == version + 1
        assert value(reader, "select global_position from es_last_append()") > max(noted, before.last)
        assert value(reader, "select recorded_at from es_read('account-2', backward => true, max_count => 1)") > settled
        assert value(reader, "select count(*) from es_read_all(%s)", noted) == 1
        assert value(reader, "select timeline from es_log_info()") == 2
        assert verify(reader) == []
        assert_immutable(reader)
