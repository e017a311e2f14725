"""A restored or copied database moves no projection before es_activate(), and then each is exact (invariant 10)."""

import time
import uuid

import psycopg
import pytest
from database import Database, forced, rows, value, verify
from operating import check, create_projection, make_handlers, seen, wait_for_status
from server import SUPERUSER, WORK, run
from states import append


def dump(database: Database, target) -> None:
    run("pg_dump", "-h", database.server.socket, "-U", SUPERUSER, "-Fd", "-f", target, database.name)


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_dump_that_is_restored_into_a_running_server_waits(database, jobs):
    with database.connect() as session:
        create_projection(session, "copied")
        append(session, "account-1", 20)
        session.execute("select es_wait_for('copied')")
        session.execute("select es_pause_projection('copied')")
        append(session, "account-1", 10)
        create_projection(session, "choosy", on_error="skip", max_retries=0)
        session.execute("select es_append('refused-1', 'Refused', '{\"refuse\": true}')")
        session.execute("select es_wait_for('choosy')")
        letter = value(session, "select id from eventstream.dead_letters")
        log_id = value(session, "select log_id from es_log_info()")
        folder = WORK / f"dump-{uuid.uuid4().hex}"
        dump(database, folder)
    copy = Database(database.server, f"restored_{jobs}").create(extension=False)
    try:
        run("pg_restore", "-h", database.server.socket, "-U", SUPERUSER, "-d", copy.name, "-j", jobs, folder)
        with copy.connect() as session:
            session.execute("select es_resume_projection('copied')")
            assert check(session, "activation").status == "critical"
            append(session, "account-2", 5)
            time.sleep(1)
            assert seen(session, "copied") == list(range(1, 21))
            for call in ("es_run_projection('copied')", "es_wait_for('copied')", f"es_retry_dead_letter({letter})"):
                with pytest.raises(psycopg.Error) as waiting:
                    session.execute(f"select {call}")
                assert waiting.value.sqlstate == "ES026"
                assert str(log_id) in waiting.value.diag.message_detail
            session.execute("insert into mended default values")
            assert value(session, "select es_activate()") == str(log_id)
            assert value(session, "select es_activate()") == str(log_id)
            assert rows(session, "select activated_by from _eventstream.activations") == [(SUPERUSER,)]
            session.execute("select es_wait_for('copied')")
            assert seen(session, "copied") == list(range(1, 37))
            assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []
            wait_for_status(session, "activation", "ok")
    finally:
        copy.drop()


def test_no_projection_moves_while_its_database_is_being_restored(database):
    """What pg_restore -j commits first may be the projections, long before the log's identity arrives."""
    with database.connect() as session:
        create_projection(session, "early")
        append(session, "account-1", 10)
        session.execute("select es_wait_for('early')")
        session.execute("select es_pause_projection('early')")
        projections = rows(session, "select * from _eventstream.projections")[0]
        progress = rows(session, "select * from _eventstream.projection_progress")[0]
    half = Database(database.server, "half_restored").create()
    try:
        with half.connect() as session:
            make_handlers(session, "early")
            assert check(session, "activation").status == "ok"
            with session.transaction():
                marks = ", ".join(["%s"] * len(projections))
                session.execute(f"insert into _eventstream.projections values ({marks})", projections)
                marks = ", ".join(["%s"] * len(progress))
                session.execute(f"insert into _eventstream.projection_progress values ({marks})", progress)
                session.execute("update _eventstream.projection_progress set status = 'running', global_position = 0")
            assert check(session, "activation").status == "critical"
            append(session, "account-1", 3)
            time.sleep(1)
            assert seen(session, "early") == []
    finally:
        half.drop()


def test_the_original_needs_no_activation(database):
    with database.connect() as session:
        log_id = value(session, "select log_id from es_log_info()")
        create_projection(session, "at_home")
        assert value(session, "select es_activate()") == str(log_id)
        assert rows(session, "select * from _eventstream.activations") == []
        append(session, "account-1", 1)
        session.execute("select es_wait_for('at_home')")


def test_activation_decides_for_every_tenant(database):
    admin = database.role("activating_admin")
    with database.connect() as session:
        session.execute(f"select es_grant('{admin}', 'admin')")
    with database.connect(admin) as session, pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not decide for every tenant"):
        session.execute("select es_activate()")
    with database.connect() as session:
        assert value(session, "select es_activate()")
        session.execute("begin read only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("select es_activate()")


def test_a_renamed_database_stays_active(database):
    with database.connect() as session:
        create_projection(session, "renamed")
    name = database.name
    with database.server.connect("postgres") as admin:
        admin.execute(f'alter database "{name}" rename to "{name[:50]}_new"')
    database.name = f"{name[:50]}_new"
    with database.connect() as session:
        append(session, "account-1", 1)
        session.execute("select es_wait_for('renamed')")
        assert seen(session, "renamed") == [1]


def test_a_clock_that_was_set_back_makes_no_copy(database):
    """The log is from the future, as a projection and a subscription see it that are made after the clock was set back."""
    with database.connect() as session:
        with forced(session):
            session.execute("update _eventstream.log_identities set created_at = created_at + interval '1 hour'")
        create_projection(session, "earlier")
        session.execute("select es_create_subscription('early')")
        append(session, "account-1", 1)
        session.execute("select es_wait_for('earlier')")
        assert check(session, "activation").status == "ok"
        assert len(rows(session, "select * from es_fetch('early', 'me')")) == 1
