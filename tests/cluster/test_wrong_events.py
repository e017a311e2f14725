"""One wrong event (an amount as text, a misspelt key) costs its own stream's state, and no other stream's: it is named, in every place that
answers for a whole category, and so are the ways out.

Kinds: number and text (what rules refuse), code of others (a handler that raises), size (the first, the last, several of many streams fail), isolation
(what is no stream's fault, such as 40001, is not reported as one's).
"""

import json

import psycopg
import pytest
from database import rows, value

COLUMNS = '[{"name": "balance", "type": "numeric", "path": "/balance"}]'
RULES = json.dumps({"on": {"Credited": [{"add": {"/balance": "/amount"}}]}})
HANDLER = """create function handled(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin
    if jsonb_typeof(event.payload -> 'amount') is distinct from 'number' then raise 'no amount' using errcode = 'GL042', detail = 'secret'; end if;
    return jsonb_build_object('balance', (state ->> 'balance')::numeric + (event.payload ->> 'amount')::numeric); end $$"""


@pytest.fixture(params=["rules", "handler"])
def ledger(request, quiet):
    """Twelve accounts; those with a wrong event are 0, 5 and 11."""
    with quiet.connect(autocommit=True) as session:
        session.execute(HANDLER)
        how = {"rules": ["rules => %s::jsonb", RULES], "handler": ["handler => %s::regprocedure", "handled(jsonb, eventstream.event)"]}[request.param]
        session.execute(f"""select es_register_fold('balance', 'account', {how[0]}, initial_state => '{{"balance": 0}}')""", (how[1],))
        session.execute("select es_create_temporal_view('accounts', 'account', %s)", (COLUMNS,))
        for number in range(12):
            credit(session, number, 10)
        for number, amount in ((0, "12.50"), (5, None), (11, "12.50")):
            credit(session, number, amount)
        credit(session, 1, 5)
        yield session


def credit(session, number, amount):
    payload = {"amuont": 1} if amount is None else {"amount": amount}
    session.execute("select es_append(%s, 'Credited', %s)", (f"account-{number}", json.dumps(payload)))


WRONG = ("account-0", "account-5", "account-11")
RIGHT = [(f"account-{number}", 2 if number == 1 else 1, 15 if number == 1 else 10) for number in range(12) if number not in (0, 5, 11)]


def test_a_category_is_read_around_the_streams_that_fail_and_each_says_why(ledger):
    found = rows(ledger, "select stream, version, state, problem from es_category_state('account', on_error => 'report')")
    assert [row[0] for row in found] == [f"account-{number}" for number in range(12)]
    assert [(stream, version, int(state["balance"])) for stream, version, state, problem in found if problem is None] == RIGHT
    failed = {stream: problem for stream, version, state, problem in found if (version, state) == (None, None)}
    assert tuple(failed) == WRONG and all(problem.endswith(("(ES013)", "(GL042)")) for problem in failed.values())
    assert not any("secret" in problem for problem in failed.values())


def test_without_being_asked_to_report_it_fails_with_the_number_and_the_first(ledger):
    with pytest.raises(psycopg.Error) as raised:
        ledger.execute("select * from es_category_state('account')")
    assert raised.value.sqlstate == "ES013"
    diagnosis = raised.value.diag
    assert diagnosis.message_primary.startswith('3 streams of category "account" cannot be folded; the first met is "account-0": ')
    detail = json.loads(diagnosis.message_detail)
    assert (detail["category"], detail["streams_failed"], detail["stream"]) == ("account", 3, "account-0")
    assert "es_register_upcaster" in diagnosis.message_hint and "handler" in diagnosis.message_hint
    # The statement that the hint names works as it is printed.
    statement = diagnosis.message_hint.split(";")[0]
    assert tuple(stream for stream, _ in rows(ledger, statement)) == WRONG


def test_a_temporal_view_fails_and_its_function_reports(ledger):
    for question in ("select * from accounts", "select count(balance) from accounts_at(null)"):
        with pytest.raises(psycopg.Error) as raised:
            ledger.execute(question)
        diagnosis = raised.value.diag
        assert diagnosis.message_primary.startswith('3 streams of category "account" cannot be folded; the first met is "account-0": ')
        detail = json.loads(diagnosis.message_detail)
        assert (raised.value.sqlstate, detail["streams_failed"], detail["all_counted"]) == ("ES013", 3, True)
        assert tuple(stream for stream, _ in rows(ledger, diagnosis.message_hint.split(";")[0])) == WRONG
    # As of a moment at which fewer fail: those are counted.
    recorded = value(ledger, "select recorded_at from es_read('account-5') where version = 2")
    with pytest.raises(psycopg.Error, match='2 streams of category "account" cannot be folded; the first met is "account-0"'):
        ledger.execute("select * from accounts_at(null, known_at => %s::timestamptz::text)", (recorded,))
    assert rows(ledger, "select stream, balance, problem from accounts where stream = 'account-1'") == [("account-1", 15, None)]
    found = rows(ledger, "select stream, version, balance, problem from accounts_at(null, on_error => 'report')")
    assert [(stream, version, int(balance)) for stream, version, balance, problem in found if problem is None] == RIGHT
    assert tuple(stream for stream, *_, problem in found if problem) == WRONG
    # Before the wrong events were recorded all of them had states.
    recorded = value(ledger, "select recorded_at from es_read('account-11') where version = 1")
    assert value(ledger, "select count(balance) from accounts_at(null, known_at => %s::timestamptz::text)", recorded) == 12
    with pytest.raises(psycopg.Error, match="must be fail or report"):
        ledger.execute("select * from accounts_at(null, on_error => 'ignore')")
    with pytest.raises(psycopg.Error, match="must not be problem"):
        ledger.execute("select es_create_temporal_view('v', 'account', %s)", (COLUMNS.replace("balance", "problem", 1),))


def test_an_upcaster_is_a_way_out(ledger):
    ledger.execute(
        """create function mended(payload jsonb, metadata jsonb) returns jsonb immutable language sql
           return jsonb_build_object('amount', coalesce(payload ->> 'amount', payload ->> 'amuont')::numeric)"""
    )
    ledger.execute("select es_register_upcaster('Credited', 1, 'mended(jsonb, jsonb)'::regprocedure)")
    balances = dict(rows(ledger, "select stream, (state ->> 'balance')::float from es_category_state('account') where problem is null"))
    assert len(balances) == 12 and [balances[stream] for stream in WRONG] == [22.5, 11, 22.5]


def test_what_is_no_streams_fault_is_not_reported_as_one(ledger, quiet):
    with quiet.connect(autocommit=True) as other:
        ledger.execute("begin isolation level repeatable read")
        ledger.execute("select 1")
        credit(other, 2, 1)
        credit(ledger, 2, 1)
        with pytest.raises(psycopg.errors.SerializationFailure):
            ledger.execute("select * from es_category_state('account', on_error => 'report')")
        ledger.execute("rollback")
        ledger.execute("set statement_timeout = '50ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            ledger.execute("select pg_sleep(1), c.* from es_category_state('account', on_error => 'report') c")


@pytest.mark.parametrize("sqlstate", ["53200", "55P03", "58030", "08006", "42P01", "42501", "0A000", "XX000"])
def test_what_every_event_would_meet_is_raised_as_it_is(quiet, sqlstate):
    with quiet.connect(autocommit=True) as session:
        session.execute(f"""create function troubled(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin
            if event.payload ? 'trouble' then raise 'no luck' using errcode = '{sqlstate}', hint = 'wait'; end if; return state; end $$""")
        session.execute("select es_register_fold('troubled', 'account', handler => 'troubled(jsonb, eventstream.event)')")
        session.execute("select es_create_temporal_view('accounts', 'account', %s)", (COLUMNS,))
        for number in range(3):
            session.execute("select es_append(%s, 'Credited', %s)", (f"account-{number}", '{"trouble": 1}' if number == 1 else "{}"))
        for question in (
            "es_category_state('account')",
            "es_category_state('account', on_error => 'report')",
            "accounts",
            "accounts_at(null)",
            "accounts_at(null, on_error => 'report')",
        ):
            with pytest.raises(psycopg.Error) as raised:
                session.execute(f"select * from {question}")
            diagnosis = raised.value.diag
            assert (diagnosis.sqlstate, diagnosis.message_primary, diagnosis.message_hint) == (sqlstate, "no luck", "wait"), question
        assert value(session, "select count(*) from eventstream.health where name like 'states by %'") == 0


def test_a_session_that_cannot_run_folds_is_told_so_by_a_category_too(quiet):
    with quiet.connect(autocommit=True) as session:
        session.execute(HANDLER)
        session.execute("select es_register_fold('balance', 'account', handler => 'handled(jsonb, eventstream.event)')")
        session.execute("select es_create_temporal_view('accounts', 'account', %s)", (COLUMNS,))
        credit(session, 1, 5)
    with quiet.connect(autocommit=True) as session:
        session.execute("set standard_conforming_strings = off")
        for question in ("es_category_state('account')", "es_category_state('account', on_error => 'report')", "accounts"):
            with pytest.raises(psycopg.errors.FeatureNotSupported) as raised:
                session.execute(f"select * from {question}")
            assert raised.value.diag.message_hint.startswith("Connect anew"), question


def failing(session):
    return rows(session, "select status, detail, fix from eventstream.health where name = 'states by balance'")


REPORT = "select count(*) from es_category_state('account', on_error => 'report')"


def test_health_names_a_fold_that_was_seen_to_fail_until_it_is_mended(ledger):
    assert failing(ledger) == [] and value(ledger, "select es_state('account-1') ->> 'balance'") is not None
    with pytest.raises(psycopg.Error):
        ledger.execute("select es_state('account-5')")
    [(status, detail, fix)] = failing(ledger)
    assert status == "warning" and "streams of category account cannot be folded" in detail and "account-5, within its first 2 events" in detail
    # What it prints tells all, and how many there are.
    assert tuple(stream for stream, _ in rows(ledger, fix)) == WRONG
    assert failing(ledger)[0][1].startswith("3 streams of category account cannot be folded")
    # Others that fold say nothing about it, nor does the past.
    ledger.execute("select es_state('account-1')")
    ledger.execute("select * from es_category_state('account', known_at => '2000-01-01Z')")
    assert failing(ledger)[0][1].startswith("3 streams")
    ledger.execute(
        """create function mended(payload jsonb, metadata jsonb) returns jsonb immutable language sql
           return jsonb_build_object('amount', coalesce(payload ->> 'amount', payload ->> 'amuont')::numeric)"""
    )
    ledger.execute("select es_register_upcaster('Credited', 1, 'mended(jsonb, jsonb)'::regprocedure)")
    assert failing(ledger) == []
    ledger.execute("select es_unregister_upcaster('Credited', 1)")
    assert len(failing(ledger)) == 1


def test_a_state_without_the_wrong_event_says_nothing_about_it(ledger):
    ledger.execute("select es_append('account-5', 'Credited', '{\"amount\": 1}', occurred_at => '2000-01-01Z')")
    with pytest.raises(psycopg.Error):
        ledger.execute("select es_state('account-5')")
    assert len(failing(ledger)) == 1
    # The wrong event is not of that day, and what came late is.
    assert value(ledger, "select es_state_at('account-5', '2001-01-01Z') ->> 'balance'") == "1"
    assert len(failing(ledger)) == 1


def test_what_fails_by_an_imagined_event_is_in_no_health_row(quiet):
    with quiet.connect(autocommit=True) as session:
        rules = '{"on": {"A": [{"add": {"/n": "/n"}}], "B": [{"set": {"/n": "/n"}}]}}'
        session.execute("select es_register_fold('balance', 'led', rules => %s, fold_order => 'occurred_at')", (rules,))
        session.execute("select es_append('led-1', 'A', '{\"n\": 1}', occurred_at => '2024-01-01Z')")
        session.execute("select es_append('led-1', 'A', '{\"n\": 2}', occurred_at => '2024-03-01Z')")
        imagined = '[{"type": "B", "payload": {"n": %s}, "occurred_at": "2024-02-01T00:00:00Z"}]'
        with pytest.raises(psycopg.Error, match="at version 2"):
            session.execute("select es_simulate('led-1', %s)", (imagined % '"wrong"',))
        assert failing(session) == []
        # Nor does one that mends it.
        session.execute("select es_append('led-1', 'B', '{\"n\": \"wrong\"}', occurred_at => '2024-01-15Z')")
        with pytest.raises(psycopg.Error):
            session.execute("select es_state('led-1')")
        assert value(session, "select es_simulate('led-1', %s)", imagined % "7") == {"n": 9}
        assert len(failing(session)) == 1


ORDERS = {
    "any": ("version", '{"add": {"/n": "/n"}}'),
    "by version": ("version", '{"append": {"/l": "/n"}}, {"add": {"/n": "/n"}}'),
    "by time": ("occurred_at", '{"append": {"/l": "/n"}}, {"add": {"/n": "/n"}}'),
}


@pytest.mark.parametrize("lates", [1, 400], ids=["few late", "many late"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_range_of_valid_time_ends_before_the_wrong_event(quiet, order, lates):
    fold_order, rule = ORDERS[order]
    with quiet.connect(autocommit=True) as session:
        rules = '{"on": {"A": [' + rule + "]}}"
        session.execute("select es_register_fold('f', 'led', rules => %s, fold_order => %s)", (rules, fold_order))
        session.execute("select es_append('led-1', 'A', '{\"n\": 1}', occurred_at => '2024-01-01Z')")
        session.execute("select es_append('led-1', 'A', '{\"n\": \"wrong\"}', occurred_at => '2024-05-01Z')")
        # The last of them occurred behind the range, and before the wrong one.
        session.execute("select es_append('led-1', 'A', '{\"n\": 5}', occurred_at => '2024-04-01Z')")
        session.execute(
            "select es_append('led-1', 'A', jsonb_build_object('n', i), occurred_at => timestamptz '2024-03-01Z' - make_interval(hours => i)) "
            "from generate_series(1, %s) i",
            (lates,),
        )
        found = rows(
            session,
            "select valid_from, valid_to, state, es_state_at('led-1', valid_from) "
            "from es_timeline('led-1', from_moment => '2023-01-01Z', to_moment => '2024-03-15Z')",
        )
        assert len(found) == lates + 1 and all(state == expected for _, _, state, expected in found)
        assert [valid_to for _, valid_to, _, _ in found[:-1]] == [valid_from for valid_from, _, _, _ in found[1:]]
        assert found[-1][1].isoformat()[:10] == "2024-04-01"
        with pytest.raises(psycopg.Error, match="at version 2"):
            session.execute("select * from es_timeline('led-1')")


def test_what_was_rolled_back_is_in_no_health_row(ledger):
    with ledger.transaction(force_rollback=True):
        credit(ledger, 2, "12.50")
        with pytest.raises(psycopg.Error), ledger.transaction():
            ledger.execute("select es_state('account-2')")
        assert len(failing(ledger)) == 1
    assert failing(ledger) == []


def test_a_helper_that_is_mended_clears_the_row_with_the_next_fold_of_the_stream(quiet):
    with quiet.connect(autocommit=True) as session:
        session.execute("create table known (is_known bool); insert into known values (false)")
        session.execute("""create function helped(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin
            if not (select is_known from public.known) then raise 'not known' using errcode = 'GL042'; end if; return state; end $$""")
        session.execute("select es_register_fold('balance', 'account', 'helped(jsonb, eventstream.event)'::regprocedure)")
        credit(session, 1, 10)
        credit(session, 2, 10)
        assert value(session, REPORT) == 2
        assert "2 streams of category account cannot be folded" in failing(session)[0][1] and "account-2" in failing(session)[0][1]
        session.execute("update known set is_known = true")
        session.execute("select es_state('account-1')")
        assert len(failing(session)) == 1
        session.execute("select es_state('account-2')")
        assert failing(session) == []


def test_upkeep_notes_a_stream_whose_snapshot_it_cannot_take(ledger):
    ledger.execute("""select es_register_fold('every', 'account', rules => %s, initial_state => '{"balance": 0}', snapshot_every => 2)""", (RULES,))
    ledger.execute("select * from es_maintain()")
    [(status, detail)] = rows(ledger, "select status, detail from eventstream.health where name = 'states by every'")
    assert status == "warning" and "of category account cannot be folded" in detail


def test_errors_of_a_fold_name_an_upcaster_and_another_fold_as_ways_out(ledger):
    """Whoever raises them: rules, a handler's own RAISE, PostgreSQL within a handler; and in whatever question."""
    for question in ("es_state('account-0')", "es_load('account-0')", "es_state_at_version('account-0', 2)", "es_snapshot('account-0')",
                     "count(*) from es_history('account-0')", "count(*) from es_timeline('account-0', 'infinity')"):
        with pytest.raises(psycopg.Error) as raised:
            ledger.execute(f"select {question}")
        hint = raised.value.diag.message_hint or ""
        assert "es_register_upcaster" in hint and "handler" in hint and "es_read('account-0', from_version => 2" in hint, question
    # A handler's own words stay.
    ledger.execute(HANDLER.replace("handled", "worded").replace("detail = 'secret'", "hint = 'ask the desk'"))
    ledger.execute("select es_register_fold('worded', 'account', 'worded(jsonb, eventstream.event)'::regprocedure)")
    with pytest.raises(psycopg.Error) as raised:
        ledger.execute("select es_state('account-0', fold => 'worded')")
    assert raised.value.diag.message_hint == "ask the desk"
    # A state that is too large, and an upcaster that raises.
    ledger.execute("set eventstream.max_state_bytes = 1024")
    ledger.execute("""select es_register_fold('large', 'account', rules => '{"on": {"Credited": [{"set": {"/long": "/long"}}]}}')""")
    ledger.execute("select es_append('account-99', 'Credited', jsonb_build_object('amount', 1, 'long', repeat('x', 2000)))")
    with pytest.raises(psycopg.Error) as raised:
        ledger.execute("select es_state('account-99', fold => 'large')")
    assert raised.value.sqlstate == "ES007" and "es_register_upcaster" in raised.value.diag.message_hint and "handler" in raised.value.diag.message_hint
    ledger.execute("reset eventstream.max_state_bytes")
    ledger.execute("""create function strict_one(payload jsonb, metadata jsonb) returns jsonb immutable language sql
                      return jsonb_build_object('amount', (payload ->> 'amount')::numeric / 0)""")
    ledger.execute("select es_register_upcaster('Credited', 1, 'strict_one(jsonb, jsonb)'::regprocedure)")
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        ledger.execute("select es_state('account-1')")
    assert "es_register_upcaster" in raised.value.diag.message_hint


@pytest.fixture
def table(ledger):
    """A state table over the accounts, filled around those that fail."""
    ledger.execute("select es_create_state_table('balances', 'account', %s)", (COLUMNS,))
    ledger.execute("select es_run_projection('balances')")
    yield ledger


def rows_of_table(session):
    return [(stream, version, int(balance)) for stream, version, balance in rows(session, "select stream, version, balance from balances")]


def letters(session):
    return sorted(rows(session, "select stream, version from eventstream.dead_letters where projection = 'balances'"))


def test_a_state_table_is_filled_around_the_streams_that_fail_and_health_names_them(table):
    assert sorted(rows_of_table(table)) == sorted(RIGHT)
    assert letters(table) == sorted((stream, 2) for stream in WRONG)
    assert value(table, "select status from eventstream.projections where name = 'balances'") == "running"
    assert value(table, "select status from eventstream.health where name = 'dead letters of balances'") == "critical"
    reasons = [reason for (reason,) in rows(table, "select reason from eventstream.dead_letters")]
    assert all(reason.startswith("its stream cannot be folded: ") for reason in reasons)


def test_batches_go_on_around_a_stream_that_fails_and_keep_its_row(table):
    credit(table, 2, 1)
    credit(table, 0, 1)
    credit(table, 3, "12.50")
    credit(table, 4, 1)
    table.execute("select es_run_projection('balances')")
    found = {stream: (version, balance) for stream, version, balance in rows_of_table(table)}
    assert [found[f"account-{number}"] for number in (2, 3, 4)] == [(2, 11), (1, 10), (2, 11)]
    assert letters(table) == sorted([*((stream, 2) for stream in WRONG), ("account-0", 3), ("account-3", 2)])
    assert value(table, "select status from eventstream.projections where name = 'balances'") == "running"


def test_an_upcaster_fills_a_state_table_again_with_all_its_streams(table):
    table.execute(
        """create function mended(payload jsonb, metadata jsonb) returns jsonb immutable language sql
           return jsonb_build_object('amount', coalesce(payload ->> 'amount', payload ->> 'amuont')::numeric)"""
    )
    table.execute("select es_register_upcaster('Credited', 1, 'mended(jsonb, jsonb)'::regprocedure)")
    table.execute("select es_run_projection('balances')")
    assert value(table, "select count(*) from balances") == 12 and letters(table) == []


def test_a_fault_that_is_no_events_own_still_stops_the_whole_table(quiet):
    with quiet.connect(autocommit=True) as session:
        session.execute(HANDLER.replace("raise 'no amount' using errcode = 'GL042', detail = 'secret'", "perform from_nowhere()"))
        session.execute(
            """select es_register_fold('balance', 'account', 'handled(jsonb, eventstream.event)'::regprocedure, initial_state => '{"balance": 0}')"""
        )
        credit(session, 1, 10)
        credit(session, 2, "12.50")
        session.execute("select es_create_state_table('balances', 'account', %s)", (COLUMNS,))
        session.execute("select es_run_projection('balances')")
        assert rows_of_table(session) == [] and letters(session) == []
        assert value(session, "select error_sqlstate from eventstream.projections where name = 'balances'") == "42883"


@pytest.mark.parametrize("when", ["filled", "in a batch"])
def test_an_events_fault_beside_another_one_does_not_make_that_an_events_own(quiet, when):
    """Once one stream is passed over, the others' faults are still judged one by one."""
    with quiet.connect(autocommit=True) as session:
        body = HANDLER.replace("if jsonb_typeof", "if event.payload ? 'amuont' then perform from_nowhere(); end if; if jsonb_typeof", 1)
        session.execute(body)
        session.execute(
            """select es_register_fold('balance', 'account', 'handled(jsonb, eventstream.event)'::regprocedure, initial_state => '{"balance": 0}')"""
        )
        if when == "in a batch":
            session.execute("select es_create_state_table('balances', 'account', %s)", (COLUMNS,))
            session.execute("select es_run_projection('balances')")
        for number, amount in ((1, 10), (2, "12.50"), (3, None), (4, 10)):
            credit(session, number, amount)
        if when == "filled":
            session.execute("select es_create_state_table('balances', 'account', %s)", (COLUMNS,))
        # The first attempt at a batch fails by whatever comes first; those after it go event by event.
        for _ in range(3):
            session.execute("select es_run_projection('balances')")
        assert value(session, "select error_sqlstate from eventstream.projections where name = 'balances'") == "42883"
        if when == "filled":
            assert rows_of_table(session) == [] and letters(session) == []
        else:
            assert rows_of_table(session) == [("account-1", 1, 10)] and letters(session) == [("account-2", 1)]
