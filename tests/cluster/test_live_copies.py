"""Read models are exact after whatever happens to a whole database: a dump and its restore, a copy, restarts, a failover, and the end
of its neighbour. In a copy nothing moves before es_activate(). `ROUNDS` (3) restarts and dropped databases.
"""

import os
import time
import uuid

import psycopg
import pytest
from database import Database, rows, value, verify
from models import Appenders, Model, Models, Table
from server import WORK, run, wait_until

ROUNDS = int(os.environ.get("ROUNDS", "3"))


def server_settings() -> dict:
    return {"max_worker_processes": 12, "eventstream.retry_pause": "100ms"}


@pytest.fixture
def followed(new_server):
    """A database with models of every kind, and a log that they follow."""
    server = new_server("followed", **server_settings())
    database = Database(server, "books").create()
    models = Models(database).create()
    with Appenders(database) as others:
        others.wait_for(500)
    models.assert_exact()
    return models


def moved(session) -> list[tuple]:
    """What changes when an asynchronous projection moves."""
    return rows(
        session,
        "select p.name, g.global_position, g.applied, g.moved_at, g.status from _eventstream.projections p"
        " join _eventstream.projection_progress g on g.projection_id = p.id where p.mode = 'async' order by 1",
    )


def assert_waits_until_activated(copy: Models) -> None:
    """In the copy of an original that goes on elsewhere."""
    with copy.database.connect() as session:
        before = moved(session)
        with Appenders(copy.database, count=2) as others:
            others.wait_for(300)
        # Longer than the scheduler sleeps, and woken by each append.
        time.sleep(3)
        assert moved(session) == before, "a projection moved before es_activate()"
        # The inline one belongs to the append, which is the copy's own.
        assert copy.differences(session) == {}
        for call in ("es_run_projection('one')", "es_wait_for('one')"):
            with pytest.raises(psycopg.Error) as error:
                session.execute(f"select {call}")
            assert error.value.sqlstate == "ES026", call
        assert value(session, "select count(*) from eventstream.health where status <> 'ok' and fix like '%es_activate%'") == 1
        began = time.monotonic()
        session.execute("select es_activate()")
        copy.wait(session)
        assert time.monotonic() - began < 10
        assert moved(session) != before
        with Appenders(copy.database, count=2) as others:
            others.wait_for(100)
        assert verify(session) == []
    copy.assert_exact()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_restore_into_a_running_server_stands_still_until_it_is_activated_and_then_is_exact(followed, new_server, form):
    target = new_server("restored", **server_settings())
    original = followed.database
    dump = WORK / f"live-{uuid.uuid4().hex[:6]}.dump"
    restored = Database(target, "restored").create(extension=False)
    try:
        # While the log grows and the models move: a dump is one snapshot, in which they agree.
        with Appenders(original) as others:
            others.wait_for(100)
            run("pg_dump", "-F", form[0], "-f", dump, env=original.server.address("books"))
        if form == "plain":
            run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", dump, env=target.address("restored"))
        else:
            run("pg_restore", "-d", "restored", "--exit-on-error", dump, env=target.address("restored"))
    finally:
        dump.unlink(missing_ok=True)
    assert_waits_until_activated(Models(restored, *followed.models))
    # The original never noticed.
    followed.assert_exact()


def test_a_copy_by_template_stands_still_until_it_is_activated_and_then_is_exact(followed):
    original = followed.database
    copy = Database(original.server, "books_copy")

    def copied():
        with original.server.connect("postgres") as admin:
            try:
                admin.execute(f'create database "{copy.name}" template "{original.name}"')
                return True
            except psycopg.errors.ObjectInUse:
                return False

    wait_until(copied, 30, "the template to be free of sessions")
    assert_waits_until_activated(Models(copy, *followed.models))
    with Appenders(original, count=2) as others:
        others.wait_for(100)
    followed.assert_exact()


def test_models_are_exact_after_restarts_of_the_server(followed):
    server, took = followed.database.server, []
    with Appenders(followed.database) as others:
        for number in range(2 * ROUNDS):
            others.wait_for(100)
            began = time.monotonic()
            server.restart(("fast", "immediate")[number % 2])
            took.append(time.monotonic() - began)
            with followed.database.connect() as session:
                assert followed.differences(session) == {}, f"restart {number}"
    followed.assert_exact()
    print(f"{len(took)} restarts, the longest took {max(took):.1f} s")


def test_models_are_exact_on_a_standby_and_after_its_promotion(new_server):
    primary = new_server("primary", wal_level="replica", max_wal_senders=4, **server_settings())
    models = Models(Database(primary, "books").create()).create()
    with Appenders(models.database) as others:
        others.wait_for(300)
        standby = new_server.adopt(primary.make_standby("standby"))
        successor = Models(Database(standby, "books"), *models.models)
        for _ in range(5):
            others.wait_for(100)
            with successor.database.connect() as session:
                # Whatever of the WAL has come: checkpoint and model agree.
                assert successor.differences(session) == {}
                assert value(session, "select count(*) from pg_stat_activity where backend_type like 'eventstream s%'") == 0
        others.done.set()
        primary.kill_everything()
    standby.promote()
    with Appenders(successor.database, count=2) as others:
        others.wait_for(200)
    # The same log at the same place: nobody has to activate it.
    successor.assert_exact()
    with successor.database.connect() as session:
        assert verify(session) == []


def test_models_are_exact_while_neighbours_are_dropped_and_a_database_of_the_same_name_begins_anew(followed):
    server = followed.database.server
    with Appenders(followed.database, count=2) as others:
        for number in range(ROUNDS):
            neighbour = Models(Database(server, "neighbour").create()).create()
            with Appenders(neighbour.database, count=2) as theirs:
                theirs.wait_for(100)
                if number == 0:
                    theirs.rest.set()
                    neighbour.assert_exact()
                    theirs.rest.clear()
                # Sessions and workers are in the middle of something.
                theirs.wait_for(20)
                theirs.done.set()
                neighbour.database.drop()
            others.wait_for(50)
    followed.assert_exact()
