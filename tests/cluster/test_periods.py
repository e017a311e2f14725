"""Closed periods: nothing that says it occurred in one commits, and the known_at that a closing gave stays exact.

Asked of the kinds: isolation (each level, an older snapshot), gate (an append that began before the closing, one that waits for it, an idle session that has
known another answer), transaction (rollback, savepoint, own appends, PREPARE), session (time zones), role (manage narrowed, admin), tenant, size (many
categories), time (a clock that goes back, and one that ran ahead; the last microsecond), text (hostile tags and reasons), death (kill -9 after the commit), copies (dump and
restore, standby), verification (acts, a row changed by hand), retries, drivers by the fuzzer over all functions."""

import datetime
import threading
import uuid

import psycopg
import pytest
from database import Database, forced, rows, value, verify
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until
from test_clock import ticking  # noqa: F401 - a fixture

END = datetime.datetime(2024, 12, 31, 22, 59, 59, 999999, tzinfo=datetime.timezone.utc)
TICK = datetime.timedelta(microseconds=1)


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def append(session, occurred_at=None, stream="account-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, 'Posted', '1', occurred_at => %s{names})", stream, occurred_at, *more.values())


def close(session, until=END, categories="{account}", reason="CLOSE-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_close_period(%s, %s, %s{names})", categories, until, reason, *more.values())


def reopen(session, stays=None, categories="{account}", reason="CHG-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_reopen_period(%s, %s, %s{names})", categories, stays, reason, *more.values())


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


def standing(session):
    return rows(session, "select category, tag, closed_until from eventstream.periods where reopened_at is null order by 1, 2, 3")


def test_what_occurred_in_a_closed_period_is_refused_to_its_last_microsecond(session):
    append(session, END)
    close(session)
    diag = refused(append, session, END)
    assert diag.sqlstate == "ES018"
    for part in ("event 1 for stream \"account-1\"", 'category "account"', "2024-12-31T22:59:59.999999+00:00"):
        assert part in diag.message_primary
    assert rows(session, diag.message_hint[diag.message_hint.index("select") :]) == [(END, None, "postgres", "CLOSE-1")]
    for occurred_at in (END - TICK, END - datetime.timedelta(days=9000)):
        assert refused(append, session, occurred_at).sqlstate == "ES018"
    assert append(session, END + TICK) == 2
    assert append(session) == 3
    assert append(session, END, stream="other-1") == 1
    session.execute("select es_close_stream('account-1', 'over')")


def test_every_door_in_is_judged(session):
    close(session)
    late = {"type": "Posted", "payload": 1, "occurred_at": END.isoformat()}
    diag = refused(session.execute, "select es_append_events('account-1', %s)", (Jsonb([late | {"occurred_at": "2025-01-05T00:00:00Z"}, late]),))
    assert diag.sqlstate == "ES018" and "event 2" in diag.message_primary
    streams = [{"stream": "other-1", "events": [late]}, {"stream": "account-1", "events": [late]}]
    assert refused(session.execute, "select es_append_streams(%s)", (Jsonb(streams),)).sqlstate == "ES018"
    assert rows(session, "select from es_read_all()") == []
    session.execute(
        "create function again(event eventstream.event) returns void language sql as"
        " $$ select es_append('account-1', 'Posted', '1', occurred_at => '2024-01-01T00:00:00Z') $$"
    )
    session.execute("select es_create_projection('again', 'again(eventstream.event)', mode => 'inline', categories => '{other}')")
    assert refused(append, session, stream="other-1").sqlstate == "ES018"


def test_a_tag_closes_for_those_that_bear_it(session):
    close(session, tag="company:1")
    assert append(session, END) == 1
    assert append(session, END, tags=["company:2"]) == 2
    diag = refused(append, session, END, tags=["x", "company:1"])
    assert diag.sqlstate == "ES018" and 'for events with the tag "company:1"' in diag.message_primary
    assert '"tag":"company:1"' in diag.message_detail
    assert refused(reopen, session).sqlstate == "ES005"
    assert reopen(session, tag="company:1") == 1
    assert append(session, END, tags=["company:1"]) == 3


def test_a_retry_is_recognised_after_the_closing(session):
    event_id = uuid.uuid4()
    assert append(session, END, event_id=event_id) == 1
    close(session)
    assert append(session, END, event_id=event_id) == 1
    assert rows(session, "select replayed from es_last_append()") == [(True,)]
    assert refused(append, session, END, event_id=uuid.uuid4()).sqlstate == "ES018"


def test_what_is_closed_again_is_answered_as_the_first_time(session):
    heard = []
    session.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    append(session)
    first = close(session)
    assert close(session, reason="CLOSE-2") == first
    assert heard == ["closed until 2024-12-31T22:59:59.999999+00:00 already, as it was asked for: its reason stays, and the one that is given now is not kept"]
    assert refused(close, session, END - TICK).sqlstate == "ES005"
    assert close(session, END + TICK) > first
    # Of several, those that are not.
    assert close(session, END + TICK, categories="{account,other,account}") > first
    assert standing(session) == [("account", None, END), ("account", None, END + TICK), ("other", None, END + TICK)]


def test_reopening_says_what_stays_closed(session):
    months = [datetime.datetime(2024, month, 1, tzinfo=datetime.timezone.utc) for month in (2, 3, 4)]
    append(session)
    known = [close(session, month) for month in months]
    between = months[1] + datetime.timedelta(days=10)
    assert reopen(session, between) == 1
    assert standing(session) == [("account", None, months[0]), ("account", None, months[1]), ("account", None, between)]
    assert value(session, "select known_at from eventstream.periods where closed_until = %s", between) == known[2]
    assert append(session, between + TICK) == 2
    assert refused(append, session, between).sqlstate == "ES018"
    assert refused(reopen, session, between).sqlstate == "ES005"
    assert reopen(session, months[0]) == 2
    assert standing(session) == [("account", None, months[0])]
    assert reopen(session) == 1
    diag = refused(reopen, session)
    assert diag.sqlstate == "ES005" and "is not closed" in diag.message_primary
    assert rows(session, diag.message_hint[diag.message_hint.index("select") :]) == []
    assert append(session, datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)) == 3
    # Once more, after all that.
    assert close(session, months[0]) > known[2]
    seen = rows(session, "select closed_by, reason, reopened_by, reopen_reason, reopened_at >= closed_at from eventstream.periods order by id")
    assert seen[0] == ("postgres", "CLOSE-1", "postgres", "CHG-1", True) and seen[-1] == ("postgres", "CLOSE-1", None, None, None)


def test_what_is_known_at_a_closing_stays_so(session):
    session.execute("select es_register_fold('count', 'account', rules => '{\"on\": {\"Posted\": [{\"increment\": \"/n\"}]}}', initial_state => '{\"n\": 0}')")
    as_reported = "select state from es_category_state('account', as_of => %s, known_at => %s)"
    for n in range(5):
        append(session, END, stream=f"account-{n}")
    known_at = close(session)
    before = rows(session, as_reported, END, known_at)
    assert len(before) == 5
    for n in range(7):
        append(session, stream=f"account-{n}")
    reopen(session)
    for n in range(9):
        append(session, END, stream=f"account-{n}")
    assert rows(session, as_reported, END, known_at) == before
    assert value(session, "select bool_and(recorded_at > %s) from eventstream.events where version > 1 or stream > 'account-4'", known_at)


def test_own_appends_of_the_closing_transaction(database):
    with database.connect(autocommit=False) as session:
        append(session, END)
        known_at = close(session)
        assert refused(append, session, END).sqlstate == "ES018"
        session.rollback()
        append(session, END)
        known_at = close(session)
        append(session)
        session.commit()
        recorded = [at for (at,) in rows(session, "select recorded_at from es_read('account-1')")]
        assert recorded[0] <= known_at < recorded[1]


def test_what_is_rolled_back_is_not_closed(database):
    with database.connect(autocommit=False) as session, database.connect() as other:
        close(session)
        session.rollback()
        append(other, END)
        append(session)
        session.execute("savepoint s")
        close(session)
        session.execute("rollback to s")
        append(session, END)
        session.commit()
        assert append(other, END) == 4
        assert standing(other) == []


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_an_append_that_began_before_is_waited_for_and_one_that_waits_is_judged(database, level):
    with database.connect(autocommit=False) as early, database.connect() as keeper, database.connect() as idle, database.connect() as watch:
        early.execute(f"set transaction isolation level {level}")
        append(early, END)
        append(idle, END, stream="account-2")
        answers = []
        closing = threading.Thread(target=lambda: answers.append(close(keeper)))
        closing.start()
        wait_until(lambda: rows(watch, "select from pg_locks where not granted and pid = %s", keeper.info.backend_pid), 5, "the wait for the gate")
        # Until it has the gate, others append.
        assert append(idle, END, stream="account-2") == 2
        early.commit()
        closing.join()
        assert answers and value(early, "select max(recorded_at) <= %s from eventstream.events", answers[0])
        early.rollback()
        # The idle session has known another answer.
        assert refused(append, idle, END, stream="account-2").sqlstate == "ES018"


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_who_waits_for_the_closing_is_judged_by_it_under_any_snapshot(database, level):
    with database.connect(autocommit=False) as keeper, database.connect(autocommit=False) as late, database.connect() as watch:
        append(watch, END)
        late.execute(f"set transaction isolation level {level}")
        value(late, "select 1")
        close(keeper)
        answers = []
        appending = threading.Thread(target=lambda: answers.append(refused(append, late, END)))
        appending.start()
        wait_until(lambda: rows(watch, "select from pg_locks where not granted and pid = %s", late.info.backend_pid), 5, "the wait for the gate")
        keeper.commit()
        appending.join()
        assert answers[0].sqlstate == "ES018"


def test_who_cannot_have_the_gate_changes_nothing(database):
    with database.connect(autocommit=False) as early, database.connect() as keeper:
        append(early, END)
        keeper.execute("set eventstream.gate_timeout = '300ms'")
        for act in (close, reopen):
            diag = refused(act, keeper)
            assert diag.sqlstate == "55P03" and str(early.info.backend_pid) in diag.message_hint
        early.commit()
        assert standing(keeper) == [] and append(keeper, END) == 2


def test_closings_and_appends_at_once_leave_nothing_behind_a_closing(database):
    stop = threading.Event()
    failed = []

    def appends(number):
        with database.connect() as session:
            n = 0
            while not stop.is_set():
                try:
                    # Each second in the open period of its time, or in one that may be closed by now.
                    append(session, END + datetime.timedelta(seconds=n), stream=f"account-{number}")
                except psycopg.Error as error:
                    if error.sqlstate != "ES018":
                        failed.append(error)
                n += 1

    threads = [threading.Thread(target=appends, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    with database.connect() as keeper:
        closings = []
        for n in range(12):
            until = END + datetime.timedelta(seconds=n * 40)
            closings.append((until, close(keeper, until)))
        stop.set()
        for thread in threads:
            thread.join()
        assert failed == []
        for until, known_at in closings:
            wrong = rows(keeper, "select stream, version from eventstream.events where occurred_at <= %s and recorded_at > %s", until, known_at)
            assert wrong == [], until
        assert verify(keeper) == []


def test_a_clock_that_goes_back_puts_nothing_below_a_closing(ticking):
    clock, database = ticking
    with database.connect() as session:
        append(session)
        known_at = close(session)
        clock.set("-7200")
        with database.connect() as fresh:
            append(fresh, stream="account-9")
        append(session, stream="account-8")
        assert value(session, "select bool_and(recorded_at > %s) from eventstream.events where stream <> 'account-1'", known_at)
        # The act itself, and the next closing.
        assert value(session, "select max(recorded_at) > %s from eventstream.administration", known_at)
        assert close(session, END + TICK) > known_at


def test_a_clock_that_ran_ahead_a_little_is_taken_in_and_one_that_ran_far_is_said(ticking):
    clock, database = ticking
    heard = []
    with database.connect() as session:
        session.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary, diag.message_hint)))
        clock.set("+30")
        append(session)
        last = value(session, "select recorded_at from es_read('account-1')")
        clock.set("+0")
        for n in range(3):
            append(session, stream=f"other-{n}")
        assert close(session) >= last and heard == []
        clock.set("+86400")
        append(session, stream="account-2")
        position, recorded_at = rows(session, "select global_position, recorded_at from es_read('account-2')")[0]
        clock.set("+0")
        for _ in range(2):
            known_at = close(session, END + TICK * (1 + len(heard)))
            assert known_at < recorded_at
            severity, message, hint = heard[-1]
            assert severity == "WARNING" and f"position {position} " in message
            assert value(session, hint[hint.index("select") :].replace("*", "global_position")) == position


def test_a_floor_set_back_by_hand_opens_nothing(ticking):
    clock, database = ticking
    with database.connect() as session:
        until = value(session, "select clock_timestamp()")
        close(session, until)
        clock.set("-7200")
        append(session)
        with forced(session):
            session.execute("select setval('_eventstream.recorded_floor', 1)")
        assert refused(append, session, stream="account-2").sqlstate == "ES018"


@pytest.mark.parametrize(
    "statement",
    [
        "select es_close_period(null, '2024-01-01Z', 'x')",
        "select es_close_period('{}', '2024-01-01Z', 'x')",
        "select es_close_period('{null}', '2024-01-01Z', 'x')",
        "select es_close_period('{\"\"}', '2024-01-01Z', 'x')",
        "select es_close_period('{a-b}', '2024-01-01Z', 'x')",
        "select es_close_period('{$audit}', '2024-01-01Z', 'x')",
        "select es_close_period('{{a},{b}}', '2024-01-01Z', 'x')",
        "select es_close_period(array(select 'c' || n from generate_series(1, 1001) n), '2024-01-01Z', 'x')",
        "select es_close_period('{account}', null, 'x')",
        "select es_close_period('{account}', 'infinity', 'x')",
        "select es_close_period('{account}', '-infinity', 'x')",
        "select es_close_period('{account}', clock_timestamp() + interval '1 minute', 'x')",
        "select es_close_period('{account}', '2024-01-01Z', null)",
        "select es_close_period('{account}', '2024-01-01Z', '')",
        "select es_close_period('{account}', '2024-01-01Z', repeat('x', 65))",
        "select es_close_period('{account}', '2024-01-01Z', 'ada@example.org')",
        "select es_close_period('{account}', '2024-01-01Z', 'x', '')",
        "select es_close_period('{account}', '2024-01-01Z', 'x', repeat('x', 256))",
        "select es_close_period('{account}', '2024-01-01Z', 'x', E'a\\u200bb')",
        "select es_close_period('{account}', '2023-12-31Z', 'x')",
        "select es_reopen_period(null, null, 'x')",
        "select es_reopen_period('{}', null, 'x')",
        "select es_reopen_period('{other}', null, 'x')",
        "select es_reopen_period('{account,other}', null, 'x')",
        "select es_reopen_period('{account}', '2024-01-01Z', 'x')",
        "select es_reopen_period('{account}', 'infinity', 'x')",
        "select es_reopen_period('{account}', null, null)",
        "select es_reopen_period('{account}', null, 'two words'||chr(10))",
        "select es_reopen_period('{account}', null, 'x', 'company:1')",
    ],
)
def test_bad_input(session, statement):
    close(session, "2024-01-01Z")
    before = rows(session, "select * from eventstream.periods")
    assert refused(session.execute, statement).sqlstate == "ES005"
    assert rows(session, "select * from eventstream.periods") == before


def test_tenants_and_rights(database):
    with database.connect() as session:
        clerk, keeper, narrow, admin = (database.role(f"{database.name}_{name}") for name in ("clerk", "keeper", "narrow", "admin"))
        session.execute("select es_create_tenant('b')")
        grants = ((clerk, "append", None), (clerk, "read", "account"), (keeper, "manage", None), (narrow, "manage", "account"), (admin, "admin", None))
        for role, privilege, category in grants:
            session.execute("select es_grant(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
        for role in (clerk, admin):
            with database.connect(user=role) as there:
                assert refused(close, there).sqlstate == "42501"
                # Rights first: not what is wrong with the arguments.
                assert refused(there.execute, "select es_close_period(null, null, null)").sqlstate == "42501"
        with database.connect(user=narrow) as there:
            assert refused(close, there, categories="{account,other}").sqlstate == "42501"
            close(there)
        with database.connect(user=keeper) as there:
            close(there, categories="{other}")
            assert refused(reopen, there).sqlstate == "42501"
            assert refused(there.execute, "select * from eventstream.periods").sqlstate == "42501"
            assert refused(there.execute, "select * from _eventstream.periods").sqlstate == "42501"
        with database.connect(user=clerk) as there:
            assert rows(there, "select category, closed_by from eventstream.periods") == [("account", narrow)]
            assert refused(append, there, END).sqlstate == "ES018"
            # What is closed is told to whoever may append, and needs no right to read.
            assert refused(append, there, END, stream="other-1").sqlstate == "ES018"
        with database.connect(user=admin) as there:
            assert reopen(there) == 1
        session.execute("set eventstream.tenant = 'b'")
        append(session, END)
        assert rows(session, "select from eventstream.periods") == []
        assert refused(reopen, session).sqlstate == "ES005"


def test_one_tenants_closing_waits_for_no_other(database):
    with database.connect() as session:
        session.execute("select es_create_tenant('b')")
    with database.connect(autocommit=False) as other, database.connect() as keeper:
        other.execute("set local eventstream.tenant = 'b'")
        append(other, END)
        keeper.execute("set eventstream.tenant = 'default'")
        keeper.execute("set eventstream.gate_timeout = '300ms'")
        close(keeper)
        other.commit()


def test_closings_are_acts_and_guarded(database):
    with database.connect() as session:
        append(session)
        for zone in ("Europe/Vienna", "America/New_York"):
            session.execute(f"set timezone = '{zone}'")
            close(session, END + TICK * len(zone))
        session.execute("set timezone = 'Asia/Kolkata'")
        reopen(session, END + TICK * 14)
        acts = [act for (act,) in rows(session, "select event_type from eventstream.administration order by global_position")]
        assert acts[-4:] == ["PeriodClosed", "PeriodClosed", "PeriodReopened", "PeriodClosed"]
        for zone in ("UTC", "Pacific/Chatham"):
            session.execute(f"set timezone = '{zone}'")
            assert rows(session, "select * from es_verify_audit()") == [] == verify(session)
        for statement in ("delete from _eventstream.periods", "truncate _eventstream.periods", "drop table _eventstream.periods"):
            assert refused(session.execute, statement).sqlstate in ("ES050", "ES051", "2BP01")
        with forced(session):
            session.execute("update _eventstream.periods set closed_until = closed_until - interval '1 day' where reopened_at is null")
        assert {kind for (kind,) in rows(session, "select kind from es_verify_audit()")} == {"period"}


def test_a_transaction_that_closes_cannot_be_prepared(new_server):
    database = Database(new_server("prepared_period", max_prepared_transactions=2), "ledger").create()
    with database.connect() as session:
        session.execute("begin")
        close(session)
        assert refused(session.execute, "prepare transaction 'p'").sqlstate == "0A000"
        assert standing(session) == []


def test_no_handler_closes(session):
    session.execute(
        "create function closes(event eventstream.event) returns void language sql as"
        " $$ select es_close_period('{account}', '2024-01-01Z', 'x') $$"
    )
    session.execute("select es_create_projection('closes', 'closes(eventstream.event)', mode => 'inline')")
    assert refused(append, session).sqlstate == "0A000"


def test_closed_stays_closed_after_kill_9_and_in_a_copy(new_server):
    server = new_server("closed")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        append(session)
        known_at = close(session, tag=None)
        close(session, categories="{other}", tag="company:1")
    server.kill_everything()
    server.start()
    with original.connect() as session:
        assert refused(append, session, END).sqlstate == "ES018"
        reopen(session, END - TICK)
        before = rows(session, "select * from eventstream.periods order by id")
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert rows(session, "select * from eventstream.periods order by id") == before
        assert refused(append, session, END - TICK).sqlstate == "ES018"
        assert append(session) == 2
        assert value(session, "select recorded_at > %s from es_read('account-1', 2)", known_at)
        assert rows(session, "select * from es_verify_audit()") == []
        close(session)


def test_what_got_into_a_closed_period_all_the_same_is_found(session):
    append(session, END)
    append(session, END, stream="other-1")
    close(session, tag="company:1")
    append(session, END, tags=["company:2"])
    reopen(session, tag="company:1")
    append(session, END, tags=["company:1"])
    close(session)
    reopen(session, END - TICK)
    append(session, END)
    assert verify(session) == []
    # As if it had been closed before the first event, and opened later than it was.
    with forced(session):
        session.execute("update _eventstream.periods set closed_position = 0, reopened_position = null, reopened_at = null, reopened_by = null, reopen_reason = null where period_id = 1")
    found = verify(session)
    assert [(stream, version) for stream, version, _ in found] == [("account-1", 3)]
    assert found[0][2] == "it occurred at 2024-12-31T22:59:59.999999+00:00, in a period that had been closed until 2024-12-31T22:59:59.999999+00:00 when it was recorded"
    with forced(session):
        session.execute("update _eventstream.periods set closed_position = 0, tag = null where period_id = 1")
    assert [(stream, version) for stream, version, _ in verify(session)] == [("account-1", version) for version in (1, 2, 3, 4)]


def test_closing_looks_at_what_came_since_the_last_time_however_many_closings_there_were(database):
    with database.connect() as session:
        categories = [f"c{n}" for n in range(100)]

        def looked_at(n):
            """Rows of the table that a closing reads."""
            for category in categories:
                append(session, END, stream=f"{category}-1", tags=["a"])
            session.execute("select pg_stat_force_next_flush()")
            session.execute("select pg_stat_reset()")
            close(session, END - TICK * (1000 - n), categories=categories, tag=f"company:{n}")
            session.execute("select pg_stat_force_next_flush()")
            session.execute("select 1")
            return value(session, "select coalesce(sum(idx_tup_fetch), 0) + sum(seq_tup_read) from pg_stat_user_tables where relname = 'periods'")

        first = looked_at(0)
        for n in range(1, 20):
            close(session, END - TICK * (1000 - n), categories=categories, tag=f"company:{n}")
        assert looked_at(20) < first + 1500


def test_many_closings_are_one_look_at_an_append(database):
    with database.connect() as session:
        categories = [f"c{n}" for n in range(500)]
        close(session, categories=categories)
        close(session, END + TICK, categories=categories)
        assert refused(append, session, END, stream="c77-1").sqlstate == "ES018"
        assert append(session, END, stream="account-1") == 1
        assert append(session, END + TICK * 2, stream="c77-1") == 1
