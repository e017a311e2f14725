"""What was found wrong with scheduled commands once, each as the kind that it is of: what somebody holds, or what takes long, keeps nobody else waiting; and a command that was executed, by
whomever, is never called unscheduled."""

import json
import threading
import time

import psycopg
import pytest
from database import Database, all_at_once, raised, rows, value
from deciding import balance, bank, decider, open_bank, refused, send
from scheduling import schedule, stage, unschedule, wait_for, wait_for_all
from server import wait_until
from workers import is_exact, make_projection

HANG = "begin perform pg_sleep(20); return '[]'; end"


@pytest.fixture
def session(database):
    with bank(database).connect() as connection:
        yield connection


@pytest.fixture
def four(new_server):
    """A server of its own with four runners."""
    return bank(Database(new_server("four_runners", **{"eventstream.max_workers": 4, "max_worker_processes": 16}), "ledger").create())


def test_what_somebody_holds_keeps_nobody_else_waiting_and_costs_nothing(database, session):
    """More than are looked up at once."""
    for number in range(70):
        schedule(session, f"held-{number}", after="1 s")
    with database.connect(autocommit=False) as holder:
        for number in range(70):
            unschedule(holder, f"held-{number}")
        time.sleep(1)
        schedule(session, "another", stream="account-2")
        wait_for(session, "another", seconds=5)
        before = value(session, "select last_value from _eventstream.positions")
        time.sleep(1)
        assert value(session, "select last_value from _eventstream.positions") - before < 5, "executed in vain"
        holder.rollback()
    wait_for_all(session, 71)
    assert balance(session) == 700


def test_commands_that_hang_leave_a_runner_for_other_tenants_and_projections(four):
    make_projection(four)
    with four.connect() as session:
        decider(session, HANG, is_default=False)
        session.execute("select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'default'")
        for number in range(20):
            schedule(session, f"hang-{number}", stream=f"account-{number}", decider="other")
        wait_until(lambda: len(rows(session, "select from pg_stat_activity where wait_event = 'PgSleep'")) >= 2, 10, "two that hang")
        time.sleep(0.5)
        send(session, stream="account-99")
        wait_until(lambda: is_exact(session), 10, "the projection to be the log")
        session.execute("set eventstream.tenant = 'b'")
        open_bank(session)
        schedule(session, "b")
        wait_for(session, "b", seconds=5)


def test_a_slow_command_does_not_keep_those_that_were_due_with_it(four):
    with four.connect() as session:
        decider(session, HANG, is_default=False)
        with session.transaction():
            schedule(session, "a", decider="other")
            for number in range(6):
                schedule(session, f"k-{number}", stream=f"account-1{number}")
        for number in range(6):
            wait_for(session, f"k-{number}", seconds=5)


def test_what_is_sent_with_its_key_is_done_wherever_it_stands(database, session):
    """Before its time, dead, or refused: that is the scheduled command, and it is over with the commit of its events. What is given up is not executed any more."""
    schedule(session, "pending", after="1 h")
    answer = send(session, command_key="pending")
    assert stage(session, "pending") == "done" and unschedule(session, "pending") == "done"
    assert send(session, command_key="pending") == {**answer, "replayed": True}
    assert schedule(session, "pending", after="1 h")["stage"] == "done"
    body = "begin if (select bad from public.mood) then perform es_require(command.command_type <> 'No', 'no', 'no'); raise 'bad'; end if; return jsonb_build_array(es_make_event('Credited', command.payload)); end"
    session.execute("create table mood (bad bool); insert into mood values (true)")
    decider(session, body, is_default=False)
    session.execute("alter system set eventstream.command_retries = 0")
    session.execute("select pg_reload_conf()")
    try:
        schedule(session, "dead", decider="other")
        schedule(session, "refused", "No", decider="other")
        wait_for(session, "dead", "dead")
        wait_for(session, "refused", "refused")
    finally:
        session.execute("alter system reset eventstream.command_retries")
        session.execute("select pg_reload_conf()")
    session.execute("update mood set bad = false")
    # What is rolled back was not done.
    with session.transaction(force_rollback=True):
        send(session, command_key="dead", decider="other")
        assert stage(session, "dead") == "done"
    assert stage(session, "dead") == "dead" and len(rows(session, "select from eventstream.dead_letters")) == 1
    for key, command_type in (("dead", "Deposit"), ("refused", "No")):
        assert send(session, command_type, command_key=key, decider="other")["replayed"] is False
        assert rows(session, "select stage, error_sqlstate, payload, finished_at is not null from eventstream.scheduled_commands where command_key = %s", key) == [("done", None, None, True)]
    assert rows(session, "select from eventstream.dead_letters") == [] and balance(session) == 30
    # One whose decider takes back what it ends: itself, too.
    decider(session, "begin return jsonb_build_object('events', '[]'::jsonb, 'unschedule', jsonb_build_array('own')); end", is_default=False, name="taker")
    schedule(session, "own", "Any", {}, after="1 h", decider="taker")
    send(session, "Any", {}, command_key="own", decider="taker")
    assert stage(session, "own") == "done"
    schedule(session, "unwanted", after="1 h")
    unschedule(session, "unwanted")
    diag = refused(send, session, command_key="unwanted")
    assert diag.sqlstate == "ES030" and "is used up" in diag.message_primary and stage(session, "unwanted") == "unscheduled"
    assert balance(session) == 30


def test_a_key_that_is_scheduled_is_no_other_commands(session):
    """Nor was it to be found out by the dead letter, when nobody waits for it any more. At once: tests/isolation/specs/scheduled.spec."""
    schedule(session, "k", after="1 h")
    before = value(session, "select last_value from _eventstream.positions")
    diag = refused(send, session, payload={"amount": 3}, stream="account-2", command_key="k")
    assert diag.sqlstate == "ES030" and '"k"' in diag.message_primary
    assert value(session, "select last_value from _eventstream.positions") == before
    assert send(session, command_key="k")["version"] == 1 and stage(session, "k") == "done"
    # In another category it is another key; taken back, it stays what it was.
    schedule(session, "l", after="1 h")
    assert unschedule(session, "l") == "unscheduled"
    assert refused(send, session, payload={"amount": 3}, command_key="l").sqlstate == "ES030"


def test_a_command_does_not_schedule_itself_under_its_own_key(session):
    body = "begin return jsonb_build_object('events', '[]'::jsonb, 'schedule', jsonb_build_array(jsonb_build_object('command_type', 'Deposit', 'payload', command.payload, 'command_key', 'k', 'run_at', clock_timestamp() + interval '1 hour'))); end"
    decider(session, body, is_default=False)
    diag = refused(send, session, "Any", {"amount": 1}, decider="other", command_key="k")
    assert diag.sqlstate == "ES005" and "the command which is being executed" in diag.message_primary
    assert send(session, "Any", {"amount": 1}, decider="other", command_key="another")["version"] == 0
    assert stage(session, "k") == "pending"


SCHEDULES = """begin return jsonb_build_object('schedule', jsonb_build_array(jsonb_build_object('command_type', 'Deposit', 'payload', command.payload,
    'command_key', 'k', 'run_at', '2100-01-01T00:00:00Z'))); end"""


@pytest.mark.parametrize(
    ("before", "stands", "found"),
    [
        (lambda session: send(session, "Any", {"amount": 10}, decider="other"), None, "pending"),
        (lambda session: schedule(session, "k", after="1 h"), "it is scheduled and pending, for 20", "pending"),
        (lambda session: schedule(session, "k", after="1 h", payload={"amount": 3}), "it is scheduled for another request and pending, for 20", "pending"),
        (lambda session: (schedule(session, "k", after="1 h"), unschedule(session, "k")), "it was scheduled before, and is unscheduled", "unscheduled"),
        (lambda session: (schedule(session, "k", payload={"amount": 3}), wait_for(session, "k")), "it was scheduled for another request before, and is done", "done"),
        (lambda session: send(session, payload={"amount": 3}, command_key="k"), "it was used for another request", None),
    ],
    ids=["the same", "another time", "another request", "unscheduled", "done", "executed"],
)
def test_a_decider_is_told_how_what_it_scheduled_before_stands(session, before, stands, found):
    decider(session, SCHEDULES, is_default=False)
    before(session)
    if stands is None:
        assert send(session, "Any", {"amount": 10}, decider="other")["version"] == 0
        return
    diag = refused(send, session, "Any", {"amount": 10}, decider="other")
    assert diag.sqlstate == "ES030" and diag.message_primary.startswith(f'decider "other" schedules command key "k" of category "account", and {stands}')
    assert json.loads(diag.message_detail) == {"decider": "other", "command_key": "k", "of": 'category "account"', "stage": found}
    assert "a key of its own" in diag.message_hint


@pytest.mark.parametrize("is_dead", [False, True])
def test_one_that_is_executed_by_hand_and_names_its_own_key_is_done(database, session, is_dead):
    """Not unscheduled, as its decider says of whatever ends it early."""
    body = "begin return jsonb_build_object('events', jsonb_build_array(es_make_event('Credited', command.payload)), 'unschedule', jsonb_build_array('k')); end"
    decider(session, body, is_default=False)
    if is_dead:
        database.role("gone", "nologin")
        session.execute("select es_grant('gone', 'command', category => 'account'); set role gone")
        schedule(session, "k", decider="other", after="1 s")
        session.execute("reset role; select es_revoke('gone', 'command', category => 'account'); drop role gone")
        wait_for(session, "k", "dead")
    else:
        schedule(session, "k", decider="other", after="1 h")
    answer = send(session, command_key="k", decider="other")
    assert stage(session, "k") == "done" and rows(session, "select from eventstream.dead_letters") == []
    assert rows(session, "select answer, reason from eventstream.scheduled_commands") == [(answer, None)]
    assert balance(session) == 10


def test_who_unschedules_what_is_being_executed_does_not_wait(database, session):
    decider(session, "begin perform pg_sleep(1.5); return jsonb_build_array(es_make_event('Credited', command.payload)); end", is_default=False)
    schedule(session, "k", decider="other")
    wait_until(lambda: rows(session, "select from pg_stat_activity where wait_event = 'PgSleep'"), 10, "the decision")
    began = time.monotonic()
    assert unschedule(session, "k") == "unscheduled" and time.monotonic() - began < 1
    time.sleep(2)
    assert stage(session, "k") == "unscheduled" and rows(session, "select from es_read_all()") == []


CROSSING = """declare
    others jsonb := (select jsonb_agg(jsonb_build_object('command_type', 'Any', 'stream', o.stream, 'payload', jsonb_build_object('others', '[]'::jsonb), 'command_key', o.key, 'decider', 'other',
                                                       'run_at', '2100-01-01 00:00Z')) from jsonb_to_recordset(command.payload -> 'others') o (key text, stream text));
begin
    return jsonb_build_object('events', jsonb_build_array(es_make_event('Credited', '{"amount": 1}')), 'schedule', coalesce(others, '[]'));
end"""


def test_commands_that_schedule_each_others_keys_wait_for_nobody_in_a_circle(database, session):
    """Three clients execute three keys at once, and the decider of each schedules the other two; an inline projection has a row that all of them write. Single statements: each is done, or is told that
    a key is used."""
    session.execute("create table totals (n int); insert into totals values (0)")
    session.execute("create function total(event eventstream.event) returns void language plpgsql as $$ begin update public.totals set n = n + 1; end $$")
    session.execute("select es_create_projection('total', 'total(eventstream.event)', mode => 'inline')")
    decider(session, CROSSING, is_default=False)

    def client(number):
        done = 0
        with database.connect() as connection:
            for turn in range(60):
                keys = [f"{turn}-{other}" for other in range(3)]
                others = [{"key": key, "stream": f"account-{other}"} for other, key in enumerate(keys) if other != number]
                # A request is the same whoever sends it: that of a scheduled one has no others.
                given = {"others": others if turn % 2 else []}
                barrier.wait()
                try:
                    send(connection, "Any", given, f"account-{number}", decider="other", command_key=keys[number])
                    done += 1
                except psycopg.Error as error:
                    assert error.sqlstate == "ES030", error
        return done

    barrier = threading.Barrier(3, timeout=60)
    results = all_at_once(3, client, seconds=150)
    assert raised(results) == []
    assert sum(results) >= 90
    stages = dict(rows(session, "select command_key, stage from eventstream.scheduled_commands"))
    executed = [key for (key,) in rows(session, "select metadata -> 'command' ->> 'key' from es_read_all(max_count => 10000)")]
    assert len(executed) == len(set(executed)) == sum(results) == value(session, "select n from totals")
    assert all(stage == ("done" if key in executed else "pending") for key, stage in stages.items())


def test_many_that_somebody_has_in_hand_keep_nobody_else_waiting(database, session):
    """However many: a pass goes on where the last turn left it, and keeps no lock of those that it went past."""
    session.execute("select count(es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', clock_timestamp() + interval '3 s', command_key => 'm-' || g)) from generate_series(1, 6000) g")
    with database.connect(autocommit=False) as holder:
        holder.execute("select count(es_unschedule_command('m-' || g, 'not wanted')) from generate_series(1, 6000) g")
        schedule(session, "another", stream="account-2", after="4 s")
        wait_for(session, "another", seconds=30)
        locks = "select max(n) from (select count(*) as n from pg_locks where locktype = 'advisory' or relation is null group by pid having pid <> %s) l"
        assert (value(session, locks, holder.info.backend_pid) or 0) < 1000
        holder.rollback()
    wait_for_all(session, 6001, seconds=90)
