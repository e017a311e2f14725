"""Projections and state tables meet everything they were not made for: an error that says what is wrong, and nothing lost, skipped or done twice."""

import contextlib
import json
import re
import threading
import time

import psycopg
import pytest

import server as servers
from database import Database, last_position, numbers, passed, position_of, rows, value
from server import wait_until

DISASTERS = re.compile(r"PANIC|panicked|was terminated by signal|TRAP:")
COLUMNS = '[{"name": "n", "type": "numeric", "path": "/n"}]'
FOLD = "select es_register_fold('sums', 'thing', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"Happened\": [{\"add\": {\"/n\": \"/n\"}}]}}')"


@contextlib.contextmanager
def raised(*sqlstates: str):
    with pytest.raises(psycopg.Error) as error:
        yield error
    assert error.value.sqlstate in sqlstates, error.value


def server_of(name, **settings):
    server = servers.Server(name, **{"eventstream.retry_pause": "1ms", "max_prepared_transactions": 4, **settings}).create()
    yield server
    disasters = [line for line in server.log.read_text(errors="replace").splitlines() if DISASTERS.search(line)]
    server.destroy()
    assert disasters == []


@pytest.fixture(scope="module")
def quiet_server():
    """Runs no workers: what is advanced, the tests advance."""
    yield from server_of("quiet", **{"eventstream.max_workers": 0})


@pytest.fixture(scope="module")
def busy_server():
    yield from server_of("busy", **{"eventstream.handler_timeout": "400ms", "max_worker_processes": 12})


def made_on(server, request):
    made = Database(server, re.sub(r"\W", "_", request.node.name)[:50]).create()
    with made.connect() as session:
        session.execute("create table seen (n serial, name text, position bigint, stream text, version bigint)")
    return made


@pytest.fixture
def quiet(quiet_server, request):
    made = made_on(quiet_server, request)
    yield made
    made.drop()


@pytest.fixture
def busy(busy_server, request):
    made = made_on(busy_server, request)
    yield made
    made.drop()


def handler(session, name: str, body: str = "", declare: str = "") -> str:
    """A handler that notes what it is given, after doing what `body` says."""
    session.execute(
        f"create or replace function {name}(event eventstream.event) returns void language plpgsql as $body$ declare {declare} begin {body}\n"
        f" insert into seen (name, position, stream, version) values ('{name}', event.global_position, event.stream, event.version); end $body$"
    )
    return f"{name}(eventstream.event)"


def create(session, name: str, body: str = "", declare: str = "", **settings) -> None:
    given = "".join(f", {key} => {literal(setting)}" for key, setting in settings.items())
    session.execute(f"select es_create_projection('{name}', '{handler(session, name, body, declare)}'{given})")


def literal(setting) -> str:
    return str(setting) if isinstance(setting, int) else f"'{setting}'"


def append(session, *streams: str, n=1) -> None:
    for stream in streams:
        session.execute("select es_append(%s, 'Happened', %s)", (stream, json.dumps({"n": n})))


def seen(session, name: str) -> list[int]:
    """Which events of the log it has seen: 1 is the first."""
    return numbers(session, [position for (position,) in rows(session, "select position from seen where name = %s order by n", name)])


def progress(session, name: str) -> dict:
    """`passed`: how many events of the log its checkpoint has passed."""
    cursor = session.execute("select * from eventstream.projections where name = %s", (name,))
    found = dict(zip((column.name for column in cursor.description), cursor.fetchone()))
    return {**found, "passed": passed(session, found["global_position"])}


def run(session, name: str, times: int = 1) -> int:
    return sum(value(session, "select es_run_projection(%s)", name) for _ in range(times))


# -- handlers that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_failing_event_behind_others_positions_has_so_many_attempts_and_no_more(quiet, on_error):
    with quiet.connect() as session:
        append(session, "other-1", "other-2", "thing-1", "other-1", "thing-2")
        session.execute("select setval('_eventstream.positions', 1000)")
        append(session, "other-1", "thing-3")
        create(session, "p", "if event.version = 1 and event.stream <> 'thing-2' then raise 'no'; end if;", categories="{thing}", max_retries=2, on_error=on_error)
        run(session, "p", 3)
        if on_error == "skip":
            run(session, "p", 4)
            dead = [(position_of(session, number), 3) for number in (3, 7)]
            assert rows(session, "select global_position, attempts from eventstream.dead_letters order by 1") == dead
            assert seen(session, "p") == [5]
            return
        found = progress(session, "p")
        assert (found["status"], found["attempts"], found["failed_position"]) == ("stopped", 3, position_of(session, 3))
        with raised("ES021"):
            run(session, "p")
        session.execute("select es_skip_event('p', %s, 'one')", (position_of(session, 3),))
        assert run(session, "p") == 1
        assert seen(session, "p") == [5]


RAISES = """raise exception 'the ledger is closed' using errcode = 'GL042', detail = 'since March', hint = 'open it',
    constraint = 'open_ledger', table = 'ledger', schema = 'books', column = 'month', datatype = 'money';"""


def test_an_inline_error_reaches_the_client_whole(quiet):
    with quiet.connect() as session:
        create(session, "p", RAISES, mode="inline")
        with raised("GL042") as error:
            append(session, "thing-1")
        diag = error.value.diag
        assert (diag.message_primary, diag.message_detail, diag.message_hint) == ("the ledger is closed", "since March", "open it")
        assert (diag.constraint_name, diag.table_name, diag.schema_name, diag.column_name, diag.datatype_name) == (
            "open_ledger", "ledger", "books", "month", "money",
        )  # fmt: skip
        assert f'projection "p" at global position {last_position(session)}' in diag.context
        assert value(session, "select es_stream_version('thing-1')") is None or value(session, "select es_stream_version('thing-1')") == 0


def test_an_asynchronous_error_is_kept_with_its_sqlstate(quiet):
    with quiet.connect() as session:
        create(session, "p", RAISES, max_retries=0)
        append(session, "thing-1")
        notices = []
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert run(session, "p") == 0
        assert any("the ledger is closed" in notice for notice in notices)
        found = progress(session, "p")
        assert (found["status"], found["error_sqlstate"], found["error_message"]) == ("stopped", "GL042", "the ledger is closed")
        with raised("ES021") as error:
            run(session, "p")
        assert "the ledger is closed" in str(error.value)


ODD = {
    "division": ("perform 1 / 0;", "22012"),
    "commits": ("call commits();", "2D000"),
    "rolls back": ("call rolls_back();", "2D000"),
    "commits by itself": ("commit;", "2D000"),
    "savepoint": ("execute 'savepoint x';", "0A000"),
    "deep": ("perform recurses(1);", "54001"),
    "large message": ("raise exception '%', repeat('x', 5000000);", "P0001"),
    "empty message": ("raise exception '';", "P0001"),
    "control characters": ("raise exception '%', E'a\\nb\\x01c%';", "P0001"),
    "fatal class": ("raise exception 'x' using errcode = 'XX000';", "XX000"),
    "strange state": ("raise exception 'x' using errcode = '00001';", "00001"),
    "no memory": ("perform repeat('x', 1073741822) || 'xxxxxxxxxx';", "54000"),
    "large json": ("perform es_append('big-1', 'Big', to_jsonb(repeat('x', 3000000)));", "ES007"),
    "metadata that print as gigabytes": ("perform es_append('big-1', 'Big', '{}', metadata => (select jsonb_build_object('n', jsonb_agg(1e131071::numeric)) from generate_series(1, 9000)));", "ES007"),
    "wrong tenant": ("perform set_config('eventstream.tenant', 'nobody', true); perform es_append('a-1', 'A', '{}');", "ES040"),
    "reads as of nothing": ("perform es_state('nothing-1');", None),
    "serializable": ("set transaction isolation level serializable;", "25001"),
    "drops the extension": ("execute 'drop extension eventstream';", "2BP01"),
    "drops itself": ("execute 'drop function drops_itself(eventstream.event)'; raise 'x';", "2BP01"),
}


def test_each_odd_failure_is_noted_and_the_server_goes_on(quiet):
    with quiet.connect() as session:
        session.execute("create procedure commits() language plpgsql as $$ begin commit; end $$")
        session.execute("create procedure rolls_back() language plpgsql as $$ begin rollback; end $$")
        session.execute("create function recurses(n int) returns int language plpgsql as $$ begin return recurses(n + 1); end $$")
        append(session, "thing-1")
        found = {}
        for name, (body, _) in ODD.items():
            projection = name.replace(" ", "_")
            create(session, projection, body, max_retries=0, categories="{thing}")
            run(session, projection)
            kept = progress(session, projection)
            found[name] = kept["error_sqlstate"]
            assert kept["status"] == ("running" if kept["error_sqlstate"] is None else "stopped"), name
            assert len(kept["error_message"] or "") < 20_000
            session.execute("select es_drop_projection(%s)", (projection,))
        assert {name: state for name, state in found.items() if ODD[name][1] is not None and state != ODD[name][1]} == {}
        assert value(session, "select count(*) from eventstream.events") == 1


def test_a_handler_that_loops_is_cancelled_and_slows_no_other(busy):
    with busy.connect() as session:
        create(session, "loops", "if event.version = 2 then loop perform pg_sleep(0.01); end loop; end if;", on_error="skip", max_retries=1)
        create(session, "tight", "if event.version = 2 then loop null; end loop; end if;", max_retries=1)
        create(session, "stubborn", "if event.version = 2 then loop begin perform pg_sleep(5); exception when query_canceled then null; end; end loop; end if;", max_retries=1)
        create(session, "good")
        for _ in range(4):
            append(session, "thing-1")
        assert value(session, "select es_wait_for('good', timeout => '20s')") == position_of(session, 4)
        # A timeout is no event's own fault: on_error => 'skip' stops, too, and skips nothing.
        for loops in ("loops", "tight"):
            wait_until(lambda: progress(session, loops)["status"] == "stopped", 60, f"{loops} to be stopped")
            assert progress(session, loops)["error_sqlstate"] == "57014"
            assert seen(session, loops) == [1]
        assert value(session, "select count(*) from eventstream.dead_letters") == 0
        for turn in range(5):
            append(session, "thing-1")
            assert value(session, "select es_wait_for('good', timeout => '20s')") == position_of(session, 5 + turn)
        session.execute("select es_drop_projection('stubborn')")


def test_a_handler_that_locks_what_others_need_waits_and_loses_nothing(busy):
    with busy.connect() as session, busy.connect() as other:
        session.execute("create table balances (stream text primary key, n int); insert into balances values ('thing-1', 0)")
        create(session, "p", "update balances set n = n + 1 where stream = event.stream;", max_retries=100)
        with other.transaction():
            other.execute("select from balances for update")
            append(session, "thing-1")
            wait_until(lambda: progress(session, "p")["error_sqlstate"] == "57014", 30, "the timeout")
        assert value(session, "select es_wait_for('p', timeout => '20s')") == position_of(session, 1)
        assert value(session, "select n from balances") == 1
        assert seen(session, "p") == [1]


def test_deadlocks_of_handlers_end_and_each_event_is_applied_once(busy):
    with busy.connect() as session:
        session.execute("create table two (n int primary key, hits int); insert into two values (1, 0), (2, 0)")
        for name, order in (("up", "1, 2"), ("down", "2, 1")):
            body = f"foreach i in array array[{order}] loop update two set hits = hits + 1 where n = i; perform pg_sleep(0.002); end loop;"
            create(session, name, body, declare="i int;", max_retries=1000, batch_size=3)
        for _ in range(20):
            append(session, "thing-1")
        for name in ("up", "down"):
            wait_until(lambda: progress(session, name)["passed"] == 20, 60, name)
            assert seen(session, name) == list(range(1, 21))
        assert rows(session, "select hits from two") == [(40,), (40,)]


# -- handlers that call back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("call", ["es_run_projection('p')", "es_run_projection()", "es_wait_for('p')", "es_rebuild_projection('p')", "es_skip_event('p', 1, 'x')"])
def test_a_handler_cannot_advance_projections(quiet, call, mode):
    with quiet.connect() as session:
        session.execute("create function empties() returns void language sql as 'delete from seen'")
        create(session, "p", f"perform {call};", mode=mode, max_retries=0, reset="empties()")
        if mode == "inline":
            with raised("0A000", "ES005") as error:
                append(session, "thing-1")
            return
        append(session, "thing-1", "thing-1")
        assert run(session, "p") == 0
        assert progress(session, "p")["error_sqlstate"] == "0A000"
        assert "cannot be called by a projection's handler" in progress(session, "p")["error_message"]
        assert seen(session, "p") == []


def test_a_handler_that_tries_to_run_itself_and_goes_on_applies_each_event_once(quiet):
    with quiet.connect() as session:
        append(session, "thing-1", "thing-1", "thing-1")
        create(session, "p", "begin perform es_run_projection('p'); exception when feature_not_supported then end;")
        assert run(session, "p") == 3
        assert seen(session, "p") == [1, 2, 3]


@pytest.mark.parametrize("mode", ["async", "inline"])
def test_a_handler_may_pause_and_drop_and_create_projections(quiet, mode):
    with quiet.connect() as session:
        handler(session, "child")
        create(session, "pauses", "if event.version = 2 then perform es_pause_projection('pauses'); end if;", mode=mode)
        create(session, "drops", "if event.version = 2 then perform es_drop_projection('drops'); end if;", mode=mode)
        create(session, "creates", "if event.version = 2 then perform es_create_projection('child', 'child(eventstream.event)'); end if;", mode=mode)
        for _ in range(4):
            append(session, "thing-1")
        for _ in range(3):
            session.execute("select es_run_projection()")
        assert rows(session, "select name, status from eventstream.projections order by 1") == [
            ("child", "running"), ("creates", "running"), ("pauses", "paused"),
        ]  # fmt: skip
        assert seen(session, "child") == [1, 2, 3, 4]
        assert seen(session, "creates") == [1, 2, 3, 4]
        # The batch that it was called in is finished, or (inline) the append.
        assert seen(session, "pauses") == ([1, 2] if mode == "inline" else [1, 2, 3, 4])
        session.execute("select es_resume_projection('pauses')")
        session.execute("select es_run_projection()")
        assert seen(session, "pauses") == [1, 2, 3, 4]


def test_a_handler_may_ask_for_states_and_read_the_log(quiet):
    with quiet.connect() as session:
        session.execute(FOLD)
        session.execute("create table answers (state jsonb, versions bigint, settled bigint)")
        create(session, "p", "insert into answers select es_state(event.stream), (select count(*) from es_read(event.stream)), es_horizon();")
        append(session, "thing-1", "thing-1")
        assert run(session, "p") == 2
        assert rows(session, "select * from answers") == [({"n": 2}, 2, position_of(session, 2))] * 2


ECHO = "if event.event_type = 'Happened' then perform es_append(event.stream, 'Echoed', jsonb_build_object('n', 0)); end if;"


def test_what_inline_handlers_append_comes_in_the_order_of_the_log(quiet):
    with quiet.connect() as session:
        session.execute("select es_register_fold('last', 'thing', rules => '{\"on\": {\"Happened\": [{\"set\": {\"/n\": \"/n\"}}], \"Echoed\": [{\"set\": {\"/n\": \"/n\"}}]}}')")
        create(session, "echoes", ECHO, mode="inline")
        create(session, "later", mode="inline")
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}', mode => 'inline')")
        append(session, "thing-1", "thing-1", n=7)
        session.execute("select es_append_events('thing-2', '[{\"type\": \"Happened\", \"payload\": {\"n\": 1}}, {\"type\": \"Happened\", \"payload\": {\"n\": 2}}]')")
        assert value(session, "select count(*) from eventstream.events") == 8
        for name in ("echoes", "later"):
            assert seen(session, name) == list(range(1, 9)), name
        assert rows(session, "select stream, version, n from things order by 1") == [("thing-1", 4, 0), ("thing-2", 4, 0)]
        causes = "select count(*) from eventstream.events e join eventstream.events c on c.event_id = (e.metadata ->> 'causation_id')::uuid where e.event_type = 'Echoed'"
        assert value(session, causes) == 4


def test_an_inline_handler_that_appends_gets_each_event_once_when_it_is_created(quiet):
    with quiet.connect() as session:
        append(session, "thing-1", "thing-2")
        create(session, "echoes", ECHO, mode="inline")
        assert seen(session, "echoes") == [1, 2, 3, 4]
        append(session, "thing-3")
        assert seen(session, "echoes") == [1, 2, 3, 4, 5, 6]
        session.execute("select es_pause_projection('echoes')")
        append(session, "thing-4")
        session.execute("select es_resume_projection('echoes')")
        assert seen(session, "echoes") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_endless_chain_of_inline_appends_is_an_error(quiet):
    with quiet.connect() as session:
        create(session, "endless", "perform es_append(event.stream, 'Again', '{}');", mode="inline")
        with raised("0A000") as error:
            append(session, "thing-1")
        assert "more than 100 times in a row" in str(error.value)
        assert value(session, "select count(*) from eventstream.events") == 0
        session.execute("select es_drop_projection('endless')")
        append(session, "thing-1")
        with raised("0A000"):
            create(session, "endless", "perform es_append(event.stream, 'Again', '{}');", mode="inline")
        assert rows(session, "select name from eventstream.projections") == []
        append(session, "thing-1")


def test_a_projection_that_appends_to_its_own_category_takes_nothing_down(busy):
    with busy.connect() as session:
        create(session, "good", categories="{other}")
        create(session, "endless", "perform es_append(event.stream, 'Again', '{}');", batch_size=10)
        append(session, "thing-1")
        wait_until(lambda: progress(session, "endless")["passed"] > 50, 60, "fifty rounds")
        append(session, "other-1")
        assert value(session, "select es_wait_for('good', timeout => '20s')") > 50
        session.execute("select es_pause_projection('endless')")
        assert seen(session, "endless") == sorted(set(seen(session, "endless")))
        assert rows(session, "select * from es_verify()") == []
        assert value(session, "select count(distinct metadata ->> 'causation_id') = count(*) from eventstream.events where event_type = 'Again'")


def test_savepoints_that_are_rolled_back_take_inline_effects_with_them(quiet):
    with quiet.connect() as session:
        create(session, "echoes", "if event.event_type = 'Happened' then begin perform es_append(event.stream, 'Echoed', '{}'); raise 'back'; exception when raise_exception then end; end if;", mode="inline")
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}', mode => 'inline')")
        with session.transaction():
            append(session, "thing-1")
            with contextlib.suppress(psycopg.errors.DivisionByZero), session.transaction():
                append(session, "thing-1", "thing-2", n=100)
                session.execute("select 1 / 0")
            append(session, "thing-1", n=5)
        versions = rows(session, "select stream, version, event_type from eventstream.events order by global_position")
        assert versions == [("thing-1", 1, "Happened"), ("thing-1", 2, "Happened")]
        assert [stream for (stream,) in rows(session, "select stream from seen")] == ["thing-1", "thing-1"]
        assert rows(session, "select * from things") == [("thing-1", 2, 6)]


def test_an_inline_projection_made_or_dropped_in_a_savepoint_goes_with_it(quiet):
    with quiet.connect() as session:
        handler(session, "p")
        with session.transaction():
            with contextlib.suppress(psycopg.errors.DivisionByZero), session.transaction():
                session.execute("select es_create_projection('p', 'p(eventstream.event)', mode => 'inline')")
                append(session, "thing-1")
                session.execute("select 1 / 0")
            append(session, "thing-1")
        assert seen(session, "p") == []
        session.execute("select es_create_projection('p', 'p(eventstream.event)', mode => 'inline')")
        before = seen(session, "p")
        with session.transaction():
            with contextlib.suppress(psycopg.errors.DivisionByZero), session.transaction():
                session.execute("select es_drop_projection('p')")
                append(session, "thing-1")
                session.execute("select 1 / 0")
            append(session, "thing-1")
        assert len(seen(session, "p")) == len(before) + 1


# -- functions of every kind ----------------------------------------------------------------------------------------

KINDS = {
    "sql": "create function k(event eventstream.event) returns void language sql as $$ insert into seen (name, position) values ('k', event.global_position) $$",
    "sql that returns a row": "create function k(event eventstream.event) returns seen language sql as $$ insert into seen (name, position) values ('k', event.global_position) returning * $$",
    "null": "create function k(event eventstream.event) returns text language plpgsql as $$ begin insert into seen (name, position) values ('k', event.global_position); return null; end $$",
    "strict": "create function k(event eventstream.event) returns int strict language plpgsql as $$ begin insert into seen (name, position) values ('k', event.global_position); return 7; end $$",
    "definer": "create function k(event eventstream.event) returns void security definer set search_path = public language plpgsql as $$ begin insert into seen (name, position) values ('k', event.global_position); end $$",
    "stable": "create function note(bigint) returns void language sql as $$ insert into seen (name, position) values ('k', $1) $$;"
    "create function k(event eventstream.event) returns void stable language plpgsql as $$ begin perform note(event.global_position); end $$",
    "jsonb": "create function k(event eventstream.event) returns jsonb language plpgsql as $$ begin insert into seen (name, position) values ('k', event.global_position); return repeat('[', 500)::text || repeat(']', 500); end $$",
    "inout": "create function k(inout event eventstream.event) language plpgsql as $$ begin insert into seen (name, position) values ('k', event.global_position); event := null; end $$",
    "batch": "create function k(events eventstream.event[]) returns void language sql as $$ insert into seen (name, position) select 'k', e.global_position from unnest(events) e $$",
    "strict batch": "create function k(events eventstream.event[]) returns void strict language sql as $$ insert into seen (name, position) select 'k', e.global_position from unnest(events) e $$",
    "variadic batch": "create function k(variadic events eventstream.event[]) returns void language sql as $$ insert into seen (name, position) select 'k', e.global_position from unnest(events) e $$",
}


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_of_any_kind_is_called_for_each_event(quiet, kind, mode):
    with quiet.connect() as session:
        session.execute(KINDS[kind])
        argument = "eventstream.event[]" if "batch" in kind else "eventstream.event"
        session.execute("select es_create_projection('k', %s, mode => %s, batch_size => 2)", (f"k({argument})", mode))
        append(session, "thing-1", "thing-2", "thing-1")
        run(session, "k")
        assert seen(session, "k") == [1, 2, 3]


WRONG = {
    "set": "create function w(event eventstream.event) returns setof int language sql as 'select 1'",
    "table": "create function w(event eventstream.event) returns table (n int) language sql as 'select 1'",
    "procedure": "create procedure w(event eventstream.event) language sql as ''",
    "two arguments": "create function w(event eventstream.event, n int default 1) returns void language sql as ''",
    "record": "create function w(event record) returns void language plpgsql as 'begin end'",
    "anyelement": "create function w(event anyelement) returns void language plpgsql as 'begin end'",
    "jsonb": "create function w(event jsonb) returns void language sql as ''",
    "none": "create function w() returns void language sql as ''",
    "aggregate": "create function s(n int, event eventstream.event) returns int language sql as 'select 1'; create aggregate w(eventstream.event) (sfunc = s, stype = int)",
    "temporary": "create function pg_temp.w(event eventstream.event) returns void language sql as ''",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_handler_is_refused_by_name(quiet, kind):
    with quiet.connect() as session:
        session.execute(WRONG[kind])
        oid = value(session, "select oid from pg_proc where proname = 'w'")
        with raised("ES005") as error:
            session.execute("select es_create_projection('w', %s::oid::regprocedure)", (oid,))
        assert json.loads(error.value.diag.message_detail)["argument"] == "handler"


CHANGES = {
    "dropped": "set eventstream.allow_drop = on; drop function p(eventstream.event)",
    "other signature": "set eventstream.allow_drop = on; drop function p(eventstream.event); create function p(event eventstream.event, n int) returns void language sql as ''",
    "set": "set eventstream.allow_drop = on; drop function p(eventstream.event); create function p(event eventstream.event) returns setof int language sql as 'select 1'",
    "schema dropped": "set eventstream.allow_drop = on; drop schema here cascade",
    "renamed": "set eventstream.allow_drop = on; alter function p(eventstream.event) rename to q",
    "moved": "set eventstream.allow_drop = on; create schema there; alter function p(eventstream.event) set schema there",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_handler_that_is_gone_or_another_stops_with_a_reason_and_goes_on_when_it_is_back(quiet, change):
    with quiet.connect() as session:
        session.execute("create schema here; set search_path = here, public")
        create(session, "p")
        append(session, "thing-1")
        assert run(session, "p") == 1
        session.execute(CHANGES[change])
        append(session, "thing-1")
        assert run(session, "p") == 0
        found = progress(session, "p")
        assert found["status"] == "stopped"
        assert "here.p(eventstream.event) does not exist any more" in found["error_message"] or "must be a plain function" in found["error_message"]
        session.execute("create schema if not exists here; set search_path = here, public; drop function if exists p(eventstream.event)")
        handler(session, "p")
        session.execute("select es_resume_projection('p')")
        assert run(session, "p") == 1
        assert seen(session, "p") == [1, 2]


def test_a_handler_replaced_while_it_runs_is_the_new_one_from_the_next_call_on(busy):
    with busy.connect() as session:
        create(session, "p")
        stop = threading.Event()

        def replace():
            with busy.connect() as other:
                while not stop.is_set():
                    handler(other, "p", "perform pg_sleep(0);")

        thread = threading.Thread(target=replace)
        thread.start()
        try:
            for _ in range(300):
                append(session, "thing-1")
            wait_until(lambda: progress(session, "p")["passed"] == 300 or progress(session, "p")["status"] == "stopped", 60, "the events")
        finally:
            stop.set()
            thread.join()
        assert progress(session, "p")["status"] in ("running", "retrying")
        assert seen(session, "p") == list(range(1, 301))


def test_a_handler_that_drops_its_table_fails_until_the_table_is_there_again(quiet):
    with quiet.connect() as session:
        session.execute("create table own (n int)")
        create(session, "p", "insert into own values (1); if event.version = 2 then execute 'drop table own'; end if;", max_retries=0)
        for _ in range(3):
            append(session, "thing-1")
        assert run(session, "p") == 2
        assert progress(session, "p")["error_sqlstate"] == "42P01"
        session.execute("create table own (n int)")
        session.execute("select es_resume_projection('p')")
        assert run(session, "p") == 1
        assert seen(session, "p") == [1, 2, 3]


# -- large and odd events -------------------------------------------------------------------------------------------


def test_a_batch_of_ten_thousand_events_comes_whole(quiet):
    with quiet.connect() as session:
        session.execute("create table batches (size int, first bigint, last bigint)")
        session.execute("create function b(events eventstream.event[]) returns void language sql as $$ insert into batches values (cardinality(events), events[1].global_position, events[cardinality(events)].global_position) $$")
        events = "(select jsonb_agg(jsonb_build_object('type', 'Happened', 'payload', jsonb_build_object('n', i))) from generate_series(1, 10000) i)"
        session.execute("select es_create_projection('i', 'b(eventstream.event[])', mode => 'inline', batch_size => 4000)")
        session.execute(f"select es_append_events('thing-1', {events})")
        assert rows(session, "select size from batches") == [(4000,), (4000,), (2000,)]
        session.execute("truncate batches; select es_drop_projection('i')")
        session.execute("select es_create_projection('b', 'b(eventstream.event[])', batch_size => 10000)")
        assert run(session, "b") == 10000
        sizes = rows(session, "select size, first, last from batches order by first")
        assert sum(size for size, *_ in sizes) == 10000
        assert [first for _, first, _ in sizes][0] == position_of(session, 1)
        assert all(last - first + 1 == size for size, first, last in sizes)


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024


def test_very_large_events_pass_in_small_batches_and_little_memory(quiet):
    with quiet.connect() as session:
        session.execute("create table sizes (events int, bytes bigint)")
        session.execute("create function b(events eventstream.event[]) returns void language sql as $$ insert into sizes select cardinality(events), sum(length(e.payload::text)) from unnest(events) e $$")
        session.execute("create function e(event eventstream.event) returns void language sql as $$ insert into sizes values (1, length(event.payload::text)) $$")
        # A payload that hardly compresses.
        payload = "(select jsonb_build_object('x', string_agg(md5(i::text || random()), '')) from generate_series(1, 30000) i)"
        for _ in range(12):
            session.execute(f"select es_append_events('thing-1', (select jsonb_agg(jsonb_build_object('type', 'Big', 'payload', p)) from {payload} as x(p), generate_series(1, 10)))")
        with quiet.connect() as fresh:
            fresh.execute("select es_create_projection('b', 'b(eventstream.event[])'); select es_create_projection('e', 'e(eventstream.event)')")
            before = rss(fresh.info.backend_pid)
            assert run(fresh, "b") == 120 and run(fresh, "e") == 120
            grown = rss(fresh.info.backend_pid) - before
        assert value(session, "select sum(events) from sizes") == 240
        assert value(session, "select max(bytes) from sizes") < 6_000_000
        assert grown < 60, f"{grown} MB"


def test_a_long_run_takes_no_more_memory_at_its_end_than_at_its_beginning(quiet):
    with quiet.connect() as session:
        session.execute(FOLD)
        session.execute("create table counted (n bigint)")
        session.execute("insert into counted values (0)")
        session.execute("create function c(event eventstream.event) returns void language plpgsql as $$ begin if event.version % 1000 = 0 then update counted set n = n + 1; end if; end $$")
        session.execute("create function cb(events eventstream.event[]) returns void language plpgsql as $$ begin perform cardinality(events); end $$")
        session.execute("select es_create_projection('e', 'c(eventstream.event)'); select es_create_projection('b', 'cb(eventstream.event[])')")
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        for turn in range(60):
            session.execute(
                "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', 'Happened', 'payload', jsonb_build_object('n', i))) from generate_series(1, 1000) i))",
                (f"thing-{turn % 20}",),
            )
        with quiet.connect() as runner:
            sizes = []
            for _ in range(6):
                for name in ("e", "b", "things"):
                    runner.execute("select es_run_projection(%s, 20)", (name,))
                sizes.append(rss(runner.info.backend_pid))
            while value(runner, "select es_run_projection()"):
                pass
        assert value(session, "select n from counted") == 60
        assert value(session, "select bool_and(t.n = (c.state ->> 'n')::numeric) from es_category_state('thing') c join things t using (stream)")
        assert sizes[-1] - sizes[1] < 6, sizes


def test_events_whose_content_was_erased_are_given_with_null(quiet):
    with quiet.connect() as session:
        append(session, "thing-1", "thing-1", "thing-2")
        session.execute("set eventstream.allow_drop = on; alter table _eventstream.events_1 disable trigger all")
        session.execute("update _eventstream.events_1 set payload = null, metadata = null, salt = null where version = 1 and global_position = 1")
        session.execute("alter table _eventstream.events_1 enable trigger all")
        create(session, "p", "if event.payload is null then perform es_append('echo-1', 'Erased', '{}'); end if;", categories="{thing}")
        assert run(session, "p") == 3
        assert seen(session, "p") == [1, 2, 3]
        assert rows(session, "select metadata ? 'causation_id', metadata ? 'correlation_id' from eventstream.events where stream = 'echo-1'") == [(True, False)]
        session.execute("create function b(events eventstream.event[]) returns void language sql as $$ insert into seen (name, position) select 'b', e.global_position from unnest(events) e where e.payload is null $$")
        session.execute("select es_create_projection('b', 'b(eventstream.event[])')")
        run(session, "b")
        assert seen(session, "b") == [1]
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        for _ in range(8):
            with contextlib.suppress(psycopg.Error):
                run(session, "things")
        # The fold's own business: a state, or an error that says so; the other streams' rows are not lost by a crash.
        assert progress(session, "things")["status"] in ("running", "stopped")


# -- arguments ------------------------------------------------------------------------------------------------------

GOOD = {
    "es_create_projection": {
        "name": "'q'", "handler": "'p(eventstream.event)'::regprocedure", "mode": "'async'", "categories": "array['thing']", "event_types": "array['Happened']",
        "batch_size": "5", "on_error": "'stop'", "max_retries": "3", "reset": "'empties()'::regprocedure", "after_position": "0",
    },
    "es_create_state_table": {"name": "'t'", "category": "'thing'", "columns": f"'{COLUMNS}'::jsonb", "fold": "'sums'", "mode": "'async'"},
    "es_alter_projection": {"name": "'p'", "settings": "'{}'::jsonb"},
    "es_pause_projection": {"name": "'p'"},
    "es_resume_projection": {"name": "'p'"},
    "es_rebuild_projection": {"name": "'p'"},
    "es_run_projection": {"name": "'p'", "max_batches": "1"},
    "es_skip_event": {"projection": "'p'", "global_position": "1", "reason": "'x'"},
    "es_wait_for": {"projection": "'p'", "up_to": "0", "timeout": "'1ms'::interval"},
    "es_drop_projection": {"name": "'p'", "drop_table": "false"},
}  # fmt: skip
LONG = "repeat('x', 100000)"
BAD = {
    "es_create_projection": {
        "name": ["null", "''", LONG, "repeat('é', 200)", "E'a\\nb'", "E'\\x01'"],
        "handler": ["null", "0::regprocedure", "4711::regprocedure", "'empties()'::regprocedure", "'pg_sleep(float8)'::regprocedure"],
        "mode": ["null", "''", "'ASYNC'", "'sync'", LONG],
        "categories": ["array['a-b']", "array['']", "array[E'a\\nb']", "array[null]::text[]", "'{}'::text[]", f"array[{LONG}]"],
        "event_types": ["array['']", "array[null]::text[]", "'{}'::text[]", f"array[{LONG}]", "array[E'\\x01']"],
        "batch_size": ["null", "0", "-1", "10001", "2147483647", "-2147483648"],
        "on_error": ["null", "''", "'ignore'", LONG],
        "max_retries": ["null", "-1", "1001", "2147483647"],
        "reset": ["4711::regprocedure", "'p(eventstream.event)'::regprocedure"],
        "after_position": ["null", "-1", "-9223372036854775808"],
    },
    "es_create_state_table": {
        "name": ["null", "''", "'a.b.c'", "'a b'", "'\"'", "'\"\"'", "'x; drop table seen'", "'seen'", LONG, "quote_ident(repeat('x', 64))"],
        "category": ["null", "'a-b'", "''", LONG],
        "columns": [
            "null", "'null'", "'[]'", "'{}'", "'\"n\"'", "'[1]'", "'[{\"name\": \"n\"}]'",
            "'[{\"name\": \"n\", \"type\": \"int\", \"path\": \"n\"}]'", "'[{\"name\": \"n\", \"type\": \"nothing\", \"path\": \"/n\"}]'",
            "'[{\"name\": \"n\", \"type\": \"int); drop table seen; --\", \"path\": \"/n\"}]'", "'[{\"name\": \"stream\", \"type\": \"int\", \"path\": \"/n\"}]'",
            "'[{\"name\": \"version\", \"type\": \"int\", \"path\": \"/n\"}]'", "'[{\"name\": \"\", \"type\": \"int\", \"path\": \"/n\"}]'",
            "'[{\"name\": \"a\", \"type\": \"int\", \"path\": \"/n\"}, {\"name\": \"a\", \"type\": \"int\", \"path\": \"/n\"}]'",
            "'[{\"name\": \"a\", \"type\": \"record\", \"path\": \"/n\"}]'", "'[{\"name\": \"a\", \"type\": \"int\", \"path\": \"/n\", \"x\": 1}]'",
        ],
        "fold": ["'nothing'", "''", LONG],
        "mode": ["null", "'sync'", "''"],
    },
    "es_alter_projection": {
        "name": ["null"],
        "settings": [
            "null", "'null'", "'[]'", "'1'", "'\"x\"'", "'{\"x\": 1}'", "'{\"batch_size\": \"5\"}'", "'{\"batch_size\": 0}'", "'{\"batch_size\": 1.5}'",
            "'{\"batch_size\": 1e400}'", "'{\"batch_size\": 99999999999999999999999999999}'", "'{\"batch_size\": null}'", "'{\"max_retries\": -1}'",
            "'{\"max_retries\": 5000000000}'", "'{\"on_error\": 1}'", "'{\"on_error\": \"x\"}'", "'{\"handler\": 1}'", "'{\"handler\": \"empties()\"}'",
            "'{\"reset\": \"p(eventstream.event)\"}'", "'{\"mode\": \"inline\"}'", "'{\"categories\": []}'", f"jsonb_build_object({LONG}, 1)",
            "'{\"handler\": []}'", "'{\"batch_size\": {}}'",
        ],
    },
    "es_pause_projection": {"name": ["null"]},
    "es_resume_projection": {"name": ["null"]},
    "es_rebuild_projection": {"name": ["null"]},
    "es_run_projection": {"max_batches": ["0", "-1", "-2147483648"]},
    "es_skip_event": {"projection": ["null"], "global_position": ["null", "1", "-1", "9223372036854775807"], "reason": ["null"]},
    "es_wait_for": {"projection": ["null"], "timeout": ["null", "'-1s'::interval", "'1000000 years'::interval", "'178000000 years'::interval", "'-178000000 years'::interval"]},
    "es_drop_projection": {"name": ["null"], "drop_table": ["null"]},
}  # fmt: skip
# Names that an error gives to what it found in an argument.
WITHIN = {"settings": {"settings", "handler", "reset"}, "drop_table": {"drop_table"}, "fold": {"fold"}}


def call(function: str, arguments: dict) -> str:
    return f"select {function}({', '.join(f'{name} => {text}' for name, text in arguments.items())})"


@pytest.mark.parametrize("function", BAD)
def test_each_bad_argument_is_named(quiet, function):
    with quiet.connect() as session:
        session.execute("create function empties() returns void language sql as ''")
        session.execute(FOLD)
        create(session, "p")
        wrong = {}
        for argument, texts in BAD[function].items():
            for text in texts:
                try:
                    with session.transaction(force_rollback=True):
                        session.execute(call(function, {**GOOD[function], argument: text}))
                    wrong[argument, text] = "accepted"
                except psycopg.Error as error:
                    fine = error.sqlstate == "ES005" or argument == "fold" and error.sqlstate == "ES010" or argument == "category" and error.sqlstate in ("ES010", "ES005")
                    if not fine or len(error.diag.message_primary) > 1000:
                        wrong[argument, text] = f"{error.sqlstate} {str(error)[:300]}"
                    elif error.sqlstate == "ES005":
                        named = json.loads(error.diag.message_detail)["argument"]
                        if re.split(r"[.\[]", named)[0] not in WITHIN.get(argument, {argument}):
                            wrong[argument, text] = f"names {named}"
        assert wrong == {}
        # The same call with good arguments is not refused for its arguments.
        if function not in ("es_rebuild_projection", "es_skip_event"):
            with session.transaction(force_rollback=True):
                session.execute(call(function, GOOD[function]))


def test_what_is_not_there_is_es020_and_what_lies_ahead_es025(quiet):
    with quiet.connect() as session:
        handler(session, "p")
        for function in GOOD:
            if function.startswith("es_create"):
                continue
            first = next(iter(GOOD[function]))
            for name in ("'nothing'", "''", LONG, "E'a\\nb'"):
                with raised("ES020") as error:
                    session.execute(call(function, {**GOOD[function], first: name}))
                assert len(error.value.diag.message_primary) < 1000
        last = last_position(session)
        with raised("ES025"):
            session.execute("select es_create_projection('p', 'p(eventstream.event)', after_position => %s)", (last + 1,))
        append(session, "thing-1")
        session.execute("select es_create_projection('p', 'p(eventstream.event)', after_position => %s)", (last + 1,))
        with raised("ES025"):
            session.execute("select es_wait_for('p', up_to => %s)", (last_position(session) + 1,))
        with raised("ES005"):
            session.execute("select es_create_projection('p', 'p(eventstream.event)')")


def test_a_checkpoint_ahead_of_the_log_is_said_and_nothing_is_skipped(quiet):
    with quiet.connect() as session:
        create(session, "p", max_retries=1)
        append(session, "thing-1")
        session.execute("update _eventstream.projection_progress set global_position = 100")
        run(session, "p", 2)
        assert progress(session, "p")["error_sqlstate"] == "ES025"
        assert progress(session, "p")["status"] == "stopped"
        assert progress(session, "p")["global_position"] == 100


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "ünï©ødé 😀", "x" * 255, "a b; drop table seen --", "$1", "%s", "\\", "{}", "select", "a.b"])
def test_a_projection_of_any_name_can_be_steered(quiet, name):
    with quiet.connect() as session:
        h = handler(session, "p", "raise 'no';")
        try:
            session.execute("select es_create_projection(%s, %s, max_retries => 0)", (name, h))
        except psycopg.Error as error:
            assert error.sqlstate == "ES005" and json.loads(error.diag.message_detail)["argument"] == "name", error
            return
        append(session, "thing-1")
        run(session, name)
        assert progress(session, name)["status"] == "stopped"
        fixes = rows(session, "select fix from eventstream.health where status <> 'ok' and fix like '%%es_resume_projection%%'")
        assert len(fixes) == 1
        handler(session, "p")
        session.execute(fixes[0][0])
        assert progress(session, name)["status"] == "running"
        assert run(session, name) == 1
        for function in ("es_pause_projection", "es_resume_projection", "es_drop_projection"):
            assert value(session, f"select {function}(%s)", name) == name


# -- transactions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_cannot_advance_what_was_advanced_since(quiet, level):
    with quiet.connect() as session, quiet.connect() as old:
        create(session, "p")
        append(session, "thing-1")
        with contextlib.suppress(psycopg.errors.SerializationFailure), old.transaction():
            old.execute(f"set transaction isolation level {level}")
            old.execute("select count(*) from seen")
            assert run(session, "p") == 1
            append(session, "thing-1")
            run(old, "p")
            pytest.fail("it was advanced by a session that does not see what it builds on")
        assert seen(session, "p") == [1]
        with old.transaction():
            old.execute(f"set transaction isolation level {level}")
            assert run(old, "p") == 1
            assert run(old, "p") == 0
        assert seen(session, "p") == [1, 2]
        with old.transaction():
            old.execute(f"set transaction isolation level {level}")
            with raised("0A000") as error, old.transaction():
                old.execute("select es_wait_for('p')")
            assert level.split()[0].upper() in str(error.value)


def test_calls_in_a_read_only_transaction_are_refused(quiet):
    with quiet.connect() as session:
        session.execute("create function empties() returns void language sql as ''")
        session.execute(FOLD)
        create(session, "p")
        append(session, "thing-1")
        for function in GOOD:
            if function == "es_wait_for":
                continue
            with raised("25006"), session.transaction():
                session.execute("set transaction read only")
                session.execute(call(function, GOOD[function]))
        with session.transaction():
            session.execute("set transaction read only")
            with raised("ES023"), session.transaction():
                session.execute("select es_wait_for('p', timeout => '1ms')")
        assert progress(session, "p")["global_position"] == 0


def test_a_run_that_is_prepared_holds_the_projection_and_counts_when_it_is_committed(quiet):
    with quiet.connect() as session, quiet.connect() as other:
        create(session, "p")
        append(session, "thing-1")
        for end, expected in (("rollback prepared", []), ("commit prepared", [1])):
            session.execute("begin")
            assert run(session, "p") == 1
            session.execute("prepare transaction 'run'")
            other.execute("set lock_timeout = '100ms'")
            with raised("55P03"):
                run(other, "p")
            other.execute(f"{end} 'run'")
            assert seen(session, "p") == expected
        assert run(session, "p") == 0
        create(session, "appends", ECHO)
        session.execute("begin")
        run(session, "appends")
        with raised("0A000"):
            session.execute("prepare transaction 'run'")


def test_a_run_in_a_savepoint_that_is_rolled_back_has_not_happened(quiet):
    with quiet.connect() as session:
        create(session, "p")
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        append(session, "thing-1", "thing-1")
        with session.transaction():
            with contextlib.suppress(psycopg.errors.DivisionByZero), session.transaction():
                session.execute("select es_run_projection()")
                session.execute("select 1 / 0")
            assert seen(session, "p") == []
            run(session, "p")
        run(session, "things")
        assert seen(session, "p") == [1, 2]
        assert rows(session, "select version, n from things") == [(2, 2)]


def test_waiting_ends_when_its_projection_is_dropped_stopped_or_it_is_cancelled(busy):
    with busy.connect() as session, busy.connect() as waiting:
        h = handler(session, "p", "if event.version = 2 then raise 'no'; end if;")

        def wait_while(work):
            results = []

            def wait():
                try:
                    results.append(value(waiting, "select es_wait_for('p', timeout => '100 years')"))
                except psycopg.Error as error:
                    results.append(error.sqlstate)

            thread = threading.Thread(target=wait)
            thread.start()
            wait_until(lambda: value(session, "select wait_event_type from pg_stat_activity where pid = %s", waiting.info.backend_pid) is not None, 10, "the wait")
            time.sleep(0.1)
            began = time.monotonic()
            work()
            thread.join(20)
            assert not thread.is_alive()
            assert time.monotonic() - began < 5
            return results[0]

        session.execute("select es_create_projection('p', %s, max_retries => 0)", (h,))
        session.execute("select es_pause_projection('p')")
        append(session, "thing-1")
        assert wait_while(lambda: session.execute("select es_resume_projection('p')")) == last_position(session)
        session.execute("select es_pause_projection('p')")
        append(session, "thing-1")
        assert wait_while(lambda: session.execute("select pg_cancel_backend(%s)", (waiting.info.backend_pid,))) == "57014"
        assert wait_while(lambda: session.execute("select es_resume_projection('p')")) == "ES021"
        session.execute("select es_resume_projection('p'); select es_pause_projection('p')")
        assert wait_while(lambda: session.execute("select es_drop_projection('p')")) == "ES020"


def test_waits_of_no_time_and_of_all_time(quiet):
    with quiet.connect() as session:
        create(session, "p")
        # Its own creation has a position, for which it need not wait.
        assert value(session, "select es_wait_for('p', timeout => '0')") == 0
        append(session, "thing-1")
        run(session, "p")
        for timeout in ("'0'", "'200000 years'", "'1000000 hours'") + (("'infinity'",) if session.info.server_version >= 170000 else ()):
            try:
                assert value(session, f"select es_wait_for('p', timeout => {timeout})") == last_position(session)
            except psycopg.Error as error:
                assert error.sqlstate == "ES005"
        assert value(session, "select es_wait_for('p', up_to => 0)") == last_position(session)
        for up_to in (-1, -(2**63)):
            with raised("ES005"):
                session.execute("select es_wait_for('p', up_to => %s)", (up_to,))


def test_two_rebuilds_at_once_are_one(quiet):
    with quiet.connect() as session, quiet.connect() as other:
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        append(session, "thing-1")
        run(session, "things")
        results = []

        def rebuild():
            try:
                results.append(value(other, "select es_rebuild_projection('things')"))
            except psycopg.Error as error:
                results.append(error.sqlstate)

        with session.transaction():
            session.execute("select es_rebuild_projection('things')")
            thread = threading.Thread(target=rebuild)
            thread.start()
            time.sleep(0.2)
            assert results == []
        thread.join(10)
        assert results == ["ES022"]
        run(session, "things")
        assert rows(session, "select version, n from things") == [(1, 1)]


def test_a_skip_names_the_event_that_fails_and_no_other(quiet):
    with quiet.connect() as session:
        create(session, "p", "if event.version = 2 then raise 'no'; end if;", max_retries=5)
        append(session, "thing-1", "thing-1", "thing-1")
        run(session, "p")
        hangs_on = position_of(session, 2)
        for position in (0, 1, hangs_on - 1, hangs_on + 1, hangs_on + 2, -1, 2**62):
            with raised("ES005") as error:
                session.execute("select es_skip_event('p', %s, 'x')", (position,))
            assert f"it hangs on {hangs_on}" in str(error.value)
        with raised("ES005"):
            session.execute("select es_skip_event('p', %s, repeat('long ', 100000))", (hangs_on,))
        session.execute("select es_skip_event('p', %s, repeat('x', 64))", (hangs_on,))
        assert run(session, "p") == 1
        with raised("ES005"):
            session.execute("select es_skip_event('p', %s, 'x')", (hangs_on,))
        assert seen(session, "p") == [1, 3]


# -- state tables ---------------------------------------------------------------------------------------------------


def test_columns_of_any_name_and_type(quiet):
    with quiet.connect() as session:
        session.execute("select es_register_fold('f', 'thing', initial_state => '{}', rules => '{\"on\": {\"Happened\": [{\"set\": {\"/v\": \"/n\"}}]}}')")
        session.execute("create domain positive as numeric check (value > 0); create type mood as enum ('1', '2'); create type pair as (a int, b int)")
        session.execute('create schema "odd schema"; create type "odd schema"."Odd Type" as enum (\'1\')')
        names = ["select", "Stream", "VERSION", "x", "t", "state", 'quo"te', "ünï😀", "a b", "$1", "ctid2", "excluded", "with space ", "%s", "%I", "new", "oid"]
        types = ["int", "text", "numeric(10,2)", "public.positive", "public.mood", "jsonb", "json", "text[]", "int8", "float8", "varchar(3)", "char(3)", '"odd schema"."Odd Type"', "bool", "bytea", "xid8", "name"]
        columns = [{"name": name, "type": kind, "path": "/v"} for name, kind in zip(names, types)]
        columns = [column for column in columns if column["type"] != "text[]"]
        session.execute("select es_create_state_table('\"odd schema\".\"Odd \"\"Table\"', 'thing', %s)", (json.dumps(columns),))
        append(session, "thing-1", "thing-2", n=1)
        name = '"odd schema"."Odd ""Table"'
        run(session, name)
        assert progress(session, name)["error_message"] is None
        assert value(session, 'select count(*) from "odd schema"."Odd ""Table" where "select" = 1 and "Stream" = \'1\'') == 2
        session.execute("select es_rebuild_projection(%s)", (name,))
        run(session, name)
        assert value(session, 'select count(*) from "odd schema"."Odd ""Table"') == 2
        session.execute("select es_drop_projection(%s, true)", (name,))
        assert value(session, "select count(*) from pg_class where relname = 'Odd \"Table'") == 0


@pytest.mark.parametrize("name", ["ctid", "tableoid", "xmin", "cmax"])
def test_a_system_columns_name_is_refused(quiet, name):
    with quiet.connect() as session:
        session.execute(FOLD)
        with raised("42701", "ES005"):
            session.execute("select es_create_state_table('t', 'thing', %s)", (COLUMNS.replace('"n"', f'"{name}"'),))
        assert rows(session, "select name from eventstream.projections") == []


BREAKS = {
    "column renamed": ("set eventstream.allow_drop = on; alter table things rename n to m", "alter table things rename m to n", "42703"),
    "column dropped": ("set eventstream.allow_drop = on; alter table things drop n", "alter table things add n numeric", "42703"),
    "column of another type": ("set eventstream.allow_drop = on; alter table things alter n type bool using true", "alter table things alter n type numeric using 0", "42804"),
    "column generated": ("set eventstream.allow_drop = on; alter table things drop n; alter table things add n numeric generated always as (version * 2) stored", "alter table things drop n; alter table things add n numeric", "428C9"),
    "table renamed": ("set eventstream.allow_drop = on; alter table things rename to others", "alter table others rename to things", "55000"),
    "table dropped": ("set eventstream.allow_drop = on; create table kept as table things; drop table things", "create table things (stream text collate \"C\" primary key, version bigint not null, n numeric); insert into things table kept", "55000"),
    "table a view": ("set eventstream.allow_drop = on; alter table things rename to others; create view things as table others", "drop view things; alter table others rename to things", "55000"),
    "table a materialized view": ("set eventstream.allow_drop = on; alter table things rename to others; create materialized view things as table others", "drop materialized view things; alter table others rename to things", "55000"),
    "key dropped": ("set eventstream.allow_drop = on; alter table things drop constraint things_pkey", "alter table things add primary key (stream)", "42P10"),
    "check": ("alter table things add constraint small check (n < 5) not valid", "alter table things drop constraint small", "23514"),
    "rights": ("revoke all on things from current_user; alter table things enable row level security; alter table things force row level security", "grant all on things to current_user; alter table things disable row level security", None),
    "trigger": ("create function no() returns trigger language plpgsql as $$ begin raise 'no' using errcode = 'GL001'; end $$; create trigger no before insert or update on things for each row execute function no()", "drop trigger no on things", "GL001"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("break_", BREAKS)
def test_a_state_table_that_was_changed_says_so_and_goes_on_when_it_is_mended(quiet, break_, mode):
    breaking, mending, sqlstate = BREAKS[break_]
    with quiet.connect() as session:
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}', mode => '{mode}')")
        append(session, "thing-1", n=3)
        run(session, "things")
        session.execute(breaking)
        if mode == "inline":
            if sqlstate is None:
                return
            with raised(sqlstate) as error:
                append(session, "thing-1", n=4)
            # Whoever appends learns which projection it is, and what to do, unless the table's own code says something else.
            diagnosis = error.value.diag
            assert '"things"' in f"{diagnosis.message_primary} {diagnosis.context}", str(error.value)
            if sqlstate[:2] in ("42", "55") and sqlstate != "42804":  # PostgreSQL has a HINT of its own for that
                assert "es_drop_projection('things')" in diagnosis.message_hint and "es_create_state_table" in diagnosis.message_hint
            assert value(session, "select es_stream_version('thing-1')") == 1
            session.execute(mending)
            append(session, "thing-1", n=4)
        else:
            append(session, "thing-1", n=4)
            append(session, "thing-2", n=9)
            for _ in range(6):
                run(session, "things")
            found = progress(session, "things")
            if sqlstate in ("23514", "GL001"):
                # A row's own fault: both streams are passed over.
                dead = rows(session, "select stream, error_sqlstate from eventstream.dead_letters order by 1")
                assert (found["status"], dead) == ("running", [("thing-1", sqlstate), ("thing-2", sqlstate)])
                session.execute(mending)
                session.execute("select es_retry_dead_letter(id) from eventstream.dead_letters order by id")
            else:
                if sqlstate is not None:
                    assert (found["status"], found["error_sqlstate"]) == ("stopped", sqlstate), found["error_message"]
                session.execute(mending)
                session.execute("select es_resume_projection('things')")
            run(session, "things")
            run(session, "things")
        exact = "select bool_and(t.version = c.version and t.n = (c.state ->> 'n')::numeric) and count(*) = (select count(*) from things) from es_category_state('thing') c join things t using (stream)"
        assert value(session, exact), rows(session, "select * from things")


def test_a_rebuild_that_cannot_publish_leaves_the_rows_and_ends_when_it_is_mended(quiet):
    with quiet.connect() as session:
        session.execute(FOLD)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        append(session, "thing-1", "thing-2", n=3)
        run(session, "things")
        before = rows(session, "select * from things order by 1")
        session.execute("alter table things add constraint small check (n < 2) not valid")
        session.execute("update things set n = 1")
        session.execute("select es_rebuild_projection('things')")
        for _ in range(6):
            run(session, "things")
        assert progress(session, "things")["error_sqlstate"] == "23514"
        assert rows(session, "select distinct n from things") == [(1,)]
        session.execute("alter table things drop constraint small; select es_resume_projection('things')")
        run(session, "things")
        assert rows(session, "select * from things order by 1") == before
        assert value(session, "select count(*) from _eventstream.rebuilt_states") == 0


def test_a_table_may_be_unlogged_and_referenced(quiet):
    with quiet.connect() as session:
        session.execute(FOLD)
        append(session, "thing-1", "thing-2", n=3)
        session.execute(f"select es_create_state_table('things', 'thing', '{COLUMNS}')")
        run(session, "things")
        session.execute("alter table things set unlogged; create unlogged table notes (stream text references things on delete restrict); insert into notes values ('thing-1'), ('thing-2')")
        session.execute("select es_rebuild_projection('things')")
        run(session, "things")
        append(session, "thing-1")
        run(session, "things")
        assert rows(session, "select * from things order by 1") == [("thing-1", 2, 4), ("thing-2", 1, 3)]


def test_on_a_standby_calls_say_so(quiet_server, new_server):
    database = Database(quiet_server, "standby_calls").create()
    try:
        with database.connect() as session:
            session.execute("create table seen (n serial, name text, position bigint, stream text, version bigint)")
            session.execute("create function empties() returns void language sql as ''")
            session.execute(FOLD)
            create(session, "p")
            standby = new_server.adopt(quiet_server.make_standby("live-standby"))
            wait_until(lambda: value(session, "select count(*) from pg_stat_replication where replay_lsn >= pg_current_wal_lsn()") > 0, 30, "the standby")
        with standby.connect(database.name) as session:
            for function in GOOD:
                with raised("ES009", "25006"):
                    session.execute(call(function, GOOD[function]))
    finally:
        database.drop()
