"""on_error => 'skip' passes over an event only for an error that is the event's own. What every event would meet (a missing table, a right, a
full disk, a lost connection, a deadlock) is tried again and then stops the projection; nothing good becomes a dead letter, also
not by way of a subscription. The table of all SQLSTATE classes is tested in crates/core/src/fault.rs.
"""

import time

import psycopg
import pytest
from database import Database, rows, value
from server import wait_until

OF_EVENTS = ["22012", "23505", "P0001", "54000", "GL042", "38000"]
OF_OTHERS = ["42P01", "42501", "42883", "53100", "57014", "57P03", "58030", "08006", "40001", "40P01", "55P03", "25006", "XX000", "ES010"]


@pytest.fixture(scope="module")
def impatient():
    from server import Server

    server = Server("faults", **{"eventstream.retry_pause": "10ms", "eventstream.max_retry_pause": "20ms"}).create()
    yield server
    server.destroy()


@pytest.mark.parametrize("sqlstate", OF_EVENTS + OF_OTHERS)
def test_only_an_events_own_error_makes_it_a_dead_letter(impatient, sqlstate):
    database = Database(impatient, f"fault_{sqlstate.lower()}").create()
    with database.connect() as session:
        session.execute("create table seen (position bigint)")
        session.execute("create table failing ()")
        session.execute(
            "create function handle(event eventstream.event) returns void language plpgsql as $$ begin"
            " if (event).version = 2 and exists (select from pg_class where relname = 'failing') then"
            f" raise exception 'refused' using errcode = '{sqlstate}'; end if;"
            " insert into public.seen values ((event).version); end $$"
        )
        session.execute("select es_create_projection('p', 'handle(eventstream.event)', on_error => 'skip', max_retries => 2)")
        for _ in range(3):
            session.execute("select es_append('account-1', 'Opened', '{}')")
        status = "select status from eventstream.projections"
        letters = "select version, error_sqlstate from eventstream.dead_letters"
        if sqlstate in OF_EVENTS:
            wait_until(lambda: rows(session, letters) == [(2, sqlstate)], 20, "the dead letter")
            wait_until(lambda: rows(session, "select position from seen") == [(1,), (3,)], 20, "the others")
            assert value(session, status) == "running"
        else:
            wait_until(lambda: value(session, status) == "stopped", 20, "the stop")
            assert rows(session, letters) == []
            assert value(session, "select error_sqlstate from eventstream.projections") == sqlstate
            session.execute("drop table failing")
            session.execute("select es_resume_projection('p')")
            wait_until(lambda: rows(session, "select position from seen") == [(1,), (2,), (3,)], 20, "all of them")
    database.drop()


def test_an_upcaster_that_cannot_run_costs_a_subscription_no_event(quiet):
    with quiet.connect() as session:
        session.execute(
            "create function up(payload jsonb, metadata jsonb) returns jsonb language plpgsql immutable as"
            " $$ begin return payload || (select jsonb_build_object('rate', max(rate)) from public.rates); end $$"
        )
        session.execute("select es_register_upcaster('Opened', 1, 'up(jsonb, jsonb)')")
        session.execute("select es_create_subscription('mailer', max_deliveries => 2)")
        session.execute("select es_append('account-1', 'Opened', '{}')")
        for _ in range(4):
            with pytest.raises(psycopg.Error) as caught:
                session.execute("select * from es_fetch('mailer', 'worker', lease => '1 s')")
            assert caught.value.sqlstate == "ES014" and "rates" in str(caught.value)
        session.execute("create table rates (rate numeric)")
        session.execute("set eventstream.allow_drop = on; drop function up(jsonb, jsonb)")
        for _ in range(4):
            with pytest.raises(psycopg.Error) as caught:
                session.execute("select * from es_fetch('mailer', 'worker', lease => '1 s')")
            assert caught.value.sqlstate == "ES014"
        session.execute(
            "create function up(payload jsonb, metadata jsonb) returns jsonb language sql immutable as $$ select payload $$"
        )
        assert rows(session, "select attempt, (event).version from es_fetch('mailer', 'worker')") == [(1, 1)]
        assert rows(session, "select * from eventstream.dead_letters") == []


def test_an_event_that_an_upcaster_refuses_is_still_given_up(quiet):
    with quiet.connect() as session:
        session.execute(
            "create function up(payload jsonb, metadata jsonb) returns jsonb language plpgsql immutable as"
            " $$ begin return jsonb_build_object('amount', (payload ->> 'amount')::numeric); end $$"
        )
        session.execute("select es_register_upcaster('Opened', 1, 'up(jsonb, jsonb)')")
        session.execute("select es_create_subscription('mailer', max_deliveries => 1)")
        session.execute("""select es_append('account-1', 'Opened', '{"amount": "x"}'), es_append('account-2', 'Opened', '{"amount": "1"}')""")
        got = rows(session, "select (event).stream from es_fetch('mailer', 'worker')")
        assert got == [("account-2",)]
        deadline = time.monotonic() + 10
        while not rows(session, "select * from eventstream.dead_letters") and time.monotonic() < deadline:
            session.execute("select * from es_fetch('mailer', 'worker')")
            time.sleep(0.2)
        assert rows(session, "select stream, error_sqlstate is not null from eventstream.dead_letters") != []
