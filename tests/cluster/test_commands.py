"""Commands: each is executed once, however often it is sent, and decisions over several streams neither wait in circles nor conflict.

Asked of the kinds: isolation (each level; a replay under an older snapshot), transaction (savepoint, rollback, read only, PREPARE, held by an open one), session (a pool's next client), role (rights
per category), tenant (keys), size (keys of 1 and 1,024 bytes, boundaries, streams begun outside), copies (standby; dump and restore are in test_deciders), death (kill -9 between begin and
commit, clients that resend until answered), load (50 racers on one key, opposite transfers, first commands on a new stream), reader of the answer (acts, metadata), bad input of every argument."""

import os
import random
import threading
import time
from decimal import Decimal

import psycopg
import pytest
from database import Database, all_at_once, gaps, raised, rows, value, verify
from deciding import balance, bank, decider, refused, send
from psycopg.types.json import Jsonb
from server import kill_9, wait_until

SECONDS = float(os.environ.get("COMMAND_SECONDS", "4"))
KILLS = int(os.environ.get("KILLS", "6"))


@pytest.fixture
def there(database):
    return bank(database)


@pytest.fixture
def session(there):
    with there.connect() as connection:
        yield connection


def again(answer):
    return {**answer, "replayed": True}


# -- keys -------------------------------------------------------------------------------------------------------------------------


def test_a_key_gives_the_first_answer_again(there, session):
    first = send(session, command_key="k", metadata={"actor": "ann"}, occurred_at="2024-03-01 10:00+00")
    assert first["replayed"] is False and first["version"] == 1
    text = value(session, "select answer::text from _eventstream.command_answers")
    for more in ({}, {"metadata": {"actor": "bob"}}, {"expected_version": 0}, {"subject": "p"}, {"decider": "no such"}):
        assert send(session, command_key="k", occurred_at="2024-03-01 10:00+00", **more) == again(first)
    # The decider may be another by now, or gone.
    session.execute("create or replace function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select null::jsonb $$")
    assert send(session, command_key="k", occurred_at="2024-03-01 10:00+00") == again(first)
    session.execute("select es_unregister_decider('cashier')")
    with there.connect() as other:
        repeated = value(other, "select es_command('account-1', 'Deposit', '{\"amount\": 10}', command_key => 'k', occurred_at => '2024-03-01 10:00+00')::text")
        assert repeated == text.replace('"replayed": false', '"replayed": true')
    assert value(session, "select count(*) from es_read_all()") == 1
    assert value(session, "select metadata -> 'command' from es_read('account-1')") == {"type": "Deposit", "key": "k", "decider": "cashier", "read": {}}


def test_a_key_is_the_name_of_one_command(session):
    first = send(session, command_key="k")
    for more in (
        {"payload": {"amount": 10.0}},
        {"payload": {"amount": 11}},
        {"command_type": "Withdraw"},
        {"stream": "account-2"},
        {"occurred_at": "2024-01-01Z"},
    ):
        diag = refused(send, session, command_key="k", **more)
        if more == {"payload": {"amount": 10.0}}:
            assert diag.sqlstate == "ES030", "10 and 10.0 are two texts"
        assert diag.sqlstate == "ES030" and diag.message_primary == 'command key "k" of category "account" was used for another request'
    assert send(session, command_key="k") == again(first)
    # Another category's, and another tenant's, are others.
    session.execute("select es_register_fold('b', 'order', rules => '{\"on\": {}}')")
    decider(session, "begin return '[]'; end", name="orders", category="order")
    assert send(session, stream="order-1", command_key="k")["replayed"] is False
    session.execute("select es_create_tenant('b')")
    session.execute("set eventstream.tenant = 'b'")
    session.execute("select es_register_fold('b', 'account', rules => '{\"on\": {}}')")
    decider(session, "begin return '[]'; end", name="theirs")
    assert send(session, command_key="k")["version"] == 0
    assert value(session, "select count(*) from _eventstream.command_answers where command_key = 'k'") == 3


def test_a_payload_is_not_kept_in_clear(session):
    decider(session, "begin return '[]'; end", is_default=False)
    send(session, "Any", {"pin": "4711-secret"}, decider="other", command_key="k")
    assert "secret" not in value(session, "select c::text from _eventstream.command_answers c")
    salts = rows(session, "select salt, request_digest from _eventstream.command_answers")
    send(session, "Any", {"pin": "4711-secret"}, decider="other", command_key="l")
    assert len({*salts, *rows(session, "select salt, request_digest from _eventstream.command_answers")}) == 2


def test_a_replay_is_a_read(there, session):
    first = send(session, command_key="k")
    before = value(session, "select last_value from _eventstream.positions")
    with there.connect(autocommit=False) as reader:
        reader.execute("set transaction read only")
        assert send(reader, command_key="k") == again(first)
        assert value(reader, "select txid_current_if_assigned()") is None
        assert rows(session, "select from eventstream.horizon_holders") == []
        assert value(reader, "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'object'") == 0
        assert refused(send, reader, command_key="other").sqlstate == "25006"
    with there.connect(autocommit=False) as reader:
        assert send(reader, command_key="k") == again(first)
        assert value(reader, "select txid_current_if_assigned()") is None
    assert value(session, "select last_value from _eventstream.positions") == before
    # Nobody's open command is waited for.
    with there.connect(autocommit=False) as holder:
        send(holder, command_key="another")
        session.execute("set statement_timeout = '5 s'")
        assert send(session, command_key="k") == again(first)


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_an_older_snapshot_replays_what_was_answered_since(there, session, level):
    with there.connect(autocommit=False) as old:
        old.execute(f"set transaction isolation level {level}")
        value(old, "select count(*) from eventstream.events")
        first = send(session, command_key="k")
        assert send(old, command_key="k") == again(first)
        # And decides by what is there.
        assert send(old, "Withdraw", {"amount": 10}, command_key="l")["version"] == 2
        old.commit()
    assert balance(session) == 0


def test_serializable_commands_with_keys_of_their_own_do_not_fail_each_other(there):
    with there.connect(autocommit=False) as one, there.connect(autocommit=False) as other:
        for each in (one, other):
            each.execute("set transaction isolation level serializable")
            value(each, "select 1")
        send(one, command_key="a", stream="account-1")
        send(other, command_key="b", stream="account-2")
        one.commit()
        other.commit()


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_second_call_waits_for_the_first(there, session, ends):
    with there.connect(autocommit=False) as holder:
        first = send(holder, command_key="k")
        answers = []

        def second():
            with there.connect() as other:
                answers.append(send(other, command_key="k"))

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and answers == []
        getattr(holder, ends)()
        thread.join(20)
    assert answers[0] == again(first) if ends == "commit" else answers[0]["replayed"] is False
    assert value(session, "select count(*) from es_read_all()") == 1


def test_fifty_racers_on_one_key(there, session):
    def race(number):
        with there.connect() as racer:
            return send(racer, command_key="race", metadata={"actor": f"racer {number}"})

    answers = all_at_once(50, race)
    assert raised(answers) == []
    assert [answer["replayed"] for answer in answers].count(False) == 1
    assert len({str(again(answer)) for answer in answers}) == 1
    assert value(session, "select count(*) from es_read_all()") == 1


def test_a_savepoint_that_is_rolled_back_takes_the_answer_along(there):
    with there.connect(autocommit=False) as session:
        session.execute("savepoint s")
        send(session, command_key="k")
        session.execute("rollback to s")
        second = send(session, command_key="k")
        assert second["replayed"] is False and second["version"] == 1
        assert send(session, command_key="k") == again(second)
        session.commit()
        assert send(session, command_key="k") == again(second)
        send(session, command_key="l")
        session.rollback()
        assert send(session, command_key="l")["replayed"] is False
        session.commit()
    with there.connect() as session:
        assert verify(session) == [] and gaps(session) == []


def test_an_answer_without_events_is_as_durable_as_one_with(there):
    """Sent again it would be decided anew."""
    with there.connect(autocommit=False) as session:
        session.execute("set synchronous_commit = off")
        session.commit()
        send(session, "Nothing", {}, command_key="n")
        before = value(session, "select pg_current_wal_flush_lsn()")
        session.commit()
        assert value(session, "select pg_current_wal_flush_lsn() > %s", before)


def test_a_prepared_transaction_is_refused(there):
    with there.connect() as session:
        session.execute("begin")
        send(session, "Nothing", {}, command_key="n")
        assert refused(session.execute, "prepare transaction 'p'").sqlstate in ("0A000", "55000")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("null, 'Deposit', {p}", "ES005"),
        ("'account', 'Deposit', {p}", "ES004"),
        ("'$audit-1', 'Deposit', {p}", "ES004"),
        ("repeat('x', 600) || '-1', 'Deposit', {p}", "ES004"),
        ("'account-1', null, {p}", "ES005"),
        ("'account-1', '', {p}", "ES005"),
        ("'account-1', repeat('x', 256), {p}", "ES005"),
        ("'account-1', 'Deposit', null", "ES005"),
        ("'account-1', 'Deposit', to_jsonb(repeat('x', 2000000))", "ES007"),
        ("'account-1', 'Deposit', (repeat('[', 200) || repeat(']', 200))::jsonb", "ES007"),
        ("'account-1', 'Deposit', {p}, expected_version => -1", "ES005"),
        ("'account-1', 'Deposit', {p}, expected_version => 5", "ES001"),
        ("'account-1', 'Deposit', {p}, metadata => null", "ES005"),
        ("'account-1', 'Deposit', {p}, metadata => '[]'", "ES005"),
        ("'account-1', 'Deposit', {p}, metadata => '{{\"command\": 1}}'", "ES005"),
        ("'account-1', 'Deposit', {p}, metadata => '{{\"traceparent\": 1}}'", "ES005"),
        ("'account-1', 'Deposit', {p}, command_key => ''", "ES005"),
        ("'account-1', 'Deposit', {p}, command_key => repeat('k', 1025)", "ES005"),
        ("'account-1', 'Deposit', {p}, command_key => E'a\\nb'", "ES005"),
        ("'account-1', 'Deposit', {p}, occurred_at => 'infinity'", "ES005"),
        ("'account-1', 'Deposit', {p}, occurred_at => '9999-01-01Z'", "ES007"),
        ("'account-1', 'Deposit', {p}, decider => ''", "ES036"),
        ("'account-1', 'Deposit', {p}, decider => 'nobody'", "ES036"),
        ("'account-1', 'Deposit', {p}, subject => ''", "ES005"),
        ("'account-1', 'Deposit', {p}, subject => repeat('x', 256)", "ES005"),
    ],
)
def test_bad_input(session, arguments, code):
    call = arguments.format(p="'{\"amount\": 1}'")
    for function in ("es_command", "es_simulate_command"):
        diag = refused(session.execute, f"select {function}({call})")
        assert diag.sqlstate == code, (function, diag.sqlstate, diag.message_primary)
    assert rows(session, "select from es_read_all()") == [] == rows(session, "select from _eventstream.command_answers")


def test_keys_of_1_and_1024_bytes(session):
    for key in ("k", "k" * 1024, "ü" * 512, "a b/c'\"\\%s"):
        first = send(session, command_key=key)
        assert send(session, command_key=key) == again(first)


def test_an_expected_version_is_asked_once(session):
    first = send(session, expected_version=0, command_key="k")
    assert refused(send, session, expected_version=0).sqlstate == "ES001"
    assert send(session, expected_version=1)["version"] == 2
    assert send(session, expected_version=0, command_key="k") == again(first)
    session.execute("select es_close_stream('account-1', 'over')")
    assert refused(send, session).sqlstate == "ES003"


def test_what_may_be_recorded_holds_for_decisions(session):
    session.execute("select es_create_event_type('Credited', json_schema => '{\"properties\": {\"amount\": {\"maximum\": 5}}}')")
    assert refused(send, session, command_key="k").sqlstate == "ES016"
    assert send(session, payload={"amount": 5}, command_key="k")["version"] == 1
    session.execute("select es_close_period('{account}', '2024-01-01Z', 'x')")
    assert refused(send, session, payload={"amount": 5}, occurred_at="2023-06-01Z").sqlstate == "ES018"


def test_a_program_that_gives_its_own_event_ids_is_a_retry_of_its_own(session):
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', '1') || jsonb_build_object('event_id', command.payload ->> 'id')); end", is_default=False)
    payload = {"id": "01890a5d-ac96-774b-bcce-b302099a8057"}
    first = send(session, "Any", payload, decider="other")
    assert first["event_ids"] == [payload["id"]]
    send(session, "Deposit")
    assert send(session, "Any", payload, decider="other")["event_ids"] == [payload["id"]]
    assert value(session, "select count(*) from es_read_all()") == 2


# -- several streams --------------------------------------------------------------------------------------------------------------------


def transfer(session, source, target, amount, **more):
    return send(session, "Transfer", {"to": target, "amount": amount}, stream=source, decider="transfer", **more)


def test_a_boundary_gives_states_of_several_streams(session):
    send(session, payload={"amount": 100})
    answer = transfer(session, "account-1", "account-2", 30)
    assert answer["versions"] == {"account-1": 2, "account-2": 1} and answer["version"] == 2 and len(answer["event_ids"]) == 2
    assert (balance(session), balance(session, "account-2")) == (70, 30)
    assert refused(transfer, session, "account-2", "account-1", 31).sqlstate == "ES033"
    assert rows(session, "select metadata -> 'command' -> 'read' from es_read_all(after_position => %s)", answer["global_position"] - 1) == [({},)]
    # What was read and not written is told.
    session.execute("create function looks(command eventstream.command) returns jsonb stable language sql as $$ select '{\"streams\": [\"account-2\"], \"writes\": [\"account-3\"]}'::jsonb $$")
    decider(session, "begin return jsonb_build_object('events', jsonb_build_array(es_make_event('Seen', to_jsonb(array(select jsonb_object_keys(state))), stream => 'account-3')),"
            " 'result', command.versions); end", is_default=False, boundary="looks(eventstream.command)")  # fmt: skip
    answer = send(session, "Any", {}, decider="other")
    assert answer["result"] == {"account-1": 2, "account-2": 1, "account-3": 0}
    event = session.execute("select payload, metadata -> 'command' -> 'read' from es_read('account-3')").fetchone()
    assert event == (["account-1", "account-2"], {"account-1": 2, "account-2": 1})


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("null", "ES037", "its boundary is NULL"),
        ("'[]'", "ES037", "its boundary must be a JSON object"),
        ("'{\"stream\": []}'", "ES037", "its boundary.stream is not a key"),
        ("'{\"streams\": \"account-2\"}'", "ES037", "its boundary.streams must be"),
        ("'{\"streams\": [5]}'", "ES037", "its boundary.streams[0] must be a string"),
        ("'{\"streams\": [\"account-2\", \"nonsense\"]}'", "ES037", "its boundary.streams[1] is no stream name"),
        ("'{\"writes\": [\"$audit-1\"]}'", "ES037", "its boundary.writes[0] is no stream name"),
        ("'{\"items\": [{\"tags\": [\"a:1\"]}]}'", "ES010", "what the boundary's items match has no fold"),
        ("'{\"items\": []}'", "ES037", "its boundary.items must have at least one element"),
        ("'{\"items\": [{\"event_types\": [\"T\"]}]}'", "ES037", "its boundary.items[0] must have tags"),
        ("'{\"items\": [{\"tags\": []}]}'", "ES037", "its boundary.items[0].tags must have at least one element"),
        ("'{\"items\": [{\"tag\": []}]}'", "ES037", "its boundary.items[0].tag is not a key"),
        ("(select jsonb_build_object('items', jsonb_agg('{\"tags\": [\"a:1\"]}'::jsonb)) from generate_series(1, 101) n)", "ES037", "its boundary.items must have at most 100"),
        ("(select jsonb_build_object('streams', jsonb_agg('account-' || n)) from generate_series(1, 1001) n)", "ES037", "must have at most 1000 elements"),
        ("(select jsonb_build_object('writes', jsonb_agg('account-' || n)) from generate_series(1, 65) n)", "ES037", "more than 64 streams that have no events yet"),
        ("jsonb_build_object('refused', es_require(false, 'c', 'not now'))", "ES033", "not now"),
        ("'{}'", None, None),
        ("'{\"streams\": null, \"writes\": []}'", None, None),
    ],
)
def test_boundaries_that_are_none(session, answer, code, words):
    session.execute(f"create function bounds(command eventstream.command) returns jsonb stable language plpgsql as $$ begin return {answer}; end $$")
    decider(session, "begin return '[]'; end", is_default=False, boundary="bounds(eventstream.command)")
    if code is None:
        send(session, "Any", {}, decider="other")
        return
    diag = refused(send, session, "Any", {}, decider="other")
    assert diag.sqlstate == code and words in diag.message_primary, diag.message_primary


def test_an_event_for_a_stream_outside_begins_it_or_is_refused(session):
    decider(session, "begin return jsonb_build_array(es_make_event('Paid', '1'), es_make_event('Noted', '2', stream => command.payload ->> 'note')); end", is_default=False)
    answer = send(session, "Pay", {"note": "note-1"}, decider="other")
    assert answer["versions"] == {"account-1": 1, "note-1": 1}
    for note in ("note-1", "note-1"):
        diag = refused(send, session, "Pay", {"note": note}, decider="other")
        assert diag.sqlstate == "ES034" and 'stream "note-1", which has events already' in diag.message_primary
    assert value(session, "select es_stream_version('account-1')") == 1
    assert send(session, "Pay", {"note": "note-2"}, decider="other")["versions"] == {"account-1": 2, "note-2": 1}
    decider(session, "begin return (select jsonb_agg(es_make_event('T', '1', stream => 'many-' || n)) from generate_series(1, (command.payload ->> 'n')::int) n); end", is_default=False)
    assert len(send(session, "Any", {"n": 64}, decider="other")["versions"]) == 65
    assert refused(send, session, "Any", {"n": 65}, decider="other").sqlstate == "ES034"


def test_a_stream_begun_outside_that_somebody_has_in_hand_is_decided_anew(there, session):
    decider(session, "begin return jsonb_build_array(es_make_event('Paid', '1'), es_make_event('Noted', '2', stream => command.payload ->> 'note')); end", is_default=False)
    for ends, code in (("rollback", None), ("commit", "ES034")):
        with there.connect(autocommit=False) as holder:
            value(holder, "select es_append(%s, 'T', '{}')", f"a-{ends}")
            outcome = []

            def pay(stream=f"a-{ends}", outcome=outcome):
                with there.connect() as other:
                    try:
                        outcome.append(send(other, "Pay", {"note": stream}, decider="other")["versions"])
                    except psycopg.Error as error:
                        outcome.append(error.sqlstate)

            thread = threading.Thread(target=pay)
            thread.start()
            thread.join(0.5)
            assert thread.is_alive() and outcome == []
            getattr(holder, ends)()
            thread.join(20)
        assert outcome == [code] if code else outcome[0][f"a-{ends}"] == 1


def test_two_that_begin_each_others_streams_do_not_wait_in_a_circle(there, session):
    """One begins b from a, the other a from b: whoever has both is first, and the other one decides anew."""
    decider(session, "begin return jsonb_build_array(es_make_event('Paid', '1'), es_make_event('Noted', '2', stream => command.payload ->> 'note')); end", is_default=False)
    outcomes = []

    def one(number):
        choice, seen = random.Random(number), []
        with there.connect() as other:
            for turn in range(60):
                pair = [f"account-x{turn}", f"account-y{turn}"]
                choice.shuffle(pair)
                try:
                    seen.append(len(send(other, "Pay", {"note": pair[1]}, stream=pair[0], decider="other")["event_ids"]))
                except psycopg.Error as error:
                    seen.append(error.sqlstate)
        return seen

    outcomes = all_at_once(4, one)
    assert raised(outcomes) == []
    seen = {outcome for each in outcomes for outcome in each}
    assert seen <= {2, "ES034"}, seen
    assert gaps(session) == [] == verify(session)


def test_two_first_commands_on_a_new_stream_queue(there, session):
    def first(number):
        with there.connect() as other:
            return send(other, payload={"amount": 1}, stream="account-new", metadata={"actor": str(number)})["version"]

    versions = all_at_once(8, first)
    assert raised(versions) == [] and sorted(versions) == list(range(1, 9))
    assert balance(session, "account-new") == 8


def test_opposite_transfers_neither_deadlock_nor_conflict(there, session):
    accounts = [f"account-{number}" for number in range(10)]
    for account in accounts:
        send(session, payload={"amount": 1000}, stream=account)
    until = time.monotonic() + SECONDS
    counts = {"done": 0, "refused": 0}

    def client(number):
        choice, done, denied = random.Random(number), 0, 0
        with there.connect() as other:
            while time.monotonic() < until:
                source, target = choice.sample(accounts, 2)
                try:
                    transfer(other, source, target, choice.randrange(1, 50000) / 100, command_key=f"{number}-{done}-{denied}")
                    done += 1
                except psycopg.Error as error:
                    if error.sqlstate != "ES033":
                        raise
                    denied += 1
        return done, denied

    outcomes = all_at_once(8, client, SECONDS + 60)
    assert raised(outcomes) == []
    counts = {"done": sum(done for done, _ in outcomes), "refused": sum(denied for _, denied in outcomes)}
    sums = [value(session, "select (es_state(%s) ->> 'balance')::numeric", account) for account in accounts]
    assert sum(sums) == 10000 and min(sums) >= 0
    assert value(session, "select count(*) from eventstream.events where event_type = 'Debited'") == counts["done"] > 20
    assert value(session, "select count(*) from _eventstream.command_answers") == counts["done"]
    assert verify(session) == [] == gaps(session)
    print(f"{SECONDS:.0f} s: {counts}")


def test_rights_are_asked_for_each_category_that_is_written(there, session):
    clerk = there.role(f"{there.name}_clerk")
    session.execute("select es_register_fold('b', 'note', rules => '{\"on\": {}}')")
    session.execute("select es_grant(%s, 'command', category => 'account')", (clerk,))
    decider(session, "begin return jsonb_build_array(es_make_event('Paid', '1'), es_make_event('Noted', '2', stream => 'note-1')); end", is_default=False)
    with there.connect(user=clerk) as clerks:
        diag = refused(send, clerks, "Pay", {}, decider="other", command_key="k")
        assert diag.sqlstate == "42501" and '"note"' in diag.message_primary and '"command"' in diag.message_primary
        assert rows(session, "select from es_read_all()") == []
        session.execute("select es_grant(%s, 'command', category => 'note')", (clerk,))
        assert send(clerks, "Pay", {}, decider="other", command_key="k")["versions"] == {"account-1": 1, "note-1": 1}
        # A replay asks for the right, too.
        session.execute("select es_revoke(%s, 'command', category => 'account')", (clerk,))
        assert refused(send, clerks, "Pay", {}, decider="other", command_key="k").sqlstate == "42501"


# -- over tags ------------------------------------------------------------------------------------------------------------------------

COURSE = """
select es_register_fold('student', 'student', rules => '{"on": {}}');
select es_register_fold('places', null, initial_state => '{"taken": 0}', rules => '{"on": {"Registered": [{"increment": "/taken"}], "Left": [{"add": {"/taken": {"value": -1}}}]}}');
create function course_of(command eventstream.command) returns jsonb immutable language sql as
$$ select jsonb_build_object('items', jsonb_build_array(jsonb_build_object('event_types', '["Registered", "Left"]'::jsonb, 'tags', jsonb_build_array('course:' || (command.payload ->> 'course'))))) $$;
create function register(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
begin
    perform es_require((state -> 'query' ->> 'taken')::int < 5, 'full', 'no place is left', jsonb_build_object('taken', state -> 'query' -> 'taken'));
    return jsonb_build_array(es_make_event('Registered', command.payload, tags => array['course:' || (command.payload ->> 'course'), 'student:' || command.stream]));
end $$;
select es_register_decider('register', 'student', 'register(jsonb, eventstream.command)', fold => 'places', boundary => 'course_of(eventstream.command)');
"""


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_decision_over_tags_is_made_on_all_that_bear_them(there, session, level):
    session.execute(COURSE)

    def student(number):
        with there.connect(autocommit=False) as other:
            while True:
                other.execute(f"set transaction isolation level {level}")
                value(other, "select 1")
                try:
                    answer = send(other, "Register", {"course": f"c{number % 2}"}, stream=f"student-{number}", command_key=f"r-{number}")
                    other.commit()
                    return answer["version"]
                except psycopg.Error as error:
                    other.rollback()
                    # An index notes what is read by the page.
                    if level != "serializable" or error.sqlstate != "40001":
                        return error.sqlstate

    outcomes = all_at_once(24, student)
    assert raised(outcomes) == []
    assert sorted(outcomes, key=str) == [1] * 10 + ["ES033"] * 14
    read = [read for (read,) in rows(session, "select metadata -> 'command' -> 'read' from es_read_all(tags => '{course:c0}')")]
    assert [each["query"]["events"] for each in read] == [0, 1, 2, 3, 4]
    shown = value(session, "select es_simulate_command('student-99', 'Register', '{\"course\": \"c1\"}')")
    assert shown["states"]["query"] == {"taken": 5} and shown["refusal"]["code"] == "full" and shown["boundary"]["items"][0]["tags"] == ["course:c1"]
    # A place that is given back, by a plain append.
    session.execute("select es_append('student-0', 'Left', '{}', tags => '{course:c0}')")
    assert send(session, "Register", {"course": "c0"}, stream="student-99")["version"] == 1
    assert verify(session) == [] == gaps(session)


def test_a_decision_over_tags_waits_for_who_appends_such_and_is_waited_for(there, session):
    session.execute(COURSE)
    with there.connect(autocommit=False) as holder:
        # An append that is open.
        value(holder, "select es_append('other-1', 'Registered', '{}', tags => '{course:c}')")
        outcome = []

        def later():
            with there.connect() as other:
                outcome.append(send(other, "Register", {"course": "c"}, stream="student-1"))

        thread = threading.Thread(target=later)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        holder.commit()
        thread.join(20)
    assert value(session, "select metadata -> 'command' -> 'read' -> 'query' ->> 'events' from es_read('student-1')") == "1"
    with there.connect(autocommit=False) as holder:
        send(holder, "Register", {"course": "c"}, stream="student-2")
        session.execute("set lock_timeout = '300ms'")
        assert refused(session.execute, "select es_append('other-1', 'Registered', '{}', tags => '{course:c}')").sqlstate == "55P03"
        # Who meets none of its tags is not waited for.
        send(session, "Register", {"course": "d"}, stream="student-3")
        value(session, "select es_append('other-1', 'Registered', '{}', tags => '{course:e}')")


def test_tags_of_what_is_decided_and_queries_of_others_do_not_wait_in_a_circle(there, session):
    """One decides over the tag that the other's events bear, and the other way round: locks of tags come before those of streams, but events are known only behind those."""
    session.execute(COURSE)
    session.execute("create function ab(command eventstream.command) returns jsonb immutable language sql as $$ select jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', command.payload -> 'looks'))) $$")
    decider(session, "begin return (select jsonb_agg(es_make_event('Done', '1', tags => array[command.payload ->> 'bears', 'wide:' || n])) from generate_series(1, (command.payload ->> 'wide')::int) n); end",
            name="crossing", category="student",
            fold="places", boundary="ab(eventstream.command)", is_default=False)  # fmt: skip

    def one(number):
        choice, seen = random.Random(number), []
        with there.connect() as other:
            for _ in range(40):
                looks, bears = choice.sample(["a:1", "b:1", "c:1"], 2)
                try:
                    # Beyond 64 buckets a call takes none of them, and opposes all that are had alone.
                    send(other, "Cross", {"looks": [looks], "bears": bears, "wide": choice.choice([1, 1, 1, 80])}, stream=f"student-{choice.randrange(3)}", decider="crossing")
                    seen.append("done")
                except psycopg.Error as error:
                    seen.append(error.sqlstate)
        return seen

    outcomes = all_at_once(4, one)
    assert raised(outcomes) == []
    assert {each for seen in outcomes for each in seen} == {"done"}
    assert value(session, "select count(*) from es_read_all(max_count => 10000) where event_type = 'Done' and 'wide:1' = any (tags)") == 160


def test_folds_for_queries_are_of_no_category(there, session):
    session.execute(COURSE)
    assert rows(session, "select name, category, is_default from eventstream.folds where name = 'places'") == [("places", None, False)]
    assert refused(session.execute, "select es_state('student-1', 'places')").sqlstate == "ES010"
    assert refused(session.execute, "select es_register_fold('places', 'account', rules => '{\"on\": {}}')").sqlstate == "ES005"
    assert refused(session.execute, "select es_register_fold('x', '', rules => '{\"on\": {}}')").sqlstate == "ES005"
    assert refused(session.execute, "select es_create_state_table('t', 'student', '[{\"name\": \"n\", \"type\": \"int\", \"path\": \"/n\"}]', fold => 'places')").sqlstate == "ES010"
    narrow = there.role(f"{there.name}_narrow")
    for privilege in ("manage", "read"):
        session.execute("select es_grant(%s, %s, category => 'student')", (narrow, privilege))
    with there.connect(user=narrow) as narrowed:
        assert refused(narrowed.execute, "select es_register_fold('mine', null, rules => '{\"on\": {}}')").sqlstate == "42501"
        assert refused(narrowed.execute, "select es_unregister_fold('places')").sqlstate == "42501"
        session.execute(f'grant create on schema public to "{narrow}"')
        decider(narrowed, "begin return '[]'; end", name="peeks", category="student", fold="places", boundary="course_of(eventstream.command)", is_default=False)
    # What a query matches may be of any category: its decider's registrant must be allowed to read them all.
    assert refused(send, session, "Any", {"course": "c"}, stream="student-1", decider="peeks").sqlstate == "42501"
    session.execute("select es_unregister_decider('peeks'), es_unregister_decider('register'), es_unregister_fold('places')")
    assert rows(session, "select * from es_verify_audit()") == []


# -- beside others ----------------------------------------------------------------------------------------------------------------


def test_a_projections_handler_sends_commands(there, session):
    session.execute("create function react(event eventstream.event) returns void language plpgsql as $$ begin perform es_command('log-1', 'Note', to_jsonb(event.version), command_key => event.stream || '/' || event.version); end $$")
    session.execute("select es_register_fold('l', 'log', rules => '{\"on\": {}}')")
    decider(session, "begin return jsonb_build_array(es_make_event('Noted', command.payload)); end", name="notes", category="log")
    session.execute("select es_create_projection('reacts', 'react(eventstream.event)', categories => '{account}')")
    session.execute("select es_create_projection('at_once', 'react(eventstream.event)', categories => '{account}', mode => 'inline')")
    send(session, "Deposit")
    value(session, "select es_wait_for('reacts', timeout => '20 s')")
    found = rows(session, "select payload, recorded_by, metadata ->> 'actor', metadata ->> 'causation_id' is not null, metadata -> 'command' ->> 'key' from es_read('log-1')")
    assert found == [(1, "postgres", "projection at_once", True, "account-1/1")]


def test_a_simulation_shows_what_would_be_and_writes_nothing(session):
    send(session, payload={"amount": 10})
    shown = value(session, "select es_simulate_command('account-1', 'Withdraw', '{\"amount\": 4}', command_key => 'k')")
    assert shown == {
        "boundary": {"streams": ["account-1"], "writes": []}, "versions": {"account-1": 1}, "states": {"account-1": {"balance": 10, "movements": 1}},
        "events": [{"type": "Debited", "payload": {"amount": 4}, "stream": "account-1"}], "result": {"left": 6}, "schedule": [], "unschedule": [], "refusal": None,
    }  # fmt: skip
    shown = value(session, "select es_simulate_command('account-1', 'Withdraw', '{\"amount\": 40}')")
    assert shown["events"] is None and shown["refusal"] == {
        "code": "insufficient_funds", "message": "only 10 are there", "detail": {"code": "insufficient_funds", "available": 10},
    }  # fmt: skip
    call = "select es_simulate_command('account-1', 'Transfer', '{\"to\": \"account-2\", \"amount\": 4}', decider => 'transfer')"
    shown = value(session, call)
    assert shown["boundary"]["streams"] == ["account-1", "account-2"] and [event["stream"] for event in shown["events"]] == ["account-1", "account-2"]
    assert value(session, "select count(*) from es_read_all()") == 1 and rows(session, "select from _eventstream.command_answers") == []
    assert refused(session.execute, "select es_simulate_command('account-1', 'Rob', '{}')").sqlstate == "ES035"
    assert refused(session.execute, "select es_simulate_command('account-1', 'Deposit', '{\"amount\": 1}', expected_version => 5)").sqlstate == "ES001"
    decider(session, "begin raise 'a bug'; end", is_default=False)
    assert refused(session.execute, "select es_simulate_command('account-1', 'Any', '{}', decider => 'other')").sqlstate == "P0001"
    # Afterwards the session goes on, also within a transaction.
    with session.transaction():
        value(session, "select es_simulate_command('account-1', 'Withdraw', '{\"amount\": 40}')")
        send(session)


def test_a_standby_simulates_and_replays_and_executes_nothing(new_server):
    server = new_server("commanding")
    there = bank(Database(server, "commanding").create())
    standby = new_server.adopt(server.make_standby("standby"))
    with there.connect() as session:
        first = send(session, command_key="k")
        last = value(session, "select pg_current_wal_lsn()::text")
    with standby.connect("commanding") as reader:
        wait_until(lambda: value(reader, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", last), 20, "the standby")
        assert refused(send, reader).sqlstate == "ES009"
        assert refused(send, reader, command_key="other").sqlstate == "ES009"
        assert send(reader, command_key="k") == again(first)
        assert value(reader, "select es_simulate_command('account-1', 'Withdraw', '{\"amount\": 4}') -> 'result'") == {"left": 6}
        assert value(reader, "select es_simulate_command('account-1', 'Withdraw', '{\"amount\": 40}') -> 'refusal' ->> 'code'") == "insufficient_funds"
        assert refused(reader.execute, "select es_test('x')").sqlstate == "ES009"
        assert rows(reader, "select kind from es_definitions('account')") == [("decider",), ("decider",), ("fold",)]


class Sender:
    """Sends its commands one after the other, each until it is answered, and some again."""

    def __init__(self, server, number: int):
        self.server, self.number, self.choice = server, number, random.Random(number)
        self.answers: dict[str, list[dict]] = {}
        self.unexpected: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        connection, counter = None, 0
        while not self.stop.is_set():
            if self.answers and self.choice.random() < 0.3:
                key = self.choice.choice([*self.answers])
            else:
                counter += 1
                key = f"{self.number}-{counter}"
            amount = int(key.split("-")[1])
            while True:
                try:
                    if connection is None or connection.closed:
                        connection = self.server.connect("commanding", autocommit=False)
                        connection.execute("set synchronous_commit = off")
                        connection.commit()
                    answer = send(connection, payload={"amount": amount}, stream=f"account-{amount % 5}", command_key=key)
                    if self.choice.random() < 0.2:
                        time.sleep(0.01)
                    connection.commit()
                    self.answers.setdefault(key, []).append(answer)
                    break
                except psycopg.OperationalError:
                    connection = None
                    if self.stop.is_set() and counter > 10000:
                        return
                    time.sleep(0.05)
                except Exception as error:  # noqa: BLE001 - told by the test
                    self.unexpected.append(repr(error))
                    return


def test_commands_are_executed_once_whatever_is_killed_between_begin_and_commit(new_server):
    server = new_server("commanding", wal_writer_delay="10s")
    there = bank(Database(server, "commanding").create())
    senders = [Sender(server, number) for number in range(1, 5)]
    choice = random.Random(1)
    for _ in range(KILLS):
        time.sleep(choice.uniform(0.3, 0.8))
        if choice.random() < 0.5:
            server.kill_everything()
            server.start()
        else:
            with server.connect("postgres") as admin:
                backends = rows(admin, "select pid from pg_stat_activity where datname = 'commanding' and backend_type = 'client backend'")
            if backends:
                kill_9(choice.choice(backends)[0])
            wait_until(lambda: can_connect(server), 30, "the server to recover")
    time.sleep(0.5)
    for sender in senders:
        sender.stop.set()
        sender.thread.join(60)
        assert not sender.thread.is_alive() and sender.unexpected == []
    with there.connect() as session:
        executed = rows(session, "select metadata -> 'command' ->> 'key', event_id::text from eventstream.events")
        keys = [key for key, _ in executed]
        assert len(keys) == len(set(keys))
        ids = dict(executed)
        answered = {key: answers for sender in senders for key, answers in sender.answers.items()}
        assert set(answered) <= set(ids) and len(answered) > 20
        for key, answers in answered.items():
            assert {str(again(answer)) for answer in answers} == {str(again(answers[0]))}
            assert answers[0]["event_ids"] == [ids[key]]
            assert [answer["replayed"] for answer in answers].count(False) <= 1
        assert sum(balance(session, f"account-{number}") or 0 for number in range(5)) == sum(Decimal(key.split("-")[1]) for key in keys)
        assert {key for (key,) in rows(session, "select command_key from _eventstream.command_answers")} == set(keys)
        assert verify(session) == [] == gaps(session)
    print(f"{KILLS} kills: {len(keys)} commands, {sum(len(answers) for answers in answered.values())} answers")


def can_connect(server):
    try:
        with server.connect("commanding") as session:
            return value(session, "select 1") == 1
    except psycopg.OperationalError:
        return False


def test_each_way_to_be_refused_has_its_number(session):
    """What an operator tells apart: a conflict of versions, a condition that failed, a refusal, a key that was another's."""
    names = ["conflicts", "conditions_failed", "commands_refused", "command_mismatches"]

    def counted():
        return dict(rows(session, "select name, value::int from eventstream.stats where name = any (%s)", names))

    condition = value(session, "select es_condition('{\"items\": [{\"tags\": [\"t:1\"]}]}')")
    element = '[{"stream": "account-7", "events": [{"type": "Credited", "payload": {"amount": 1}, "tags": ["t:1"]}]}]'
    session.execute("select * from es_append_streams(%s)", (element,))
    send(session, command_key="k")
    before = counted()
    for call, name, sqlstate in [
        (lambda: session.execute("select es_append('account-7', 'Credited', '{\"amount\": 1}', 99)"), "conflicts", "ES001"),
        (lambda: session.execute("select * from es_append_streams(%s, condition => %s)", (element, Jsonb(condition))), "conditions_failed", "ES015"),
        (lambda: send(session, "Withdraw", {"amount": 1000000}), "commands_refused", "ES033"),
        (lambda: send(session, payload={"amount": 2}, command_key="k"), "command_mismatches", "ES030"),
    ]:
        assert refused(call).sqlstate == sqlstate
        after = counted()
        assert {name: number - before[name] for name, number in after.items() if number != before[name]} == {name: 1}
        before = after
