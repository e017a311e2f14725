"""Migrations run twice. Every function that creates takes if_not_exists: the same definition again changes nothing and says so in a NOTICE; another one
is refused and says what differs; and what the HINT of a refusal says can be typed as it stands, and leaves nothing broken.

Kinds: transaction (in one transaction, and concurrently), role (another that may manage), reader of the answer (each HINT is run)."""

import re

import psycopg
import pytest
from database import all_at_once, raised, rows, value

COLUMNS = """'[{"name": "balance", "type": "numeric", "path": "/balance"}]'"""
OTHER_COLUMNS = """'[{"name": "balance", "type": "text", "path": "/balance"}]'"""

# What is created, and the same with each argument another; with what the refusal names.
CREATED = {
    "es_create_tenant": ("'acme'", {}, {}),
    "es_create_subscription": (
        "'mailer'",
        {"categories": "'{account,order}'", "event_types": "'{A,B}'", "max_deliveries": "7"},
        {"categories": "'{account}'", "event_types": "null", "max_deliveries": "8"},
    ),
    "es_create_projection": (
        "'turnover'",
        {
            "handler": "'public.turn(eventstream.event)'",
            "mode": "'async'",
            "categories": "'{account}'",
            "event_types": "null",
            "batch_size": "100",
            "on_error": "'skip'",
            "max_retries": "3",
            "reset": "'public.clear()'",
            "after_position": "0",
        },
        {
            "handler": "'public.other(eventstream.event)'",
            "mode": "'inline'",
            "categories": "null",
            "event_types": "'{A}'",
            "batch_size": "101",
            "on_error": "'stop'",
            "max_retries": "4",
            "reset": "null",
            "after_position": "1",
        },
    ),
    "es_create_state_table": (
        "'balances'",
        {"category": "'account'", "columns": COLUMNS, "fold": "'balance'", "mode": "'async'"},
        {"category": "'order'", "columns": OTHER_COLUMNS, "fold": "null", "mode": "'inline'"},
    ),
    "es_create_temporal_view": (
        "'balances_then'",
        {"category": "'account'", "columns": COLUMNS, "fold": "'balance'"},
        {"category": "'order'", "columns": OTHER_COLUMNS, "fold": "null"},
    ),
    "es_create_event_type": (
        "'Declared'",
        {"json_schema": "'{\"required\": [\"a\"]}'", "description": "'what it is'", "example": "'{\"a\": 1}'", "appendable": "true"},
        {"json_schema": "'{}'", "description": "null", "example": "'{\"a\": 2}'", "appendable": "false"},
    ),
}


@pytest.fixture
def session(database):
    with database.connect() as connection:
        connection.execute("set eventstream.tenant = 'default'")
        connection.execute(
            """select es_register_fold(c || f, c, rules => '{"on": {"A": [{"set": {"/balance": "/balance"}}]}}', is_default => f = '')
               from unnest('{account,order}'::text[]) c, unnest('{"",_2}'::text[]) f"""
        )
        connection.execute("""select es_register_fold('balance', 'account', rules => '{"on": {"A": [{"set": {"/balance": "/balance"}}]}}', is_default => false)""")
        connection.execute("select es_append('account-1', 'A', '{\"balance\": 1}')")
        for name in ("turn(e eventstream.event)", "other(e eventstream.event)", "clear()"):
            connection.execute(f"create function public.{name} returns void language sql as 'select'")
        yield connection


def call(function, changed=None, more=""):
    name, arguments, _ = CREATED[function]
    given = "".join(f", {key} => {text}" for key, text in (arguments | (changed or {})).items())
    return f"select {function}({name}{given}{more})"


AGAIN = ", if_not_exists => true"


def everything(session):
    """What is there of what was created, with who made it when."""
    tables = ("tenants", "event_types", "subscriptions", "subscription_slots", "projections", "projection_progress")
    found = [rows(session, f"select * from _eventstream.{table} order by 1, 2") for table in tables if table != "projection_progress"]
    relations = rows(session, "select oid, relname from pg_class where relnamespace = 'public'::regnamespace order by oid")
    return [*found, relations, rows(session, "select projection_id from _eventstream.projection_progress order by 1")]


def notices(session):
    heard = []
    session.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary)))
    return heard


def test_every_function_that_creates_can_be_told_so(session):
    creating = rows(session, "select proname, 'if_not_exists' = any (proargnames) from pg_proc where proname like 'es\\_create\\_%' order by 1")
    assert creating == [(name, True) for name in sorted(CREATED)]


@pytest.mark.parametrize("function", CREATED)
def test_the_same_again_is_left_alone_and_another_is_refused_with_what_differs(session, function):
    first = value(session, call(function, more=AGAIN))
    before, heard = everything(session), notices(session)
    for _ in range(2):
        assert value(session, call(function, more=AGAIN)) == first
    assert [severity for severity, _ in heard] == ["NOTICE"] * 2, heard
    with session.transaction():
        session.execute(call(function, more=AGAIN))
    # Without it the name must be new.
    for more in ("", ", if_not_exists => false"):
        with pytest.raises(psycopg.Error, match="must be") as taken:
            session.execute(call(function, more=more))
        assert taken.value.sqlstate == "ES005"
    for argument, text in CREATED[function][2].items():
        changed = {argument: text}
        if argument == "category":
            changed["fold"] = "null"
        with pytest.raises(psycopg.Error, match="of the same definition") as differs:
            session.execute(call(function, changed, AGAIN))
        assert differs.value.sqlstate == "ES005"
        says = "list of columns" if function == "es_create_temporal_view" and argument == "columns" else argument
        assert says in differs.value.diag.message_primary
        assert not [other for other in CREATED[function][1] if other not in changed and f" {other} " in differs.value.diag.message_primary]
    assert everything(session) == before


@pytest.mark.parametrize("function", CREATED)
def test_a_hint_can_be_typed_as_it_stands_and_leaves_nothing_broken(session, function):
    value(session, call(function))
    clashes = [call(function), *(call(function, {argument: text}, AGAIN) for argument, text in CREATED[function][2].items())]
    # The name of another kind's relation.
    clashes.append(f"select es_create_temporal_view('balances', 'account', {COLUMNS})")
    clashes.append(f"select es_create_state_table('public.balances', 'account', {COLUMNS})")
    for clash in clashes:
        try:
            with session.transaction():
                session.execute(clash)
        except psycopg.Error as refused:
            typed = re.findall(r"(?:select es_|drop function |drop view )[^;]*;", refused.diag.message_hint or "")
            for statement in typed:
                session.execute(statement)
            if typed:
                session.execute(call(function, more=AGAIN))
        session.execute("select es_run_projection()")
        broken = rows(session, "select name, status, error_message from eventstream.projections where error_message is not null or status = 'stopped'")
        assert broken == [], clash
        gone = rows(session, "select table_name from _eventstream.projections where table_name is not null and to_regclass(table_name) is null")
        assert gone == [], clash


@pytest.mark.parametrize("function", ["es_create_tenant", "es_create_subscription", "es_create_projection"])
def test_several_migrations_at_once_all_go_through(session, database, function):
    sessions = [database.connect(options="-c eventstream.tenant=default") for _ in range(6)]
    try:
        assert raised(all_at_once(6, lambda number: value(sessions[number], call(function, more=AGAIN)))) == []
    finally:
        for connection in sessions:
            connection.close()
    assert len(rows(session, "select id from _eventstream.tenants")) == (2 if function == "es_create_tenant" else 1)
    assert value(session, "select count(*) from _eventstream.projections") == (function == "es_create_projection")


def test_a_state_table_whose_table_is_gone_is_not_called_there(session):
    session.execute(call("es_create_state_table"))
    session.execute("set eventstream.allow_drop = on; drop table balances")
    with pytest.raises(psycopg.Error, match="is gone") as gone:
        session.execute(call("es_create_state_table", more=AGAIN))
    (statement,) = re.findall(r"select [^;]*;", gone.value.diag.message_hint)
    session.execute(statement)
    session.execute(call("es_create_state_table", more=AGAIN))
    session.execute("select es_run_projection('balances')")
    assert rows(session, "select stream, balance from balances") == [("account-1", 1)]
