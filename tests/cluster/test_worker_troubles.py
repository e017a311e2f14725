"""What goes wrong around background workers keeps no projection waiting, and fills no log: notifications that cannot be sent, statements that are
prepared, a schema that is another version's, too few worker processes, a SIGTERM at any moment.
"""

import threading
import time

import psycopg
import pytest
from database import Database, near_edge, partitions, value
from server import wait_until
from test_partitions import newest_edge
from workers import append, make_projection, wait_for_workers, wait_until_exact


def followed(server, **settings) -> Database:
    """A database in which a projection follows the log."""
    database = Database(server, "followed").create()
    make_projection(database, **settings)
    append(database)
    wait_until_exact(database)
    return database


def is_waiting_for(server, kind: str, event: str) -> bool:
    """Whether such a worker waits for a lock of that kind."""
    with server.connect("postgres") as admin:
        found = "select exists (select from pg_stat_activity where backend_type = %s and wait_event_type = 'Lock' and wait_event = %s)"
        return value(admin, found, f"eventstream {kind}", event)


def lines_of_log(server, text: str) -> int:
    return sum(text in line for line in server.log.read_text(errors="replace").splitlines())


# -- notifications --------------------------------------------------------------------------------------------------------


def test_projections_move_while_no_notification_can_be_sent(new_server):
    """A commit that notifies and waits for a standby keeps the lock of the queue, for everybody on the server."""
    server = new_server("mute", **{"eventstream.durability": "session", "synchronous_commit": "local"})
    database = followed(server)
    server.configure(synchronous_standby_names="nobody")
    server.reload()
    with database.connect() as listener:
        listener.execute("listen eventstream")
        holder = database.connect()
        pid = holder.info.backend_pid

        def hang():
            with pytest.raises(psycopg.Error):
                holder.execute("set synchronous_commit = on; begin; create table written(); notify other; commit")
                raise AssertionError("it did not wait")

        hanging = threading.Thread(target=hang, daemon=True)
        hanging.start()
        there = "select exists (select from pg_stat_activity where pid = %s and wait_event = 'SyncRep')"
        wait_until(lambda: value(listener, there, pid), 10, "the holder to wait for its standby")
        for _ in range(3):
            append(database, 5)
            wait_until_exact(database, seconds=4)
        assert lines_of_log(server, "could not notify") > 0
        listener.execute("select pg_terminate_backend(%s)", (pid,))
        hanging.join(10)
        # What could not be told is told later.
        last = value(listener, "select es_horizon()")
        heard = [int(one.payload) for one in listener.notifies(timeout=10, stop_after=1)]
        assert heard == [last]


# -- statements -------------------------------------------------------------------------------------------------------------


def test_a_database_can_be_made_by_the_template_that_is_default(new_server):
    server = new_server("plain")
    with server.connect("postgres") as admin:
        admin.execute("create database made template default")
        assert value(admin, "select count(*) from pg_database where datname = 'made'") == 1


def test_a_prepared_extension_is_served_when_it_is_committed(new_server):
    server = new_server("prepared", max_prepared_transactions=2)
    database = Database(server, "prepared").create(extension=False)
    with database.connect(autocommit=False) as session:
        session.execute("create extension eventstream")
        session.execute("prepare transaction 'made'")
        session.autocommit = True
        # Not of this session's next transaction: a scheduler would come, and find nothing.
        session.execute("create table later()")
        time.sleep(1)
        session.execute("commit prepared 'made'")
    wait_for_workers(database, "scheduler", 1, 5)
    make_projection(database)
    append(database)
    wait_until_exact(database, seconds=5)


def test_a_change_cannot_be_prepared_and_the_next_one_is_seen(new_server):
    """It is an act of administration, which becomes an event at a commit."""
    server = new_server("resumed", max_prepared_transactions=2, **{"eventstream.idle_interval": "60s"})
    database = followed(server)
    with database.connect() as session:
        session.execute("select es_pause_projection('seen')")
        append(database, 3)
        time.sleep(1)
        session.execute("begin")
        session.execute("select es_resume_projection('seen')")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="after an act of administration"):
            session.execute("prepare transaction 'resumed'")
        session.execute("select es_resume_projection('seen')")
    wait_until_exact(database, seconds=5)


# -- worker processes ---------------------------------------------------------------------------------------------------------


def test_a_runner_that_is_taken_away_is_no_failure_of_its_projection(new_server):
    server = new_server("sharing", **{"eventstream.max_workers": 2})
    database = Database(server, "sharing").create()
    names = ("one", "other")
    for name in names:
        make_projection(database, name, "perform pg_sleep(60);", max_retries=0, batch_size=1)
    append(database)

    def asleep(count):
        with server.connect("postgres") as admin:
            busy = "select count(*) from pg_stat_activity where backend_type = 'eventstream runner' and wait_event = 'PgSleep'"
            return value(admin, busy) == count

    for _ in range(7):
        for most in (2, 1):
            server.configure(eventstream__max_workers=most)
            server.reload()
            wait_for_workers(database, "runner", most)
            wait_until(lambda: asleep(most), 10, f"{most} handlers to run")
    with database.connect() as session:
        assert value(session, "select array_agg(distinct status || attempts) from eventstream.projections") == ["running0"]


def alone(new_server, **settings):
    """A server with room for the launcher and one scheduler, which does the work itself."""
    return new_server("alone", max_worker_processes=2, max_logical_replication_workers=0, **settings)


def test_a_scheduler_that_works_itself_reports_what_it_wrote(new_server):
    database = followed(alone(new_server))
    append(database, 20)
    wait_until_exact(database)
    with database.connect() as session:
        written = "select n_tup_ins from pg_stat_user_tables where relname = 'seen'"
        wait_until(lambda: value(session, written) == 21, 15, "the statistics of what it wrote")


def test_what_wakes_a_scheduler_that_waits_for_a_lock_is_not_lost(new_server):
    # The alarm of the deadlock timeout, which may ring after the wait is over, would wake it, too.
    server = new_server("waiting", deadlock_timeout="60s", **{"eventstream.idle_interval": "60s"})
    database = followed(server)
    # From the next append on, nothing but it is due for 5 seconds: neither upkeep nor an idle look.
    time.sleep(6)
    append(database)
    wait_until_exact(database)
    with database.connect(autocommit=False) as session:
        # Only health looks at it: a second after the last time, because the log has moved since.
        session.execute("lock table _eventstream.subscription_leases")
        append(database)
        wait_until_exact(database)
        wait_until(lambda: is_waiting_for(server, "scheduler", "relation"), 5, "the scheduler to wait for a lock")
        append(database)
        time.sleep(0.2)
    wait_until_exact(database, seconds=2)


# -- what fails again and again -------------------------------------------------------------------------------------------------


def test_a_schema_of_another_version_does_not_fill_the_log(new_server):
    server = new_server("foreign")
    database = followed(server)
    with database.connect() as session:
        session.execute("set eventstream.allow_drop = on; alter table _eventstream.projections rename column mode to kind_of_mode")
        session.execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'eventstream scheduler'")
        time.sleep(15)
        # After 1, 3 and 7 seconds, not each second.
        assert 2 <= lines_of_log(server, "LOG:  eventstream scheduler in database ") <= 5
        session.execute("alter table _eventstream.projections rename column kind_of_mode to mode")
        append(database)
        # It need not be waited for.
        server.reload()
    wait_until_exact(database, seconds=3)


def test_a_failure_that_cannot_be_noted_does_not_fill_the_log(new_server):
    server = new_server("unnoted")
    database = followed(server)
    with database.connect() as session:
        session.execute("set eventstream.allow_drop = on; alter table _eventstream.projection_progress rename column error_sqlstate to sqlstate")
        append(database)
        time.sleep(12)
        assert 2 <= lines_of_log(server, "could not be noted") <= 5
        session.execute("alter table _eventstream.projection_progress rename column sqlstate to error_sqlstate")
    wait_until_exact(database, seconds=20)


# -- ends ---------------------------------------------------------------------------------------------------------------------


def test_a_worker_that_makes_a_partition_can_be_terminated_at_any_moment(new_server):
    """Also in a critical section, where an error is a PANIC of the whole server: it spends most of its time there, because it has little room
    for its WAL and writes it through.
    """
    server = new_server("terminated", fsync=True, wal_buffers="32kB", wal_sync_method="open_sync", **{"eventstream.max_workers": 0})
    database = Database(server, "terminated").create()
    database.make_partitions_small()
    hunt = """
        do $$
        declare
            found int;
            ends timestamptz := clock_timestamp() + interval '2 s';
        begin
            loop
                perform pg_stat_clear_snapshot();
                select pid into found from pg_stat_activity 
                where backend_type in ('eventstream partition maker', 'eventstream launcher') and datname = current_database();
                exit when found is not null or clock_timestamp() > ends;
            end loop;
            perform pg_sleep(random() * 0.02);
            perform pg_terminate_backend(found);
        end $$"""
    with database.connect() as session, database.connect() as hunter:
        killed = 0
        for _ in range(40):
            before = len(partitions(session))
            near_edge(session, 1, newest_edge(session))
            hunting = threading.Thread(target=hunter.execute, args=(hunt,), daemon=True)
            hunting.start()
            # The launcher makes it ahead of need, where no worker of the database can be had; the append does it itself, in the end.
            session.execute("select es_append('account-1', 'Opened', '{}'), es_append('account-1', 'Opened', '{}')")
            hunting.join(15)
            assert len(partitions(session)) > before
        killed = lines_of_log(server, 'terminating background worker "eventstream')
    assert killed > 0 and lines_of_log(server, "PANIC") == 0
