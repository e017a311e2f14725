"""An error of ours speaks to whoever called: its CONTEXT has no line of a statement or function that we call inside, whatever was asked and however
wrong it was. What the caller runs himself, he is told."""

import psycopg
import pytest
from database import rows
from test_memory import BY_NAME, FUNCTIONS, PLAIN, TYPES
from test_rights_first import WRONG

INNER = ("PL/pgSQL", "SQL statement", "SQL function", "SQL expression")
COLUMNS = """'[{"name": "sum", "type": "numeric", "path": "/sum"}]'"""


def prepared(session) -> None:
    session.execute("select es_append('account-1', 'Opened', '{}')")
    session.execute("""select es_register_fold('sums', 'account', rules => '{"on": {}}')""")
    session.execute(f"select es_create_state_table('there', 'account', {COLUMNS})")
    session.execute(f"select es_create_temporal_view('there_too', 'account', {COLUMNS})")
    session.execute("create table taken (n int)")


def lines(diag) -> list[str]:
    """Those of the CONTEXT that say something inner."""
    return [line for line in (diag.context or "").splitlines() if any(word in line for word in INNER)]


def test_no_error_of_ours_shows_our_own_lines(quiet):
    with quiet.connect() as session:
        prepared(session)
        functions = rows(session, FUNCTIONS)
        seen, asked = {}, set()
        for name, _, arguments in functions:
            bare = name.split(".")[-1]
            if not bare.startswith("es_"):
                continue
            types = [(argument, TYPES.get(kind, kind)) for argument, kind in (one.split(":", 1) for one in arguments)]
            usual = [BY_NAME.get(argument, PLAIN[kind]) for argument, kind in types]
            calls = [usual]
            for place, (_, kind) in enumerate(types):
                calls += [[*usual[:place], wrong, *usual[place + 1 :]] for wrong in WRONG.get(kind, [])]
            for call in calls:
                given = ", ".join(f"({value})::{kind}" for value, (_, kind) in zip(call, types, strict=True))
                session.execute("begin")
                try:
                    session.execute(f"select * from {name}({given})")
                except psycopg.Error as error:
                    if error.sqlstate.startswith("ES"):
                        asked.add(bare)
                        if lines(error.diag):
                            seen[bare] = (given[:100], error.diag.message_primary[:100], error.diag.context[:300])
                session.execute("rollback")
        assert len(asked) > 40, asked
        assert seen == {}


WRONG_ONES = [
    f"es_create_state_table('a.b.c', 'account', {COLUMNS})",
    f"es_create_state_table(null, 'account', {COLUMNS})",
    f"es_create_state_table('taken', 'account', {COLUMNS})",
    f"es_create_state_table('there', 'account', {COLUMNS})",
    f"es_create_state_table('new', 'account', {COLUMNS}, mode => 'sometimes')",
    f"es_create_state_table('new', 'account', {COLUMNS}, fold => 'none')",
    "es_create_state_table('new', 'account', '[]')",
    """es_create_state_table('new', 'account', '[{"name": "sum", "type": "no_such_type", "path": "/sum"}]')""",
    f"es_create_temporal_view('taken', 'account', {COLUMNS})",
    f"es_create_temporal_view('there_too', 'account', {COLUMNS})",
    """es_create_temporal_view('there_too', 'account', '[{"name": "other", "type": "text", "path": "/sum"}]', if_not_exists => true)""",
    f"es_create_temporal_view('new', 'account', {COLUMNS}, fold => 'none')",
    """es_create_temporal_view('new', 'account', '[{"name": "problem", "type": "text", "path": "/sum"}]')""",
    "es_drop_projection('none')",
    "es_drop_projection(null)",
]


@pytest.mark.parametrize("call", WRONG_ONES)
def test_what_is_made_in_the_callers_name_is_refused_without_them(quiet, call):
    with quiet.connect() as session:
        prepared(session)
        with pytest.raises(psycopg.Error) as error:
            session.execute(f"select {call}")
        assert error.value.sqlstate.startswith("ES") and error.value.diag.context is None
        # The caller's own function is his to hear of.
        session.execute(f"create function callers() returns void language plpgsql as $$ begin perform {call}; end $$")
        with pytest.raises(psycopg.Error) as error:
            session.execute("select callers()")
        told = error.value.diag.context.splitlines()
        assert told[-1] == "PL/pgSQL function callers() line 1 at PERFORM" and len(lines(error.value.diag)) <= 2
        assert not [line for line in told if "make_" in line or "refuse" in line], told


def test_what_a_users_function_ran_is_said(quiet):
    with quiet.connect() as session:
        session.execute("""
            create function reacts(event eventstream.event) returns void language plpgsql as $$
            begin if event.category = 'account' then perform es_append('other-1', 'Happened', '{}', expected_version => 7); end if; end $$;
            select es_create_projection('reacting', 'reacts(eventstream.event)', mode => 'inline')""")
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_append('account-1', 'Opened', '{}')")
        assert error.value.sqlstate == "ES001" and "PL/pgSQL function reacts(eventstream.event)" in error.value.diag.context


def test_postgresqls_own_errors_stay_whole(quiet):
    quiet.role("makes_nothing")
    with quiet.connect() as session:
        prepared(session)
        session.execute("create schema closed")
        session.execute("select es_grant('makes_nothing', 'manage'), es_grant('makes_nothing', 'read')")
    with quiet.connect(user="makes_nothing") as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            session.execute(f"select es_create_state_table('closed.new', 'account', {COLUMNS})")
        assert 'permission denied for schema closed' in error.value.diag.message_primary


def test_a_projections_table_goes_with_it_by_the_callers_rights(quiet):
    with quiet.connect() as session:
        prepared(session)
        session.execute("create view over as select * from there")
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_drop_projection('there', drop_table => true)")
        assert error.value.sqlstate == "2BP01" and "depends on table public.there" in error.value.diag.message_detail
        session.execute("drop view over")
        session.execute("select es_drop_projection('there', drop_table => true)")
        assert rows(session, "select to_regclass('there')") == [(None,)]
        assert rows(session, "select name from eventstream.projections") == []
