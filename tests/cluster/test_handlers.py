"""Handlers in every language that PostgreSQL has give the same states; and whatever a fold does, a cancel or a timeout ends it at once."""

import json
import os
import re
import random
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from database import rows, value
from debian import unpacked
from server import BIN, MAJOR, ROOT

INITIAL = '{"n": 0, "names": ""}'
SQL = """create function fold_sql(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$
    select jsonb_build_object('n', (state ->> 'n')::numeric + (event.payload ->> 'amount')::numeric,
                              'names', (state ->> 'names') || event.stream || event.version || event.event_type || (event.metadata ->> 'by'))
$$"""
PLPGSQL = """create function fold_plpgsql(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin
    return jsonb_build_object('n', (state ->> 'n')::numeric + (event.payload ->> 'amount')::numeric,
                              'names', (state ->> 'names') || event.stream || event.version || event.event_type || (event.metadata ->> 'by'));
end $$"""
PLPYTHON = """create function fold_plpython(state jsonb, event eventstream.event) returns jsonb immutable language plpython3u as $$
import decimal, json
before, payload = (json.loads(text, parse_float=decimal.Decimal, parse_int=decimal.Decimal) for text in (state, event["payload"]))
names = before["names"] + event["stream"] + str(event["version"]) + event["event_type"] + json.loads(event["metadata"])["by"]
return '{"n": %s, "names": %s}' % (format(before["n"] + payload["amount"], "f"), json.dumps(names))
$$"""
C_SOURCE = """
#include "postgres.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/jsonb.h"
PG_MODULE_MAGIC;
extern Datum jsonb_concat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(fold_c);
/* Puts the payload's members over the state's. */
Datum fold_c(PG_FUNCTION_ARGS)
{
    bool isnull;
    Datum payload = GetAttributeByName(PG_GETARG_HEAPTUPLEHEADER(1), "payload", &isnull);
    return DirectFunctionCall2(jsonb_concat, PG_GETARG_DATUM(0), payload);
}
"""


def fetched_plpython():
    """PL/Python of the server's own packages, in the private copy of PostgreSQL."""
    library = BIN.resolve().parents[0] / "lib" / "plpython3.so"
    private = next((ROOT / "target" / "pg" / MAJOR).glob("**/plpython3.so"), None)
    if private is not None or library.exists():
        return
    if MAJOR != "15":
        pytest.skip(f"PL/Python for PostgreSQL {MAJOR} comes with Debian's PostgreSQL 15 only")
    shutil.copytree(unpacked("postgresql-plpython3-15"), ROOT / "target" / "pg" / MAJOR, dirs_exist_ok=True, symlinks=True)


def begin(session, count=5):
    session.execute(
        "select es_append_events('thing-1', (select jsonb_agg(jsonb_build_object('type', 'Happened', 'payload', jsonb_build_object('amount', i * 0.25),"
        " 'metadata', jsonb_build_object('by', 'ann'))) from generate_series(1, %s) i))",
        (count,),
    )


def register(session, name, **options):
    session.execute(
        "select es_register_fold(%s, 'thing', %s::regprocedure, initial_state => %s)",
        (name, f"{name}(jsonb, eventstream.event)", options.get("initial", INITIAL)),
    )


def test_sql_and_plpgsql_and_python_give_the_same_states(database):
    fetched_plpython()
    with database.connect() as session:
        session.execute("create extension plpython3u")
        begin(session, 300)
        for definition, name in ((SQL, "fold_sql"), (PLPGSQL, "fold_plpgsql"), (PLPYTHON, "fold_plpython")):
            session.execute(definition)
            register(session, name)
        states = [value(session, "select es_state('thing-1', %s)::text", name) for name in ("fold_sql", "fold_plpgsql", "fold_plpython")]
        assert states[0].startswith('{"n": 11287.50, "names": "thing-11Happenedannthing-12Happenedann')
        assert states == [states[0]] * 3
        # What Python raises is the user's, too.
        session.execute("create or replace " + PLPYTHON.removeprefix("create ").replace("import decimal, json", "plpy.error('no', sqlstate='GL042')\nimport decimal, json"))
        with pytest.raises(psycopg.Error) as raised:
            session.execute("select es_state('thing-1', 'fold_plpython')")
        assert raised.value.sqlstate == "GL042"
        assert 'fold "fold_plpython" of stream "thing-1" at version 1' in raised.value.diag.context


def test_the_decider_in_python_of_the_page_keeps_numbers_exact(database):
    fetched_plpython()
    page = (ROOT / "docs/decide.md").read_text()
    (script,) = [block for block in re.findall(r"(?ms)^```sql no-run\n(.*?)^```", page) if "plpython3u" in block]
    with database.connect() as session:
        session.execute("set client_min_messages = warning")
        session.execute(script)
        session.execute("""select es_register_fold('coins', 'purse', initial_state => '{"coins": 0}', rules => '{"on": {
            "CoinsAdded": [{"add": {"/coins": "/coins"}}], "CoinsSpent": [{"subtract": {"/coins": "/coins"}}]}}')""")
        session.execute("select es_register_decider('purse', 'purse', 'decide_on_purse(jsonb, eventstream.command)')")
        huge = "123456789012345678901234567890.10"
        session.execute("select es_command('purse-1', 'Add', %s)", (f'{{"amount": {huge}}}',))
        assert value(session, "select payload::text from es_read('purse-1')") == f'{{"coins": {huge}}}'
        assert value(session, "select (es_command('purse-1', 'Spend', '{\"amount\": 0.05}') -> 'result')::text") == '{"left": 123456789012345678901234567890.05}'
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_command('purse-1', 'Spend', '{\"amount\": 1e40}')")
        assert refused.value.sqlstate == "ES033" and "there are only 123456789012345678901234567890.05" in str(refused.value)


def test_a_handler_in_c_is_called(database, tmp_path):
    source, library = tmp_path / "fold_c.c", ROOT / "target" / f"fold_c-{MAJOR}-{os.getpid()}.so"
    source.write_text(C_SOURCE)
    headers = subprocess.run([BIN / "pg_config", "--includedir-server"], check=True, capture_output=True, text=True).stdout.strip()
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", f"-I{headers}", "-o", str(library), str(source)], check=True)
    library.chmod(0o755)
    try:
        with database.connect() as session:
            begin(session)
            session.execute(
                f"create function fold_c(state jsonb, event eventstream.event) returns jsonb immutable language c as '{library}', 'fold_c'"
            )
            register(session, "fold_c")
            assert value(session, "select es_state('thing-1')::text") == '{"n": 0, "names": "", "amount": 1.25}'
    finally:
        library.unlink()


LOOPING = """create function fold_looping(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin loop state := state; end loop; end $$"""
SLOWLY = """create function fold_slowly(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin for i in 1..2000 loop state := state; end loop; return state; end $$"""
# Measured: under 20 ms. A busy machine may take longer; a fold that ignores the signal takes many seconds.
MOST_SECONDS = 0.5


@pytest.mark.parametrize("definition, name, events", [(LOOPING, "fold_looping", 1), (SLOWLY, "fold_slowly", 10_000)])
def test_a_timeout_and_a_cancel_end_a_fold_at_once(database, definition, name, events):
    with database.connect() as session, database.connect() as other:
        begin(session, events)
        session.execute(definition)
        register(session, name)
        session.execute("set statement_timeout = '200ms'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("select es_state('thing-1')")
        assert time.monotonic() - began < 0.2 + MOST_SECONDS
        session.execute("reset statement_timeout")
        cancelled = []

        def cancel():
            time.sleep(0.2)
            cancelled.append(time.monotonic())
            other.execute("select pg_cancel_backend(%s)", (session.info.backend_pid,))

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("select * from es_history('thing-1')")
        assert time.monotonic() - cancelled[0] < MOST_SECONDS
        thread.join()
        # The session goes on, and may append: nothing of the fold is left behind.
        begin(session, 1)


def test_a_timeout_ends_a_long_fold_by_rules(database):
    with database.connect() as session:
        for _ in range(20):
            begin(session, 10_000)
        rules = '{"on": {"Happened": [{"add": {"/n": "/amount"}}, {"append": {"/all": "/amount"}}]}}'
        session.execute("select es_register_fold('rules', 'thing', rules => %s, initial_state => %s)", (rules, '{"n": 0, "all": []}'))
        session.execute("set statement_timeout = '20ms'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("select es_state('thing-1')")
        assert time.monotonic() - began < 0.02 + MOST_SECONDS
        assert rows(session, "select 1") == [(1,)]


ASSIGNMENTS = """
    event.stream := 'other-1' || event.stream;
    event.stream := event.stream || '!';
    event.payload['amount'] := to_jsonb((event.payload ->> 'amount')::numeric + 1);
    event.payload := event.payload || '{"seen": true}';
    event.metadata := '{}';
    event.metadata := null;
    event.event_id := '00000000-0000-0000-0000-000000000001';
    event.event_type := repeat('x', 5000);
    event.subject := 'somebody';
    event.subject := repeat('y', 100000);
    event.occurred_at := 'infinity';
    event.category := 'c'; event.tenant := 't'; event.recorded_by := 'r';
    event.salt := '\\x00'; event.chain_hash := null; event.version := event.version + 1;
    copied := event;
    copied.stream := 'a copy';
"""


@pytest.mark.parametrize("argument", ["event", "events"])
def test_a_handler_may_assign_to_every_column_of_its_event(quiet, argument):
    """The record points to memory that is not its own to free; what is assigned stays within the call, and the log is what it was."""
    with quiet.connect() as session:
        session.execute("create table seen (stream text, payload jsonb, version bigint, subject text)")
        session.execute(
            f"create function fold_assigns(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$"
            f" declare copied eventstream.event; begin {ASSIGNMENTS}"
            " return jsonb_build_object('n', (state ->> 'n')::numeric + (event.payload ->> 'amount')::numeric, 'stream', event.stream, 'copy', copied.stream); end $$"
        )
        insert = "insert into seen values (event.stream, event.payload, event.version, left(event.subject, 1));"
        if argument == "event":
            session.execute(f"create function handles(event eventstream.event) returns void language plpgsql as $$ declare copied eventstream.event; begin {ASSIGNMENTS} {insert} end $$")
        else:
            session.execute(
                "create function handles(events eventstream.event[]) returns void language plpgsql as $$ declare event eventstream.event; copied eventstream.event; begin"
                f" foreach event in array events loop {ASSIGNMENTS} {insert} end loop; events[1].payload := '{{}}'; end $$"
            )
        session.execute("""select es_register_fold('assigns', 'thing', 'fold_assigns(jsonb, eventstream.event)', initial_state => '{"n": 0}')""")
        session.execute(f"select es_create_projection('p', 'handles(eventstream.event{'[]' if argument == 'events' else ''})')")
        payload = '{"amount": 1.50, "text": "%s"}' % ("z" * 3000)
        for _ in range(20):
            session.execute("select es_append('thing-1', 'Happened', %s::jsonb, metadata => '{\"actor\": \"me\"}', subject => 'person')", (payload,))
        before = rows(session, "select * from eventstream.events order by 1")
        assert value(session, "select es_state('thing-1', 'assigns')") == {"n": 50.0, "stream": "other-1thing-1!", "copy": "a copy"}
        assert value(session, "select count(*) from es_history('thing-1', fold => 'assigns')") == 20
        assert value(session, "select es_run_projection('p')") == 20
        assert rows(session, "select distinct stream, payload ->> 'amount', payload ->> 'seen', subject from seen") == [("other-1thing-1!", "2.50", "true", "y")]
        assert rows(session, "select version from seen order by 1") == [(n,) for n in range(2, 22)]
        assert rows(session, "select * from eventstream.events order by 1") == before
        assert rows(session, "select * from es_verify()") == []


APPENDS_VERSION = """create function fold_versions(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin
    if event.version = 700 and state ? 'fails' then return null; end if;
    return jsonb_set(jsonb_set(state, '{versions}', state -> 'versions' || to_jsonb(event.version)),
                     '{letters}', to_jsonb((state ->> 'letters')::bigint + length(event.payload ->> 'text')));
end $$"""


def test_a_handler_sees_each_event_once_and_in_order_over_many_pages(quiet):
    """Events are given to a handler a page at a time: late ones in runs longer than a page and alone, and documents that fill a page by themselves."""
    generator = random.Random(7)
    days, letters, batch = [], 0, []
    for version in range(1, 901):
        is_late = 260 <= version < 560 or version % 97 == 0
        days.append(generator.randrange(1, 200) if is_late else 200 + version)
        text = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=60_000 if version in (255, 256, 257, 600) else 10))
        letters += len(text)
        occurred_at = (datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=days[-1])).isoformat()
        batch.append({"type": "Happened", "payload": {"text": text}, "occurred_at": occurred_at})
    by_version = list(range(1, 901))
    by_time = sorted(by_version, key=lambda version: (days[version - 1], version))
    with quiet.connect() as session:
        session.execute("select es_append_events('thing-1', %s)", (json.dumps(batch),))
        session.execute(APPENDS_VERSION)
        for order, expected in (("version", by_version), ("occurred_at", by_time)):
            for name, initial in ((f"whole_{order}", '{"versions": [], "letters": 0}'), (f"failing_{order}", '{"versions": [], "letters": 0, "fails": true}')):
                session.execute(
                    "select es_register_fold(%s, 'thing', 'fold_versions(jsonb, eventstream.event)', initial_state => %s, fold_order => %s, is_default => false)",
                    (name, initial, order),
                )
            assert value(session, "select es_state('thing-1', %s)", f"whole_{order}") == {"versions": expected, "letters": letters}
            history = rows(session, "select version from es_history('thing-1', fold => %s) order by version", f"whole_{order}")
            assert history == [(version,) for version in by_version]
            with pytest.raises(psycopg.Error) as raised:
                session.execute("select es_state('thing-1', %s)", (f"failing_{order}",))
            assert raised.value.sqlstate == "ES013"
            assert json.loads(raised.value.diag.message_detail)["version"] == 700
