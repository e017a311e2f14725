"""Background workers: projections move by themselves, an idle database costs nothing, and no statement, stop or death of a process
ever hangs on a worker, or needs a person.
"""

import os
import pathlib
import time

import psycopg
import pytest
from database import Database, all_at_once, near_edge, partitions, raised, value
from server import is_alive, kill_9, wait_until
from workers import append, is_exact, is_sleeping, make_projection, quickly, wait_for_workers, wait_until_exact, workers

ROUNDS = int(os.environ.get("ROUNDS", "6"))


@pytest.fixture
def served(new_server):
    """A server of its own, and a database in which a projection follows the log."""
    server = new_server("workers", max_worker_processes=12)
    database = Database(server, "served").create()
    make_projection(database)
    append(database)
    wait_until_exact(database)
    return database


# -- following ------------------------------------------------------------------------------------------------------------


def test_projections_follow_the_log_by_themselves(served):
    for name in ("second", "third"):
        make_projection(served, name)
    assert raised(all_at_once(4, lambda number: append(served, 100, f"account-{number}"))) == []
    wait_until_exact(served, "seen", "second", "third")


def test_a_commit_is_visible_soon_and_its_waiter_is_woken(served):
    with served.connect() as session:
        took = []
        for _ in range(50):
            session.execute("select es_append('account-1', 'Opened', '{}')")
            began = time.monotonic()
            session.execute("select es_wait_for('seen')")
            took.append(time.monotonic() - began)
        # Without a wake-up it would be the scheduler's idle_interval, or the waiter's 100 ms.
        assert sorted(took)[len(took) // 2] < 0.05
        assert is_exact(session)


def test_an_event_behind_an_older_open_append_is_seen_once_in_order(served):
    with served.connect(autocommit=False) as older:
        older.execute("select es_append('account-2', 'Opened', '{}')")
        append(served, 5)
        time.sleep(0.3)
        with served.connect() as session:
            assert value(session, "select count(*) from seen") == 1
        older.commit()
        wait_until_exact(served)
        # The end of a rolled back append moves the horizon, too.
        older.execute("select es_append('account-2', 'Opened', '{}')")
        append(served, 5)
        older.rollback()
        wait_until_exact(served)


def test_an_idle_database_costs_nothing(served):
    pids = [pid for kind in ("launcher", "scheduler", "runner") for pid in workers(served.server, kind)]
    assert len(pids) == 3
    time.sleep(2)

    def cost():
        status = [pathlib.Path("/proc", str(pid), "status").read_text() for pid in pids]
        stat = [pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split() for pid in pids]
        wakeups = sum(int(line.split()[1]) for text in status for line in text.splitlines() if line.startswith("voluntary_ctxt"))
        return wakeups, sum(int(one[11]) + int(one[12]) for one in stat)

    wakeups, ticks = cost()
    time.sleep(15)
    wakeups_after, ticks_after = cost()
    assert wakeups_after - wakeups < 15
    # One per cent of a processor, in ticks of 10 ms: the bench measures what it is, on a machine that does nothing else.
    assert ticks_after - ticks < 15


def test_listeners_are_told_the_newest_settled_position(served):
    with served.connect() as listener:
        listener.execute("listen eventstream")
        append(served, 200)
        last = served.connect().execute("select es_horizon()").fetchone()[0]
        heard = []
        for notification in listener.notifies(timeout=5):
            heard.append(int(notification.payload))
            if heard[-1] == last:
                break
        assert heard[-1] == last and heard == sorted(heard)
        # Coalesced: far fewer than appends.
        assert len(heard) < 100


def test_what_the_database_sets_for_its_sessions_does_not_stop_workers(served):
    served.role("nobody_much", "nologin")
    with served.connect() as session:
        for setting in (
            "default_transaction_read_only = on", "default_transaction_isolation = serializable", "statement_timeout = '1ms'",
            "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'", "role = nobody_much", "search_path = nowhere",
            "session_replication_role = replica", "idle_session_timeout = '100ms'",
        ):  # fmt: skip
            session.execute(f'alter database "{served.name}" set {setting}')
        before = workers(served.server, "scheduler")[0]
        session.execute("select pg_terminate_backend(%s)", (before,))
        wait_until(lambda: workers(served.server, "scheduler") not in ([], [before]), 15, "another scheduler")
        for line in ("statement_timeout = 0", "lock_timeout = 0", "idle_session_timeout = 0", "session_replication_role = origin"):
            session.execute(f"set {line}")
        session.execute("select es_append('account-1', 'Opened', '{}')")
    time.sleep(0.3)
    with served.server.connect("postgres") as admin:
        admin.execute(f'alter database "{served.name}" reset all')
    wait_until_exact(served)


def test_upkeep_goes_on_by_itself(new_server):
    """Partitions are made ahead, due snapshots taken, and changes of health told, where no projection runs either."""
    server = new_server("upkeep", log_min_messages="warning")
    database = Database(server, "upkeep").create()
    database.make_partitions_small()
    with database.connect() as session, database.connect() as listener:
        listener.execute("listen eventstream_alert")
        session.execute(
            "select es_register_fold('count', 'account', rules => %s, initial_state => '{\"n\": 0}', snapshot_every => 10)",
            ('{"on": {"Opened": [{"add": {"/n": "/amount"}}]}}',),
        )
        for _ in range(30):
            session.execute("select es_append('account-1', 'Opened', '{\"amount\": 1}')")
        wait_until(lambda: value(session, "select count(*) > 0 from eventstream.snapshots"), 30, "a snapshot")
        near_edge(session, 5)
        session.execute("select es_append('account-1', 'Opened', '{\"amount\": 1}')")
        wait_until(lambda: len(partitions(session)) == 2, 30, "a partition ahead")
        make_projection(database, body="raise 'no';", max_retries=0)
        heard = next(listener.notifies(timeout=20, stop_after=1), None)
        assert heard is not None and "projection" in heard.payload


# -- settings ------------------------------------------------------------------------------------------------------------


def test_max_workers_takes_effect_by_a_reload(served):
    for number in range(5):
        make_projection(served, f"p{number}")
    for most in (2, 4, 1, 0, 3):
        served.server.configure(eventstream__max_workers=most)
        served.server.reload()
        wait_for_workers(served, "runner", most)
        wait_for_workers(served, "scheduler", 1 if most else 0)
        append(served, 3)
        if most:
            wait_until_exact(served, "seen", *(f"p{number}" for number in range(5)))
        else:
            time.sleep(0.5)
            with served.connect() as session:
                assert not is_exact(session)


def test_runners_stay_when_they_are_not_needed_for_a_moment(served):
    """With the states that they keep: whoever pauses a projection resumes it."""
    make_projection(served, "second")
    runners = wait_for_workers(served, "runner", 2)
    with served.connect() as session:
        session.execute("select es_pause_projection('second')")
        append(served)
        wait_until_exact(served)
        time.sleep(1)
        session.execute("select es_resume_projection('second')")
    append(served)
    wait_until_exact(served, "seen", "second")
    assert workers(served.server, "runner", served.name) == runners


def test_databases_are_chosen_by_a_reload(served):
    other = Database(served.server, "other").create()
    make_projection(other)
    for listed, here, there in (("other", 0, 1), ("served, other", 1, 1), ("served", 1, 0), ("", 0, 0), ("*", 1, 1)):
        served.server.configure(eventstream__databases=listed)
        served.server.reload()
        wait_for_workers(served, "scheduler", here)
        wait_for_workers(other, "scheduler", there)
        wait_for_workers(served, "runner", here)
    append(other)
    wait_until_exact(other)


@pytest.mark.parametrize("processes, databases", [(2, 1), (3, 1), (3, 2), (5, 3)])
def test_too_few_worker_processes_still_advance_everything(new_server, processes, databases):
    # The launcher takes one of them, and would share them with that of logical replication.
    server = new_server("few", max_worker_processes=processes, max_logical_replication_workers=0)
    names = ("seen", "second", "third")
    # One after another, so that the first one has taken all that there is when the others come.
    for number in range(databases):
        database = Database(server, f"db{number}").create()
        for name in names:
            make_projection(database, name)
        append(database, 20)
        wait_until_exact(database, *names, seconds=40)
    for number in range(databases):
        database = Database(server, f"db{number}")
        append(database, 20)
        wait_until_exact(database, *names, seconds=40)


# -- statements that want a database for themselves ------------------------------------------------------------------------------


def test_the_extension_comes_and_goes_under_workers(served):
    """Also while a handler runs: DROP EXTENSION sends the worker away first."""
    with served.connect() as session:
        for number in range(ROUNDS):
            quickly(session.execute, "set eventstream.allow_drop = on; drop extension eventstream cascade")
            session.execute("drop table seen; drop function if exists seen")
            quickly(session.execute, "create extension eventstream")
            make_projection(served, body="perform pg_sleep(60);" if number % 2 else "")
            append(served, 3)
            if number % 2:
                wait_until(lambda: is_sleeping(served), 15, "the handler to run")
            else:
                wait_until_exact(served)
        quickly(session.execute, "set eventstream.allow_drop = on; drop extension eventstream cascade")
    wait_for_workers(served, "scheduler", 0)
    wait_for_workers(served, "runner", 0)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("owner", ["superuser", "owner"])
@pytest.mark.parametrize("force", ["", "with (force)"], ids=["plain", "force"])
def test_a_database_can_be_dropped_under_workers(new_server, force, owner, busy):
    server = new_server("dropped")
    with server.connect("postgres") as admin:
        admin.execute("create role landlord login createdb")
    role = "landlord" if owner == "owner" else "postgres"
    for number in range(max(1, ROUNDS // 3)):
        database = Database(server, f"dropped_{number}").create()
        with server.connect("postgres") as admin:
            admin.execute(f'alter database "{database.name}" owner to {role}')
        make_projection(database, body="perform pg_sleep(60);" if busy else "")
        append(database)
        if busy:
            wait_until(lambda: is_sleeping(database), 15, "the handler to run")
        else:
            wait_until_exact(database)
        with server.connect("postgres", role) as session:
            quickly(session.execute, f"drop database {database.name} {force}")
    wait_until(lambda: workers(server, "scheduler") == [], 5, "no scheduler")


def test_a_database_is_renamed_copied_and_moved_under_workers(served, tmp_path_factory):
    server = served.server
    with server.connect("postgres") as admin:
        for number in range(ROUNDS):
            append(served, 5)
            quickly(admin.execute, f'alter database "{served.name}" rename to served_{number}')
            served.name = f"served_{number}"
            append(served, 5)
            quickly(admin.execute, f'create database copy template "{served.name}"')
            append(served, 5)
            wait_until_exact(served)
            quickly(admin.execute, "drop database copy")
        # One that fails lets the workers come back as well.
        with pytest.raises(psycopg.errors.DuplicateDatabase):
            admin.execute(f'alter database "{served.name}" rename to postgres')
        with pytest.raises(psycopg.errors.UndefinedObject):
            admin.execute(f'alter database "{served.name}" set tablespace nowhere')
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            with admin.transaction():
                admin.execute(f'drop database "{served.name}"')
    append(served, 5)
    wait_until_exact(served)


def test_who_does_not_own_a_database_does_not_send_its_workers_away(served):
    served.role("stranger", "login createdb")
    before = workers(served.server, "scheduler") + workers(served.server, "runner")
    with served.server.connect("postgres", "stranger") as session:
        for statement in (
            "drop database served with (force)", "alter database served rename to mine", "create database mine template served",
            "alter database served set tablespace pg_default",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
    assert workers(served.server, "scheduler") + workers(served.server, "runner") == before


def test_a_holder_that_dies_lets_the_workers_come_back(served):
    with served.connect() as inside, served.server.connect("postgres") as admin:
        # Somebody is connected, so that the statement waits, for five seconds at most.
        pid = admin.info.backend_pid
        dropping = all_at_once.__globals__["threading"].Thread(
            target=lambda: pytest.raises(psycopg.Error, admin.execute, "drop database served"), daemon=True
        )
        dropping.start()
        wait_until(lambda: workers(served.server, "scheduler") == [], 5, "the workers to leave")
        inside.execute("select pg_terminate_backend(%s)", (pid,))
        dropping.join(10)
    append(served)
    wait_until_exact(served)


# -- ends ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stop_does_not_wait_for_a_handler(served, mode):
    make_projection(served, "slow", body="perform pg_sleep(60);")
    wait_until(lambda: is_sleeping(served), 15, "the handler to run")
    for _ in range(max(1, ROUNDS // 2)):
        quickly(served.server.stop, mode)
        served.server.start()
        append(served)
        wait_until(lambda: is_sleeping(served), 15, "the handler to run")
    wait_until_exact(served, "seen")


def test_a_handler_that_loops_is_cancelled_and_stops_no_other(new_server):
    server = new_server("looping", **{"eventstream.handler_timeout": "500ms"})
    database = Database(server, "looping").create()
    make_projection(database)
    make_projection(database, "looping", "loop perform 1; end loop;", max_retries=1, batch_size=1)
    append(database, 3)
    wait_until_exact(database, "seen", seconds=5)
    with database.connect() as session:
        status = "select status from eventstream.projections where name = 'looping'"
        if value(session, "select to_regclass('eventstream.projections') is null"):
            status = "select g.status from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id where name = 'looping'"
        wait_until(lambda: value(session, status) == "stopped", 15, "the projection to be stopped")
        assert value(session, "select error_sqlstate from _eventstream.projection_progress where error_sqlstate is not null") == "57014"
        assert value(session, "select count(*) from looping") == 0
    append(database, 3)
    wait_until_exact(database, "seen", seconds=5)


def test_a_handler_that_catches_its_cancel_loses_its_runner(new_server):
    server = new_server("stubborn", **{"eventstream.handler_timeout": "500ms", "eventstream.max_workers": 2})
    database = Database(server, "stubborn").create()
    make_projection(database)
    stubborn = "loop begin perform pg_sleep(1000); exception when query_canceled then null; end; end loop;"
    make_projection(database, "stubborn", stubborn, max_retries=0, batch_size=1)
    append(database)
    wait_until_exact(database, "seen", seconds=5)
    with database.connect() as session:
        found = "select error_sqlstate from _eventstream.projection_progress where status = 'stopped'"
        assert wait_until(lambda: value(session, found), 20, "the projection to be stopped") == "57014"
    append(database, 3)
    wait_until_exact(database, "seen", seconds=5)


def test_a_killed_runner_leaves_nothing_out_and_nothing_twice(served):
    make_projection(served, "slow", body="perform pg_sleep(0.002);")
    for number in range(ROUNDS):
        try:
            append(served, 100, f"account-{number}")
            runners = workers(served.server, "runner")
        except psycopg.OperationalError:
            runners = []
        for pid in runners:
            kill_9(pid)
        time.sleep(0.05 * number)
        served.server.wait_for_connections()
    wait_until_exact(served, "seen", "slow", seconds=40)


@pytest.mark.parametrize("kind", ["launcher", "scheduler", "runner"])
def test_a_terminated_worker_is_replaced(served, kind):
    make_projection(served, "slow", body="perform pg_sleep(0.002);")
    for number in range(3):
        append(served, 100, f"account-{number}")
        before = workers(served.server, kind)
        with served.server.connect("postgres") as admin:
            for pid in before:
                admin.execute("select pg_terminate_backend(%s)", (pid,))
        wait_until(lambda: not any(map(is_alive, before)), 5, f"the {kind} to end")
        wait_until(lambda: len(workers(served.server, kind)) > 0, 15, f"another {kind}")
    wait_until_exact(served, "seen", "slow", seconds=30)
    # A launcher that was replaced takes up what it finds.
    quickly(served.drop)


def test_a_promoted_standby_starts_its_workers(new_server):
    """Of which the next standby is made, and promoted."""
    database = Database(new_server("primary", wal_level="replica"), "served").create()
    make_projection(database)
    append(database)
    wait_until_exact(database)
    for number in range(max(1, ROUNDS // 3)):
        server = database.server
        standby = new_server.adopt(server.make_standby(f"standby_{number}"))
        append(database, 10)
        with server.connect("postgres") as primary, standby.connect("postgres") as other:
            target = value(primary, "select pg_current_wal_lsn()")
            wait_until(lambda: value(other, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", target), 30, "the standby to follow")
        assert workers(standby, "launcher") == []
        server.kill_everything()
        server.destroy()
        quickly(standby.promote)
        database = Database(standby, database.name)
        wait_for_workers(database, "scheduler", 1, 5)
        append(database, 10)
        wait_until_exact(database, seconds=5)


def test_what_a_handler_leaves_in_its_session_is_gone(served):
    make_projection(served, "leaving", "perform pg_advisory_lock(42);")
    append(served, 3)
    wait_until_exact(served, "leaving")
    with served.connect() as session:
        wait_until(lambda: value(session, "select not exists (select from pg_locks where locktype = 'advisory')"), 5, "no lock")
        assert value(session, "select pg_try_advisory_lock(42)")
    append(served, 3)
    wait_until_exact(served, "leaving")
