"""Temporal views where it takes more than one session: settings that were made before the library was loaded, for a database or a role; a
dump and its restore; who reads them, and in which tenant."""

import uuid

import psycopg
import pytest
from database import Database, rows, value
from server import WORK, run

COLUMNS = '[{"name": "coins", "type": "numeric", "path": "/coins"}]'
RULES = '{"on": {"Filled": [{"add": {"/coins": "/coins"}}]}}'
GARBAGE = ["2024-10-31", "2024-10-31 23:59", "tomorrow", "2024-10-31 23:59 monday", "x"]


def fill(session, tenant: str, coins: str) -> None:
    session.execute(f"set eventstream.tenant = '{tenant}'")
    session.execute("select es_register_fold('purse', 'purse', rules => %s, initial_state => '{\"coins\": 0}')", (RULES,))
    session.execute(
        "select es_append('purse-1', 'Filled', %s::jsonb, occurred_at => '2024-01-01 00:00Z')", (f'{{"coins": {coins}}}',)
    )


def refusal(session, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as refused:
        session.execute(statement)
    return refused.value


def assert_refused(session, setting: str) -> None:
    """The view says what is wrong with the setting; the function beside it does not look at it."""
    error = refusal(session, "select * from purses")
    assert error.sqlstate == "ES005"
    assert error.diag.message_primary.startswith(f"{setting} must be a moment")
    assert "es_day_end" in error.diag.message_hint
    assert rows(session, "select * from purses_at(null)") == [("purse-1", 1, 5, None)]


@pytest.fixture
def purses(database):
    with database.connect() as session:
        fill(session, "default", "5")
        session.execute("select es_create_temporal_view('purses', 'purse', %s)", (COLUMNS,))
    return database


@pytest.mark.parametrize("setting", ["eventstream.as_of", "eventstream.known_at"])
def test_garbage_set_before_the_library_is_loaded_is_refused_by_who_reads_it(new_server, setting):
    database = Database(new_server("temporal_unloaded", preload=False), "purses").create()
    with database.connect() as session:
        fill(session, "default", "5")
        session.execute("select es_create_temporal_view('purses', 'purse', %s)", (COLUMNS,))
    for garbage in GARBAGE:
        with database.connect() as session:
            # Not loaded in this session yet: PostgreSQL takes any value under a name it does not know.
            session.execute(f"set {setting} = '{garbage}'")
            assert_refused(session, setting)
            session.execute(f"reset {setting}")
            assert len(rows(session, "select * from purses")) == 1
    with database.connect() as session:
        session.execute(f"set {setting} = '2000-01-01 00:00Z'")
        assert rows(session, "select * from purses") == []


@pytest.mark.parametrize("setting", ["eventstream.as_of", "eventstream.known_at"])
def test_garbage_that_a_database_or_the_servers_file_sets_is_refused_by_who_reads_it(new_server, setting):
    server = new_server("temporal_configured")
    database = Database(server, "purses").create()
    with database.connect() as session:
        fill(session, "default", "5")
        session.execute("select es_create_temporal_view('purses', 'purse', %s)", (COLUMNS,))
        assert refusal(session, f"alter database purses set {setting} = 'today'").sqlstate == "ES005"
    server.configure(**{setting: "today"})
    server.restart()
    with database.connect() as session:
        assert_refused(session, setting)
    server.configure(**{setting.replace(".", "__"): None})
    server.restart()
    # As a dump of a server without the library would bring it.
    with database.connect() as session:
        assert rows(session, "select * from purses") == [("purse-1", 1, 5, None)]
        session.execute("set allow_system_table_mods = on")
        session.execute(
            "insert into pg_db_role_setting select oid, 0, array[%s] from pg_database where datname = 'purses'",
            (f"{setting}=2024-10-31",),
        )
    with database.connect() as session:
        assert_refused(session, setting)


def test_a_connection_that_asks_for_garbage_is_refused(purses):
    with pytest.raises(psycopg.OperationalError, match="eventstream.as_of must be a moment"):
        purses.connect(options="-c eventstream.as_of=2024-10-31")


def test_a_view_survives_dump_and_restore(purses, new_server):
    with purses.connect() as session:
        session.execute("create schema reporting")
        session.execute("select es_create_temporal_view('reporting.\"Odd; \"\"name\"', 'purse', %s)", (COLUMNS,))
    target = Database(new_server("temporal_target"), "purses").create(extension=False)
    dump = WORK / f"temporal-{uuid.uuid4().hex[:6]}.sql"
    try:
        run("pg_dump", "-f", dump, env=purses.server.address(purses.name))
        run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, env=target.server.address("purses"))
    finally:
        dump.unlink(missing_ok=True)
    with target.connect() as session:
        for view in ("public.purses", 'reporting."Odd; ""name"'):
            function = view[:-1] + '_at"' if view.endswith('"') else view + "_at"
            assert rows(session, f"select stream, version, coins from {view}") == [("purse-1", 1, 5)]
            assert rows(session, f"select * from {function}('2000-01-01 00:00Z')") == []
            assert rows(session, f"select * from {function}(null, stream => 'purse-1')") == [("purse-1", 1, 5, None)]
        session.execute("set eventstream.as_of = '2000-01-01 00:00Z'")
        assert rows(session, "select * from purses") == []


def test_a_view_shows_its_readers_tenant_and_what_it_may_read(purses):
    for role in ("acme_clerk", "both_clerk", "stranger", "unselected", "caller"):
        purses.role(role)
    with purses.connect() as session:
        session.execute("select es_create_tenant('acme')")
        fill(session, "acme", "70")
        session.execute("grant select on purses to acme_clerk, both_clerk, stranger")
        session.execute("revoke execute on function purses_at from public")
        session.execute("grant execute on function purses_at to acme_clerk")
        for role, tenant in (("acme_clerk", "acme"), ("both_clerk", "acme"), ("both_clerk", "default"), ("unselected", "default")):
            session.execute("select es_grant(%s, 'read', %s)", (role, tenant))
    with purses.connect("acme_clerk") as session:
        assert rows(session, "select * from purses") == [("purse-1", 1, 70, None)]
        assert rows(session, "select * from purses_at(null, stream => 'purse-1')") == [("purse-1", 1, 70, None)]
        session.execute("set eventstream.tenant = 'default'")
        assert refusal(session, "select * from purses").sqlstate == "42501"
    with purses.connect("both_clerk") as session:
        assert refusal(session, "select * from purses").sqlstate == "ES041"
        for tenant, coins in (("acme", 70), ("default", 5)):
            session.execute(f"set eventstream.tenant = '{tenant}'")
            assert rows(session, "select * from purses") == [("purse-1", 1, coins, None)]
        assert refusal(session, "select * from purses_at(null)").sqlstate == "42501"
    with purses.connect("stranger") as session:
        error = refusal(session, "select * from purses")
        assert (error.sqlstate, '"read"' in error.diag.message_primary) == ("42501", True)
    with purses.connect("unselected") as session:
        error = refusal(session, "select * from purses")
        assert (error.sqlstate, error.diag.message_primary) == ("42501", "permission denied for view purses")
    with purses.connect("caller") as session:
        # The maker needs manage; nothing of the extension's rights helps with the schema.
        assert refusal(session, f"select es_create_temporal_view('mine', 'purse', '{COLUMNS}')").sqlstate == "42501"
    with purses.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        session.execute("select es_grant('caller', 'manage', 'default')")
        session.execute("create schema mine authorization caller")
    with purses.connect("caller") as session:
        for schema in ("public", "eventstream", "_eventstream", "pg_catalog"):
            statement = f"select es_create_temporal_view('{schema}.mine', 'purse', '{COLUMNS}')"
            assert refusal(session, statement).sqlstate == "42501", schema
        session.execute("set search_path = mine, public")
        assert value(session, "select es_create_temporal_view('mine', 'purse', %s)", COLUMNS) == "mine.mine"
        assert value(session, "select proowner::regrole::text from pg_proc where oid = 'mine.mine_at'::regproc") == "caller"
