"""Commands for later: each is executed once, not before its time, with the rights of who scheduled it as they are then, or nothing of it is.

Asked of the kinds: isolation (each level, an older snapshot), transaction (rolled back, savepoint, PREPARE, unscheduled where it was scheduled), session (date styles, zones,
metadata), role (weakened, dropped, made anew, renamed, another tenant's), time (restart, a clock that jumps and goes back), death (servers and runners at every step), load (a
race of unscheduling and running, many due at once), copies, verification (rows written by hand)."""

import itertools
import json
import os
import random
import re
import time

import psycopg
import pytest
import server as servers
from database import Database, all_at_once, gaps, raised, rows, value, verify
from deciding import DECIDE, balance, bank, decider, open_bank, refused, send
from operating import check, run_psql
from psycopg.types.json import Jsonb
from scheduling import available, buy, open_shelf, reserve, schedule, stage, unschedule, wait_for, wait_for_all
from server import run, wait_until
from test_clock import ticking  # noqa: F401 - a fixture
from test_live_kills import deaths, die_at, survives
from workers import is_exact, make_projection

numbers = itertools.count()

RELEASE = "release-shelf-pump/r-1"
LEVELS = ("read committed", "repeatable read", "serializable")


@pytest.fixture
def there(database):
    return bank(database)


@pytest.fixture
def session(there):
    with there.connect() as connection:
        yield connection


def test_what_was_reserved_comes_back_by_itself(database):
    with database.connect() as session:
        open_shelf(session)
        reserve(session, seconds=1)
        assert available(session) == 7
        before = value(session, "select run_at from eventstream.scheduled_commands")
        assert rows(session, "select command_key, category, stream, command_type, stage, attempts, scheduled_by, answer from eventstream.scheduled_commands") == [
            (RELEASE, "shelf", "shelf-pump", "Release", "pending", 0, "postgres", None)
        ]
        assert wait_for(session, RELEASE) == (1, None, None, True, True)
        assert available(session) == 10
        recorded_at, by, metadata = rows(session, "select recorded_at, recorded_by, metadata from es_read('shelf-pump') where event_type = 'ItemsReleased'")[0]
        assert before <= recorded_at and by == "postgres" and metadata["command"]["key"] == RELEASE
        answer = value(session, "select answer from eventstream.scheduled_commands")
        assert (answer["version"], answer["replayed"]) == (3, False)
        # Who sends the command itself is told what came of it.
        assert send(session, "Release", {"order": "r-1"}, "shelf-pump", command_key=RELEASE) == {**answer, "replayed": True}


def test_what_was_bought_stays_bought(database):
    with database.connect() as session:
        open_shelf(session)
        reserve(session, seconds=1)
        buy(session)
        assert stage(session, RELEASE) == "unscheduled"
        time.sleep(1.5)
        assert available(session) == 7 and stage(session, RELEASE) == "unscheduled"
        assert value(session, "select reason from eventstream.scheduled_commands") == "by the decider of a command"


def test_one_that_is_due_earlier_wakes_the_scheduler(session):
    schedule(session, "later", after="1 h")
    time.sleep(0.5)
    for number in range(5):
        before = time.monotonic()
        schedule(session, f"now-{number}", after="100 ms")
        wait_for(session, f"now-{number}")
        assert time.monotonic() - before < 1
    assert stage(session, "later") == "pending" and balance(session) == 50


def test_a_key_is_one_command(session):
    at = value(session, "select now() + interval '1 h'")
    said = "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1.50}', %s, 'k')"
    first = value(session, said, at)
    assert (first["command_key"], first["category"], first["stage"], first["replayed"]) == ("k", "account", "pending", False)
    assert value(session, said, at) == first | {"replayed": True}
    # The decider and the metadata may differ, as es_command's may.
    assert value(session, said.replace(", 'k')", ", 'k', '{\"a\": 1}', 'cashier')"), at)["replayed"]
    # Nor need the time be: it is often said from now on, and the first counts.
    assert value(session, said.replace("%s", "%s + interval '1 s'"), at) == first | {"replayed": True}
    for other in (said.replace("account-1", "account-2"), said.replace("Deposit", "Withdraw"), said.replace("1.50", "1.5")):
        diag = refused(session.execute, other, (at,))
        assert diag.sqlstate == "ES030" and '"k"' in diag.message_primary
    assert unschedule(session, "k") == "unscheduled"
    assert value(session, said, at)["stage"] == "unscheduled"
    # Another category is another key.
    session.execute("select es_register_decider('notes', 'note', 'decide(jsonb, eventstream.command)')")
    session.execute("select es_register_fold('n', 'note', rules => '{\"on\": {}}')")
    assert not schedule(session, "k", stream="note-1", after="1 h")["replayed"]


def test_the_key_is_es_commands_too(session):
    send(session, command_key="used")
    assert refused(schedule, session, "used", payload={"amount": 11}, after="1 h").sqlstate == "ES030"
    told = schedule(session, "used", after="200 ms")
    assert (told["stage"], told["replayed"]) == ("done", True) and stage(session, "used") is None and unschedule(session, "used") is None
    schedule(session, "early", after="500 ms")
    assert send(session, command_key="early")["replayed"] is False
    wait_for(session, "early")
    assert balance(session) == 20


def test_without_a_key_one_is_made(session):
    first, second = schedule(session), schedule(session)
    assert first["command_key"] != second["command_key"]
    wait_for_all(session, 2)
    assert balance(session) == 20


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_rolled_back_was_not_scheduled(there, session, level):
    with pytest.raises(ZeroDivisionError), session.transaction():
        session.execute(f"set transaction isolation level {level}")
        schedule(session, "gone")
        raise ZeroDivisionError
    with session.transaction():
        session.execute(f"set transaction isolation level {level}")
        schedule(session, "kept")
        with pytest.raises(ZeroDivisionError), session.transaction():
            schedule(session, "gone")
            unschedule(session, "kept")
            raise ZeroDivisionError
        schedule(session, "unwanted")
        assert unschedule(session, "unwanted") == "unscheduled"
        time.sleep(0.3)
        with there.connect() as other:
            assert rows(other, "select from eventstream.scheduled_commands") == []
    wait_for(session, "kept")
    assert stage(session, "gone") is None and stage(session, "unwanted") == "unscheduled" and balance(session) == 10


@pytest.mark.parametrize("level", LEVELS)
def test_who_unschedules_is_told_whether_it_ran(there, session, level):
    session.execute(f"set default_transaction_isolation = '{level}'")
    schedule(session, "done")
    schedule(session, "no", "Withdraw", {"amount": 1000})
    schedule(session, "later", after="1 h")
    wait_for(session, "done")
    wait_for(session, "no", "refused")
    assert [unschedule(session, key) for key in ("done", "no", "later", "later", "unknown")] == ["done", "refused", "unscheduled", "unscheduled", None]
    assert rows(session, "select reason from eventstream.scheduled_commands where command_key = 'later'") == [("not wanted",)]


def test_a_refusal_is_recorded_and_not_tried_again(session):
    schedule(session, "no", "Withdraw", {"amount": 1000})
    assert wait_for(session, "no", "refused") == (1, "ES033", "only 0 are there", True, True)
    detail = value(session, "select error_detail::jsonb from eventstream.scheduled_commands")
    assert detail == {"code": "insufficient_funds", "available": 0}
    assert rows(session, "select from es_read_all()") == [] == rows(session, "select from eventstream.dead_letters")
    # Nothing is kept of a refusal, as es_command keeps nothing: the key can be sent.
    send(session, payload={"amount": 2000})
    assert send(session, "Withdraw", {"amount": 1000}, command_key="no")["replayed"] is False


@pytest.fixture(scope="module")
def hasty_server():
    """It tries again soon, and twice."""
    server = servers.Server("hasty", **{"eventstream.retry_pause": "20ms", "eventstream.command_retries": 2}).create()
    yield server
    server.destroy()


@pytest.fixture
def hasty(hasty_server, request):
    name = re.sub(r"\W", "_", request.node.name)[:30] + f"_{next(numbers)}"
    made = Database(hasty_server, name).create()
    yield bank(made)
    made.drop()


def dead(session, key="k") -> tuple:
    return rows(session, "select command_key, command_type, stream, attempts, reason, error_sqlstate, global_position, event_type, projection, subscription"
                         " from eventstream.dead_letters where command_key = %s", key)[0]  # fmt: skip


def test_what_fails_is_tried_again_and_then_dead(hasty):
    with hasty.connect() as session:
        decider(session, "begin raise exception 'not this time' using detail = 'why', errcode = 'ES999'; end", is_default=False)
        schedule(session, "k", decider="other")
        assert wait_for(session, "k", "dead") == (3, "ES999", "not this time", False, False)
        assert dead(session) == ("k", "Deposit", "account-1", 3, "failed 3 times: not this time", "ES999", None, None, None, None)
        found = check(session, "dead letters of scheduled commands")
        assert found.status == "critical" and "1 scheduled command" in found.detail
        # Mended, it is tried again with all its attempts.
        session.execute("create or replace function other(state jsonb, command eventstream.command) returns jsonb stable language sql as"
                        " $$ select jsonb_build_array(es_make_event('Credited', command.payload)) $$")  # fmt: skip
        assert [row[-1] for row in rows(session, found.fix)] == ["k"]
        assert wait_for(session, "k") == (1, None, None, True, True)
        assert balance(session) == 10 and rows(session, "select from eventstream.dead_letters") == []
        assert check(session, "dead letters of scheduled commands") is None
        acts = rows(session, "select event_type, payload ->> 'kind', payload ->> 'name' from eventstream.administration where event_type like 'DeadLetter%'")
        assert acts == [("DeadLetterRetried", "scheduled_command", "k")]
        for line in ("scheduled_commands_done_total 1", "scheduled_commands_failed_total 3", 'scheduled_commands_dead{tenant="default",kind="scheduled"} 0'):
            assert f"\neventstream_{line}\n" in value(session, "select es_metrics()")


def test_what_fails_now_and_then_is_done_in_the_end(hasty):
    with hasty.connect() as session:
        session.execute("create table mood (bad bool); insert into mood values (true)")
        decider(session, "begin if (select bad from public.mood) then raise serialization_failure; end if; return jsonb_build_array(es_make_event('Credited', command.payload)); end",
                is_default=False)  # fmt: skip
        schedule(session, "k", decider="other")
        wait_until(lambda: value(session, "select attempts from eventstream.scheduled_commands") == 1, 10, "the first attempt")
        session.execute("update mood set bad = false")
        assert wait_for(session, "k")[1:] == (None, None, True, True)
        assert balance(session) == 10


@pytest.mark.parametrize("ending", ["dropped", "unscheduled"])
def test_a_dead_one_is_given_up(hasty, ending):
    with hasty.connect() as session:
        decider(session, "begin return '{\"odd\": 1}'; end", is_default=False)
        schedule(session, "k", decider="other")
        wait_for(session, "k", "dead")
        letter = value(session, "select id from eventstream.dead_letters")
        if ending == "dropped":
            assert value(session, "select es_drop_dead_letter(%s, 'CHG-1')", letter) == "k"
        else:
            assert unschedule(session, "k", "CHG-1") == "unscheduled"
        assert rows(session, "select stage, reason, payload from eventstream.scheduled_commands") == [(ending, "CHG-1", None)]
        assert rows(session, "select from eventstream.dead_letters") == []
        for call in ("es_retry_dead_letter(%s)", "es_drop_dead_letter(%s, 'CHG-2')"):
            assert refused(session.execute, f"select {call}", (letter,)).sqlstate == "ES005"
        time.sleep(0.3)
        assert stage(session, "k") == ending and rows(session, "select from es_read_all()") == []


def test_it_runs_with_the_rights_of_then(hasty):
    with hasty.connect() as session:
        clerk = hasty.role(f"{hasty.name}_clerk")
        session.execute("select es_grant(%s, 'command', category => 'account')", (clerk,))
        with hasty.connect(user=clerk) as there:
            schedule(there, "weakened", after="700 ms")
            schedule(there, "in time")
            wait_for(session, "in time")
            session.execute("select es_revoke(%s, 'command', category => 'account')", (clerk,))
        assert value(session, "select recorded_by from es_read('account-1')") == clerk
        assert wait_for(session, "weakened", "dead")[1] == "42501"
        assert clerk in dead(session, "weakened")[4]
        session.execute("select es_grant(%s, 'command', category => 'account')", (clerk,))
        session.execute("select es_retry_dead_letter(id) from eventstream.dead_letters")
        wait_for(session, "weakened")
        assert balance(session) == 20


def test_a_role_that_is_gone_is_no_other_of_its_name(hasty):
    with hasty.connect() as session:
        clerk = hasty.role(f"{hasty.name}_gone")
        session.execute("select es_grant(%s, 'command')", (clerk,))
        with hasty.connect(user=clerk) as there:
            schedule(there, "k", after="1 s")
        session.execute(f"drop role {clerk}")
        session.execute(f"create role {clerk} login")
        session.execute("select es_grant(%s, 'command')", (clerk,))
        assert wait_for(session, "k", "dead")[:3] == (1, "42704", f'the role "{clerk}" that scheduled it does not exist any more')
        session.execute("select es_retry_dead_letter(id) from eventstream.dead_letters")
        wait_for(session, "k", "dead")
        assert rows(session, "select from es_read_all()") == []


def test_a_role_that_is_renamed_is_the_same(hasty):
    with hasty.connect() as session:
        clerk = hasty.role(f"{hasty.name}_clerk")
        session.execute("select es_grant(%s, 'command')", (clerk,))
        with hasty.connect(user=clerk) as there:
            schedule(there, "k", after="500 ms")
        session.execute(f"alter role {clerk} rename to {clerk}_married")
        wait_for(session, "k")
        assert rows(session, "select scheduled_by from eventstream.scheduled_commands") == [(f"{clerk}_married",)]
        session.execute(f"alter role {clerk}_married rename to {clerk}")


def test_the_rights_of_a_definer_are_those_that_count(hasty):
    with hasty.connect() as session:
        clerk = hasty.role(f"{hasty.name}_clerk")
        session.execute("create function later() returns jsonb security definer language sql as $$"
                        " select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), 'k') $$")  # fmt: skip
        with hasty.connect(user=clerk) as there:
            assert refused(there.execute, "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now())").sqlstate == "42501"
            there.execute("select later()")
        wait_for(session, "k")
        # Who asked is told, and whose rights were used.
        assert value(session, "select recorded_by from es_read('account-1')") == clerk
        assert value(session, "select scheduled_by from eventstream.scheduled_commands") == "postgres"


def test_a_decider_that_is_gone_fails_it(hasty):
    with hasty.connect() as session:
        assert refused(schedule, session, "none", decider="nobody").sqlstate == "ES036"
        assert refused(schedule, session, "none", stream="note-1").sqlstate == "ES036"
        assert refused(schedule, session, "none", "Dance").sqlstate == "ES035"
        assert refused(schedule, session, "none", payload={"amount": -1}).sqlstate == "ES016"
        schedule(session, "k", after="500 ms")
        session.execute("select es_unregister_decider('cashier')")
        assert wait_for(session, "k", "dead")[1] == "ES036"
        open_bank_again = "select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)')"
        session.execute(open_bank_again)
        session.execute("select es_retry_dead_letter(id) from eventstream.dead_letters")
        wait_for(session, "k")


def test_tenants_are_apart(hasty):
    with hasty.connect() as session:
        schedule(session, "k", payload={"amount": 1})
        session.execute("select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'b'")
        open_bank(session)
        assert unschedule(session, "k") is None and rows(session, "select from eventstream.scheduled_commands") == []
        schedule(session, "k", payload={"amount": 2}, after="200 ms")
        wait_for(session, "k")
        wait_until(lambda: rows(session, "select from eventstream.scheduled_commands where stage = 'done'") != [], 10, "b's own")
        assert balance(session) == 2
        session.execute("set eventstream.tenant = 'default'")
        assert balance(session) == 1


def test_who_sees_and_who_may(hasty):
    with hasty.connect() as session:
        session.execute("select es_register_decider('notes', 'note', 'decide(jsonb, eventstream.command)')")
        session.execute("select es_register_fold('n', 'note', rules => '{\"on\": {}}')")
        narrow, reader, nobody, manager = (hasty.role(f"{hasty.name}_{name}") for name in ("narrow", "reader", "nobody", "manager"))
        for role, privilege in ((narrow, "command"), (reader, "read"), (manager, "manage")):
            session.execute("select es_grant(%s, %s, category => 'note')", (role, privilege))
        schedule(session, "a", after="1 h")
        schedule(session, "n", stream="note-1", after="1 h")
        schedule(session, "both", after="1 h")
        schedule(session, "both", stream="note-1", after="1 h")
        diag = refused(unschedule, session, "both")
        assert diag.sqlstate == "ES005" and "account, note" in diag.message_primary
        with hasty.connect(user=narrow) as there:
            assert refused(there.execute, "select * from eventstream.scheduled_commands").sqlstate == "42501"
            # Others' keys are not there for it, nor in its way.
            assert unschedule(there, "a") is None and unschedule(there, "both") == "unscheduled"
            assert refused(unschedule, there, "a", category="account").sqlstate == "42501"
            assert refused(schedule, there).sqlstate == "42501"
            assert schedule(there, "mine", stream="note-1", after="1 h")["stage"] == "pending"
        with hasty.connect(user=reader) as there:
            assert {key for (key,) in rows(there, "select command_key from eventstream.scheduled_commands")} == {"n", "both", "mine"}
            assert refused(unschedule, there, "n").sqlstate == "42501"
        with hasty.connect(user=nobody) as there:
            for statement in ("select es_schedule_command(null, null, null, null)", "select es_unschedule_command(null, null)", "select * from eventstream.scheduled_commands",
                              "select * from _eventstream.scheduled_commands"):  # fmt: skip
                assert refused(there.execute, statement).sqlstate == "42501", statement
        assert unschedule(session, "both", category="account") == "unscheduled"


def test_a_copy_executes_nothing_before_it_is_activated(new_server):
    server = new_server("copied_schedules")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        open_bank(session)
        send(session)
        schedule(session, "k", after="1 s")
    dump = run("pg_dump", env=server.address("original"))
    run_psql(copy, dump)
    with original.connect() as session, copy.connect() as there:
        wait_for(session, "k")
        time.sleep(1)
        assert stage(there, "k") == "pending" and balance(there) == 10
        assert refused(schedule, there, "k-2").sqlstate == "ES026"
        there.execute("select es_activate()")
        wait_for(there, "k")
        assert balance(there) == balance(session) == 20 and verify(there) == []
    # The data alone, into a log that was made for them.
    data = Database(server, "data").create()
    with original.connect() as session:
        schedule(session, "later", after="1 h")
    run_psql(data, run("pg_dump", "--data-only", env=server.address("original")))
    with original.connect() as session, data.connect() as there:
        everything = "select command_key, category, stage, payload, run_at, attempts, scheduled_by from eventstream.scheduled_commands order by scheduled_at"
        assert rows(there, everything) == rows(session, everything) != []
        there.execute("select es_activate()")
        there.execute(DECIDE)
        # Its ids go on.
        assert schedule(there, "new")["stage"] == "pending"
        wait_for(there, "new")


def test_it_survives_a_restart_and_the_death_of_all(new_server):
    server = new_server("schedules")
    database = bank(Database(server, "ledger").create())
    with database.connect() as session:
        for number in range(20):
            schedule(session, f"k-{number}", after=f"{2 + number / 10} s")
        open_one = database.connect(autocommit=False)
        schedule(open_one, "open")
    server.kill_everything()
    server.start()
    with database.connect() as session:
        wait_for_all(session, 20)
        assert balance(session) == 200 and stage(session, "open") is None
        schedule(session, "stopped", after="1 s")
    server.stop()
    time.sleep(1)
    server.start()
    with database.connect() as session:
        wait_for(session, "stopped")
        assert balance(session) == 210 and verify(session) == [] == gaps(session)


def test_clocks_that_jump_run_nothing_early_nor_twice(ticking):  # noqa: F811
    """Workers of PostgreSQL 15 are forked where the library that moves the clock is asleep, and keep the real one: sessions jump around them."""
    clock, database = ticking
    with database.connect() as session:
        open_bank(session)
        schedule(session, "near")
        wait_for(session, "near")
        # For the runner the clock has gone back by two hours since it was scheduled.
        clock.set("+7200")
        schedule(session, "ahead")
        clock.set("-7200")
        # And here it has jumped ahead.
        schedule(session, "behind", after="1 h")
        wait_for(session, "behind")
        time.sleep(1)
        assert rows(session, "select command_key, stage from eventstream.scheduled_commands order by 1") == [("ahead", "pending"), ("behind", "done"), ("near", "done")]
        clock.set("+0")
        assert balance(session) == 20 and verify(session) == []
        assert unschedule(session, "ahead") == "unscheduled" and unschedule(session, "near") == "done"


def test_unscheduling_races_with_the_run(hasty):
    with hasty.connect() as session:
        for number in range(40):
            schedule(session, f"k-{number}", stream=f"account-{number}", after=f"{1 + number / 100} s")

    def one(number):
        with hasty.connect() as there:
            told = []
            for key in range(number, 40, 8):
                time.sleep(max(0.0, 1 + key / 100 - (time.monotonic() - began) - 0.004 * (key % 3)))
                told.append((key, unschedule(there, f"k-{key}")))
            return told

    began = time.monotonic()
    outcomes = all_at_once(8, one)
    assert raised(outcomes) == []
    with hasty.connect() as session:
        told = dict(pair for outcome in outcomes for pair in outcome)
        assert set(told.values()) <= {"done", "unscheduled"}
        for key, became in told.items():
            events = value(session, "select count(*) from es_read_all() where stream = %s", f"account-{key}")
            assert (became, events) in {("done", 1), ("unscheduled", 0)}, key
            assert stage(session, f"k-{key}") == became


def test_what_somebody_has_in_hand_is_not_waited_for(hasty):
    with hasty.connect() as session, hasty.connect(autocommit=False) as holder:
        schedule(session, "k", after="500 ms")
        unschedule(holder, "k")
        time.sleep(0.8)
        # The runner locks the account first, and gives it back: whoever has the command in hand goes on.
        send(holder)
        holder.rollback()
        wait_for(session, "k")
        assert balance(session) == 10


def test_one_that_takes_itself_back_is_executed(hasty):
    with hasty.connect() as session:
        decider(session, """begin return jsonb_build_object('events', jsonb_build_array(es_make_event('Credited', command.payload)),
            'unschedule', jsonb_build_array('k', 'other')); end""", is_default=False)  # fmt: skip
        schedule(session, "other", after="1 h")
        schedule(session, "k", decider="other")
        wait_for(session, "k")
        assert stage(session, "other") == "unscheduled" and balance(session) == 10


def test_buying_and_releasing_at_once_never_deadlocks(hasty):
    with hasty.connect() as session:
        open_shelf(session, 1000)

    def one(number):
        with hasty.connect() as there:
            for each in range(12):
                reserve(there, f"r-{number}-{each}", 1, seconds=0.05)
                time.sleep(0.045)
                try:
                    buy(there, f"r-{number}-{each}")
                except psycopg.Error as error:
                    assert json.loads(error.diag.message_detail)["code"] == "not_reserved"

    assert raised(all_at_once(6, one)) == []
    with hasty.connect() as session:
        wait_until(lambda: rows(session, "select from eventstream.scheduled_commands where stage = 'pending'") == [], 20, "all to be over")
        counts = dict(rows(session, "select stage, count(*) from eventstream.scheduled_commands group by stage"))
        assert sum(counts.values()) == 72 and set(counts) <= {"done", "unscheduled"}
        assert available(session) == 1000 - 72 + counts.get("done", 0)
        assert value(session, "select count(*) from es_read('shelf-pump', max_count => 1000) where event_type = 'ItemsReleased'") == counts.get("done", 0)
        print(counts)


#: What a runner comes to on its way with a command (src/pg/process/test_point.rs).
STEPS = ("users' code", "command executed", "command done", "reported")
ROUNDS = int(os.environ.get("KILLS", "4"))


def test_a_standby_executes_nothing_and_what_is_due_is_executed_after_its_promotion(new_server):
    server = new_server("primary", wal_level="replica")
    database = bank(Database(server, "bank").create())
    standby = new_server.adopt(server.make_standby("standby"))
    with database.connect() as session:
        schedule(session, "early", after="1 s")
        schedule(session, "late", after="1 h")
        schedule(session, "unwanted", after="1 h")
        wait_for(session, "early")
        last = value(session, "select pg_current_wal_lsn()")
    with standby.connect("bank") as reader:
        wait_until(lambda: value(reader, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", last), 20, "the standby")
        assert stage(reader, "early") == "done" and balance(reader) == 10
        for call in (lambda: schedule(reader, "new"), lambda: unschedule(reader, "unwanted")):
            assert refused(call).sqlstate == "ES009"
    server.kill_everything()
    server.destroy()
    standby.promote()
    with standby.connect("bank") as session:
        assert unschedule(session, "unwanted") == "unscheduled" and stage(session, "late") == "pending"
        schedule(session, "after", after="1 s")
        wait_for(session, "after")
        assert balance(session) == 20 and send(session, command_key="early")["replayed"]


def test_each_is_executed_once_whatever_dies(new_server):
    """kill -9 of the server with all its processes, and of a runner at each of its steps, which restarts the server, while clients schedule and unschedule."""
    assert servers.PROGRAMS_WITH_TEST_POINTS.exists(), "run `tools/test MAJOR backend` first: it makes the build with test points"
    server = new_server("scheduled_kills", programs=servers.PROGRAMS_WITH_TEST_POINTS, **{"eventstream.retry_pause": "20ms"})
    database = bank(Database(server, "ledger").create())
    choice, scheduled, unwanted, died, restarts = random.Random(7), 0, set(), [], 0
    for number in range(ROUNDS):
        step = STEPS[len(died) % len(STEPS)]
        by_runner = number % 7 < 2 if ROUNDS > 4 else number % 2 == 1
        before = deaths(server)
        if by_runner:
            die_at(server, step, choice.randint(1, 1 if step == "reported" else 3))
        # The last runner's death may still be what the server recovers from.
        survives(database, lambda session: value(session, "select 1"))
        with database.connect() as session:
            for _ in range(20):
                key = f"k-{scheduled}"
                try:
                    schedule(session, key, payload={"amount": 1}, stream=f"account-{scheduled % 5}", after=f"{choice.randint(0, 600)} ms")
                    scheduled += 1
                    if choice.random() < 0.2 and unschedule(session, key) == "unscheduled":
                        unwanted.add(key)
                except psycopg.OperationalError:
                    # It died meanwhile: what came of the last one only the database knows.
                    break
        if by_runner:
            wait_until(lambda: deaths(server) > before or over(database) and more(database), 60, f"a runner to die at {step!r}", every=0.2)
            die_at(server, None)
            assert deaths(server) > before, step
            died.append(step)
        else:
            time.sleep(choice.random() * 0.6)
            server.kill_everything()
            server.start()
            restarts += 1
        scheduled = max([scheduled, *(int(key[2:]) + 1 for (key,) in survives(database, lambda session: rows(session, "select command_key from eventstream.scheduled_commands where command_key like 'k-%'")))])
    wait_until(lambda: over(database), 60, "all to be over")
    with database.connect() as session:
        stages = dict(rows(session, "select command_key, stage from eventstream.scheduled_commands"))
        assert set(stages.values()) <= {"done", "unscheduled"} and unwanted <= {key for key, became in stages.items() if became == "unscheduled"}
        done = {key for key, became in stages.items() if became == "done"}
        keys = [key for (key,) in rows(session, "select metadata -> 'command' ->> 'key' from es_read_all(max_count => 100000)")]
        assert len(keys) == len(set(keys)) and set(keys) == done
        assert {key for (key,) in rows(session, "select command_key from _eventstream.command_answers")} == done
        assert verify(session) == [] == gaps(session) and rows(session, "select from eventstream.dead_letters") == []
    # As many as were asked for (`KILLS=70`: 20 of runners, 50 of the server), and runners at each step in turn.
    of_runners = sum(number % 7 < 2 if ROUNDS > 4 else number % 2 == 1 for number in range(ROUNDS))
    assert len(died) == of_runners > 0 and restarts == ROUNDS - of_runners > 0
    assert died == [step for _, step in zip(range(of_runners), itertools.cycle(STEPS))]
    print(f"{restarts} kills of the server, {len(died)} of runners ({', '.join(sorted(set(died)))}), {len(done)} of {len(stages)} commands done")


def more(database) -> None:
    """Something more to die of: a runner may have been through before it heard of it."""
    survives(database, lambda session: [schedule(session, f"x-{time.monotonic_ns()}", payload={"amount": 1}) for _ in range(3)])


def over(database) -> bool:
    return survives(database, lambda session: rows(session, "select from eventstream.scheduled_commands where stage = 'pending'")) == []


def test_a_command_that_ends_its_runner_is_dead_in_the_end(hasty):
    with hasty.connect() as session:
        decider(session, "begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); return '[]'; end", is_default=False)
        schedule(session, "k", decider="other")
        schedule(session, "others", after="300 ms")
        wait_for(session, "others")
        attempts, sqlstate, message, *_ = wait_for(session, "k", "dead", 60)
        assert sqlstate == "57P01" and "its runner ended" in message and attempts == 3


def test_one_that_takes_too_long_is_cancelled(new_server):
    server = new_server("slow_schedules", **{"eventstream.handler_timeout": "300ms", "eventstream.retry_pause": "20ms", "eventstream.command_retries": 0})
    database = bank(Database(server, "ledger").create())
    with database.connect() as session:
        decider(session, "begin perform pg_sleep(30); return '[]'; end", is_default=False)
        schedule(session, "k", decider="other")
        assert wait_for(session, "k", "dead")[:2] == (1, "57014")


def test_tenants_and_projections_do_not_starve_each_other(new_server):
    """One runner alone: a tenant with much, another one, and a projection."""
    server = new_server("one_runner", **{"eventstream.max_workers": 1})
    database = bank(Database(server, "ledger").create())
    make_projection(database)
    with database.connect() as session:
        session.execute("select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'b'")
        open_bank(session)
        session.execute("set eventstream.tenant = 'default'")
        with session.transaction():
            for number in range(2000):
                schedule(session, f"k-{number}", stream=f"account-{number % 50}")
        session.execute("set eventstream.tenant = 'b'")
        schedule(session, "b")
        wait_for(session, "b", seconds=5)
        session.execute("set eventstream.tenant = 'default'")
        assert value(session, "select count(*) from eventstream.scheduled_commands where stage = 'pending'") > 0, "b waited for all of the other's"
        wait_for_all(session, 2001)
        wait_until(lambda: is_exact(session), 20, "the projection to be the log")


HANDLER = """
create function react(event eventstream.event) returns void language plpgsql as $$
begin
    if event.event_type = 'Credited' and event.stream = 'account-1' then
        perform es_schedule_command('account-2', 'Deposit', '{"amount": 1}', '2020-01-01');
        perform es_command('account-3', 'Deposit', '{"amount": 2}');
    end if;
end $$;
create function forget_all() returns void language sql as $$ $$;
"""


@pytest.mark.parametrize("mode", ["async", "inline"])
def test_a_handlers_commands_have_keys_of_their_own_and_are_refused_in_a_rebuild(hasty, mode):
    with hasty.connect() as session:
        session.execute(HANDLER)
        create = f"select es_create_projection('react', 'react(eventstream.event)', mode => '{mode}', reset => 'forget_all()')"
        session.execute(create)
        send(session, stream="account-1")
        wait_for_all(session, 1)
        wait_until(lambda: credited(session) == 1, 10, "the handler's command")
        assert balance(session, "account-3") == 2
        event = value(session, "select event_id::text from es_read('account-1')")
        assert [key for (key,) in rows(session, "select command_key from eventstream.scheduled_commands")] == [f"react:{event}:1"]
        assert value(session, "select metadata -> 'command' ->> 'key' from es_read('account-3')") == f"react:{event}:2"
        caused = rows(session, "select metadata ->> 'causation_id', recorded_by from es_read_all() where stream in ('account-2', 'account-3')")
        assert caused == [(event, "postgres")] * 2
        # Made anew, and given the event once more: the same commands.
        session.execute("select es_drop_projection('react')")
        session.execute(create.replace("reset =>", "after_position => 0, reset =>"))
        if mode == "async":
            session.execute("select es_wait_for('react')")
        assert (balance(session, "account-2"), balance(session, "account-3")) == (1, 2)
        # Rebuilt, it would act again upon what is past.
        if mode == "inline":
            diag = refused(session.execute, "select es_rebuild_projection('react')")
            assert diag.sqlstate == "0A000" and "being rebuilt" in diag.message_primary
            return
        session.execute("select es_rebuild_projection('react')")
        wait_until(lambda: value(session, "select error_sqlstate from eventstream.projections") == "0A000", 10, "the refusal")
        assert "es_schedule_command is refused" in value(session, "select error_message from eventstream.projections")
        assert (balance(session, "account-2"), balance(session, "account-3")) == (1, 2)


@pytest.mark.parametrize("call", ["es_command('account-3', 'Deposit', '{\"amount\": 2}')", "es_schedule_command('account-3', 'Deposit', '{\"amount\": 2}', now())"])
def test_where_a_handler_has_several_events_it_says_the_key(hasty, call):
    with hasty.connect() as session:
        session.execute(f"create function batch(events eventstream.event[]) returns void language plpgsql as $$ begin if events[1].stream = 'note-1' then perform {call}; end if; end $$")
        session.execute("select es_create_projection('batch', 'batch(eventstream.event[])', mode => 'inline')")
        two = "select es_append_events('note-1', '[{\"type\": \"A\", \"payload\": 1}, {\"type\": \"A\", \"payload\": 2}]')"
        diag = refused(session.execute, two)
        assert diag.sqlstate == "ES005" and "command_key must be given" in diag.message_primary
        # One alone is known.
        session.execute("select es_append('note-1', 'A', '1')")
        wait_until(lambda: credited(session) == 1, 10, "the command")
        session.execute("select es_drop_projection('batch')")
        # A worker comes to each of them alone, where it cannot have both.
        session.execute(two)
        session.execute("select es_create_projection('batch', 'batch(eventstream.event[])', after_position => 0)")
        wait_until(lambda: credited(session) == 3, 10, "three commands, the first of them known")


def credited(session) -> int:
    return value(session, "select count(*) from es_read_all() where stream = 'account-3'")


ANSWERS = [
    ("{\"schedule\": 1}", "answer.schedule must be an array"),
    ("{\"schedule\": [1]}", "answer.schedule[0]"),
    ("{\"schedule\": [{}]}", "answer.schedule[0]"),
    ("{\"schedule\": [{\"command_type\": \"Deposit\", \"payload\": {\"amount\": 1}}]}", "answer.schedule[0]"),
    ("{\"schedule\": [{\"command_type\": \"Deposit\", \"payload\": {\"amount\": 1}, \"run_at\": \"tomorrow\"}]}", "answer.schedule[0].run_at"),
    ("{\"schedule\": [{\"command_type\": \"Deposit\", \"payload\": {\"amount\": 1}, \"run_at\": \"infinity\"}]}", "answer.schedule[0].run_at"),
    ("{\"schedule\": [{\"command_type\": \"Deposit\", \"payload\": {\"amount\": 1}, \"run_at\": \"2030-01-01T00:00:00Z\", \"x\": 1}]}", "answer.schedule[0]"),
    ("{\"schedule\": [{\"command_type\": \"\", \"payload\": 1, \"run_at\": \"2030-01-01T00:00:00Z\"}]}", "answer.schedule[0].command_type"),
    ("{\"schedule\": [{\"command_type\": \"A\", \"payload\": 1, \"run_at\": \"2030-01-01T00:00:00Z\", \"stream\": \"x\"}]}", "answer.schedule[0].stream"),
    ("{\"schedule\": [{\"command_type\": \"A\", \"payload\": 1, \"run_at\": \"2030-01-01T00:00:00Z\", \"command_key\": \"\"}]}", "answer.schedule[0].command_key"),
    ("{\"schedule\": [{\"command_type\": \"A\", \"payload\": 1, \"run_at\": \"2030-01-01T00:00:00Z\", \"metadata\": {\"command\": 1}}]}", "answer.schedule[0].metadata"),
    ("{\"unschedule\": \"k\"}", "answer.unschedule must be an array"),
    ("{\"unschedule\": [1]}", "answer.unschedule[0]"),
    ("{\"unschedule\": [\"\"]}", "answer.unschedule[0].command_key"),
    ("{\"unschedule\": [{\"command_key\": \"k\", \"category\": \"a-b\"}]}", "answer.unschedule[0].category"),
    ("{\"unschedule\": [{\"command_key\": \"k\", \"reason\": \"\"}]}", "answer.unschedule[0].reason"),
]  # fmt: skip


@pytest.mark.parametrize("answer, place", ANSWERS)
def test_what_is_wrong_with_an_answer_is_told_by_its_place(session, answer, place):
    decider(session, f"begin return '{answer}'; end", is_default=False)
    diag = refused(send, session, decider="other")
    assert diag.sqlstate == "ES037" and place in diag.message_primary, diag.message_primary
    assert rows(session, "select from _eventstream.scheduled_commands") == []


def test_what_a_decider_schedules_is_its_command_s(there, session):
    session.execute("select es_register_decider('notes', 'note', 'decide(jsonb, eventstream.command)')")
    session.execute("select es_register_fold('n', 'note', rules => '{\"on\": {}}')")
    decider(session, """begin return jsonb_build_object('result', 'later', 'unschedule', jsonb_build_array('k-1', jsonb_build_object('command_key', 'k-2', 'category', 'note', 'reason', 'why')),
        'schedule', jsonb_build_array(
            jsonb_build_object('command_type', 'Deposit', 'payload', command.payload, 'run_at', '2100-01-01T00:00:00Z', 'metadata', '{"own": 1, "actor": "x"}'::jsonb),
            jsonb_build_object('command_type', 'Deposit', 'payload', command.payload, 'run_at', '2100-01-01T00:00:00Z', 'stream', 'note-1', 'command_key', 'n', 'subject', 's-2'))); end""",
            is_default=False)  # fmt: skip
    schedule(session, "k-1", after="1 h")
    schedule(session, "k-2", stream="note-1", after="1 h")
    given = {"metadata": {"actor": "alice", "correlation_id": "c-1"}, "subject": "s-1", "decider": "other"}
    told = value(session, "select es_simulate_command('account-1', 'Deposit', '{\"amount\": 1.50}', decider => 'other')")
    assert [each["command_type"] for each in told["schedule"]] == ["Deposit", "Deposit"]
    assert told["unschedule"] == [{"category": "account", "command_key": "k-1"}, {"category": "note", "command_key": "k-2"}]
    assert stage(session, "k-1") == "pending" and stage(session, "n") is None
    assert send(session, **given)["result"] == "later"
    assert (stage(session, "k-1"), stage(session, "k-2"), stage(session, "n")) == ("unscheduled", "unscheduled", "pending")
    assert rows(session, "select stream, metadata, subject from eventstream.scheduled_commands where stage = 'pending' order by stream") == [
        ("account-1", {"actor": "x", "own": 1, "correlation_id": "c-1"}, "s-1"), ("note-1", {"actor": "alice", "correlation_id": "c-1"}, "s-2"),
    ]  # fmt: skip
    # The caller needs the right for each of them.
    clerk = there.role(f"{there.name}_clerk")
    session.execute("select es_grant(%s, 'command', category => 'account')", (clerk,))
    with there.connect(user=clerk) as other:
        assert refused(send, other, decider="other").sqlstate == "42501"


def test_what_a_decider_schedules_again_is_as_it_says(session):
    """Nobody reads what it is answered: a time that would not count is an error."""
    decider(session, "begin return jsonb_build_object('schedule', jsonb_build_array(command.payload)); end", is_default=False)
    later = {"command_type": "Deposit", "payload": {"amount": 1}, "run_at": "2100-01-01T00:00:00Z", "command_key": "k"}
    send(session, "Any", later, decider="other")
    send(session, "Any", later, decider="other")
    diag = refused(send, session, "Any", later | {"run_at": "2100-01-01T00:00:01Z"}, decider="other")
    assert diag.sqlstate == "ES030" and '"k"' in diag.message_primary
    unschedule(session, "k")
    assert refused(send, session, "Any", later, decider="other").sqlstate == "ES030"


def test_the_metadata_of_who_asked_are_its_events(session):
    session.execute("set eventstream.metadata = '{\"actor\": \"alice\"}'")
    schedule(session, "k", metadata={"correlation_id": "c-1"}, subject="s-1")
    wait_for(session, "k")
    metadata, subject = rows(session, "select metadata, subject from es_read('account-1')")[0]
    assert (metadata["actor"], metadata["correlation_id"], subject) == ("alice", "c-1", "s-1")


@pytest.mark.parametrize(
    "statement",
    [
        "select es_schedule_command(null, 'Deposit', '{}', now())",
        "select es_schedule_command('account-1', null, '{}', now())",
        "select es_schedule_command('account-1', 'Deposit', null, now())",
        "select es_schedule_command('account-1', 'Deposit', '{}', null)",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', 'infinity')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', '-infinity')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), '')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), repeat('x', 1025))",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), E'k\\n')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), metadata => null)",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), metadata => '[]')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), metadata => '{\"command\": 1}')",
        "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now(), subject => '')",
        "select es_schedule_command('account-1', '', '{\"amount\": 1}', now())",
        "select es_unschedule_command(null, 'r')",
        "select es_unschedule_command('k', null)",
        "select es_unschedule_command('k', '')",
        "select es_unschedule_command('k', repeat('x', 1025))",
        "select es_unschedule_command('', 'r')",
        "select es_unschedule_command('k', 'r', 'a-b')",
    ],
)
def test_bad_input(session, statement):
    assert refused(session.execute, statement).sqlstate == "ES005"
    assert rows(session, "select from _eventstream.scheduled_commands") == []


def test_other_refusals(session):
    assert refused(session.execute, "select es_schedule_command('account', 'Deposit', '{}', now())").sqlstate == "ES004"
    session.execute("set eventstream.max_payload_bytes = '1kB'")
    assert refused(schedule, session, payload={"amount": 1, "x": "y" * 2000}).sqlstate == "ES007"
    decider(session, "begin perform es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', now()); return '[]'; end", is_default=False)
    diag = refused(send, session, decider="other")
    assert diag.sqlstate == "0A000" and "decider" in diag.message_primary
    session.execute("begin read only")
    assert refused(schedule, session).sqlstate == "25006"
    session.execute("rollback")
    session.execute("begin")
    schedule(session, "k")
    assert refused(session.execute, "prepare transaction 'p'").sqlstate in ("0A000", "55000")
    assert rows(session, "select from _eventstream.scheduled_commands") == []


def test_nothing_is_written_past_the_functions(session):
    schedule(session, "k", after="1 h")
    send(session)
    for statement in ("update _eventstream.scheduled_commands set stage = 'pending'", "delete from _eventstream.scheduled_commands", "truncate _eventstream.scheduled_commands",
                      "insert into _eventstream.scheduled_commands select * from _eventstream.scheduled_commands"):  # fmt: skip
        assert refused(session.execute, statement).sqlstate == "ES050"


def test_health_tells_of_those_that_are_late(quiet):
    with bank(quiet).connect() as session:
        schedule(session, "k")
        schedule(session, "later", after="1 h")
        time.sleep(0.4)
        found = check(session, "scheduled commands")
        assert found.status == "warning" and "1 command scheduled" in found.detail and 'key "k"' in found.detail
        assert [key for key, *_ in rows(session, found.fix)] == ["k"]
        metrics = value(session, "select es_metrics()")
        for line in ('pending{tenant="default",kind="scheduled"} 2', 'late{tenant="default",kind="scheduled"} 1'):
            assert f"\neventstream_scheduled_commands_{line}\n" in metrics
        assert unschedule(session, "k") == "unscheduled" and check(session, "scheduled commands") is None


def test_what_an_invariant_refuses_at_the_commit_is_the_commands_failure(hasty):
    with hasty.connect() as session:
        session.execute("create function never_ten(events eventstream.event[]) returns text stable language sql as"
                        " $$ select 'ten' from unnest(events) e where (e.payload ->> 'amount')::numeric = 10 $$")  # fmt: skip
        session.execute("select es_register_invariant('never_ten', '{account}', handler => 'never_ten(eventstream.event[])')")
        schedule(session, "k")
        schedule(session, "other", payload={"amount": 11})
        wait_for(session, "other")
        assert wait_for(session, "k", "dead")[1] == "ES019"
        assert balance(session) == 11 and verify(session) == []
