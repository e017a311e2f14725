"""The log grows into new partitions without anybody's append failing or waiting for a transaction that is not its own stream's."""

import json
import threading
import time
import uuid

import psycopg
import pytest
from database import Database, all_at_once, gaps, near_edge, partitions, raised, rows, value, verify
from psycopg.types.json import Jsonb
from server import SUPERUSER, WORK, run, wait_until


@pytest.fixture
def database(quiet):
    """Without workers: their upkeep would come in between."""
    return quiet

SIZE = 1024


@pytest.fixture
def small(new_server):
    """A server whose later partitions hold SIZE positions, with a database that stands near the first edge."""
    server = new_server("partitions", **{"eventstream.partition_size": SIZE})
    database = Database(server, "ledger").create()
    with database.connect() as session:
        near_edge(session, 200)
    return database


def newest_edge(session):
    return value(
        session,
        "select max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''?(\\d+)')::bigint)"
        " from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = '_eventstream.events'::regclass",
    )


def write(database, number, count=60):
    """Appends as a client does: single events, batches and several streams, on its own streams and a shared one."""
    with database.connect() as session:
        session.execute("set statement_timeout = '20s'")
        for turn in range(count):
            session.execute("select es_append(%s, 'Moved', '{}')", (f"account-{number}",))
            if turn % 5 == 0:
                session.execute("select es_append('account-shared', 'Moved', '{}')")
            if turn % 10 == 0:
                events = [{"type": "Moved", "payload": n} for n in range(20)]
                session.execute("select es_append_events(%s, %s)", (f"account-{number}", Jsonb(events)))
                session.execute(
                    "select * from es_append_streams(%s)",
                    (Jsonb([{"stream": f"{kind}-{number}", "events": events[:3]} for kind in ("a", "b")]),),
                )


def check(session, at_least):
    assert len(partitions(session)) >= at_least
    assert gaps(session) == []
    assert verify(session) == []


def test_sixteen_sessions_cross_the_edge_at_once_beside_a_long_transaction_that_has_appended(small):
    with small.connect(autocommit=False) as long:
        long.execute("select es_append('account-long', 'Before', '{}')")
        results = all_at_once(16, lambda number: write(small, number))
        assert raised(results) == []
        # The long one has the old partitions in its plans and locks; it goes on in the newest.
        assert value(long, "select es_append('account-long', 'After', '{}')") == 2
        assert value(long, "select es_append('account-0', 'After', '{}')") > 60
        long.commit()
    with small.connect() as session:
        check(session, 3)
        assert value(session, "select count(*) from es_read('account-long')") == 2


def test_a_long_repeatable_read_transaction_crosses_the_edge_too(small):
    with small.connect(autocommit=False) as long:
        long.execute("set transaction isolation level repeatable read")
        long.execute("select es_append('account-long', 'Before', '{}')")
        assert raised(all_at_once(4, lambda number: write(small, number))) == []
        assert value(long, "select es_append('account-long', 'After', '{}')") == 2
        assert value(long, "select count(*) from es_read('account-long')") == 2
        long.commit()
    with small.connect() as session:
        check(session, 2)


def test_a_batch_larger_than_a_partition_spans_several(small):
    with small.connect() as session:
        events = [{"type": "Moved", "payload": n} for n in range(3 * SIZE)]
        assert value(session, "select es_append_events('account-1', %s)", Jsonb(events)) == 3 * SIZE
        assert [version for (version,) in rows(session, "select version from es_read('account-1')")] == list(
            range(1, 3 * SIZE + 1)
        )
        check(session, 3)


def test_what_a_restore_brings_after_an_append_that_was_undone_is_built_on(small):
    """What the undone one left in shared memory of the log's end is not where the restored log ends."""
    copy, folder = Database(small.server, "copy"), WORK / f"dump-{uuid.uuid4().hex}"
    restore = ("pg_restore", "-h", small.server.socket, "-U", SUPERUSER, "--exit-on-error", "-d", copy.name)
    with small.connect() as session:
        events = [{"type": "Moved", "payload": n} for n in range(2 * SIZE)]
        session.execute("select es_append_events('account-1', %s)", (Jsonb(events),))
    run("pg_dump", "-h", small.server.socket, "-U", SUPERUSER, "-Fd", "-f", folder, small.name)
    copy.create(extension=False)
    run(*restore, "--section=pre-data", folder)
    with copy.connect(autocommit=False) as session:
        session.execute("select es_append('account-2', 'Moved', '{}')")
        session.rollback()
    run(*restore, "--section=data", "--section=post-data", folder)
    for version in (2 * SIZE + 1, 2 * SIZE + 2):
        with copy.connect() as session:
            assert value(session, "select es_append('account-1', 'Moved', '{}')") == version
    with copy.connect() as session:
        check(session, 3)


@pytest.mark.parametrize("expected", [1, 250, 300])
def test_a_version_is_judged_by_the_newest_event_wherever_the_expected_one_lies(small, expected):
    """In another partition than the newest event, beside it, and nowhere."""
    with small.connect() as session:
        events = [{"type": "Moved", "payload": n} for n in range(299)]
        session.execute("select es_append_events('account-1', %s)", (Jsonb(events),))
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_append('account-1', 'Moved', '{}', %s)", (expected,))
        assert (error.value.sqlstate, json.loads(error.value.diag.message_detail)["actual_version"]) == ("ES001", 299)
        assert value(session, "select es_append('account-1', 'Moved', '{}', 299)") == 300
        check(session, 2)


def test_a_streams_row_stays_as_it_is_when_the_stream_enters_partitions(small):
    """Nobody who waits for the row meets another version of it, and vacuum nothing dead."""
    with small.connect() as session:
        session.execute("select es_append('account-1', 'Moved', '{}')")
        where = "select ctid, xmin from _eventstream.streams where name = 'account-1'"
        before = rows(session, where)
        for _ in range(3):
            near_edge(session, 1, newest_edge(session))
            session.execute("select es_append('account-1', 'Moved', '{}') from generate_series(1, 3)")
        entered = value(session, "select count(*) from _eventstream.stream_segments")
        assert (entered, rows(session, where)) == (3, before)
        assert value(session, "select es_stream_version('account-1')") == 10
        assert value(session, "select version from eventstream.streams where stream = 'account-1'") == 10
        check(session, 4)


def test_a_partition_survives_the_rollback_of_the_append_that_needed_it(small):
    with small.connect(autocommit=False) as session:
        events = [{"type": "Moved", "payload": n} for n in range(300)]
        session.execute("select es_append_events('account-1', %s)", (Jsonb(events),))
        session.rollback()
        assert value(session, "select es_append('account-1', 'Moved', '{}')") == 1
        session.commit()
        session.autocommit = True
        check(session, 2)


def test_no_append_waits_for_the_long_transaction_of_whoever_made_the_partition(small):
    """The append that crosses the edge first stays open; had it made the partition itself, its lock would stop everybody."""
    with small.connect(autocommit=False) as first:
        events = [{"type": "Moved", "payload": n} for n in range(300)]
        first.execute("select es_append_events('account-first', %s)", (Jsonb(events),))
        results = all_at_once(8, lambda number: write(small, number, 200), seconds=40)
        assert raised(results) == []
        first.commit()
    with small.connect() as session:
        check(session, 4)


def test_es_maintain_makes_partitions_ahead_of_need(small):
    with small.connect() as session:
        before = partitions(session)
        rows(session, "select * from es_maintain()")
        ahead = partitions(session)
        assert len(ahead) > len(before)
        rows(session, "select * from es_maintain()")
        assert partitions(session) == ahead, "a second call had nothing to do"
        near_edge(session, 2)
        for _ in range(5):
            session.execute("select es_append('account-1', 'Moved', '{}')")
        check(session, len(ahead))


def test_many_sessions_maintain_and_append_at_once(small):
    def work(number):
        if number % 4:
            return write(small, number, 30)
        with small.connect() as session:
            for _ in range(10):
                rows(session, "select * from es_maintain()")

    assert raised(all_at_once(12, work)) == []
    with small.connect() as session:
        check(session, 2)


def test_vacuum_analyze_and_reindex_run_beside_sessions_that_cross_edges(small):
    done = threading.Event()
    errors = []

    def tidy():
        try:
            with small.connect() as session:
                while not done.is_set():
                    session.execute("vacuum (analyze) _eventstream.events")
                    session.execute("analyze _eventstream.events")
                    session.execute("vacuum _eventstream.streams")
                    session.execute("reindex table concurrently _eventstream.events_1")
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    thread = threading.Thread(target=tidy, daemon=True)
    thread.start()
    results = all_at_once(8, lambda number: write(small, number, 80), seconds=50)
    done.set()
    thread.join(30)
    assert raised(results) == []
    assert errors == []
    with small.connect() as session:
        check(session, 3)


def test_a_backup_that_holds_every_table_holds_up_nobody(small):
    """pg_dump keeps ACCESS SHARE on all tables and an old snapshot for hours."""
    with small.connect(autocommit=False) as backup:
        backup.execute("set transaction isolation level repeatable read, read only")
        for table in ("events", "streams", "stream_segments", *partitions(backup)):
            backup.execute(f"lock table _eventstream.{table} in access share mode")
        results = all_at_once(8, lambda number: write(small, number, 60), seconds=40)
        assert raised(results) == []
        backup.rollback()
    with small.connect() as session:
        check(session, 2)


def test_appends_at_the_edge_wait_for_a_lock_that_forbids_a_partition_and_then_succeed(small):
    """SHARE UPDATE EXCLUSIVE on the log itself, as a superuser's ANALYZE or CREATE STATISTICS takes it."""
    with small.connect() as session:
        near_edge(session, 3)
    with small.connect(autocommit=False) as holder:
        holder.execute("lock table only _eventstream.events in share update exclusive mode")
        release = threading.Timer(4, holder.rollback)
        release.start()
        results = all_at_once(6, lambda number: write(small, number, 5), seconds=40)
        release.join()
    assert raised(results) == []
    with small.connect() as session:
        check(session, 2)


def test_an_append_succeeds_without_a_free_worker_slot(new_server):
    server = new_server(
        "slotless",
        max_worker_processes=0,
        max_parallel_workers=0,
        max_logical_replication_workers=0,
        **{"eventstream.partition_size": SIZE},
    )
    database = Database(server, "ledger").create()
    with database.connect() as session:
        # Nobody can make it ahead of need: health says so with nearly all of the room left.
        near_edge(session, 2**24 - 2**18)
        status, detail, fix = health(session)
        assert status == "warning" and "max_worker_processes is 0" in detail and "set max_worker_processes = 6" in fix
        near_edge(session, 100)
        assert health(session)[0] == "critical"
    with database.connect(autocommit=False) as long:
        long.execute("select es_append('account-long', 'Before', '{}')")
        assert raised(all_at_once(8, lambda number: write(database, number, 20), seconds=40)) == []
        long.execute("select es_append('account-long', 'After', '{}')")
        long.commit()
    with database.connect() as session:
        check(session, 2)


def health(session):
    return rows(session, "select status, detail, fix from eventstream.health where name = 'partitions'")[0]


def test_where_no_worker_can_be_had_the_launcher_makes_the_next_partition_ahead_of_need(new_server):
    """An append asks it and does not wait; until it is made, health says that it is not there, and why."""
    server = new_server("launcher_ahead", max_worker_processes=1, max_parallel_workers=0, max_logical_replication_workers=0,
                        **{"eventstream.partition_size": SIZE})  # fmt: skip
    database = Database(server, "ledger").create()
    with database.connect() as session:
        near_edge(session, 2**24 - 2**18)
        status, detail, fix = health(session)
        assert status == "warning" and "no worker process could be had to make it (max_worker_processes is 1)" in detail
        assert "set max_worker_processes = 7" in fix

        def appended():
            session.execute("select es_append('account-1', 'Moved', '{}')")
            return len(partitions(session)) == 2

        # Far from the edge.
        wait_until(appended, 60, "the next partition")
        assert health(session)[0] == "ok"
        assert value(session, "select max(global_position) from _eventstream.events") < 2**24 - 2**17


def test_with_all_worker_slots_taken_no_append_waits_for_the_stranger_who_crosses_the_edge_first(new_server):
    """The launcher has the only slot: it makes the partition, in a transaction of its own, and serves on."""
    server = new_server(
        "launcher_only",
        max_worker_processes=1,
        max_parallel_workers=0,
        max_logical_replication_workers=0,
        **{"eventstream.partition_size": SIZE},
    )
    database = Database(server, "ledger").create()
    launcher = "select pid from pg_stat_activity where backend_type = 'eventstream launcher'"
    with database.connect() as session:
        near_edge(session, 3)
        before = wait_until(lambda: value(session, launcher))
    with database.connect(autocommit=False) as long:
        for _ in range(6):
            long.execute("select es_append('account-long', 'Moved', '{}')")
        assert raised(all_at_once(4, lambda number: write(database, number, 3), seconds=40)) == []
        with database.connect() as session:
            held = "select count(*) from pg_locks where relation = '_eventstream.events'::regclass and mode = 'ShareUpdateExclusiveLock'"
            assert value(session, held) == 0
        long.commit()
    with database.connect() as session:
        check(session, 2)
        assert wait_until(lambda: value(session, launcher)) != before


def test_an_append_crosses_the_edge_without_preload(new_server):
    server = new_server("unloaded", preload=False)
    database = Database(server, "ledger").create()
    with database.connect() as session:
        near_edge(session, 10)
    assert raised(all_at_once(4, lambda number: write(database, number, 10), seconds=40)) == []
    with database.connect() as session:
        check(session, 2)


def test_a_user_without_rights_on_anything_crosses_the_edge(small):
    role = small.role("cashier")
    with small.connect() as session:
        session.execute("select es_grant('cashier', 'append')")
        near_edge(session, 3)
    with small.connect(role) as cashier:
        for expected in range(1, 10):
            assert value(cashier, "select es_append('account-1', 'Moved', '{}')") == expected
    with small.connect() as session:
        owners = rows(
            session,
            "select distinct c.relowner = p.relowner from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " join pg_class p on p.oid = i.inhparent where i.inhparent = '_eventstream.events'::regclass",
        )
        assert owners == [(True,)], "a partition belongs to whoever happened to append"
        check(session, 2)


def test_every_partition_looks_like_the_first(small):
    with small.connect() as session:
        write(small, 1, 300)
        near_edge(session, 2, newest_edge(session))
        write(small, 1, 2)
        looks = set()
        for partition in partitions(session):
            columns = rows(
                session,
                "select attname, atttypid::regtype::text, attnotnull, attstorage, attcompression"
                " from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum",
                f"_eventstream.{partition}",
            )
            indexes = rows(
                session,
                "select indisunique, indkey::text, pg_get_expr(indpred, indrelid), indisvalid,"
                " exists(select 1 from pg_inherits where inhrelid = indexrelid) from pg_index"
                " where indrelid = %s::regclass order by 2, 3",
                f"_eventstream.{partition}",
            )
            triggers = rows(
                session,
                "select tgtype, tgenabled, tgfoid::regproc::text from pg_trigger where tgrelid = %s::regclass order by 1, 3",
                f"_eventstream.{partition}",
            )
            rest = rows(
                session,
                "select relowner, relacl::text, relpersistence, reloptions::text from pg_class where oid = %s::regclass",
                f"_eventstream.{partition}",
            )
            looks.add((tuple(columns), tuple(indexes), tuple(triggers), tuple(rest)))
        assert len(partitions(session)) >= 3
        assert len(looks) == 1


def test_an_append_takes_locks_on_few_partitions_however_many_there_are(small):
    """Flat cost, without a clock: an append and a read of one stream lock the parent and the newest partition, not all."""
    with small.connect() as session:
        for _ in range(30):
            near_edge(session, 2, newest_edge(session))
            for _ in range(3):
                session.execute("select es_append('account-1', 'Moved', '{}')")
        assert len(partitions(session)) >= 30
    with small.connect(autocommit=False) as session:
        session.execute("select es_append('account-1', 'Moved', '{}')")
        session.execute("select es_append('account-2', 'Moved', '{}')")
        locked = value(
            session,
            "select count(distinct c.relname) from pg_locks l join pg_class c on c.oid = l.relation"
            " where l.pid = pg_backend_pid() and c.relname like 'events\\_%' and c.relkind = 'r'",
        )
        assert locked <= 3
        session.rollback()


def test_drop_extension_removes_everything_and_create_begins_anew_in_open_sessions(small):
    with small.connect() as other, small.connect() as session:
        write(small, 1, 200)
        other.execute("select es_append('account-1', 'Moved', '{}')")
        assert rows(other, "select * from es_read('account-1')")
        session.execute("set eventstream.allow_drop = on; drop extension eventstream")
        left = rows(
            session,
            "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname in ('_eventstream', 'eventstream')"
            " union all select oid::regprocedure::text from pg_proc where proname like 'es\\_%'"
            " union all select nspname from pg_namespace where nspname in ('_eventstream', 'eventstream')",
        )
        assert left == []
        session.execute("create extension eventstream")
        # The other session holds plans and object ids of what is gone.
        assert value(other, "select es_append('account-1', 'Moved', '{}')") == 1
        assert value(other, "select count(*) from es_read('account-1')") == 1
        assert value(other, "select count(*) from es_read_all()") == 1
        assert verify(other) == []


def test_drop_database_does_not_hang_after_appends(small):
    write(small, 1, 20)
    began = time.monotonic()
    with small.server.connect("postgres") as admin:
        wait_until(
            lambda: (
                value(
                    admin,
                    "select count(*) from pg_stat_activity where datname = %s and backend_type = 'client backend'",
                    small.name,
                )
                == 0
            ),
            10,
            "the writer's session to end",
        )
        admin.execute(f'drop database "{small.name}"')
    assert time.monotonic() - began < 20


def test_every_index_holds_every_event_also_one_that_a_dba_added_under_load(small):
    """amcheck looks up each row of each partition in each of its indexes; events are inserted by the shortest way there is."""
    with small.connect() as session:
        if not rows(session, "select from pg_available_extensions where name = 'amcheck'"):
            pytest.skip("amcheck is not installed")
        session.execute("create extension amcheck")
        # However soon the DBA is done, the clients' first events are over the edge.
        near_edge(session, 30)
        session.execute("create index early on _eventstream.events_1 (((payload->>0)::int)) where event_type = 'Moved'")
        done = threading.Event()

        def load(number):
            while True:
                write(small, number, 5)
                with small.connect(autocommit=False) as undone:
                    undone.execute("select es_append(%s, 'Undone', '[1]', subject => 'customer-7')", (f"account-{number}",))
                    undone.rollback()
                    undone.execute(
                        "select es_append(%s, 'Late', %s, occurred_at => '2020-01-01', subject => 'customer-7')",
                        (f"account-{number}", Jsonb(["x" * 5000])),
                    )
                    undone.commit()
                if done.is_set():
                    return

        def index(_):
            try:
                with small.connect() as dba:
                    for round_ in range(3):
                        for partition in partitions(dba):
                            dba.execute(
                                f"create index concurrently late_{round_}_{partition} on _eventstream.{partition} (recorded_by, version)"
                            )
                        dba.execute("vacuum _eventstream.events")
            finally:
                done.set()

        results = all_at_once(6, lambda number: index(number) if number == 0 else load(number), seconds=60)
        assert raised(results) == []
        indexes = rows(
            session,
            "select i.indexrelid::regclass::text, bt_index_check(i.indexrelid, true) from pg_index i"
            " join pg_inherits h on h.inhrelid = i.indrelid where h.inhparent = '_eventstream.events'::regclass",
        )
        names = [name for name, _ in indexes]
        assert any("early" in name for name in names) and any("late_2" in name for name in names)
        check(session, 2)
