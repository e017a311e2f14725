"""health names an upcaster that was seen to fail, whoever met it, until it is mended; nothing is upcast to find that out."""

import psycopg
import pytest
from database import position_of, rows
from operating import check, run_psql

NAME = "upcaster of Added from 1"
UPCASTER = """create or replace function mend(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as $$
begin return jsonb_build_object('amount', helped(payload)); end $$;
create or replace function helped(payload jsonb) returns numeric immutable language sql as $$ select (payload ->> 'amount')::numeric $$;
select es_register_upcaster('Added', 1, 'mend(jsonb, jsonb)')"""


@pytest.fixture
def session(quiet):
    with quiet.connect() as session:
        session.execute(UPCASTER)
        session.execute("""select es_register_fold('sums', 'account', rules => '{"on": {"Added": [{"add": {"/sum": "/amount"}}]}}')""")
        for number, amount in enumerate(["1", '"two"', "3"], 1):
            session.execute(f"""select es_append('account-{number}', 'Added', '{{"amount": {amount}}}')""")
        session.execute("select es_create_subscription('feed', categories => '{account}')")
        session.execute("create function sees(event eventstream.event) returns void language sql as ''")
        session.execute("select es_create_projection('seeing', 'sees(eventstream.event)', max_retries => 0)")
        yield session


def ask(session, statement: str) -> str | None:
    try:
        session.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate
    return None


WAYS = [
    "select * from es_read('account-2')",
    "select * from es_read_all()",
    "select es_state('account-2')",
    "select * from es_category_state('account', on_error => 'report')",
    "select * from es_history('account-2')",
    "select * from es_fetch('feed', 'me')",
    "select es_run_projection('seeing')",
    "set eventstream.on_upcast_error = skip; select * from es_read('account-2')",
]


@pytest.mark.parametrize("way", WAYS)
def test_whoever_meets_it_leaves_a_note(session, way):
    assert check(session, NAME) is None
    ask(session, way)
    found = check(session, NAME)
    where = f"stream account-2 at version 1, global position {position_of(session, 2)}"
    assert found.status == "warning" and where in found.detail
    assert "two" not in found.detail and found.tenant == "default"


def test_it_is_said_until_it_is_mended(session, quiet):
    assert ask(session, "select es_state('account-2')") == "22P02"
    # Others that are upcast say nothing about it.
    session.execute("select es_state('account-1')")
    found = check(session, NAME)
    look, read, _ = found.fix.split(";\n") if found.fix.endswith("\n") else (*found.fix.rstrip(";").split(";\n"), "")
    assert {"amount": "two"} in rows(session, look)[0] and ask(session, read) == "22P02"
    # A helper that the definition does not show: the statements of the fix see it.
    session.execute("create or replace function helped(payload jsonb) returns numeric immutable language sql as $$ select 2.0 $$")
    run_psql(quiet, found.fix)
    assert check(session, NAME) is None


def test_another_one_in_its_place_has_not_failed(session):
    ask(session, "select es_state('account-2')")
    assert check(session, NAME) is not None
    session.execute("create or replace function mend(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select '{\"amount\": 2}'::jsonb $$")
    assert check(session, NAME) is None
    session.execute(UPCASTER)
    assert check(session, NAME) is not None
    session.execute("select es_unregister_upcaster('Added', 1)")
    assert check(session, NAME) is None


def test_one_that_is_gone_is_named_too(session):
    session.execute("begin; set local eventstream.allow_drop = on; drop function mend(jsonb, jsonb); commit")
    assert ask(session, "select * from es_read('account-1')") == "ES014"
    assert "stream account-1" in check(session, NAME).detail


def test_what_is_no_upcasters_fault_is_none(session):
    session.execute("set statement_timeout = '50ms'")
    session.execute("create or replace function helped(payload jsonb) returns numeric immutable language sql as $$ select 1 from pg_sleep(1) $$")
    assert ask(session, "select es_state('account-1')") == "57014"
    session.execute("reset statement_timeout")
    assert check(session, NAME) is None


def test_what_was_rolled_back_or_imagined_is_in_no_row(session):
    session.execute("begin")
    session.execute("""select es_append('account-9', 'Added', '{"amount": "nine"}')""")
    assert ask(session, "select es_state('account-9')") == "22P02"
    session.execute("rollback")
    assert check(session, NAME) is None
    assert ask(session, """select es_simulate('account-1', '[{"type": "Added", "payload": {"amount": "nine"}}]')""") == "22P02"
    assert check(session, NAME) is None


def test_each_tenant_has_its_own(session):
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'acme'")
    session.execute("select es_register_upcaster('Added', 1, 'mend(jsonb, jsonb)')")
    session.execute("""select es_append('account-5', 'Added', '{"amount": "five"}')""")
    assert ask(session, "select * from es_read('account-5')") == "22P02"
    found = rows(session, f"select tenant, fix from eventstream.health where name = '{NAME}'")
    assert [tenant for tenant, _ in found] == ["acme"]
    assert found[0][1].startswith("set eventstream.tenant = 'acme';\n")
