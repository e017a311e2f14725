"""A state table of any size, by a fold of any price, is filled and filled again: what bounds a batch does not bound a rebuild."""

import time

import pytest
from database import Database, rows, value
from psycopg.types.json import Jsonb
from server import wait_until

COLUMNS = Jsonb([{"name": "events", "type": "bigint", "path": "/events"}])
COUNT = Jsonb({"on": {"Moved": [{"increment": "/events"}]}})


def fill(session, streams: int, each: int = 1, category: str = "account") -> None:
    event = {"type": "Moved", "payload": {}}
    for first in range(0, streams, 1000):
        appends = [
            {"stream": f"{category}-{number:06}", "events": [event] * each}
            for number in range(first, min(first + 1000, streams))
        ]
        session.execute("select count(*) from es_append_streams(%s)", (Jsonb(appends),))


def progress(session) -> dict:
    cursor = session.execute("select * from _eventstream.projection_progress")
    return dict(zip((column.name for column in cursor.description), cursor.fetchone()))


def runner(session) -> int | None:
    return value(session, "select pid from pg_stat_activity where backend_type = 'eventstream runner' and query like 'projection%'")


@pytest.fixture
def impatient(new_server):
    """A batch has 500 ms, and a runner that overstays is ended 5 s later."""
    server = new_server(
        "impatient", max_worker_processes=12, **{"eventstream.handler_timeout": "500ms", "eventstream.retry_pause": "10ms"}
    )
    return Database(server, "impatient").create()


def test_a_page_of_streams_may_take_longer_to_fold_than_a_batch(impatient):
    with impatient.connect() as session:
        fill(session, 200)
        session.execute(
            "create function slowly(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as"
            " $$ begin perform pg_sleep(0.01); return jsonb_build_object('events', event.version); end $$"
        )
        session.execute("select es_register_fold('slow', 'account', 'slowly(jsonb, eventstream.event)'::regprocedure)")
        session.execute("select es_create_state_table('totals', 'account', %s)", (COLUMNS,))
        done = set()

        def is_over():
            now = progress(session)
            done.add(now["rebuild_done"])
            return now if now["status"] != "rebuilding" or now["attempts"] else None

        now = wait_until(is_over, 30, "the table to be filled", every=0.02)
        assert (now["status"], now["error_sqlstate"]) == ("running", None)
        assert rows(session, "select count(*), sum(events) from totals") == [(200, 200)]
        # What was folded is kept on the way, stream by stream.
        assert len(done - {None, 0}) > 3, done


def trigger(session, body: str) -> None:
    session.execute(
        f"create or replace function fires() returns trigger language plpgsql as $$ begin {body} return new; end $$"
    )


@pytest.mark.parametrize(("timeout", "streams"), [("2s", 12_000), ("500ms", 2000)])
def test_writing_all_rows_at_once_may_take_longer_than_a_batch_and_than_a_runner_lives(impatient, timeout, streams):
    # Within 500 ms not even the first page can be written: after a failure or two it is a smaller one.
    impatient.server.configure(**{"eventstream.handler_timeout": timeout})
    impatient.server.reload()
    with impatient.connect() as session:
        session.execute("select es_register_fold('count', 'account', rules => %s)", (COUNT,))
        session.execute("select es_create_state_table('totals', 'account', %s)", (COLUMNS,))
        wait_until(lambda: progress(session)["status"] == "running", 20, "the empty table")
        session.execute("select es_pause_projection('totals')")
        fill(session, streams)
        trigger(session, "perform pg_sleep(0.0008);")
        session.execute("create trigger fires before insert on totals for each row execute function fires()")
        session.execute("select es_rebuild_projection('totals')")
        at_work = wait_until(lambda: runner(session), 20, "a runner")
        began = time.monotonic()
        now = wait_until(lambda: progress(session) if progress(session)["status"] != "rebuilding" else None, 90, "the rebuild")
        assert timeout == "500ms" or time.monotonic() - began > 8, "it was too quick to show anything"
        assert (now["status"], now["error_sqlstate"], now["attempts"]) == ("running", None if timeout == "2s" else "57014", 0), now
        assert value(session, "select count(*) from totals") == streams
        assert value(session, "select count(*) from _eventstream.rebuilt_states") == 0
        # Nobody was ended for it.
        assert at_work in [pid for (pid,) in rows(session, "select pid from pg_stat_activity")]


def test_a_trigger_that_never_ends_is_cancelled_and_a_cancel_ends_the_writing(impatient):
    with impatient.connect() as session:
        fill(session, 700)
        session.execute("select es_register_fold('count', 'account', rules => %s)", (COUNT,))
        session.execute("begin")
        session.execute("select es_create_state_table('totals', 'account', %s)", (COLUMNS,))
        trigger(session, "if new.stream = 'account-000600' then loop perform 1; end loop; end if;")
        session.execute("create trigger fires before insert on totals for each row execute function fires()")
        session.execute("commit")
        wait_until(lambda: progress(session)["error_sqlstate"] == "57014", 20, "the timeout")
        assert value(session, "select count(*) from totals") == 0
        # With time to spare, an operator ends it.
        impatient.server.configure(**{"eventstream.handler_timeout": "1h"})
        impatient.server.reload()

        def cancel():
            pid = runner(session)
            if pid is not None:
                session.execute("select pg_cancel_backend(%s)", (pid,))

        def is_cancelled():
            cancel()
            return "user request" in progress(session)["error_message"]

        wait_until(is_cancelled, 20, "the cancelled attempt", every=0.05)
        assert value(session, "select count(*) from totals") == 0
        trigger(session, "")

        def is_filled():
            # The attempt under way may still run the function as it was.
            cancel()
            return value(session, "select count(*) from totals") == 700

        wait_until(is_filled, 30, "the table", every=0.5)


def test_a_rebuild_reads_each_row_of_the_table_a_few_times_however_many_pages_there_are(quiet):
    streams = 10_000
    with quiet.connect() as session:
        fill(session, streams)
        session.execute("select es_register_fold('count', 'account', rules => %s)", (COUNT,))
        session.execute("select es_create_state_table('totals', 'account', %s)", (COLUMNS,))
        for way in ("into an empty table", "onto the same rows", "with rows of no stream"):
            if way != "into an empty table":
                session.execute("select es_rebuild_projection('totals')")
            if way == "with rows of no stream":
                session.execute(
                    "insert into totals select stream || suffix, 1 from totals cross join unnest(array['', '-x']) suffix"
                    " on conflict do nothing"
                )
                session.execute("insert into totals values ('zzz', 1), ('!', 1)")
            counted = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'totals'"
            with session.transaction():
                before = value(session, counted)
                session.execute("select es_run_projection('totals')")
                read = value(session, counted) - before
            assert value(session, "select count(*) from totals") == streams, way
            assert value(session, "select count(*) from totals where events is distinct from 1") == 0, way
            assert read < 4 * streams, (way, read)


def test_on_an_empty_log_a_new_table_and_each_rebuild_are_over_at_once(database):
    """The rebuild begins at any moment of the runner's look at a projection that has nothing to do, and no event comes to its help."""
    with database.connect() as session:
        session.execute("select es_register_fold('count', 'account', rules => %s)", (COUNT,))
        session.execute("select es_create_state_table('totals', 'account', %s)", (COLUMNS,))
        for number in range(150):
            wait_until(lambda: progress(session)["status"] == "running", 10, f"rebuild {number} to be over", every=0.0002 * (number % 7))
            session.execute("select es_rebuild_projection('totals')")
