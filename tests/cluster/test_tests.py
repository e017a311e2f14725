"""es_test: what it does is what es_command and es_append do, what it expects is found or not, in words that say which, and nothing of it is left.

Asked of the kinds: isolation (each level, another session that appends meanwhile), transaction (own appends before and after, savepoints, PREPARE, deferred constraints, DO, function,
procedure), role (caller, as_role, NOINHERIT, without the right to SET ROLE, narrowed), code of others (handlers and SQL that raise, end the transaction, change settings), size (a thousand
tests in one transaction: memory, locks), time (2030, 1999, given out of order), number (scale, digits beyond a float), driver (psycopg's jsonb), copies (standby, read only), bad input."""

import json
import threading

import psycopg
import pytest
from database import Database, last_position, rows, value, verify
from deciding import DECIDE, bank, open_bank, refused, send
from psycopg.types.json import Jsonb
from server import run

CREDIT = [{"stream": "account-t1", "type": "Credited", "payload": {"amount": 100}}]


def command(amount, command_type="Withdraw", stream="account-t1", **more):
    return {"stream": stream, "command_type": command_type, "payload": {"amount": amount}, **more}


def es_test(session, description="it is so", **more) -> str:
    names = "".join(f", {name} => %s" for name in more)
    values = [Jsonb(each) if name in ("given", "command", "events", "states", "result") else each for name, each in more.items()]
    return value(session, f"select es_test(%s{names})", description, *values)


def told(said: str) -> tuple[bool, list[str]]:
    """Whether the test passed, and what it says of differences."""
    first, *others = said.split("\n")
    assert first.startswith(("ok ", "not ok ")) and all(line.startswith("# ") for line in others), said
    assert bool(others) == first.startswith("not ok"), said
    return first.startswith("ok "), [line[2:] for line in others]


def green(session, *args, **more) -> None:
    assert told(es_test(session, *args, **more)) == (True, [])


def red(session, *args, **more) -> str:
    is_ok, lines = told(es_test(session, *args, **more))
    assert not is_ok
    return "\n".join(lines)


@pytest.fixture
def session(database):
    with database.connect() as connection:
        open_bank(connection)
        yield connection


#: Everything that a test could leave: rows of all our tables, the floor, what is open.
def everything(session) -> list:
    tables = [name for (name,) in rows(session, "select relname from pg_class where relnamespace = '_eventstream'::regnamespace and relkind in ('r', 'p') order by 1")]
    counts = [(name, value(session, f"select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from _eventstream.{name} t")) for name in tables if name != "first_appends"]
    floor = value(session, "select last_value from _eventstream.recorded_floor")
    return [counts, floor, rows(session, "select * from eventstream.horizon_holders")]


# --- every expectation, green and red ---------------------------------------------------------------------


def test_a_decision_is_tested(session):
    before, noticed = everything(session), []
    session.add_notice_handler(lambda notice: noticed.append(notice.message_primary))
    green(
        session,
        given=CREDIT,
        command=command(99.50),
        events=[{"stream": "account-t1", "version": 2, "type": "Debited", "payload": {"amount": 99.5}}],
        states={"account-t1": {"balance": 0.50}},
        result={"left": 0.5},
    )
    green(session, given=CREDIT, command=command(100.01), error="insufficient_funds", events=[], states={"account-t1": {"balance": 100, "movements": 1}})
    green(session, given=CREDIT, command=command(100.01), error="ES033")
    green(session, command=command(1, "Deposit"))
    # A fold alone.
    green(session, given=CREDIT * 3, states={"account-t1": {"balance": 300.00}})
    assert everything(session) == before and verify(session) == [] and noticed == []


def test_what_differs_is_said_in_words(session):
    assert red(session, given=CREDIT, command=command(10), error="insufficient_funds") == "error: expected insufficient_funds, and there was none"
    assert red(session, given=CREDIT, command=command(101)) == "error: expected none, found ES033 insufficient_funds: only 100 are there"
    assert red(session, given=CREDIT, command=command(101), error="no_such") == "error: expected no_such, found ES033 insufficient_funds: only 100 are there"
    assert red(session, given=CREDIT, command=command(1, "Rob"), error="ES033").startswith("error: expected ES033, found ES035: ")
    assert red(session, given=CREDIT, command=command(10), events=[]) == "events: expected 0, found 1: Debited for account-t1"
    assert red(session, given=CREDIT, command=command(0.01), events=[{"type": "Debited"}, {}]) == "events: expected 2, found 1: Debited for account-t1"
    assert red(session, given=CREDIT, command=command(10), events=[{"type": "Withdrawn", "payload": {"amount": 11, "fee": 1}, "version": 2}]) == (
        "events[0].payload.amount: expected 11, found 10\nevents[0].payload.fee: expected 1, and it is not there\nevents[0].type: expected \"Withdrawn\", found \"Debited\""
    )
    assert red(session, given=CREDIT, command=command(10), states={"account-t1": {"balance": 100.01}}) == 'states["account-t1"].balance: expected 100.01, found 90'
    assert red(session, states={"account-t2": {"balance": 0}}) == 'states["account-t2"]: expected {"balance":0}, and it is not there'
    assert red(session, given=CREDIT, command=command(10), result={"left": 91}) == "result.left: expected 91, found 90"
    assert red(session, given=CREDIT, command=command(10), result=[1]).startswith("result: expected [1], found {")
    assert red(session, given=[{**CREDIT[0], "payload": {"amount": "x"}}], states={"account-t1": {}}).startswith('states["account-t1"]: cannot be folded: ')
    assert red(session, sql="select 1/0") == "error: expected none, found 22012: division by zero"
    # All of them at once.
    assert red(session, given=CREDIT, command=command(10), events=[], states={"account-t1": {"balance": 1}}, result={"left": 1}).count("\n") == 2
    assert verify(session) == []


def test_every_field_of_an_event_can_be_expected(session):
    event_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    sql = f"""select es_append('account-t1', 'Credited', '{{"amount": 1.10}}', metadata => '{{"actor": "ann", "n": 1.0}}', event_id => '{event_id}', occurred_at => '2024-03-01T10:00:00Z',
              subject => 'p-1', tags => '{{b:2,a:1}}')"""
    whole = {
        "stream": "account-t1", "version": 1, "type": "Credited", "payload": {"amount": 1.1}, "metadata": {"actor": "ann", "n": 1}, "event_id": event_id, "category": "account",
        "occurred_at": "2024-03-01T11:00:00+01:00", "recorded_at": "2024-03-02T00:00:00Z", "recorded_by": "postgres", "schema_version": 1, "subject": "p-1", "tags": ["b:2", "a:1"],
    }  # fmt: skip
    green(session, sql=sql, at="2024-03-02 00:00Z", events=[whole])
    wrong = {"stream": "x-1", "version": 2, "type": "X", "payload": [], "metadata": {"actor": "bob"}, "event_id": event_id[::-1], "category": "x", "occurred_at": "2024-03-01T11:00:00Z",
             "recorded_at": "2024-03-02T00:00:01Z", "recorded_by": "x", "schema_version": 2, "subject": None, "tags": ["a:1"]}  # fmt: skip
    for key, other in wrong.items():
        assert red(session, sql=sql, at="2024-03-02 00:00Z", events=[{key: other}]).startswith(f"events[0].{key}"), key


def test_numbers_are_compared_as_decimals(session):
    exact = "100000000000000000000000000000.00000000000000000001"
    text = json.dumps([{**CREDIT[0]}]).replace("100", exact)
    ask = "select es_test('exact', given => %s, states => %s)"
    assert told(value(session, ask, text, f'{{"account-t1": {{"balance": {exact}000}}}}'))[0]
    said = value(session, ask, text, f'{{"account-t1": {{"balance": {exact[:-1]}2}}}}')
    assert f"expected {exact[:-1]}2, found {exact}" in said


def test_sql_is_run_as_the_caller(session):
    session.execute("create table t (a int)")
    sql = "insert into t values (1), (2); select sum(a), 'other' from t"
    green(session, sql=sql, result=3)
    assert red(session, sql=sql, result=4) == "result: expected 4, found 3"
    green(session, sql="select row(1, 'a')", result={"f1": 1})
    green(session, sql="select null::int", result=None)
    green(session, sql="insert into t values (1)")
    green(session, sql="", events=[])
    green(session, sql="select es_require(false, 'no_way', 'no')", error="no_way")
    green(session, sql="select array[1.10, 2]", result=[1.1, 2])
    green(session, sql="do $$ begin perform es_append('a-t', 'T', '{}'); perform es_append('a-t', 'U', '{}', expected_version => 1); end $$", events=[{"version": 1}, {"type": "U"}])
    for ends in ("commit", "rollback", "begin", "copy t from stdin", "copy t to stdout"):
        assert "must not end the transaction" in red(session, sql=ends) or "COPY" in red(session, sql=ends), ends
    session.execute("create procedure p() language plpgsql as $$ begin commit; end $$")
    assert "2D000" in red(session, sql="call p()")
    # A setting and a savepoint of it are gone with it.
    green(session, sql="set timezone = 'Asia/Tokyo'; create temp table x (a int); listen y; select set_config('search_path', 'nowhere', false)")
    assert value(session, "select to_regclass('x') is null and current_setting('timezone') <> 'Asia/Tokyo' and current_setting('search_path') <> 'nowhere'")
    assert rows(session, "select from t") == []
    # What a savepoint within took back is no event of it.
    within = "do $$ begin begin perform es_append('a-t', 'Lost', '{}'); raise 'x'; exception when others then perform es_append('a-t', 'Kept', '{}'); end; end $$"
    green(session, sql=within, events=[{"type": "Kept", "version": 1}])


def test_an_error_outlives_the_subtransactions_that_it_leaves(database, session):
    """Each in a session of its own: memory that was used before may still hold an error that is gone."""
    ask = "select es_test('x', given => %s, command => %s, error => 'insufficient_funds')"
    for count in (1, 1, 3):
        with database.connect() as fresh:
            for _ in range(count):
                assert told(value(fresh, ask, Jsonb(CREDIT), Jsonb(command(101))))[0]
    session.execute(DECIDE.replace("return '[]';", "perform 1 / 0; return '[]';"))
    with database.connect() as fresh:
        assert refused(fresh.execute, "select es_simulate_command('account-1', 'Nothing', '{}')").message_primary == "division by zero"


# --- what is due at the commit -----------------------------------------------------------------------------


def test_what_is_due_at_a_commit_is_judged(session):
    session.execute("create table parent (id int primary key); create table child (id int references parent deferrable initially deferred)")
    assert red(session, sql="insert into child values (1)").startswith("error: expected none, found 23503")
    green(session, sql="insert into child values (1)", error="23503")
    green(session, sql="insert into child values (1); insert into parent values (1)")
    # A deferred trigger that appends: its event is one of the test's.
    session.execute("""create function note() returns trigger language plpgsql as $$ begin perform es_append('note-t', 'Noted', '{}'); return null; end $$;
        create constraint trigger noted after insert on parent deferrable initially deferred for each row execute function note()""")
    green(session, sql="insert into parent values (1)", events=[{"type": "Noted"}])
    session.execute("insert into parent values (7)")
    # What the transaction itself has deferred stays so.
    with session.transaction():
        session.execute("insert into child values (8)")
        assert "23503" in red(session, given=CREDIT)
        session.execute("insert into parent values (8)")
    assert value(session, "select count(*) from child") == 1


def test_invariants_are_judged(session):
    session.execute("""create function balanced(events eventstream.event[]) returns text stable language sql as
        $$ select 'it has ' || sum((e.payload ->> 'amount')::numeric) from unnest(events) e having sum((e.payload ->> 'amount')::numeric) <> 0 $$""")
    session.execute("select es_register_invariant('balanced', '{entry}', handler => 'balanced(eventstream.event[])')")
    session.execute("select es_register_invariant('no_overdraft', '{account}', fold => 'balance', require => '{\"/balance\": {\"at_least\": 0}}')")
    booked = "select es_append('entry-t1', 'Booked', '{\"amount\": 5}')"
    assert "ES019" in red(session, sql=booked) and "it has 5" in red(session, sql=booked)
    green(session, sql=booked, error="ES019")
    green(session, sql=booked + "; " + booked.replace("5", "-5"), events=[{}, {}])
    # What is given was of other transactions, and is not judged with what comes now.
    given = [{"stream": "entry-t1", "type": "Booked", "payload": {"amount": 7}}]
    green(session, given=given, sql=booked.replace("5", "0"), events=[{}])
    green(session, given=CREDIT, sql="select es_append('account-t1', 'Debited', '{\"amount\": 101}')", error="ES019")
    green(session, given=CREDIT, sql="select es_append('account-t1', 'Debited', '{\"amount\": 100}')", states={"account-t1": {"balance": 0}})
    # A transaction goes on, and its own are judged at its commit.
    session.autocommit = False
    session.execute(booked.replace("t1", "1"))
    green(session, sql=booked, error="ES019")
    with pytest.raises(psycopg.Error) as error:
        session.commit()
    assert error.value.sqlstate == "ES019" and "it has 5" in str(error.value)
    session.rollback()
    session.autocommit = True


# --- nothing is left ----------------------------------------------------------------------------------------


def undisturbed(session):
    """What a clock, ids, floor and horizon are, but for gaps."""
    return value(session, "select last_value from _eventstream.recorded_floor")


@pytest.mark.parametrize("at", ["2030-06-01 12:00+00", "1999-06-01 12:00+00"])
def test_the_clock_is_that_of_the_test_alone(session, at):
    send(session, stream="account-live")
    session.execute("select es_settled_until()")
    floor, before, settled = undisturbed(session), everything(session), value(session, "select es_settled_until()")
    floor = undisturbed(session)
    last_id = value(session, "select es_new_event_id()")
    recorded = at.replace(" ", "T").replace("+00", ":00Z")
    green(
        session,
        given=[{**CREDIT[0], "recorded_at": "1998-01-01T00:00:00Z"}, {**CREDIT[0], "recorded_at": "1998-01-01T00:00:01Z", "occurred_at": "1997-01-01T00:00:00Z"}],
        command=command(150),
        at=at,
        events=[{"recorded_at": recorded, "occurred_at": recorded}],
    )
    green(session, sql="select to_jsonb(to_timestamp(('x' || left(replace(es_new_event_id()::text, '-', ''), 12))::bit(48)::bigint / 1000.0) = %L::timestamptz)".replace("%L", f"'{at}'"), at=at, result=True)
    green(session, sql="select es_settled_until() < '2031-01-01' and es_settled_until() is not null", at=at, result=True)
    assert undisturbed(session) == floor
    after = everything(session)
    assert (after[0], after[2]) == (before[0], before[2])
    next_id = value(session, "select es_new_event_id()")
    now = value(session, "select extract(epoch from clock_timestamp()) * 1000")
    assert last_id < next_id and abs(int(next_id.hex[:12], 16) - float(now)) < 60_000
    assert value(session, "select es_settled_until()") >= settled
    version = send(session, stream="account-live")["version"]
    assert value(session, "select abs(extract(epoch from clock_timestamp() - recorded_at)) < 60 from es_read('account-live', 1, 10) where version = %s", version)
    # Nobody waits for a test that is over.
    assert value(session, "select es_horizon()") == last_position(session)
    assert verify(session) == []


def test_max_future_skew_and_periods_go_by_the_clock_of_the_test(session):
    far = [{**CREDIT[0], "occurred_at": "2030-05-01T00:00:00Z"}]
    assert refused(es_test, session, given=far).sqlstate == "ES007"
    green(session, given=far, at="2030-06-01 00:00Z", states={"account-t1": {"balance": 100}})
    # A period that is closed within the test, by its clock, and leaves nothing.
    close = "select es_close_period('{account}', '2029-12-31T23:59:59Z', 'C-1')"
    late = "select es_append('account-t1', 'Credited', '{\"amount\": 1}', occurred_at => '2029-01-01T00:00:00Z')"
    floor = undisturbed(session)
    green(session, sql=f"{close}; {late}", at="2030-06-01 00:00Z", error="ES018")
    assert undisturbed(session) == floor and rows(session, "select from eventstream.periods") == []


def test_it_sees_nothing_that_was_there_before(session):
    session.execute("select es_append('account-old', 'Credited', '{\"amount\": 5}', tags => '{t:1}', subject => 'p-1', event_id => '01890a5d-ac96-774b-bcce-b302099a8057')")
    nothing = """select (select count(*) from es_read('account-old')) + (select count(*) from es_read_all()) + (select count(*) from es_read_all(categories => '{account}'))
        + (select count(*) from es_read_all(tags => '{t:1}')) + (select count(*) from es_read_backward()) + (select count(*) from es_read_backward(categories => '{account,b}'))
        + (select count(*) from es_read_backward(tags => '{t:1}')) + (select count(*) from es_read_subject('p-1'))
        + (select count(*) from es_event('01890a5d-ac96-774b-bcce-b302099a8057') e where e.stream is not null) + es_stream_version('account-old')
        + (select count(*) from es_category_state('account')) + (select count(*) from es_query('{}')) + (select count(*) from es_query('{"tags": ["t:1"], "order": "backward"}'))"""
    assert value(session, nothing) == 13
    green(session, sql=nothing, result=0)
    own = [{"stream": "account-t1", "type": "Credited", "payload": {"amount": 5}, "tags": ["t:1"], "subject": "p-1", "event_id": "01890a5d-ac96-774b-bcce-b302099a8057"}]
    green(session, given=own, sql=nothing.replace("account-old", "account-t1"), result=13)
    green(session, sql="select es_state('account-old')", error="ES002")
    green(session, sql="select (es_condition('{\"items\": [{\"tags\": [\"t:1\"]}]}') -> 'seen' ->> 'count')::int", result=0)
    # Its own appends do break its own conditions.
    broken = """do $$ declare c jsonb := es_condition('{"items": [{"tags": ["t:1"]}]}'); begin perform es_append('account-t1', 'Credited', '{"amount": 1}', tags => '{t:1}');
        perform es_append_streams('[{"stream": "account-t2", "events": [{"type": "Credited", "payload": {"amount": 1}}]}]', condition => c); end $$"""
    green(session, sql=broken, error="ES015")


def test_streams_that_were_there_are_nobodys_to_append_to(session):
    send(session, stream="account-live")
    diag = refused(es_test, session, given=[CREDIT[0], {**CREDIT[0], "stream": "account-live"}])
    assert (diag.sqlstate, diag.message_primary) == ("ES005", 'given[1].stream must be new, and "account-live" has events already')
    assert 'a test cannot append to stream "account-live"' in red(session, command=command(1, "Deposit", "account-live"))
    assert 'a test cannot append to stream "account-live"' in red(session, sql="select es_append('account-live', 'T', '{}')")
    green(session, sql="select es_append('account-live', 'T', '{}', expected_version => 1)", error="ES001")
    green(session, sql="select es_close_stream('account-live', 'x')", error="ES002")
    assert value(session, "select es_stream_version('account-live')") == 1


def test_nobody_waits_for_a_test_nor_it_for_others(database, session):
    send(session, stream="account-live")
    with database.connect() as other, database.connect() as third:
        other.autocommit = False
        send(other, stream="account-live")
        send(other, stream="account-made")
        session.execute("set lock_timeout = '2s'")
        green(session, given=[{**CREDIT[0], "stream": "account-t9"}], sql="select es_stream_version('account-live') + es_stream_version('account-made')", result=0)
        assert "cannot append" in red(session, sql="select es_append('account-live', 'T', '{}')")
        other.commit()
        session.execute("set lock_timeout = 0")
        # One that is under way.
        waits = threading.Thread(target=lambda: green(session, given=CREDIT, sql="select pg_sleep(3)"))
        waits.start()
        third.execute("set lock_timeout = '1s'")
        send(third, stream="account-live")
        send(third, stream="account-t2")
        # Who makes a stream that a test is making waits for its end.
        third.execute("set lock_timeout = 0")
        send(third, stream="account-t1")
        waits.join()
    assert value(session, "select es_stream_version('account-t1')") == 1


def test_what_others_append_meanwhile_is_not_of_its_streams(database, session):
    with database.connect() as other:
        done = threading.Event()

        def append():
            done.wait(10)
            send(other, stream="account-meanwhile")

        thread = threading.Thread(target=append)
        thread.start()
        session.execute("create function wait_for_it() returns int language plpgsql as $$ begin perform pg_sleep(1.5); return 1; end $$")
        done.set()
        green(session, given=CREDIT, sql="select wait_for_it() - 1 + es_stream_version('account-meanwhile')", result=0, events=[])
        thread.join()


def test_keys_of_commands_are_a_tests_own(session):
    first = send(session, "Deposit", {"amount": 7}, stream="account-live", command_key="k-1")
    green(session, given=CREDIT, command=command(1, command_key="k-1"), events=[{"type": "Debited"}])
    green(session, given=CREDIT, command=command(2, command_key="k-1"), events=[{"type": "Debited"}])
    twice = "select es_command('account-t1', 'Deposit', '{\"amount\": 1}', command_key => 'k-1'); select (es_command('account-t1', 'Deposit', '{\"amount\": 1}', command_key => 'k-1') -> 'replayed')"
    green(session, sql=twice, result=True, events=[{"type": "Credited"}])
    assert value(session, "select count(*) from _eventstream.command_answers") == 1
    assert send(session, "Deposit", {"amount": 7}, stream="account-live", command_key="k-1") == {**first, "replayed": True}


# --- transactions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_transaction_goes_on_as_it_was(database, session, level):
    send(session, stream="account-live")
    session.autocommit = False
    session.execute(f"set transaction isolation level {level}")
    send(session, stream="account-mine")
    held = rows(session, "select pid, global_position from eventstream.horizon_holders")
    last = rows(session, "select stream, version from es_last_append()")
    green(session, given=CREDIT, command=command(1), states={"account-t1": {"balance": 99}})
    # What the transaction appended itself came before the test, too.
    green(session, sql="select es_stream_version('account-mine') + (select count(*) from es_read_backward())", result=0)
    assert "cannot append" in red(session, command=command(1, "Deposit", "account-mine"))
    assert red(session, given=CREDIT, command=command(1000))
    assert rows(session, "select pid, global_position from eventstream.horizon_holders") == held
    assert rows(session, "select stream, version from es_last_append()") == last
    send(session, stream="account-mine")
    session.commit()
    session.autocommit = True
    assert value(session, "select es_state('account-mine')") == {"balance": 20, "movements": 2}
    assert value(session, "select es_horizon()") == last_position(session) and verify(session) == []


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_test_alone_leaves_a_transaction_that_has_not_appended(session, level):
    session.autocommit = False
    session.execute(f"set transaction isolation level {level}")
    green(session, given=CREDIT, command=command(1))
    assert rows(session, "select * from eventstream.horizon_holders") == []
    # Nothing keeps it from being prepared, but that this server prepares none.
    assert refused(session.execute, f"prepare transaction 'tests {level}'").message_primary == "prepared transactions are disabled"
    session.rollback()
    session.autocommit = True
    send(session, stream="account-t1")
    assert value(session, "select es_horizon()") == last_position(session)


def test_a_first_append_that_was_a_tests_is_none(database):
    with database.connect() as session:
        green(session, given=CREDIT)
        assert rows(session, "select from _eventstream.first_appends") == []
        assert verify(session) == []
        session.execute("select es_append('account-1', 'T', '{}')")
        assert value(session, "select count(*) from _eventstream.first_appends") == 1


def test_functions_do_blocks_and_procedures_test(session):
    given = json.dumps(CREDIT)
    body = f"begin return es_test('in a function', given => '{given}', states => '{{\"account-t1\": {{\"balance\": 100}}}}'); end"
    session.execute(f"create function tests() returns text language plpgsql as $$ {body} $$")
    assert told(value(session, "select tests()"))[0]
    session.execute("do $$ begin if tests() not like 'ok %' then raise 'red'; end if; end $$")
    session.execute("create procedure all_tests() language plpgsql as $$ begin perform tests(); commit; perform tests(); end $$")
    session.execute("call all_tests()")
    # A red one is no error.
    caught = "do $$ begin begin perform es_test('bad', given => '5'); exception when sqlstate 'ES005' then perform tests(); end; end $$"
    session.execute(caught)
    assert refused(session.execute, "select es_tests_done()").message_primary == "0 of 5 tests failed, and 1 call of es_test ended in an error"


def test_a_test_in_a_test_is_refused(session):
    green(session, sql="select es_test('inner')", error="0A000")
    assert value(session, "select es_tests_done()") == "1..1"
    session.execute("create function handle(event eventstream.event) returns void language sql as $$ select es_test('x') $$")
    session.execute("select es_create_projection('tests', 'handle(eventstream.event)', mode => 'inline')")
    assert refused(send, session, stream="account-9").sqlstate == "0A000"
    session.execute("create function fold_it(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select to_jsonb(es_test('x')) $$")
    session.execute("select es_drop_projection('tests'); select es_register_fold('tests', 'f', 'fold_it(jsonb, eventstream.event)', initial_state => '{}'); select es_append('f-1', 'T', '{}')")
    assert refused(session.execute, "select es_state('f-1')").sqlstate == "0A000"


def test_a_decider_cannot_test(session):
    session.execute(DECIDE.replace("return '[]';", "return to_jsonb(es_test('x'));"))
    assert refused(send, session, "Nothing", {}).sqlstate in ("0A000", "25006", "ES037")


def test_cancel_ends_it_and_leaves_nothing(session):
    session.execute("set statement_timeout = '300ms'")
    assert refused(es_test, session, given=CREDIT, sql="select pg_sleep(10)").sqlstate == "57014"
    session.execute("set statement_timeout = 0")
    assert rows(session, "select * from eventstream.horizon_holders") == []
    green(session, given=CREDIT)
    # Within a transaction that goes on.
    session.autocommit = False
    session.execute("savepoint s; set local statement_timeout = '300ms'")
    assert refused(es_test, session, given=CREDIT, sql="select pg_sleep(10)", at="2030-01-01 00:00Z").sqlstate == "57014"
    session.execute("rollback to s")
    assert rows(session, "select * from eventstream.horizon_holders") == []
    send(session, stream="account-t1")
    session.commit()
    session.autocommit = True
    assert value(session, "select recorded_at < now() + interval '1 minute' from es_read('account-t1')")


def test_a_thousand_tests_in_a_transaction_leave_memory_and_locks_bounded(session):
    one = f"select es_test('one', given => '{json.dumps(CREDIT)}', command => '{json.dumps(command(1))}', events => '[{{}}]') from generate_series(1, %s)"

    def used():
        memory = value(session, "select sum(used_bytes) from pg_backend_memory_contexts")
        return int(memory), value(session, "select count(*) from pg_locks where pid = pg_backend_pid()")

    session.autocommit = False
    session.execute(one, (200,))
    memory, locks = used()
    session.execute(one, (800,))
    after, more = used()
    session.commit()
    session.autocommit = True
    assert more <= locks + 5
    assert after - memory < 3_000_000, (memory, after)
    assert value(session, "select es_tests_done()") == "1..1000"


# --- projections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["async", "inline"])
def test_projections_are_brought_up_in_place(session, mode):
    session.execute("create table seen (stream text, amount numeric)")
    session.execute("create function see(event eventstream.event) returns void language sql as $$ insert into public.seen values (event.stream, (event.payload ->> 'amount')::numeric) $$")
    session.execute("select es_create_projection('seen', 'see(eventstream.event)', mode => %s)", (mode,))
    session.execute("select es_create_state_table('balances', 'account', '[{\"name\": \"balance\", \"type\": \"numeric\", \"path\": \"/balance\"}]', mode => %s)", (mode,))
    if mode == "async":
        # It runs once it is filled.
        session.execute("select es_run_projection('balances')")
    green(session, given=CREDIT, command=command(40), events=[{}])
    look = "select es_command('account-t1', 'Withdraw', '{\"amount\": 40}'); select jsonb_build_array((select jsonb_agg(amount order by amount) from seen where stream = 'account-t1'), (select balance from balances where stream = 'account-t1'))"
    green(session, given=CREDIT, sql=look, result=[[40, 100], 60])
    assert rows(session, "select from seen where stream = 'account-t1'") == [] == rows(session, "select from balances where stream = 'account-t1'")
    # One that fails is the test's error.
    session.execute("create or replace function see(event eventstream.event) returns void language plpgsql as $$ begin raise 'not today'; end $$")
    assert "given: could not be recorded: not today (P0001)" in red(session, given=CREDIT)
    green(session, command=command(1, "Deposit"), error="P0001")
    session.execute("select es_pause_projection('seen')")
    green(session, given=CREDIT, events=[])


# --- who may ---------------------------------------------------------------------------------------------------


def test_rights_are_the_callers_or_the_roles(database, session):
    clerk, teller, stranger = (database.role(f"{name}_of_tests") for name in ("clerk", "teller", "stranger"))
    session.execute(f"grant {teller} to {clerk}")
    session.execute(f"select es_grant('{teller}', 'command', category => 'account')")
    with database.connect(clerk) as caller:
        ask = {"given": CREDIT, "command": command(1)}
        assert refused(es_test, caller, **ask).sqlstate == "42501"
        session.execute(f"select es_grant('{clerk}', 'append', category => 'account')")
        # The command needs what es_command needs; by membership clerk has it.
        green(caller, **ask)
        assert refused(es_test, caller, **ask, events=[{}]).sqlstate == "42501"
        assert refused(es_test, caller, **ask, states={"account-t1": {}}).sqlstate == "42501"
        session.execute(f"select es_grant('{clerk}', 'read', category => 'account')")
        green(caller, **ask, events=[{"recorded_by": clerk}], states={"account-t1": {"balance": 99}}, as_role=teller)
        assert refused(es_test, caller, given=[{**CREDIT[0], "stream": "other-1"}]).sqlstate == "42501"
        # The role's rights, and not the caller's.
        green(caller, given=CREDIT, sql="select es_append('account-t1', 'T', '{}')", error="42501", as_role=teller)
        green(caller, given=CREDIT, sql="select current_user::text", result=teller, as_role=teller)
        green(caller, sql="select current_user::text", result=clerk)
        for escape in ("reset role", "set role none", f"set role {clerk}", f"set session authorization {clerk}"):
            assert "42501" in red(caller, sql=escape, as_role=teller) or "0A000" in red(caller, sql=escape, as_role=teller), escape
        assert value(caller, "select current_user") == clerk
        for role, state in ((stranger, "42501"), ("postgres", "42501"), ("nobody_at_all", "42704"), ("", "42704")):
            assert refused(es_test, caller, given=CREDIT, as_role=role).sqlstate == state, role
        # NOINHERIT is no hindrance to SET ROLE.
        session.execute(f"alter role {clerk} noinherit")
        green(caller, **ask, as_role=teller)
        assert "42501" in red(caller, **ask)
    with database.connect(stranger) as caller:
        for more in ({}, {"given": 5}, {"given": CREDIT}, {"sql": "select 1"}):
            assert refused(es_test, caller, **({"given": []} | more)).sqlstate in ("42501", "42883")
    # Of another tenant's streams nothing is said.
    session.execute("select es_create_tenant('b')")
    session.execute("set eventstream.tenant = 'b'")
    green(session, given=CREDIT, events=[])


def test_set_role_needs_its_option(database, session):
    if session.info.server_version < 160000:
        pytest.skip("GRANT … WITH SET is PostgreSQL 16's")
    clerk, teller = database.role("clerk_of_16"), database.role("teller_of_16")
    session.execute(f"select es_grant('{clerk}', 'append')")
    session.execute(f"grant {teller} to {clerk} with set false, inherit true")
    with database.connect(clerk) as caller:
        assert refused(es_test, caller, given=CREDIT, as_role=teller).sqlstate == "42501"
        session.execute(f"grant {teller} to {clerk} with set true")
        green(caller, given=CREDIT, as_role=teller)


def test_a_read_only_transaction_refuses(session):
    session.execute("set default_transaction_read_only = on")
    assert refused(es_test, session, given=CREDIT).sqlstate == "25006"


# --- input -------------------------------------------------------------------------------------------------------

BAD = {
    "description => null": "ES005", "description => ''": "ES005", "description => repeat('x', 300)": "ES005", "description => E'a\\nb'": "ES005",
    "given => null": "ES005", "given => '5'": "ES005", "given => '{}'": "ES005", "given => '[5]'": "ES005", "given => '[{}]'": "ES005",
    "given => '[{\"stream\": \"nonsense\", \"type\": \"T\", \"payload\": 1}]'": "ES004", "given => '[{\"stream\": \"$audit-1\", \"type\": \"T\", \"payload\": 1}]'": "ES004",
    "given => '[{\"stream\": \"a-1\", \"type\": \"\", \"payload\": 1}]'": "ES005", "given => '[{\"stream\": \"a-1\", \"type\": \"StreamClosed\", \"payload\": 1}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"colour\": 1}]'": "ES005", "given => '[{\"stream\": \"a-1\", \"type\": \"T\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"tomorrow\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"2024-01-01\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"infinity\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"1960-01-01T00:00:00Z\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"2999-01-01T00:00:00Z\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1}, {\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"recorded_at\": \"2001-01-01T00:00:00Z\"}]'": "ES005",
    "given => '[{\"stream\": \"a-1\", \"type\": \"T\", \"payload\": 1, \"metadata\": {\"command\": 1}}]'": "ES005",
    "given => (select jsonb_agg('{}'::jsonb) from generate_series(1, 10001))": "ES007",
    "given => jsonb_build_array(jsonb_build_object('stream', 'a-1', 'type', 'T', 'payload', repeat('x', 2000000)))": "ES007",
    "command => '5'": "ES005", "command => '[]'": "ES005", "command => '{}'": "ES005", "command => '{\"stream\": \"account-1\", \"command_type\": \"W\"}'": "ES005",
    "command => '{\"stream\": \"account-1\", \"command_type\": \"W\", \"payload\": 1, \"colour\": 1}'": "ES005",
    "command => '{\"stream\": \"account-1\", \"command_type\": \"W\", \"payload\": 1, \"occurred_at\": \"x\"}'": "ES005",
    "command => '{\"stream\": \"account-1\", \"command_type\": \"W\", \"payload\": 1}', sql => 'select 1'": "ES005",
    "events => '5'": "ES005", "events => '[5]'": "ES005", "events => '[{\"event_type\": \"T\"}]'": "ES005", "events => '[{\"occurred_at\": \"x\"}]'": "ES005",
    "events => jsonb_build_array(jsonb_build_object('payload', repeat('x', 2000000)))": "ES005",
    "error => ''": "ES005", "error => repeat('x', 300)": "ES005", "states => '5'": "ES005", "states => '{\"nonsense\": {}}'": "ES004", "states => '{\"$audit-1\": {}}'": "ES004",
    "result => (repeat('[', 200) || repeat(']', 200))::jsonb": "ES005", "sql => repeat(' ', 2000000)": "ES005",
    "at => 'infinity'": "ES005", "at => '-infinity'": "ES005", "at => '1960-01-01Z'": "ES005", "at => '10000-01-01Z'": "ES005", "as_role => 'nobody_at_all'": "42704",
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_with_a_test_is_an_error(session, bad):
    before = everything(session)
    arguments = bad if bad.startswith("description") else f"description => 'x', {bad}"
    assert refused(session.execute, f"select es_test({arguments})").sqlstate == BAD[bad]
    assert everything(session) == before
    assert refused(session.execute, "select es_tests_done()").message_primary == "0 of 0 tests failed, and 1 call of es_test ended in an error"


def test_what_the_log_refuses_of_what_is_given_is_told(session):
    session.execute("select es_create_event_type('Credited', json_schema => '{\"required\": [\"amount\"]}')")
    session.execute("select es_alter_category('account', '{\"event_types\": \"declared\", \"expected_version\": \"required\", \"event_id\": \"required\"}')")
    green(session, given=CREDIT, states={"account-t1": {"balance": 100}})
    said = red(session, given=[{**CREDIT[0], "payload": {"secret": 1}}])
    assert said.startswith("given: could not be recorded: ") and "(ES016)" in said and "secret" not in said
    assert "(ES017)" in red(session, given=[{**CREDIT[0], "type": "Unheard"}])


# --- lines -------------------------------------------------------------------------------------------------------


def test_tests_are_counted_and_one_that_failed_is_an_error_at_the_end(session):
    assert value(session, "select es_tests_done()") == "1..0"
    assert es_test(session, "a # b\\c") == "ok 1 - a \\# b\\\\c"
    assert value(session, "select es_tests_done()") == "1..1"
    green(session)
    assert es_test(session, "it is red", result=1).startswith("not ok 2 - it is red\n# result: expected 1")
    green(session)
    diag = refused(session.execute, "select es_tests_done()")
    assert (diag.sqlstate, diag.message_primary) == ("ES038", "1 of 3 tests failed")
    assert json.loads(diag.message_detail) == {"plan": "1..3", "count": 1, "failed": ["2 - it is red"], "errors": 0}
    assert value(session, "select es_tests_done()") == "1..0"


def test_a_file_of_tests_is_a_stream_of_tap(database, session):
    script = f"""select es_test('one', given => '{json.dumps(CREDIT)}');
        select es_test('two', sql => 'select 1', result => '2');
        select es_tests_done();"""
    done = run("psql", "-XAtq", "-U", "postgres", "-d", database.name, input=script, env=database.server.address(database.name), check=False)
    lines = [line for line in done.splitlines() if line.startswith(("ok", "not ok", "#", "1.."))]
    assert lines == ["ok 1 - one", "not ok 2 - two", "# result: expected 2, found 1"] and "1 of 2 tests failed" in done


def test_a_fold_that_fails_in_a_test_is_no_matter_of_health(session):
    session.execute("create function broken(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select to_jsonb(1 / 0) $$")
    session.execute("select es_register_fold('broken', 'frail', 'broken(jsonb, eventstream.event)', initial_state => '{}')")
    assert "22012" in red(session, given=[{"stream": "frail-t1", "type": "T", "payload": 1}], states={"frail-t1": {}})
    assert rows(session, "select name from eventstream.health where name like 'states by%' and status <> 'ok'") == []
    session.execute("select es_append('frail-1', 'T', '1')")
    assert refused(session.execute, "select es_state('frail-1')").sqlstate == "22012"
    assert rows(session, "select status from eventstream.health where name like 'states by%' and status <> 'ok'") != []


def test_what_is_registered_within_a_test_is_of_it_alone(session):
    before = everything(session)
    fold = "select es_register_fold('own', 'own', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"T\": [{\"increment\": \"/n\"}]}}')"
    for _ in range(2):
        green(session, sql=f"{fold}; select es_append('own-t1', 'T', '1'); select es_state('own-t1')", result={"n": 1})
        assert refused(session.execute, "select es_state('own-t1')").sqlstate == "ES010"
    assert everything(session) == before and rows(session, "select from es_verify_audit()") == []
