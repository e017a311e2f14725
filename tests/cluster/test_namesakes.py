"""A tenant's name that becomes another tenant's between a look and the next one: whatever was begun for the one ends in it, or is refused, and never goes on in the other.

Each way by which a tenant is chosen by its name: a scheduled command, a projection's batch, a decider, a token. The two names are swapped while each is under way."""

import threading
import time

import psycopg
import pytest
from database import rows, value
from minting import Bank, use
from psycopg.types.json import Jsonb
from server import wait_until

MARKS = {"acme": "of-acme-4711", "bank": "of-bank-0815"}
SWAP = "select es_rename_tenant('acme', 'acme-x'); select es_rename_tenant('bank', 'acme')"
#: What each is called after it.
NOW = {"acme": "acme-x", "bank": "acme"}
DECIDER = """create function code.decide(state jsonb, command eventstream.command) returns jsonb language plpgsql stable as $$ begin
    perform pg_sleep((command.payload ->> 'seconds')::float8);
    return jsonb_build_object('result', (select jsonb_agg(payload ->> 'mark') from es_read('account-1')), 'events', jsonb_build_array(jsonb_build_object('type', 'Did', 'payload', '{}'::jsonb)));
end $$"""


@pytest.fixture
def bank(database):
    """A log in each of two tenants, in which the same decider and fold are registered by the role that needs a token."""
    made = Bank(database)
    with made.admin() as session:
        session.execute("create schema code; grant usage on schema code to public; " + DECIDER)
    for tenant, mark in MARKS.items():
        with made.connect() as session, session.transaction():
            use(session, made.token(tenant))
            session.execute("select es_append('account-1', 'Opened', %s)", (Jsonb({"mark": mark}),))
            session.execute("""select es_register_fold('account', 'account', rules => '{"on": {}}')""")
            session.execute("""select es_register_decider('account', 'account', 'code.decide(jsonb, eventstream.command)', commands => '{"Do": {}}')""")
    return made


def swap(bank, seconds=0.0):
    with bank.admin() as session, session.transaction():
        session.execute(SWAP)
        time.sleep(seconds)


def after(seconds, work):
    thread = threading.Timer(seconds, work)
    thread.start()
    return thread


def there(bank, tenant, statement):
    with bank.admin(NOW[tenant]) as session:
        return rows(session, statement)


def test_a_scheduled_command_is_executed_in_the_tenant_that_it_was_scheduled_in(bank):
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("""select es_schedule_command('account-2', 'Do', '{"seconds": 0}', now() + interval '700 ms', 'k')""")
    # Its runner waits at the gate, which the renaming holds, with the name that it has read.
    swap(bank, seconds=1.5)
    wait_until(lambda: there(bank, "acme", "select from es_read_all() where stream = 'account-2'"), 20, "the command to be executed")
    assert not there(bank, "bank", "select from es_read_all() where stream = 'account-2'")


def test_a_batch_that_is_under_way_writes_into_its_own_tenant(bank):
    with bank.admin() as session:
        session.execute("create function code.note(event eventstream.event) returns void language plpgsql as $$ begin "
                        "perform pg_sleep(1.2); perform public.es_append('noted-1', 'Noted', (event).payload); end $$")  # fmt: skip
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("select es_create_projection('note', 'code.note(eventstream.event)', categories => '{account}')")
    with bank.admin() as session:
        wait_until(lambda: value(session, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"), 20, "the handler")
    swap(bank)
    wait_until(lambda: there(bank, "acme", "select from es_read_all() where stream = 'noted-1'"), 30, "the batch")
    assert not there(bank, "bank", "select from es_read_all() where stream = 'noted-1'")


@pytest.mark.parametrize("who", ["a token", "a superuser"])
def test_a_decider_sees_nothing_of_the_other_tenant(bank, who):
    simulate = """select es_simulate_command('account-3', 'Do', '{"seconds": 1}') ->> 'result'"""
    with bank.connect() if who == "a token" else bank.admin("acme") as session:
        swapping = after(0.4, lambda: swap(bank))
        try:
            with session.transaction():
                if who == "a token":
                    use(session, bank.token("acme"))
                told = value(session, simulate)
        except psycopg.Error as error:
            assert error.sqlstate in ("ES040", "ES042"), error
        else:
            assert MARKS["bank"] not in str(told), told
        swapping.join()


@pytest.mark.parametrize("statement", ["select payload ->> 'mark' from es_read('account-1')", "select es_append('account-1', 'Opened', '{}')"])
def test_a_token_leads_to_no_other_tenant_between_two_looks(bank, statement):
    with bank.connect() as session:
        with pytest.raises(psycopg.Error):
            session.execute("table eventstream.events")
        with bank.admin() as other, pytest.raises(psycopg.Error) as raised, session.transaction():
            use(session, bank.token("acme"))
            other.execute(f"begin; {SWAP}; lock table _eventstream.grants in access exclusive mode")
            swapping = after(0.5, lambda: other.execute("commit"))
            try:
                assert value(session, statement) != MARKS["bank"]
            finally:
                swapping.join()
        assert raised.value.sqlstate == "ES042"
    assert len(there(bank, "bank", "select from es_read('account-1')")) == 1
