"""What is temporary goes with its session. Nothing that stays may be made of it, and where something of a user's is all the same, its end is not in the way of
whoever has that session's place next."""

import psycopg
import pytest
from database import rows, value
from psycopg.types.json import Jsonb

RULES = Jsonb({"on": {"D": [{"set": {"/b": "/b"}}]}})


@pytest.fixture
def log(database):
    with database.connect() as session:
        value(session, "select es_register_fold('f', 'acc', rules => %s)", RULES)
        value(session, "select es_append('acc-1', 'D', '{\"b\": 1}')")
    return database


def later_sessions_have_temporary_tables(database) -> None:
    sessions = [database.connect() for _ in range(8)]
    for session in sessions:
        session.execute("create temp table x (a int)")
        session.close()


@pytest.mark.parametrize("make", ["es_create_state_table('t', 'acc', %s)", "es_create_temporal_view('t', 'acc', %s)"])
@pytest.mark.parametrize(
    ("setup", "type_name"),
    [
        ("create domain pg_temp.foo as int", "foo"),
        ("create domain pg_temp.foo as int", "pg_temp.foo"),
        ("create domain pg_temp.foo as int", "foo[]"),
        ("create type pg_temp.foo as enum ('1')", "foo"),
        ("create type pg_temp.foo as (a int)", "foo"),
        ("create temp table foo (a int)", "foo"),
        ("create domain pg_temp.foo as int; create domain public.over as pg_temp.foo", "public.over"),
        ("create domain pg_temp.foo as int; create type public.over as (a int, b pg_temp.foo[])", "public.over"),
        ("create domain pg_temp.foo as int; create type public.over as range (subtype = pg_temp.foo)", "public.over"),
    ],
)
def test_a_column_is_of_no_temporary_type(log, make, setup, type_name):
    with log.connect() as session:
        session.execute(setup)
        with pytest.raises(psycopg.Error) as error:
            session.execute(f"select {make}", [Jsonb([{"name": "b", "type": type_name, "path": "/b"}])])
        assert error.value.sqlstate == "ES005" and "other sessions find too" in str(error.value), error.value
    later_sessions_have_temporary_tables(log)


@pytest.mark.parametrize("end", ["", "discard temp", "discard all"])
def test_a_function_made_of_a_temporary_table_goes_with_it(log, end):
    with log.connect() as session:
        session.execute("create temp table mine (a int)")
        session.execute("create function h(event eventstream.event) returns void begin atomic select from mine; end")
        session.execute("select es_create_projection('p', 'h(eventstream.event)')")
        if end:
            session.execute(end)
    later_sessions_have_temporary_tables(log)
    with log.connect() as session:
        assert rows(session, "select from pg_proc where proname = 'h'") == []
