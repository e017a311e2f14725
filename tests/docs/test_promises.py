"""What pages promise beyond the output that they print: their SQL, run on with what a reader would bring along."""

import re
import subprocess

import psycopg
import pytest

from documents import ROOT, blocks, examples


def sql_of(page):
    """The SQL blocks of a page that are run, in order."""
    return [sql.text for sql, _ in examples((ROOT / page).read_text(encoding="utf-8"))]


def psql(database, script):
    """Runs SQL in psql, which pages may use meta-commands of; errors that a page tells of do not end it."""
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t"], input=script, env=database.environment | {"PGTZ": "UTC"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


# --- moving in --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(database):
    """A connection to a database in which docs/move-in.md's Load was done, with the page's rows and without its second call."""
    (load, *_) = sql_of("docs/move-in.md")
    printed = psql(database, load)
    assert "ERROR" not in printed, printed
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield connection


def versions(connection, stream="account-1"):
    return [row[0] for row in connection.execute("select payload ->> 'n' from es_read(%s) where payload ? 'n' order by version", (stream,))]


def more(connection, version, stream="account-1"):
    connection.execute(
        "insert into old_events values (%s, %s, %s, 'Noted', jsonb_build_object('n', %s::int), '2019-04-01Z')", (100 + version, stream, version, version)
    )


def test_a_second_run_takes_what_came_in_the_meantime(moved):
    for version in (4, 5):
        more(moved, version)
    moved.execute("call move_in()")
    assert versions(moved) == ["4", "5"] and moved.execute("select es_stream_version('account-1')").fetchone() == (5,)
    for version in (6, 7, 8):
        more(moved, version)
    # Batches whose edges lie elsewhere than those of the runs before.
    moved.execute("call move_in(batch => 2)")
    moved.execute("call move_in(batch => 2)")
    assert versions(moved) == ["4", "5", "6", "7", "8"]


@pytest.mark.parametrize("there", [(2, 3), (1, 3), (1, 2, 3, 5)], ids=["at the beginning", "after the first", "further on"])
@pytest.mark.parametrize("stream", ["account-7", "account-1"], ids=["a new stream", "one that goes on"])
def test_a_hole_of_the_old_store_stops_the_move(moved, stream, there):
    before = moved.execute("select es_stream_version(%s)", (stream,)).fetchone()[0]
    for version in there:
        more(moved, before + version, stream)
    with pytest.raises(psycopg.Error) as refused:
        moved.execute("call move_in()")
    assert refused.value.sqlstate in ("ES001", "P0001") and stream in str(refused.value)
    assert moved.execute("select es_stream_version(%s)", (stream,)).fetchone() == (before,)


def test_a_store_that_counts_from_zero_is_told_to_add_one(moved):
    with pytest.raises(psycopg.errors.CheckViolation, match="counts_from_one"):
        more(moved, 0, "account-7")
    more(moved, 1, "account-7")
    with pytest.raises(psycopg.errors.UniqueViolation):
        more(moved, 1, "account-7")


def test_the_check_finds_what_is_there_and_not_here_or_another(moved):
    check = next(text for text in sql_of("docs/move-in.md") if "es_verify" in text).split(";")[1]
    assert moved.execute(check).fetchall() == []
    more(moved, 4)
    moved.execute("update old_events set data = '{}' where stream = 'account-2'")
    found = moved.execute(check).fetchall()
    assert sorted(row[:2] for row in found) == [("account-1", 4), ("account-2", 1)]


# --- a wrong event ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", ["12,50", "", "twelve", "NaN", "Infinity", "1e400000", "0x10", " 1", "-"])
def test_the_upcaster_of_the_page_never_raises(database, amount):
    text = "\n".join(sql_of("docs/wrong-event.md"))
    create, register = re.search(r"^create function credited_1_to_2.*?^\$\$;", text, re.M | re.S), re.search(r"^select es_register_upcaster\(.*?\);", text, re.M)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for wrong in (amount, "12.50"):
            connection.execute("select es_append('account-8', 'AccountCredited', jsonb_build_object('amount', %s::text))", (wrong,))
        connection.execute(create[0])
        connection.execute(register[0])
        read = [row[0] for row in connection.execute("select payload ->> 'amount' from es_read_all()")]
        assert read == [amount, "12.50"]
        assert connection.execute("select jsonb_typeof(payload -> 'amount') from es_read_backward()").fetchone()[0] == "number"


# --- folds that read what they may not ---------------------------------------------------------------------------------------


def test_what_the_pages_say_of_a_fold_that_reads_a_table_is_so(database):
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("create table rates (rate numeric); insert into rates values (2)")
        for name, kind, body in (("sly", "immutable", "(select rate from rates)"), ("honest", "stable", "(select rate from rates)"), ("calls", "immutable", "es_state('a-1')::text")):
            connection.execute(
                f"create function {name}(state jsonb, event eventstream.event) returns jsonb {kind} language plpgsql"
                f" as $$ begin return jsonb_build_object('rate', {body}); end $$"
            )
        with pytest.raises(psycopg.Error, match="IMMUTABLE"):
            connection.execute("select es_register_fold('honest', 'b', 'honest(jsonb, eventstream.event)')")
        connection.execute("select es_register_fold('calls', 'c', 'calls(jsonb, eventstream.event)'), es_append('c-1', 'X', '{}')")
        with pytest.raises(psycopg.Error, match="cannot be called by a fold"):
            connection.execute("select es_state('c-1')")
        # Not noticed, until es_verify_snapshots folds again.
        connection.execute("select es_register_fold('sly', 'a', 'sly(jsonb, eventstream.event)'), es_append('a-1', 'X', '{}')")
        assert connection.execute("select es_state('a-1') ->> 'rate', es_snapshot('a-1')").fetchone()[0] == "2"
        connection.execute("update rates set rate = 3")
        found = connection.execute("select stream, problem from es_verify_snapshots(thorough => true)").fetchall()
        assert [row[0] for row in found] == ["a-1"]
    for page in ("docs/test-folds.md", "docs/guide.md"):
        assert "es_verify_snapshots" in (ROOT / page).read_text(encoding="utf-8")


# --- operating ---------------------------------------------------------------------------------------------------------------

FOLD = """select es_register_fold('account', 'account', initial_state => '{"balance": 0}', rules => '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}]}}')"""
COLUMNS = '[{"name": "balance", "type": "numeric", "path": "/balance"}]'


def test_remove_takes_temporal_views_and_handlers_and_leaves_state_tables(database):
    for statement in (
        FOLD,
        f"select es_create_temporal_view('accounts', 'account', '{COLUMNS}')",
        f"select es_create_state_table('balances', 'account', '{COLUMNS}')",
        "create function handler(event eventstream.event) returns void language sql as ''",
        """select es_append('account-1', 'AccountCredited', '{"amount": 1.00}')""",
    ):
        database.ask(statement)
    (remove,) = [block.text for block in blocks((ROOT / "docs/operate.md").read_text(encoding="utf-8")) if "drop extension" in block.text]
    printed = psql(database, remove)
    assert "ERROR" not in printed, printed
    assert database.ask("select count(*) from pg_extension where extname = 'eventstream'") == "0"
    assert database.ask("select string_agg(relname, ',') from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')") == "balances"
    assert database.ask("select count(*) from pg_proc where pronamespace = 'public'::regnamespace") == "0"


def test_the_block_that_stops_appends_lets_superusers_in_and_nobody_else(database):
    found = sql_of("docs/operate.md")
    (stop,), (go_on,) = [text for text in found if "connection limit 0" in text], [text for text in found if "connection limit -1" in text]
    database.ask("create role teller login")
    try:
        database.ask("select es_grant('teller', 'append')")
        with psycopg.connect(database.dsn, user="teller", autocommit=True) as teller:
            teller.execute("select es_append('account-1', 'AccountOpened', '{}')")
            assert "ERROR" not in psql(database, stop)
            with pytest.raises(psycopg.OperationalError):
                teller.execute("select es_append('account-1', 'AccountOpened', '{}')")
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            psycopg.connect(database.dsn, user="teller")
        assert database.ask("select count(*) from es_verify()") == "0"
        assert "ERROR" not in psql(database, go_on)
        psycopg.connect(database.dsn, user="teller").close()
        assert database.ask("show eventstream.max_workers") != "0"
    finally:
        database.ask("select es_revoke('teller', 'append'); drop role teller")


def test_what_privileges_says_of_operators_auditors_and_closing_is_so(database):
    made = ("operator", "auditor", "teller")
    with psycopg.connect(database.dsn, autocommit=True) as connection:

        def may(role, statement):
            connection.execute(f"set role page_{role}")
            try:
                connection.execute(statement)
                return True
            except psycopg.Error as error:
                if error.sqlstate == "42501":
                    return False
                raise
            finally:
                connection.execute("reset role")

        for role in made:
            connection.execute(f"create role page_{role}")
        try:
            connection.execute("select es_append('account-1', 'AccountOpened', '{}'), es_grant('page_auditor', 'audit'), es_grant('page_teller', 'append')")
            for statement in ("select es_metrics()", "select * from eventstream.stats", "select * from eventstream.health", "select * from eventstream.horizon_holders"):
                assert not may("operator", statement)
            connection.execute("grant pg_monitor to page_operator")
            for statement in ("select es_metrics()", "select * from eventstream.stats", "select * from eventstream.health", "select * from eventstream.horizon_holders"):
                assert may("operator", statement), statement
            assert may("auditor", "select * from es_verify()") and may("auditor", "select * from es_chain_heads()")
            assert not may("auditor", "select payload from eventstream.events")
            connection.execute("select es_grant('page_auditor', 'read')")
            assert may("auditor", "select payload from eventstream.events")
            assert may("teller", "select es_close_stream('account-1', 'it may')")
        finally:
            connection.execute("revoke pg_monitor from page_operator")
            connection.execute("select es_revoke(role, privilege) from eventstream.grants")
            for role in made:
                connection.execute(f"drop role page_{role}")


@pytest.mark.parametrize(
    "payload",
    ['{"amount": "12.50"}', '{"amount": 12.50, "owner": "Ada"}'],
    ids=["a stream that cannot be folded", "a value that its column cannot take"],
)
def test_what_is_passed_over_by_a_state_table(database, payload):
    rules = '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}, {"set": {"/owner": {"from": "/owner", "default": 0}}}]}}'
    columns = '[{"name": "owner", "type": "int", "path": "/owner"}]'
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("select es_register_fold('account', 'account', initial_state => %s, rules => %s)", ('{"balance": 0}', rules))
        connection.execute("select es_create_state_table('accounts', 'account', %s)", (columns,))
        connection.execute("""select es_alter_projection('accounts', '{"max_retries": 0}')""")
        for stream, content in (("account-1", '{"amount": 1}'), ("account-2", payload), ("account-3", '{"amount": 1}')):
            connection.execute("select es_append(%s, 'AccountCredited', %s::text::jsonb)", (stream, content))
        connection.execute("select es_wait_for('accounts', timeout => '60s')")
        status = "select status, (select count(*) from eventstream.dead_letters) from eventstream.projections"
        assert connection.execute(status).fetchone() == ("running", 1)
        there = [row[0] for row in connection.execute("select stream from accounts order by stream")]
        assert there == ["account-1", "account-3"]
