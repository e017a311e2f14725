"""Projections and state tables follow the log exactly once, whatever fails, by workers and by es_run_projection."""

import concurrent.futures
import contextlib
import json
import re

import psycopg
import pytest
from psycopg import errors

import server as servers
from database import Database, passed, position_of, rows, value
from server import wait_until

READ_MODEL = """
create table totals (stream text primary key, total numeric not null, events int not null);
create function on_event(event eventstream.event) returns void language plpgsql as $$
begin
    if event.payload ? 'curse' then
        raise exception 'cursed: %', event.payload ->> 'curse' using errcode = 'GL042';
    end if;
    insert into totals values (event.stream, (event.payload ->> 'amount')::numeric, 1)
    on conflict (stream) do update set total = totals.total + excluded.total, events = totals.events + 1;
end $$;
create function on_batch(events eventstream.event[]) returns void language plpgsql as $$
begin
    if exists (select from unnest(events) e where e.payload ? 'curse') then
        raise exception 'a cursed batch of %', cardinality(events);
    end if;
    insert into totals select e.stream, sum((e.payload ->> 'amount')::numeric), count(*) from unnest(events) e group by 1 order by 1
    on conflict (stream) do update set total = totals.total + excluded.total, events = totals.events + excluded.events;
end $$;
create function empty_totals() returns void language sql as 'delete from totals';
"""

HANDLERS = ["on_event(eventstream.event)", "on_batch(eventstream.event[])"]
COLUMNS = '[{"name": "balance", "type": "numeric", "path": "/balance"}]'


@contextlib.contextmanager
def raised(sqlstate: str):
    with pytest.raises(psycopg.Error) as error:
        yield error
    assert error.value.sqlstate == sqlstate, error.value


@pytest.fixture(scope="module")
def quiet_server():
    """Runs no workers: what is advanced, the tests advance."""
    server = servers.Server("quiet", **{"eventstream.max_workers": 0, "eventstream.retry_pause": "1ms"}).create()
    yield server
    server.destroy()


@pytest.fixture
def quiet(quiet_server, request):
    made = Database(quiet_server, re.sub(r"\W", "_", request.node.name)[:55]).create()
    with made.connect() as session:
        session.execute(READ_MODEL)
        register_balance(session)
    yield made
    made.drop()


def register_balance(session, factor: str = "add"):
    session.execute(
        "select es_register_fold('balance', 'account', initial_state => '{\"balance\": 0}', rules => %s::jsonb)",
        ('{"on": {"Moved": [{"%s": {"/balance": "/amount"}}]}}' % factor,),
    )


def append(session, stream: str, *amounts):
    for amount in amounts:
        payload = f'{{"curse": "{amount}"}}' if isinstance(amount, str) else f'{{"amount": {amount}}}'
        session.execute("select es_append(%s, 'Moved', %s)", (stream, payload))


def totals(session) -> dict:
    return {stream: (total, events) for stream, total, events in rows(session, "select * from totals")}


def progress(session, name: str) -> dict:
    """`passed`: how many events of the log its checkpoint has passed."""
    cursor = session.execute(
        "select g.* from _eventstream.projection_progress g join _eventstream.projections p on p.id = g.projection_id"
        " where p.name = %s",
        (name,),
    )
    found = dict(zip((column.name for column in cursor.description), cursor.fetchone()))
    return {**found, "passed": passed(session, found["global_position"])}


def balances_are_exact(session, table: str) -> bool:
    return value(
        session,
        "select bool_and(b.version is not distinct from c.version and b.balance::text is not distinct from c.state ->> 'balance')"
        f" from es_category_state('account') c full join {table} b using (stream)",
    )


# -- the way it should be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("size", [1, 7, 500])
def test_every_event_is_applied_once_whatever_the_batches(quiet, handler, size):
    with quiet.connect() as session:
        append(session, "account-1", *range(1, 31))
        append(session, "other-1", 1000)
        session.execute("select es_create_projection('p', %s, categories => '{account}', batch_size => %s)", (handler, size))
        assert value(session, "select es_run_projection('p')") == 30
        append(session, "account-2", 5, 6)
        assert value(session, "select es_run_projection()") == 2
        assert value(session, "select es_run_projection('p')") == 0
        assert totals(session) == {"account-1": (465, 30), "account-2": (11, 2)}


def test_filters_and_after_position_say_which_events_are_shown(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2)
        session.execute("select es_append('account-1', 'Opened', '{\"amount\": 100}')")
        session.execute("select es_append('stock-1', 'Moved', '{\"amount\": 10}')")
        append(session, "account-2", 4)
        session.execute(
            "select es_create_projection('p', 'on_event(eventstream.event)', categories => '{account,stock}',"
            " event_types => '{Moved}', after_position => %s)",
            (position_of(session, 1),),
        )
        assert value(session, "select es_run_projection('p')") == 3
        assert totals(session) == {"account-1": (2, 1), "stock-1": (10, 1), "account-2": (4, 1)}
        assert progress(session, "p")["passed"] == 5


def test_max_batches_bounds_a_call(quiet):
    with quiet.connect() as session:
        append(session, "account-1", *range(10))
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)', batch_size => 3)")
        assert value(session, "select es_run_projection('p', 2)") == 6
        assert progress(session, "p")["passed"] == 6


def test_effects_and_checkpoint_are_one_transaction(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)')")
        with pytest.raises(errors.DivisionByZero), session.transaction():
            assert value(session, "select es_run_projection('p')") == 2
            session.execute("select 1 / 0")
        assert totals(session) == {}
        assert value(session, "select es_run_projection('p')") == 2
        assert totals(session) == {"account-1": (3, 2)}


def test_payloads_are_upcast(quiet):
    with quiet.connect() as session:
        session.execute(
            "create function up(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
            " $$ select jsonb_build_object('amount', payload -> 'sum') $$"
        )
        session.execute("select es_append('account-1', 'Moved', '{\"sum\": 12.50}')")
        session.execute("select es_register_upcaster('Moved', 1, 'up(jsonb, jsonb)')")
        session.execute("select es_create_projection('e', 'on_event(eventstream.event)')")
        session.execute("select es_create_projection('b', 'on_batch(eventstream.event[])')")
        session.execute(f"select es_create_state_table('balances', 'account', '{COLUMNS}')")
        assert value(session, "select es_run_projection()") == 2
        assert totals(session) == {"account-1": (25, 2)}
        assert balances_are_exact(session, "balances")


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("place", [0, 1, 13, 29])
def test_the_events_before_a_failing_one_are_applied_and_stay(quiet, handler, place):
    with quiet.connect() as session:
        amounts = [*range(1, 31)]
        amounts[place] = "thirteen"
        append(session, "account-1", *amounts)
        session.execute("select es_create_projection('p', %s, max_retries => 2)", (handler,))
        assert value(session, "select es_run_projection('p')") == place
        expected = {"account-1": (sum(amounts[:place]), place)} if place else {}
        assert totals(session) == expected
        found, failed = progress(session, "p"), position_of(session, place + 1)
        assert (found["status"], found["failed_position"], found["attempts"]) == ("running", failed, 1)
        assert found["passed"] == place
        assert found["error_sqlstate"] == ("GL042" if "event)" in handler else "P0001")
        assert found["retry_at"] is not None
        for attempt in (2, 3):
            assert value(session, "select es_run_projection('p')") == 0
            assert progress(session, "p")["attempts"] == attempt
        assert progress(session, "p")["status"] == "stopped"
        with raised("ES021") as error:
            session.execute("select es_run_projection('p')")
        assert f"global position {failed}" in str(error.value)
        assert totals(session) == expected

        session.execute("select es_skip_event('p', %s, 'it is cursed')", (failed,))
        assert value(session, "select es_run_projection('p')") == 29 - place
        assert totals(session) == {"account-1": (sum(a for a in amounts if not isinstance(a, str)), 29)}
        assert rows(session, "select global_position, stream, version, reason from _eventstream.dead_letters") == [
            (failed, "account-1", place + 1, "it is cursed")
        ]


@pytest.mark.parametrize("where", ["a user's", "PostgreSQL's", "ours"])
def test_a_failures_detail_is_kept_with_it(quiet, where):
    raising = {
        "a user's": "raise exception 'no' using detail = 'because of ' || event.event_type || repeat('é', 20000);",
        "PostgreSQL's": "insert into totals values (event.stream, null, 1);",
        "ours": "perform es_append('wrong', 'Moved', '{}');",
    }
    with quiet.connect() as session:
        session.execute(f"create function failing(event eventstream.event) returns void language plpgsql as $$ begin {raising[where]} end $$")
        append(session, "account-1", 1, 2)
        session.execute("select es_create_projection('p', 'failing(eventstream.event)', max_retries => 0)")
        session.execute("select es_run_projection('p')")
        detail = value(session, "select error_detail from eventstream.projections")
        if where == "a user's":
            assert detail.startswith("because of Movedéé") and 8_000 < len(detail.encode()) <= 8_195
        elif where == "PostgreSQL's":
            assert detail == "Failing row contains (account-1, null, 1)."
        else:
            assert json.loads(detail)["stream"] == "wrong"
        session.execute("select es_skip_event('p', %s, 'hopeless')", (position_of(session, 1),))
        assert value(session, "select error_detail from eventstream.dead_letters") == detail
        session.execute("select es_alter_projection('p', '{\"on_error\": \"skip\"}')")
        session.execute("select es_run_projection('p')")
        assert rows(session, "select global_position, error_detail from eventstream.dead_letters order by 1") == [
            (position_of(session, number), detail) for number in (1, 2)
        ]
        # It is of the last failure, which had one or not.
        session.execute("create or replace function failing(event eventstream.event) returns void language plpgsql as $$ begin raise exception 'plainly'; end $$")
        append(session, "account-1", 3)
        session.execute("select es_run_projection('p')")
        assert rows(session, "select error_message, error_detail from eventstream.projections") == [("plainly", None)]


@pytest.mark.parametrize("handler", HANDLERS)
def test_skip_puts_failing_events_among_the_dead_letters_after_the_retries(quiet, handler):
    with quiet.connect() as session:
        append(session, "account-1", 1, "one", 2, "two", 3)
        session.execute("select es_create_projection('p', %s, on_error => 'skip', max_retries => 1)", (handler,))
        for _ in range(6):
            session.execute("select es_run_projection('p')")
        assert totals(session) == {"account-1": (6, 3)}
        assert rows(session, "select global_position, attempts from _eventstream.dead_letters order by 1") == [(position_of(session, number), 2) for number in (2, 4)]
        assert progress(session, "p")["passed"] == 5


@contextlib.contextmanager
def in_background(work):
    """The call, which has to wait for something, goes on meanwhile; its result or error is the future's."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def wait_until_blocked(session, pid: int) -> None:
    wait_until(lambda: value(session, "select cardinality(pg_blocking_pids(%s)) > 0", pid), 10, "the other session to wait")


@pytest.mark.parametrize("first", ["es_retry_dead_letter", "es_drop_dead_letter", "es_rebuild_projection"])
def test_a_dead_letter_is_applied_once_whoever_is_at_it_at_the_same_time(quiet, first):
    with quiet.connect() as session, quiet.connect() as other, quiet.connect() as watcher:
        append(session, "account-1", 1, "one", 2)
        session.execute("select es_create_projection('p', %s, on_error => 'skip', max_retries => 0, reset => 'empty_totals()')", (HANDLERS[0],))
        session.execute("select es_run_projection('p')")
        letter = value(session, "select id from eventstream.dead_letters")
        # The handler is mended: a curse is an amount now.
        session.execute(
            "create or replace function on_event(event eventstream.event) returns void language sql as"
            " $$ insert into totals values (event.stream, coalesce((event.payload ->> 'amount')::numeric, 10), 1)"
            " on conflict (stream) do update set total = totals.total + excluded.total, events = totals.events + 1 $$"
        )
        calls = {
            "es_retry_dead_letter": (f"es_retry_dead_letter({letter})", (13, 3)),
            "es_drop_dead_letter": (f"es_drop_dead_letter({letter}, 'lost')", (3, 2)),
            "es_rebuild_projection": ("es_rebuild_projection('p')", (13, 3)),
        }
        call, wanted = calls[first]
        session.execute("begin")
        session.execute(f"select {call}")
        with in_background(lambda: other.execute("select es_retry_dead_letter(%s)", (letter,))) as second:
            wait_until_blocked(watcher, other.info.backend_pid)
            session.execute("commit")
            with raised("ES005") as error:
                second.result(30)
        assert "processed or dropped meanwhile" in str(error.value)
        session.execute("select es_run_projection('p')")
        assert totals(session) == {"account-1": wanted}
        assert value(session, "select count(*) from eventstream.dead_letters") == 0


def test_a_dead_letter_that_fails_again_stays(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, "one", 2)
        session.execute("select es_create_projection('p', %s, on_error => 'skip', max_retries => 0)", (HANDLERS[0],))
        session.execute("select es_run_projection('p')")
        before = rows(session, "select * from eventstream.dead_letters")
        with raised("GL042"):
            session.execute("select es_retry_dead_letter(%s)", (before[0][0],))
        assert rows(session, "select * from eventstream.dead_letters") == before


def test_a_mended_handler_goes_on_where_it_was(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, "one", 2)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)', max_retries => 0)")
        assert value(session, "select es_run_projection('p')") == 1
        assert progress(session, "p")["status"] == "stopped"
        session.execute(
            "create or replace function on_event(event eventstream.event) returns void language sql as"
            " $$ insert into totals values ((event).stream, 50, 1)"
            " on conflict (stream) do update set total = totals.total + 50, events = totals.events + 1 $$"
        )
        session.execute("select es_resume_projection('p')")
        assert value(session, "select es_run_projection('p')") == 2
        assert totals(session) == {"account-1": (101, 3)}


def test_a_projection_whose_function_or_registrant_is_gone_stops_and_says_why(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)')")
        session.execute("set eventstream.allow_drop = on; drop function on_event(eventstream.event)")
        assert value(session, "select es_run_projection('p')") == 0
        with raised("ES021") as error:
            session.execute("select es_run_projection('p')")
        assert "does not exist any more" in str(error.value)
        session.execute("select es_alter_projection('p', '{\"handler\": \"on_batch(eventstream.event[])\"}')")
        session.execute("select es_resume_projection('p')")
        assert value(session, "select es_run_projection('p')") == 1


def test_the_rebuild_of_an_inline_handler_is_over_when_it_runs(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2)
        session.execute("select es_create_projection('p', %s, mode => 'inline', reset => 'empty_totals()')", (HANDLERS[0],))
        session.execute("select es_rebuild_projection('p')")
        assert {key: found for key, found in progress(session, "p").items() if key.startswith("rebuild_")} == dict.fromkeys(
            ("rebuild_to", "rebuild_stream", "rebuild_done", "rebuild_total", "rebuild_began")
        )
        assert totals(session) == {"account-1": (3, 2)}


def test_pause_and_resume(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)')")
        session.execute("select es_pause_projection('p')")
        assert value(session, "select es_run_projection('p')") == 0
        session.execute("select es_resume_projection('p')")
        assert value(session, "select es_run_projection('p')") == 1


def test_a_rebuild_of_a_handler_begins_again_after_its_reset(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2, 3)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)', after_position => %s)", (position_of(session, 1),))
        assert value(session, "select es_run_projection('p')") == 2
        with raised("ES005"):
            session.execute("select es_rebuild_projection('p')")
        session.execute("select es_alter_projection('p', '{\"reset\": \"empty_totals()\"}')")
        session.execute("select es_rebuild_projection('p')")
        with raised("ES022"):
            session.execute("select es_rebuild_projection('p')")
        assert totals(session) == {}
        assert value(session, "select es_run_projection('p')") == 2
        assert totals(session) == {"account-1": (5, 2)}
        assert progress(session, "p")["status"] == "running"


def test_what_a_handler_appends_is_visible_as_caused_by_the_event(quiet):
    with quiet.connect() as session:
        session.execute(
            "create function echo(event eventstream.event) returns void language sql as"
            " $$ select es_append('echo-1', 'Echoed', '{}', metadata => '{\"rate\": 1.10}') $$"
        )
        session.execute("select es_append('account-1', 'Moved', '{}', metadata => '{\"correlation_id\": \"order 7\"}')")
        session.execute("select es_create_projection('p', 'echo(eventstream.event)', categories => '{account}')")
        assert value(session, "select es_run_projection('p')") == 1
        cause = value(session, "select event_id::text from es_read('account-1')")
        [(metadata,)] = rows(session, "select metadata::text from es_read('echo-1')")
        assert metadata == (
            '{"rate": 1.10, "actor": "projection p", "causation_id": "%s", "correlation_id": "order 7"}' % cause
        )
        assert rows(session, "select * from es_verify()") == []


# -- state tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("fold_order", ["version", "occurred_at"])
def test_a_state_table_has_the_state_of_each_stream(quiet, mode, fold_order):
    with quiet.connect() as session:
        session.execute(
            "select es_register_fold('balance', 'account', initial_state => '{\"balance\": 0.00}', fold_order => %s,"
            ' rules => \'{"on": {"Moved": [{"add": {"/balance": "/amount"}}]}}\')',
            (fold_order,),
        )
        for stream in range(20):
            append(session, f"account-{stream}", 1, 2.50, stream)
        session.execute(f"select es_create_state_table('balances', 'account', '{COLUMNS}', mode => '{mode}')")
        session.execute("select es_run_projection()")
        assert balances_are_exact(session, "balances")
        for stream in range(0, 25):
            append(session, f"account-{stream}", 7)
            session.execute(
                "select es_append(%s, 'Moved', '{\"amount\": 0.001}', occurred_at => '2020-01-01')", (f"account-{stream}",)
            )
        session.execute("select es_run_projection()")
        assert balances_are_exact(session, "balances")
        assert value(session, "select count(*) from balances") == 25


def test_a_rebuild_keeps_everything_that_was_added_to_the_table(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1)
        append(session, "account-2", 2)
        session.execute(f"select es_create_state_table('balances', 'account', '{COLUMNS}')")
        session.execute("select es_run_projection()")
        session.execute("create index on balances (balance)")
        session.execute("alter table balances add check (balance > 0)")
        session.execute("create view rich as select * from balances where balance > 1")
        session.execute("create table notes (stream text references balances)")
        session.execute("insert into notes values ('account-2')")
        session.execute("grant select on balances to public")
        before = rows(session, "select oid, relfilenode, relacl::text from pg_class where relname = 'balances'")
        session.execute("insert into balances values ('account-9', 1, 5)")
        session.execute("update balances set balance = 77 where stream = 'account-1'")
        session.execute("select es_rebuild_projection('balances')")
        session.execute("select es_run_projection('balances')")
        assert balances_are_exact(session, "balances")
        assert rows(session, "select oid, relfilenode, relacl::text from pg_class where relname = 'balances'") == before
        assert rows(session, "select stream from rich") == [("account-2",)]
        assert value(session, "select count(*) from pg_index where indrelid = 'balances'::regclass") == 2


def test_a_table_is_rebuilt_by_itself_when_its_fold_has_changed(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2)
        append(session, "account-2", 3)
        session.execute(f"select es_create_state_table('balances', 'account', '{COLUMNS}')")
        session.execute("select es_run_projection()")
        register_balance(session, "subtract")
        session.execute("select es_run_projection()")
        assert rows(session, "select stream, balance from balances order by 1") == [("account-1", -3), ("account-2", -3)]


# -- inline ---------------------------------------------------------------------------------------------------------


def test_an_inline_projection_is_as_current_as_the_log(quiet):
    with quiet.connect() as session:
        append(session, "account-1", 1, 2)
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)', mode => 'inline')")
        assert totals(session) == {"account-1": (3, 2)}
        append(session, "account-1", 4)
        with session.transaction(force_rollback=True):
            append(session, "account-1", 1000)
            assert totals(session) == {"account-1": (1007, 4)}
        assert totals(session) == {"account-1": (7, 3)}
        with raised("GL042") as error:
            append(session, "account-1", "inline")
        assert 'projection "p" at global position' in error.value.diag.context
        assert value(session, "select es_stream_version('account-1')") == 3
        session.execute("select es_pause_projection('p')")
        append(session, "account-2", 10)
        assert "account-2" not in totals(session)
        session.execute("select es_resume_projection('p')")
        append(session, "account-2", 20)
        assert totals(session) == {"account-1": (7, 3), "account-2": (30, 2)}
        session.execute("select es_alter_projection('p', '{\"reset\": \"empty_totals()\"}')")
        session.execute("select es_rebuild_projection('p')")
        assert totals(session) == {"account-1": (7, 3), "account-2": (30, 2)}
        session.execute("select es_drop_projection('p')")
        append(session, "account-1", 5)
        assert totals(session)["account-1"] == (7, 3)


# -- waiting --------------------------------------------------------------------------------------------------------


REMEMBERED = {
    # What a session knows: how it is made, what it says, how it changes, and the table that it is read from.
    "inline projection": (
        "select es_create_projection('p', 'one(eventstream.event)', mode => 'inline')",
        "select who from noted order by n desc limit 1",
        "select es_alter_projection('p', '{\"handler\": \"two(eventstream.event)\"}')",
        "_eventstream.projections",
    ),
    "fold": (
        "select es_register_fold('f', 'account', 'first(jsonb, eventstream.event)')",
        "select es_state('account-1', fold => 'f') ->> 'is'",
        "select es_register_fold('f', 'account', 'second(jsonb, eventstream.event)')",
        "_eventstream.folds",
    ),
    "default fold": (
        "select es_register_fold('f', 'account', 'first(jsonb, eventstream.event)')",
        "select es_state('account-1') ->> 'is'",
        "select es_register_fold('f', 'account', 'second(jsonb, eventstream.event)')",
        "_eventstream.folds",
    ),
    "upcaster": (
        "select es_register_upcaster('Moved', 1, 'one(jsonb, jsonb)')",
        "select payload ->> 'is' from es_read('account-1') limit 1",
        "select es_register_upcaster('Moved', 1, 'two(jsonb, jsonb)')",
        "_eventstream.upcasters",
    ),
}


@pytest.mark.parametrize("what", REMEMBERED)
def test_a_session_that_reads_a_definition_while_it_changes_uses_the_new_one_from_then_on(quiet, what):
    made, said, changed, table = REMEMBERED[what]
    append_one = "select es_append('account-1', 'Moved', '{\"amount\": 1}')"
    with quiet.connect() as session, quiet.connect() as other, quiet.connect() as watcher:
        other.execute("create table noted (n int generated always as identity, who text)")
        for name, number in (("one", "first"), ("two", "second")):
            other.execute(
                f"create function {name}(event eventstream.event) returns void language sql as $$ insert into noted (who) values ('{number}') $$;"
                f"create function {name}(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select '{{\"is\": \"{number}\"}}'::jsonb $$;"
                f"create function {number}(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select '{{\"is\": \"{number}\"}}'::jsonb $$"
            )
        other.execute(made)
        session.execute(append_one)
        assert value(session, said) == "first"
        # It has to read it again, by the plan that it keeps.
        other.execute(made if what != "inline projection" else "select es_alter_projection('p', '{\"batch_size\": 7}')")
        other.execute("begin")
        other.execute(f"lock table {table} in access exclusive mode")
        other.execute(changed)

        def look():
            session.execute(append_one)
            return value(session, said)

        with in_background(look) as looking:
            wait_until_blocked(watcher, session.info.backend_pid)
            other.execute("commit")
            # Whichever of the two it is: it looked while that was being changed.
            assert looking.result(30) in ("first", "second")
        assert look() == "second"


def test_waiting_says_what_for(quiet):
    with quiet.connect() as session, quiet.connect() as other:
        session.execute("select es_create_projection('p', 'on_event(eventstream.event)')")
        append(session, "account-1", 1)
        with raised("ES023") as error:
            session.execute("select es_wait_for('p', timeout => '50ms')")
        assert "it is behind" in str(error.value)
        session.execute("select es_run_projection('p')")
        assert value(session, "select es_wait_for('p', timeout => '50ms')") == position_of(session, 1)
        with other.transaction():
            append(other, "account-2", 1)
            append(session, "account-1", 2)
            session.execute("select es_run_projection('p')")
            with raised("ES023") as error:
                session.execute("select es_wait_for('p', timeout => '50ms')")
            assert f"process {other.info.backend_pid} has appended" in str(error.value)
            with raised("0A000"):
                other.execute("select es_wait_for('p')")
        with raised("ES025"):
            session.execute("select es_wait_for('p', up_to => 4711)")


# -- by workers -----------------------------------------------------------------------------------------------------


def test_workers_do_the_same_by_themselves(database):
    with database.connect() as session:
        session.execute(READ_MODEL)
        register_balance(session)
        session.execute("select es_create_projection('event', 'on_event(eventstream.event)')")
        session.execute(f"select es_create_state_table('balances', 'account', '{COLUMNS}')")
        for turn in range(50):
            append(session, f"account-{turn % 7}", turn)
            session.execute("select es_wait_for('event')")
            session.execute("select es_wait_for('balances')")
            assert value(session, "select sum(events) from totals") == turn + 1
        assert balances_are_exact(session, "balances")
        assert value(session, "select bool_and(t.total = b.balance) from totals t join balances b using (stream)")
