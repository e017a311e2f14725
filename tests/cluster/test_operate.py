"""What the scheduler does for operators: alerts once per change, transactions that hold the horizon, upkeep; and the view progress."""

import re
import threading
import time

import psycopg
import pytest
from database import Database, near_edge, partitions, position_of, rows, value
from operating import check, create_projection, make_handlers, seen, wait_for_status
from server import Server, wait_until
from states import append, register, snapshots

REFUSED = "select es_append('account-1', 'Added', '{\"refuse\": true}')"


@pytest.fixture(scope="module")
def watched_server():
    """Looks around every second, and is impatient with those that hold the horizon."""
    server = Server(
        "watched",
        **{
            "eventstream.idle_interval": "1s",
            "eventstream.max_append_transaction": "500ms",
            "eventstream.retry_pause": "100ms",
        },
    ).create()
    yield server
    server.destroy()


@pytest.fixture
def watched(watched_server, request):
    made = Database(watched_server, re.sub(r"\W", "_", request.node.name)[:50]).create()
    yield made
    made.drop()


def log_of(database: Database) -> str:
    return database.server.log.read_text(errors="replace")


def alerts(listener: psycopg.Connection, seconds: float) -> list[str]:
    """The notifications that come within so many seconds."""
    return [notify.payload for notify in listener.notifies(timeout=seconds)]


def test_a_change_of_health_is_told_once(watched):
    with watched.connect() as session, watched.connect() as listener:
        create_projection(session, "told", max_retries=0)
        session.execute("select es_wait_for('told', up_to => 0)")
        listener.execute("listen eventstream_alert")
        session.execute(REFUSED)
        wait_for_status(session, "projection told", "critical")
        # Three looks, one alert.
        assert alerts(listener, 4) == ["projection"]
        told = [line for line in log_of(watched).splitlines() if "projection told (tenant default) is critical" in line]
        assert len(told) == 1 and " WARNING: " in told[0], told
        assert f"stopped at the event at global position {position_of(session, 1)} " in told[0] and "select es_resume_projection('told');" in log_of(watched)
        session.execute("insert into mended default values")
        session.execute("select es_resume_projection('told')")
        assert alerts(listener, 4) == ["projection"]
        assert log_of(watched).count("projection told (tenant default) is ok again") == 1
        session.execute("select es_drop_projection('told')")
        assert alerts(listener, 3) == []


def test_an_alert_says_the_whole_name_of_a_check_but_for_which_one_it_is_about(watched):
    with watched.connect() as session, watched.connect() as listener:
        session.execute("select es_append('account-1', 'Named', '{}')")
        listener.execute("listen eventstream_alert")
        session.execute("select es_protect('Named', pointers => '{/name}')")
        assert alerts(listener, 4) == ["protected fields"]


def hold(database: Database, *statements: str) -> psycopg.Connection:
    """An open transaction that has appended."""
    holder = database.connect(autocommit=False)
    holder.execute("select es_append('account-1', 'Added', '{}')")
    for statement in statements:
        holder.execute(statement)
    return holder


def set_on_long_append(server: Server, what: str) -> None:
    server.configure(**{"eventstream__on_long_append": what})
    server.reload()


def test_a_transaction_that_holds_the_horizon_is_logged_once(watched):
    set_on_long_append(watched.server, "log")
    holder = hold(watched)
    pid = holder.info.backend_pid
    with watched.connect() as session:
        wait_for_status(session, "horizon", "critical")
        wait_until(lambda: f"the transaction of process {pid} " in log_of(watched), 10, "the log to name it")
        time.sleep(2.5)
        said = [line for line in log_of(watched).splitlines() if f"the transaction of process {pid} " in line]
        assert len(said) == 1, said
        assert re.search(r"is open since \S+ \(\d+\.\d s\) and holds the horizon at position 1$", said[0]), said
        holder.commit()
        assert value(session, "select es_stream_version('account-1')") == 1
    holder.close()


def test_a_transaction_that_holds_the_horizon_is_cancelled(watched):
    set_on_long_append(watched.server, "cancel")
    try:
        # Nothing runs in this one: there is nothing to cancel.
        idle = hold(watched)
        busy = watched.connect(autocommit=False)
        busy.execute("select es_append('account-2', 'Added', '{}')")
        with pytest.raises(psycopg.errors.QueryCanceled):
            busy.execute("select pg_sleep(30)")
        busy.rollback()
        said = f"process {busy.info.backend_pid} has appended"
        wait_until(lambda: "its statement is cancelled" in log_of(watched), 5, "the log to say so")
        lines = [line for line in log_of(watched).splitlines() if said in line]
        assert [line.endswith("its statement is cancelled") for line in lines] == [False, True], lines
        assert f"process {idle.info.backend_pid} has appended" in log_of(watched)
        cancelled = [line for line in log_of(watched).splitlines() if "its statement is cancelled" in line]
        assert all(f"process {idle.info.backend_pid} " not in line for line in cancelled), cancelled
        idle.commit()
        with watched.connect() as session:
            assert value(session, "select es_stream_version('account-1')") == 1
            assert value(session, "select es_stream_version('account-2')") == 0
        idle.close()
        busy.close()
    finally:
        set_on_long_append(watched.server, "log")


def test_a_transaction_that_holds_the_horizon_is_terminated(watched):
    set_on_long_append(watched.server, "terminate")
    try:
        holder = hold(watched)
        pid = holder.info.backend_pid
        with watched.connect() as session:
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            wait_until(lambda: value(session, gone, pid), 15, "its end")
            assert "its session is terminated" in log_of(watched)
            wait_for_status(session, "horizon", "ok")
            assert value(session, "select es_horizon() = last_position from es_log_info()")
        with pytest.raises(psycopg.OperationalError):
            holder.execute("select 1")
    finally:
        set_on_long_append(watched.server, "log")


def test_workers_take_due_snapshots_and_say_once_what_fails(watched):
    with watched.connect() as session:
        register(session, every=10)
        register(session, fold="broken", category="order")
        append(session, "account-1", 25)
        session.execute("set eventstream.allow_drop = on; drop function broken_of(jsonb, eventstream.event)")
        wait_until(lambda: snapshots(session) == {"account-1": [10, 20]}, 30, "the snapshots")
        append(session, "account-1", 5)
        wait_until(lambda: snapshots(session) == {"account-1": [10, 20, 30]}, 30, "one more")
        time.sleep(2.5)
        assert log_of(watched).count('fold "broken" takes no snapshots') <= 1
        # With a projection, a runner does it.
        create_projection(session, "anything")
        append(session, "account-1", 10)
        wait_until(lambda: 40 in snapshots(session)["account-1"], 30, "one more")


def test_workers_make_partitions_ahead(watched):
    with watched.connect() as session:
        near_edge(session, 10)
        session.execute("select es_append('account-1', 'Added', '{}')")
        wait_until(lambda: "the next one is there" in check(session, "partitions").detail, 30, "the next partition")
        assert len(partitions(session)) == 2


def test_a_rebuild_shows_its_progress(watched):
    with watched.connect() as session:
        make_handlers(session)
        session.execute("create function emptied() returns void language sql as 'delete from seen'")
        session.execute(
            "create function slow(event eventstream.event) returns void language plpgsql as"
            " $$ begin perform pg_sleep(0.02); insert into seen values ('slow', event.global_position); end $$"
        )
        session.execute(
            "select es_create_projection('slow', 'slow(eventstream.event)', batch_size => 5, reset => 'emptied()')"
        )
        append(session, "account-1", 100)
        session.execute("select es_wait_for('slow', timeout => '1 min')")
        assert rows(session, "select * from eventstream.progress") == []
        session.execute("select es_rebuild_projection('slow')")
        seen_so_far = []

        def is_half_way():
            found = rows(
                session,
                "select name, tenant, unit, done, total, percent, eta > clock_timestamp() - interval '1 second'"
                " from eventstream.progress where task = 'rebuild'",
            )
            seen_so_far.extend(found)
            return not found

        wait_until(is_half_way, 60, "the rebuild's end")
        assert {row[:3] for row in seen_so_far} == {("slow", "default", "positions")}
        done = [row[3] for row in seen_so_far]
        assert done == sorted(done) and any(0 < count < 100 for count in done), done
        assert all(row[5] is None or 0 <= row[5] <= 100 for row in seen_so_far)
        assert sorted(seen(session, "slow")) == list(range(1, 101))


def test_a_verification_shows_its_progress(watched):
    with watched.connect() as session, watched.connect() as verifier:
        for stream in range(10):
            append(session, f"account-{stream}", 5_000)
        found = []
        end = threading.Event()

        def look():
            with watched.connect() as watcher:
                while not end.is_set():
                    found.extend(rows(watcher, "select task, pid, done, total, unit, percent from eventstream.progress"))

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(3):
            assert rows(verifier, "select * from es_verify()") == []
        end.set()
        thread.join()
        assert {row[:2] for row in found} == {("verify", verifier.info.backend_pid)}
        assert {(row[3], row[4]) for row in found} == {(50_000, "positions")}
        assert any(0 < row[2] < 50_000 for row in found) and all(0 <= row[5] <= 100 for row in found)
        assert rows(session, "select * from eventstream.progress") == []
        # One that is cancelled leaves nothing behind.
        verifier.execute("set statement_timeout = '5ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            verifier.execute("select * from es_verify()")
        assert rows(session, "select * from eventstream.progress") == []


def test_a_terminated_verification_leaves_no_progress_behind(watched):
    with watched.connect() as session, watched.connect() as verifier:
        for stream in range(10):
            append(session, f"account-{stream}", 5_000)
        pid = verifier.info.backend_pid
        thread = threading.Thread(target=lambda: pytest.raises(psycopg.Error, verifier.execute, "select * from es_verify()"))
        thread.start()
        wait_until(lambda: rows(session, "select * from eventstream.progress"), 10, "the verification", every=0.001)
        session.execute("select pg_terminate_backend(%s)", (pid,))
        thread.join()
        wait_until(lambda: not rows(session, "select * from eventstream.progress"), 10, "its end")


def test_the_view_of_projections_says_what_each_is(watched):
    with watched.connect() as session:
        create_projection(session, "whole", categories="{account}", event_types="{Added}", batch_size=7, on_error="skip")
        append(session, "account-1", 3)
        session.execute("select es_wait_for('whole')")
        third = position_of(session, 3)
        row = session.execute("select * from eventstream.projections")
        names = [column.name for column in row.description]
        found = dict(zip(names, row.fetchone()))
        expected = {
            "name": "whole", "kind": "event", "mode": "async", "status": "running", "global_position": third, "lag": 0,
            "lag_seconds": 0, "events_applied": 3, "attempts": 0, "failed_position": None, "error_message": None,
            "retry_at": None, "dead_letters": 0, "handler": "public.whole", "table_name": None, "categories": ["account"],
            "event_types": ["Added"], "batch_size": 7, "on_error": "skip", "registrant": "postgres", "tenant": "default",
        }  # fmt: skip
        assert {key: found[key] for key in expected} == expected
        session.execute("select es_pause_projection('whole')")
        assert value(session, "select status from eventstream.projections") == "paused"
        append(session, "account-1", 2)
        # Its pause has a position, too.
        assert rows(session, "select lag, global_position from eventstream.projections") == [(3, third)]
        assert check(session, "projection whole").status == "ok"


def test_an_inline_projection_is_never_behind(watched):
    with watched.connect() as session:
        create_projection(session, "inside", mode="inline")
        append(session, "account-1", 3)
        assert rows(session, "select status, global_position, lag, lag_seconds from eventstream.projections") == [
            ("running", position_of(session, 3), 0, 0)
        ]
