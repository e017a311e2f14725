"""What was found wrong with commands once, each as the kind that it is of: what is waited for while a command waits (its decider, its boundary, a circle), what a transaction of many commands
keeps (locks, the gate), what is only looked at (simulation), and what an answer may say (ids, results, names, who acts)."""

import contextlib
import threading

import psycopg
import pytest
from database import rows, value
from deciding import balance, bank, decider, refused, send
from psycopg.types.json import Jsonb
from server import wait_until




@pytest.fixture
def there(database):
    return bank(database)


@pytest.fixture
def session(there):
    with there.connect() as connection:
        yield connection


@contextlib.contextmanager
def waiting(there, session, call, **connection):
    """Another session's call, which waits for a lock; its outcome is there afterwards."""
    outcome = []

    def work(other):
        try:
            outcome.append(call(other))
        except psycopg.Error as error:
            outcome.append(error)

    with there.connect(**connection) as other:
        other.execute("set statement_timeout = '20 s'")
        thread = threading.Thread(target=work, args=(other,))
        thread.start()
        wait_until(lambda: rows(session, "select from pg_locks where not granted and pid = %s", other.info.backend_pid), 10, "the wait")
        yield outcome
        thread.join(20)
        assert not thread.is_alive()


# -- while a command waits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_a_decider_that_is_replaced_while_a_command_waits_is_the_one_that_decides(there, session, named):
    decider(session, "begin return jsonb_build_array(es_make_event('Old', '1')); end", name="one", is_default=not named)
    more = {"decider": "one"} if named else {}
    send(session, "Any", {}, **more)
    with there.connect(autocommit=False) as holder:
        value(holder, "select es_append('account-1', 'Credited', '{\"amount\": 1}')")
        with waiting(there, session, lambda other: send(other, "Any", {}, **more)) as outcome:
            session.execute("create function two(state jsonb, command eventstream.command) returns jsonb stable language sql as "
                            "$$ select jsonb_build_array(es_make_event('New', state)) $$")  # fmt: skip
            session.execute("select es_register_decider('one', 'account', 'two(jsonb, eventstream.command)', is_default => %s)", (not named,))
            session.execute("drop function one(jsonb, eventstream.command)")
            holder.commit()
    assert outcome[0]["version"] == 3, outcome
    assert rows(session, "select event_type, payload ->> 'balance' from es_read('account-1', 3)") == [("New", "1")]


def test_a_decider_that_is_unregistered_while_a_command_waits_decides_nothing(there, session):
    with there.connect(autocommit=False) as holder:
        value(holder, "select es_append('account-1', 'Credited', '{\"amount\": 1}')")
        with waiting(there, session, send) as outcome:
            session.execute("select es_unregister_decider('cashier')")
            holder.commit()
    assert outcome[0].sqlstate == "ES036" and balance(session) == 1


def test_a_command_that_the_new_decider_does_not_take_is_refused(there, session):
    with there.connect(autocommit=False) as holder:
        value(holder, "select es_append('account-1', 'Credited', '{\"amount\": 1}')")
        with waiting(there, session, send) as outcome:
            session.execute("select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)', commands => '{\"Other\": {}}')")
            holder.commit()
    assert outcome[0].sqlstate == "ES035" and balance(session) == 1


def test_a_boundary_that_looks_is_that_of_what_is_there_behind_its_locks(there, session):
    """The command would be decided on account-2's state without its lock."""
    session.execute("create table routes (of text primary key, target text); insert into routes values ('account-1', 'account-2')")
    session.execute("create function route(command eventstream.command) returns jsonb stable language sql as "
                    "$$ select jsonb_build_object('streams', jsonb_agg(target)) from routes where of = command.stream $$")  # fmt: skip
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', to_jsonb(array(select jsonb_object_keys(state) order by 1)))); end",
            is_default=False, boundary="route(eventstream.command)")  # fmt: skip
    with there.connect(autocommit=False) as holder:
        value(holder, "select es_append('account-1', 'Credited', '{\"amount\": 1}')")
        with waiting(there, session, lambda other: send(other, "Any", {}, decider="other")) as outcome:
            session.execute("update routes set target = 'account-3'")
            holder.commit()
    assert outcome[0]["versions"] == {"account-1": 2, "account-3": 0}
    assert value(session, "select payload from es_read('account-1', 2)") == ["account-1", "account-3"]
    assert value(session, "select metadata -> 'command' -> 'read' from es_read('account-1', 2)") == {"account-3": 0}


def test_a_boundary_that_is_never_the_same_is_refused(session):
    session.execute("create function dice(command eventstream.command) returns jsonb stable language sql as "
                    "$$ select jsonb_build_object('streams', jsonb_build_array('account-' || md5(random()::text))) $$")  # fmt: skip
    decider(session, "begin return '[]'; end", is_default=False, boundary="dice(eventstream.command)")
    diag = refused(send, session, "Any", {}, decider="other")
    assert diag.sqlstate == "ES034" and "behind its locks the boundary is another one, each time, 5 times" in diag.message_primary


def test_single_commands_that_begin_each_others_streams_do_not_wait_in_a_circle(there, session):
    """Also where both sessions have only seen the decider stay inside of its boundary."""
    decider(session, "begin if command.payload ? 'other' then perform pg_sleep(0.5); return jsonb_build_array(es_make_event('A', '1'), "
                     "es_make_event('A', '1', stream => command.payload ->> 'other')); end if; return '[]'; end", is_default=False)  # fmt: skip
    outcome, ready = [], threading.Barrier(2)

    def cross(stream, other):
        with there.connect() as each:
            for _ in range(3):
                send(each, "Stay", {}, stream=stream, decider="other")
            ready.wait(10)
            try:
                outcome.append(send(each, "Cross", {"other": other}, stream=stream, decider="other"))
            except psycopg.Error as error:
                outcome.append(error)

    threads = [threading.Thread(target=cross, args=pair) for pair in (("account-1", "account-2"), ("account-2", "account-1"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    done = [each for each in outcome if isinstance(each, dict)]
    (lost,) = (each for each in outcome if not isinstance(each, dict))
    assert len(done) == 1 and lost.sqlstate == "ES034", "the other one finds its stream there already"
    assert value(session, "select count(*) from es_read_all()") == 2


# -- what a transaction keeps ---------------------------------------------------------------------------------------------------------------


OBJECTS = "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'object' and classid = '_eventstream.{}'::regclass"


def test_a_transaction_of_many_commands_has_no_lock_for_each(there):
    with there.connect(autocommit=False) as many:
        for number in range(50):
            send(many, command_key=f"k{number}")
        assert value(many, OBJECTS.format("command_answers")) == 0


@pytest.mark.parametrize("ends", ["commit", "rollback", "rollback to savepoint"])
def test_who_repeats_a_command_waits_for_the_transaction_that_has_written_its_answer(there, session, ends):
    with there.connect(autocommit=False) as holder:
        holder.execute("savepoint s")
        first = send(holder, command_key="k")
        assert value(holder, OBJECTS.format("command_answers")) == 0
        with waiting(there, session, lambda other: send(other, command_key="k")) as outcome:
            if "savepoint" in ends:
                # PostgreSQL lets those who wait for a part of a transaction wait for its end.
                holder.execute("rollback to s")
            holder.rollback() if "rollback" in ends else holder.commit()
        assert outcome[0] == ({**first, "replayed": True} if ends == "commit" else first | {k: outcome[0][k] for k in ("event_ids", "global_position")})
    assert value(session, "select count(*) from es_read_all()") == 1


@pytest.mark.parametrize("entered", ["by nobody", "by the same transaction"])
def test_a_call_that_has_waited_for_an_answer_keeps_nothing(there, session, entered):
    with there.connect(autocommit=False) as holder:
        first = send(holder, command_key="k")

        def second(other):
            if entered == "by the same transaction":
                send(other, stream="account-2")
            return send(other, command_key="k"), value(other, OBJECTS.format("tenants")), value(other, "select txid_current_if_assigned()")

        with waiting(there, session, second, autocommit=False) as outcome:
            holder.commit()
            wait_until(lambda: outcome, 10, "the answer")
            # The transaction of the second call is open yet.
            answer, gates, transaction = outcome[0]
            assert answer == {**first, "replayed": True}
            if entered == "by nobody":
                assert gates == 0 and transaction is None
                session.execute("set eventstream.gate_timeout = '1 s'")
                session.execute("select es_close_period('{account}', '2024-01-01Z', 'x')")
            else:
                assert gates == 1
                session.execute("set eventstream.gate_timeout = '300 ms'")
                assert refused(session.execute, "select es_close_period('{account}', '2024-01-01Z', 'x')").sqlstate == "55P03"


def test_a_command_that_begins_streams_has_no_lock_for_each(there):
    with there.connect(autocommit=False) as many:
        decider(many, "begin return jsonb_build_array(es_make_event('A', '1'), es_make_event('A', '1', stream => command.stream || '-outside')); end", is_default=False)
        many.commit()
        for number in range(50):
            send(many, stream=f"account-n{number}", command_key=f"k{number}")
            send(many, "Any", {}, stream=f"account-m{number}", decider="other")
        assert value(many, OBJECTS.format("streams")) == 0 == value(many, OBJECTS.format("stream_segments"))
        # What was found absent, and stays so, is what was decided on.
        send(many, "Nothing", {}, stream="account-z")
        assert (value(many, OBJECTS.format("streams")), value(many, OBJECTS.format("stream_segments"))) == (1, 1)


@pytest.mark.parametrize("how", ["a command", "an append"])
def test_what_a_cursor_has_locked_stays_locked_when_one_of_its_rows_fails_in_a_savepoint(there, session, how):
    """An event would be recorded in a period that was closed meanwhile, and a condition judged beside a match that is open."""
    call = {
        "a command": "select es_command('account-' || i, case i when 2 then 'Withdraw' else 'Deposit' end, '{\"amount\": 1}') from generate_series(1, 2) i",
        "an append": "select es_append('account-' || i, 'Credited', '{\"amount\": 1}', expected_version => case i when 2 then 9 end, tags => '{order:1}') from generate_series(1, 2) i",
    }[how]
    condition = value(session, "select es_condition('{\"items\": [{\"tags\": [\"order:1\"]}]}')")
    with there.connect(autocommit=False) as holder:
        holder.execute(f"declare cu cursor for {call}")
        holder.execute("fetch 1 from cu")
        holder.execute("savepoint s")
        refused(holder.execute, "fetch 1 from cu")
        holder.execute("rollback to s")
        assert value(holder, OBJECTS.format("tenants")) == 1
        session.execute("set eventstream.gate_timeout = '300 ms'")
        assert refused(session.execute, "select es_close_period('{account}', '2024-01-01Z', 'x')").sqlstate == "55P03"
        if how == "an append":
            # Behind the open match.
            session.execute("set lock_timeout = '300 ms'")
            decided = "select es_append_streams('[{\"stream\": \"account-9\", \"events\": [{\"type\": \"A\", \"payload\": 1}]}]', condition => %s)"
            assert refused(session.execute, decided, (Jsonb(condition),)).sqlstate == "55P03"
        holder.commit()
    if how == "an append":
        assert refused(session.execute, decided, (Jsonb(condition),)).sqlstate == "ES015"


WIDE = """begin perform pg_sleep((command.payload ->> 'pause')::float); return (select jsonb_agg(es_make_event('A', '1', stream => 'account-' || (command.payload ->> 'to') || n))
    from generate_series(1, (command.payload ->> 'streams')::int) n) || case when command.payload ? 'own' then jsonb_build_array(es_make_event('A', '1')) else '[]' end; end"""


@pytest.mark.parametrize("beside", ["a deposit on the same stream", "another stream"])
def test_who_begins_many_streams_waits_in_no_circle(there, session, beside):
    decider(session, WIDE, is_default=False)
    session.execute("select es_append('account-1', 'Credited', '{\"amount\": 1}')")
    outcome = []
    wide = lambda other: send(other, "Any", {"to": "x", "streams": 63, "pause": 0.5, "own": 1}, stream="account-n1", decider="other")  # noqa: E731
    with there.connect() as one, there.connect() as two:
        thread = threading.Thread(target=lambda: outcome.append(wide(one)))
        thread.start()
        wait_until(lambda: rows(session, "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'", one.info.backend_pid), 10, "the decision")
        if beside == "another stream":
            send(two, "Any", {"to": "y", "streams": 63, "pause": 0, "own": 1}, stream="account-n3", decider="other")
        else:
            send(two, stream="account-n1")
        thread.join(20)
    assert len(outcome) == 1 and outcome[0]["versions"]["account-x63"] == 1
    # One more is refused, with the number.
    diag = refused(send, session, "Any", {"to": "z", "streams": 64, "pause": 0, "own": 1}, stream="account-n9", decider="other")
    assert diag.sqlstate == "ES034" and "more than 64 streams that have no events yet" in diag.message_primary


def test_who_decided_the_same_and_was_rolled_back_takes_nobodys_room(there, session):
    decider(session, WIDE, is_default=False)
    session.execute("select es_append('account-1', 'Credited', '{\"amount\": 1}'), es_append('account-2', 'Credited', '{\"amount\": 1}')")
    wide = lambda other, stream: send(other, "Any", {"to": "x", "streams": 64, "pause": 0}, stream=stream, decider="other")  # noqa: E731
    with there.connect(autocommit=False) as holder:
        wide(holder, "account-1")
        with waiting(there, session, lambda other: wide(other, "account-2")) as outcome:
            holder.rollback()
    assert outcome[0]["versions"]["account-x64"] == 1


def test_who_makes_many_streams_keeps_commands_on_others_from_nothing(there, session):
    """It waits for whoever has found a stream absent; nobody else waits behind it."""
    send(session)
    many = Jsonb([{"stream": f"account-m{n}", "events": [{"type": "A", "payload": 1}]} for n in range(70)])
    with there.connect(autocommit=False) as holder:
        send(holder, "Nothing", {}, stream="account-absent")
        with waiting(there, session, lambda other: rows(other, "select * from es_append_streams(%s)", many)) as outcome:
            session.execute("set lock_timeout = '3 s'")
            send(session)
            send(session, "Nothing", {})
            holder.commit()
    assert len(outcome[0]) == 70


# -- what is only looked at ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["decider", "boundary"])
@pytest.mark.parametrize("ends", ["events", "a refusal", "an error"])
def test_a_simulation_leaves_nothing_of_what_a_helper_writes(session, where, ends):
    session.execute("create table notes (note text); create function jot(note text) returns bool language plpgsql as $$ begin insert into notes values (note); return true; end $$")
    end = {"events": "return {}", "a refusal": "perform es_require(false, 'no', 'no'); return {}", "an error": "perform 1 / 0; return {}"}[ends]
    of = lambda part, empty: f"begin {f'perform jot({chr(39)}{part}{chr(39)}); ' if part == where else ''}{(end if part == where else 'return {}').format(empty)}; end"  # noqa: E731
    session.execute(f"create function bounds(command eventstream.command) returns jsonb stable language plpgsql as $body$ {of('boundary', chr(39) + '{}' + chr(39))} $body$")
    decider(session, of("decider", "'[]'"), is_default=False, boundary="bounds(eventstream.command)")
    call = "select es_simulate_command('account-1', 'Any', '{}', decider => 'other')"
    if ends == "an error":
        assert refused(session.execute, call).sqlstate == "22012"
    else:
        assert (value(session, call)["refusal"] is None) == (ends == "events")
    assert rows(session, "select from notes") == []


# -- what an answer says ------------------------------------------------------------------------------------------------------------------


def test_an_event_that_is_there_does_not_make_another_command_done(session):
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', '1') || jsonb_build_object('event_id', command.payload ->> 'id')); end", is_default=False)
    payload = {"id": "01890a5d-ac96-774b-bcce-b302099a8057"}
    first = send(session, "Any", payload, decider="other", command_key="one")
    assert send(session, "Any", payload, decider="other", command_key="one") == {**first, "replayed": True}
    diag = refused(send, session, "Any", payload, decider="other", command_key="two")
    assert diag.sqlstate == "ES006" and "at version 1, and the decider gives it to an event of another command" in diag.message_primary
    assert rows(session, "select command_key from _eventstream.command_answers") == [("one",)]
    # Without a key the ids are what makes it a retry, and it is told so.
    assert send(session, "Any", payload, decider="other") == {**first, "replayed": True}


@pytest.mark.parametrize("key", [None, "k"])
def test_a_result_is_no_larger_than_a_payload(session, key):
    decider(session, "begin return jsonb_build_object('events', '[]'::jsonb, 'result', repeat('x', (command.payload ->> 'size')::int)); end", is_default=False)
    more = {"command_key": key} if key else {}
    diag = refused(send, session, "Any", {"size": 1_100_000}, decider="other", **more)
    assert diag.sqlstate == "ES007" and "the answer's result has at least" in diag.message_primary
    assert len(send(session, "Any", {"size": 1_000_000}, decider="other", **more)["result"]) == 1_000_000


APPENDS = [
    "select es_append('account-1', 'Credited', '{\"amount\": 1}', metadata => %s)",
    "select es_append_events('account-1', jsonb_build_array(jsonb_build_object('type', 'Credited', 'payload', '{\"amount\": 1}'::jsonb, 'metadata', %s::jsonb)))",
    "select es_append_streams(jsonb_build_array(jsonb_build_object('stream', 'account-1', 'events', jsonb_build_array(jsonb_build_object("
    "'type', 'Credited', 'payload', '{\"amount\": 1}'::jsonb, 'metadata', %s::jsonb)))))",
    "select es_command('account-1', 'Deposit', '{\"amount\": 1}', metadata => %s)",
    "select es_simulate_command('account-1', 'Deposit', '{\"amount\": 1}', metadata => %s)",
]


@pytest.mark.parametrize("append", APPENDS)
@pytest.mark.parametrize("by", ["the call", "the session"])
def test_what_was_decided_is_said_by_es_command_alone(session, append, by):
    forged = {"command": {"type": "Deposit", "key": "k", "decider": "cashier", "read": {}}}
    if by == "the session":
        value(session, "select set_config('eventstream.metadata', %s::text, false)", Jsonb(forged))
    diag = refused(session.execute, append, (Jsonb(forged if by == "the call" else {}),))
    assert diag.sqlstate == "ES005" and "must not have the key command" in diag.message_primary
    assert rows(session, "select from es_read_all()") == []


def test_who_acts_is_said_by_the_session_before_the_call(session):
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', jsonb_build_array(command.actor))); end", is_default=False)
    event = "select payload ->> 0, metadata ->> 'actor', metadata ->> 'note' from es_read('account-1', %s)"
    for version, (of_session, of_call, expected) in enumerate(((None, None, None), (None, "ann", "ann"), ("bob", None, "bob"), ("bob", "ann", "bob"))):
        value(session, "select set_config('eventstream.metadata', %s::text, false)", Jsonb({"actor": of_session}) if of_session else "")
        send(session, "Any", {}, decider="other", metadata={"actor": of_call, "note": "n"} if of_call else {"note": "n"})
        assert rows(session, event, version + 1) == [(expected, expected, "n")]


def test_names_that_look_like_persons_are_refused_in_commands_too(session):
    session.execute("select es_register_fold('any', 'person', rules => '{\"on\": {}}')")
    session.execute("select es_append('person-ann@example.org', 'Met', '1')")
    session.execute("create function pair(command eventstream.command) returns jsonb immutable language sql as $$ select jsonb_build_object('streams', command.payload -> 'streams') $$")
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', '1')); end", is_default=False, boundary="pair(eventstream.command)")
    session.execute("select es_alter_category('account', '{\"personal_data\": \"refused\"}')")
    for given in ({"command_key": "ann@example.org", "payload": {"streams": []}}, {"payload": {"streams": ["person-ann@example.org"]}},
                  {"payload": {"streams": ["person-+49 30 1234567"]}}):  # fmt: skip
        diag = refused(send, session, "Any", decider="other", **given)
        assert diag.sqlstate == "ES017" and "ann@" not in f"{diag.message_primary}{diag.message_detail}{diag.message_hint}"
    assert rows(session, "select from _eventstream.command_answers") == [] == rows(session, "select from es_read_all(categories => '{account}')")
    send(session, "Any", {"streams": ["person-17"]}, decider="other", command_key="4711")


# -- functions that are dropped ------------------------------------------------------------------------------------------------------------


REGISTER = {
    "fold": ("f(jsonb, eventstream.event)", "returns jsonb immutable language sql as 'select $1'", "select es_register_fold('f', 'x', handler => 'f(jsonb, eventstream.event)')"),
    "upcaster": ("f(jsonb, jsonb)", "returns jsonb immutable language sql as 'select $1'", "select es_register_upcaster('T', 1, 'f(jsonb, jsonb)')"),
    "decider": ("f(jsonb, eventstream.command)", "returns jsonb stable language sql as 'select $1'", "select es_register_decider('f', 'account', 'f(jsonb, eventstream.command)')"),
    "boundary": ("f(eventstream.command)", "returns jsonb stable language sql as 'select null::jsonb'",
                 "select es_register_decider('f', 'account', 'decide(jsonb, eventstream.command)', boundary => 'f(eventstream.command)')"),
}  # fmt: skip


@pytest.mark.parametrize("what", REGISTER)
@pytest.mark.parametrize("drop", ["drop function {}", "alter function {} rename to g", "drop schema s cascade", "alter schema s rename to t"])
def test_a_function_that_is_being_registered_is_not_taken_away(there, session, what, drop):
    signature, rest, register = REGISTER[what]
    session.execute(f"create schema s; set search_path = s, public; create function {signature} {rest}")
    with there.connect(autocommit=False) as maker:
        maker.execute("set search_path = s, public")
        maker.execute(register)
        with waiting(there, session, lambda other: other.execute("set search_path = s, public; " + drop.format(signature))) as outcome:
            maker.commit()
    assert isinstance(outcome[0], psycopg.Error) and outcome[0].sqlstate == "2BP01", outcome
    assert rows(session, "select from pg_proc where proname = 'f' and pronamespace = 's'::regnamespace") == [()]


def test_a_function_is_registered_by_the_name_that_its_schema_has_at_the_commit(there, session):
    session.execute("create schema s; create function s.f(jsonb, eventstream.command) returns jsonb stable language sql as $$ select '[]'::jsonb $$")
    oid = value(session, "select 's.f(jsonb, eventstream.command)'::regprocedure::oid")
    with there.connect(autocommit=False) as renamer:
        renamer.execute("alter schema s rename to t")
        with waiting(there, session, lambda other: other.execute(f"select es_register_decider('f', 'account', {oid}::regprocedure)")) as outcome:
            renamer.commit()
    assert not isinstance(outcome[0], psycopg.Error), outcome
    assert value(session, "select handler from eventstream.deciders where name = 'f'") == "t.f"
    send(session, "Any", {}, decider="f")


def test_a_command_that_is_a_part_of_itself_is_refused(there, session):
    session.execute("create function again(event eventstream.event) returns void language plpgsql as $$ begin perform es_command('account-1', 'Deposit', '{\"amount\": 10}', command_key => 'k'); end $$")
    session.execute("select es_create_projection('p', handler => 'again(eventstream.event)', mode => 'inline')")
    diag = refused(send, session, command_key="k")
    assert diag.sqlstate == "ES005" and "must not be that of the command which is being executed" in diag.message_primary
    session.execute("select es_drop_projection('p')")
    assert send(session, command_key="k")["replayed"] is False


def test_a_boundary_is_the_same_in_whatever_order_it_is_said(session):
    session.execute("select es_register_fold('q', null, rules => '{\"on\": {}, \"otherwise\": \"ignore\"}')")
    session.execute("create function shuffled(command eventstream.command) returns jsonb stable language sql as $$ select jsonb_build_object("
                    "'streams', (select jsonb_agg('account-' || n order by random()) from generate_series(1, 9) n), "
                    "'items', (select jsonb_agg(jsonb_build_object('tags', (select jsonb_agg(t order by random()) from generate_series(1, 20) i cross join lateral (select 'tag:' || i as t) x)) order by random()) from generate_series(1, 3) n)) $$")  # fmt: skip
    decider(session, "begin return '[]'; end", is_default=False, boundary="shuffled(eventstream.command)", fold="q")
    for _ in range(20):
        send(session, "Any", {}, decider="other")


def test_how_deep_calls_were_nested_is_no_fault_of_an_event(session):
    session.execute("create function deep(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as "
                    "$$ begin if event.payload ->> 'deep' is null then return state; end if; return deep(state, event); end $$")  # fmt: skip
    session.execute("select es_register_fold('deep', 'other', handler => 'deep(jsonb, eventstream.event)')")
    session.execute("select es_alter_category('other', '{\"foldable\": \"required\"}')")
    session.execute("select es_append('other-1', 'T', '{}')")
    session.execute("set max_stack_depth = '200 kB'")
    assert refused(session.execute, "select es_append('other-1', 'T', '{\"deep\": 1}')").sqlstate == "54001"
